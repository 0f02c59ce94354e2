//! Hyper-parameters as YAML, in the layout of PyYAML.
//!
//! The output is limited to a portable subset: plain mappings, sequences and scalars, and no tags other than `!!binary`.
//! Tuples become sequences, tensors their single number or a description, and a string that any YAML version could parse as
//! something else is quoted.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fulgurite_torch::{Dict, Value};

use super::python_format::{display, push_float, push_int, tensor_number};

/// The document, with a line break at its end.
pub(super) fn to_yaml(params: &Dict) -> String {
    let mut out = String::new();
    if params.is_empty() {
        out.push_str("{}\n");
    } else {
        push_mapping(&mut out, params, 0, false);
    }
    out
}

/// With `inline`, the first entry continues a line that contains `- `.
fn push_mapping(out: &mut String, dict: &Dict, indent: usize, inline: bool) {
    for (i, (key, value)) in sorted(dict).into_iter().enumerate() {
        push_indent(out, if inline && i == 0 { 0 } else { indent });
        match key {
            Value::List(_) | Value::Tuple(_) | Value::Dict(_) | Value::Tensor(_) | Value::Opaque(_) => {
                push_text(out, &display(key))
            }
            scalar => push_scalar(out, scalar),
        }
        out.push(':');
        match value {
            Value::Dict(inner) if !inner.is_empty() => {
                out.push('\n');
                push_mapping(out, inner, indent + 2, false);
            }
            Value::List(items) | Value::Tuple(items) if !items.is_empty() => {
                out.push('\n');
                push_sequence(out, items, indent, false);
            }
            leaf => push_leaf(out, leaf),
        }
    }
}

fn push_sequence(out: &mut String, items: &[Value], indent: usize, inline: bool) {
    for (i, item) in items.iter().enumerate() {
        push_indent(out, if inline && i == 0 { 0 } else { indent });
        out.push('-');
        match item {
            Value::Dict(inner) if !inner.is_empty() => {
                out.push(' ');
                push_mapping(out, inner, indent + 2, true);
            }
            Value::List(inner) | Value::Tuple(inner) if !inner.is_empty() => {
                out.push(' ');
                push_sequence(out, inner, indent + 2, true);
            }
            leaf => push_leaf(out, leaf),
        }
    }
}

fn push_leaf(out: &mut String, value: &Value) {
    out.push(' ');
    push_scalar(out, value);
    out.push('\n');
}

fn push_indent(out: &mut String, width: usize) {
    out.extend(std::iter::repeat_n(' ', width));
}

/// PyYAML sorts the keys if they are comparable, and keeps their order otherwise.
fn sorted(dict: &Dict) -> Vec<(&Value, &Value)> {
    let mut entries: Vec<_> = dict.iter().collect();
    if entries.iter().all(|(key, _)| matches!(key, Value::Str(_))) {
        entries.sort_by_key(|(key, _)| key.as_str());
    } else if entries.iter().all(|(key, _)| matches!(key, Value::Int(_))) {
        entries.sort_by_key(|(key, _)| key.as_int());
    }
    entries
}

fn push_scalar(out: &mut String, value: &Value) {
    match value {
        Value::None => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(i) => push_int(out, *i),
        Value::Float(x) => push_yaml_float(out, *x),
        Value::Str(text) => push_text(out, text),
        Value::Bytes(bytes) => {
            out.push_str("!!binary \"");
            BASE64_STANDARD.encode_string(bytes, out);
            out.push('"');
        }
        Value::Tensor(tensor) => match tensor_number(tensor) {
            Some(number) => push_yaml_float(out, number),
            None => push_text(out, &display(value)),
        },
        Value::Opaque(object) => push_text(out, object.type_name()),
        Value::List(_) | Value::Tuple(_) => out.push_str("[]"),
        Value::Dict(_) => out.push_str("{}"),
    }
}

fn push_yaml_float(out: &mut String, value: f64) {
    if !value.is_finite() {
        out.push_str(match value {
            f64::INFINITY => ".inf",
            f64::NEG_INFINITY => "-.inf",
            _ => ".nan",
        });
        return;
    }
    let start = out.len();
    push_float(out, value);
    // YAML 1.1 parses `1e-05` as a string: a float needs a decimal point.
    if let Some(at) = out[start..].find('e')
        && !out[start..].contains('.')
    {
        out.insert_str(start + at, ".0");
    }
}

fn push_text(out: &mut String, text: &str) {
    if text.chars().any(|c| !matches!(c, ' '..='~')) {
        push_double_quoted(out, text);
    } else if plain_is_safe(text) {
        out.push_str(text);
    } else {
        out.push('\'');
        out.push_str(&text.replace('\'', "''"));
        out.push('\'');
    }
}

/// Non-ASCII characters are escaped, so that the default encoding of a reader does not matter.
fn push_double_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            ' '..='~' => out.push(c),
            c => {
                let code = u32::from(c);
                _ = match code {
                    0..=0xff => write!(out, "\\x{code:02X}"),
                    0x100..=0xffff => write!(out, "\\u{code:04X}"),
                    _ => write!(out, "\\U{code:08X}"),
                };
            }
        }
    }
    out.push('"');
}

