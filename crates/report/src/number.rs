//! Numbers in JSON.

use serde_json::{Value, json};

/// A number with as many digits as can be seen; a text for what is none.
pub(crate) fn compact(value: f64) -> Value {
    match value {
        _ if value.is_nan() => "NaN".into(),
        _ if value.is_infinite() => (if value > 0.0 { "Infinity" } else { "-Infinity" }).into(),
        _ if value.fract() == 0.0 && value.abs() < 9e15 => json!(value as i64),
        _ => format!("{value:.6e}").parse::<f64>().map_or(Value::Null, |rounded| json!(rounded)),
    }
}
