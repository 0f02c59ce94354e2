//! JSON as Python writes it, which has the tokens NaN, Infinity and -Infinity.

use serde_json::Value;

/// What stands for such a token in a [`Value`]: a text that begins with a character which no text of people has.
const MARK: char = '\u{10FFFF}';
const TOKENS: [(&str, f64); 3] = [("-Infinity", f64::NEG_INFINITY), ("Infinity", f64::INFINITY), ("NaN", f64::NAN)];

/// A number, which may be one that JSON has not.
pub(super) fn number(value: f64) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => Value::String(format!("{MARK}NaN")),
        None if value > 0.0 => Value::String(format!("{MARK}Infinity")),
        None => Value::String(format!("{MARK}-Infinity")),
    }
}

pub(super) fn as_number(value: &Value) -> Option<f64> {
    if let Some(token) = value.as_str().and_then(|text| text.strip_prefix(MARK)) {
        return TOKENS.iter().find(|(name, _)| *name == token).map(|(_, number)| *number);
    }
    value.as_f64()
}

pub(super) fn write(value: &Value) -> String {
    let mut text = value.to_string();
    for (token, _) in TOKENS {
        text = text.replace(&format!("\"{MARK}{token}\""), token);
    }
    text
}

pub(super) fn read(line: &str) -> Result<Value, serde_json::Error> {
    // Texts with the names of tokens are rare.
    if !TOKENS.iter().any(|(token, _)| line.contains(token)) {
        return serde_json::from_str(line);
    }
    let mut marked = String::with_capacity(line.len() + 16);
    let (mut rest, mut in_text) = (line, false);
    while let Some(next) = rest.chars().next() {
        let token = TOKENS.iter().map(|(token, _)| *token).find(|token| !in_text && rest.starts_with(token));
        let taken = match (next, token) {
            (_, Some(token)) => {
                marked.extend(['"', MARK]);
                marked.push_str(token);
                marked.push('"');
                rest = &rest[token.len()..];
                continue;
            }
            ('\\', _) if in_text => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            _ => next.len_utf8(),
        };
        in_text ^= next == '"';
        marked.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    serde_json::from_str(&marked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_json_has_not_are_read_and_written() {
        let line = r#"{"a":[NaN,-Infinity,1.5],"b":"NaN \" Infinity","c":Infinity}"#;
        let value = read(line).unwrap();
        assert!(as_number(&value["a"][0]).unwrap().is_nan());
        assert_eq!(as_number(&value["a"][1]), Some(f64::NEG_INFINITY));
        assert_eq!((as_number(&value["a"][2]), as_number(&value["c"])), (Some(1.5), Some(f64::INFINITY)));
        assert_eq!((value["b"].as_str(), as_number(&value["b"])), (Some("NaN \" Infinity"), None));
        assert_eq!(write(&value), line);
        assert!(read("{\"a\":NaN").is_err());
        assert_eq!(write(&number(f64::NEG_INFINITY)), "-Infinity");
    }
}