/// Whether the unquoted printable ASCII `text` is parsed as the same string, in YAML 1.1 and in 1.2.
fn plain_is_safe(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return false };
    let indicator = matches!(
        first,
        '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' | ' '
    );
    let second = text.chars().nth(1);
    let marker = matches!(first, '-' | '?' | ':') && matches!(second, None | Some(' '));
    let document = text.starts_with("---") || text.starts_with("...");
    let breaks_off = text.contains(": ") || text.contains(" #") || text.ends_with([':', ' ']);
    !(indicator || marker || document || breaks_off || is_ambiguous(text))
}

/// Whether a reader could resolve the bare `text` to something other than a string.
fn is_ambiguous(text: &str) -> bool {
    const WORDS: [&str; 12] =
        ["~", "null", "true", "false", "yes", "no", "on", "off", ".inf", "+.inf", "-.inf", ".nan"];
    if text == "=" || text == "<<" || WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return true;
    }
    let unsigned = text.trim_start_matches(['+', '-']).as_bytes();
    let radix = matches!(unsigned, [b'0', b'x' | b'o' | b'b' | b'X' | b'O' | b'B', ..]);
    let date = matches!(unsigned, [a, b, c, d, b'-', e, ..] if [a, b, c, d, e].iter().all(|x| x.is_ascii_digit()));
    // YAML 1.1 has `1_000` and the sexagesimal `1:20`.
    let number: String = text.chars().filter(|c| !matches!(c, '_' | ':')).collect();
    radix || date || number.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use fulgurite_torch::tch::Tensor;
    use fulgurite_torch::{Dict, Opaque, Value};

    use super::to_yaml;

    #[test]
    fn nesting_follows_pyyaml() {
        let params = Dict::new()
            .with("net", Dict::new().with("widths", vec![64, 32]).with("act", "relu").with("opts", Dict::new()))
            .with(
                "layers",
                Value::List(vec![
                    Value::Dict(Dict::new().with("b", 2).with("a", vec![vec![1, 2], vec![3]])),
                    Value::List(vec![]),
                ]),
            )
            .with("betas", (0.9, 0.999))
            .with("lr", 1e-5);
        let expected = "\
betas:
- 0.9
- 0.999
layers:
- a:
  - - 1
    - 2
  - - 3
  b: 2
- []
lr: 1.0e-05
net:
  act: relu
  opts: {}
  widths:
  - 64
  - 32
";
        assert_eq!(to_yaml(&params), expected);
        assert_eq!(to_yaml(&Dict::new()), "{}\n");
    }

    #[test]
    fn strings_that_look_like_something_else_are_quoted() {
        let plain = ["adam", "16-mixed", "a\\b", "it's", "say \"x\"", "http://x/y", "-x", "a#b", "10.0.0.1", "a, b"];
        for text in plain {
            assert_eq!(to_yaml(&Dict::new().with("k", text)), format!("k: {text}\n"));
        }
        let quoted = [
            "",
            "12",
            "1.10",
            "0012",
            "123E4",
            "2024_01",
            "-1",
            "1e5",
            "0x1f",
            "0o7",
            "1_000",
            "1:20",
            "2020-01-01",
            ".5",
            "true",
            "No",
            "null",
            "~",
            ".inf",
            "=",
            "<<",
            " lead",
            "trail ",
            "a: b",
            "end:",
            "a #b",
            "- x",
            "-",
            "[a]",
            "{a}",
            "*x",
            "&x",
            "!x",
            "%x",
            "@x",
            "---",
            "'q'",
            "#c",
            "? x",
        ];
        for text in quoted {
            let escaped = text.replace('\'', "''");
            assert_eq!(to_yaml(&Dict::new().with("k", text)), format!("k: '{escaped}'\n"));
            assert_eq!(to_yaml(&Dict::new().with(text, 1)), format!("'{escaped}': 1\n"));
        }
        let text = "é ✓ 😀\t\n\"\\\u{1}";
        assert_eq!(to_yaml(&Dict::new().with("k", text)), "k: \"\\xE9 \\u2713 \\U0001F600\\t\\n\\\"\\\\\\x01\"\n");
    }

    #[test]
    fn numbers_tensors_and_bytes() {
        let params = Dict::new()
            .with(2, f64::INFINITY)
            .with(1, f64::NEG_INFINITY)
            .with(10, f64::NAN)
            .with(11, Value::Bytes(b"abc".to_vec()))
            .with(12, Tensor::from(0.5))
            .with(13, Tensor::from_slice(&[1_i64, 2]))
            .with(14, Value::None)
            .with(15, Opaque::new(3u8).named("lit.Tokenizer"));
        let expected = "1: -.inf\n2: .inf\n10: .nan\n11: !!binary \"YWJj\"\n12: 0.5\n13: Tensor[[2], Int64]\n14: null\n15: lit.Tokenizer\n";
        assert_eq!(to_yaml(&params), expected);
    }
}
