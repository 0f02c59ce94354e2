//! Values formatted as in Python, so that files are identical to those of Lightning.

use std::fmt::Write;

use fulgurite_torch::Value;
use fulgurite_torch::tch::Tensor;

/// Appends `repr(value)` of a Python `float`: the shortest digits that read back as the same number.
pub(super) fn push_float(out: &mut String, value: f64) {
    if !value.is_finite() {
        out.push_str(match value {
            f64::INFINITY => "inf",
            f64::NEG_INFINITY => "-inf",
            _ => "nan",
        });
        return;
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    let (sign, magnitude) = if let Some(rest) = text.strip_prefix('-') { ("-", rest) } else { ("", text) };
    // The digits are the same as in Python; only two ranges are formatted differently.
    if let Some(digits) = magnitude.strip_prefix("0.0000") {
        out.push_str(sign);
        out.push_str(&digits[..1]);
        if digits.len() > 1 {
            out.push('.');
            out.push_str(&digits[1..]);
        }
        out.push_str("e-05");
    } else if let [.., b'e', b'-', last] = text.as_bytes() {
        out.push_str(&text[..text.len() - 1]);
        out.push('0');
        out.push(char::from(*last));
    } else {
        out.push_str(text);
    }
}

/// Appends a Python `int`.
pub(super) fn push_int(out: &mut String, value: i64) {
    out.push_str(itoa::Buffer::new().format(value));
}

/// Python's `str(value)`: strings unchanged, everything else as `repr`.
pub(super) fn display(value: &Value) -> String {
    match value {
        Value::Str(text) => text.clone(),
        other => {
            let mut out = String::new();
            push_repr(&mut out, other);
            out
        }
    }
}

/// The number in a tensor of one element.
pub(super) fn tensor_number(tensor: &Tensor) -> Option<f64> {
    (tensor.numel() == 1).then(|| tensor.f_double_value(&vec![0; tensor.dim()]).ok()).flatten()
}

fn push_repr(out: &mut String, value: &Value) {
    match value {
        Value::None => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(i) => push_int(out, *i),
        Value::Float(x) => push_float(out, *x),
        Value::Str(text) => push_quoted(out, text.chars()),
        Value::Bytes(bytes) => {
            out.push('b');
            push_quoted(out, bytes.iter().map(|b| char::from(*b)));
        }
        // The short form of tch, `Tensor[[2, 3], Float]`: the elements of a tensor are not hyper-parameters.
        Value::Tensor(tensor) => {
            if let Ok(kind) = tensor.f_kind() {
                _ = write!(out, "Tensor[{:?}, {kind:?}]", tensor.size());
            }
        }
        Value::Opaque(object) => out.push_str(object.type_name()),
        Value::List(items) => push_items(out, "[", items, "]"),
        Value::Tuple(items) if items.len() == 1 => push_items(out, "(", items, ",)"),
        Value::Tuple(items) => push_items(out, "(", items, ")"),
        Value::Dict(dict) => {
            out.push('{');
            for (i, (key, value)) in dict.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                push_repr(out, key);
                out.push_str(": ");
                push_repr(out, value);
            }
            out.push('}');
        }
    }
}

fn push_items(out: &mut String, open: &str, items: &[Value], close: &str) {
    out.push_str(open);
    for (i, item) in items.iter().enumerate() {
        out.push_str(if i == 0 { "" } else { ", " });
        push_repr(out, item);
    }
    out.push_str(close);
}

fn push_quoted(out: &mut String, text: impl Iterator<Item = char> + Clone) {
    let has = |wanted: char| text.clone().any(|c| c == wanted);
    let quote = if has('\'') && !has('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => _ = write!(out, "\\x{:02x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use fulgurite_torch::{Dict, Value};

    use super::{display, push_float};

    #[test]
    fn floats_are_formatted_as_in_python() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (f64::from(0.1_f32), "0.10000000149011612"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (-1.25e-5, "-1.25e-05"),
            (2.5e-7, "2.5e-07"),
            (1e-10, "1e-10"),
            (5e-324, "5e-324"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ];
        for (value, expected) in cases {
            let mut text = String::new();
            push_float(&mut text, value);
            assert_eq!(text, expected);
            assert!(value.is_nan() || text.parse() == Ok(value));
        }
    }

    #[test]
    fn values_are_formatted_as_in_python() {
        let dict = Dict::new().with("a", vec![1, 2]).with(3, "it's").with("t", Value::Tuple(vec![true.into()]));
        assert_eq!(display(&dict.into()), r#"{'a': [1, 2], 3: "it's", 't': (True,)}"#);
        assert_eq!(display(&Value::List(vec![().into(), 1e-5.into(), "a\"'\n".into()])), r#"[None, 1e-05, 'a"\'\n']"#);
        assert_eq!(display(&Value::Bytes(vec![b'a', 0])), r"b'a\x00'");
        assert_eq!(display(&"plain".into()), "plain");
    }
}
