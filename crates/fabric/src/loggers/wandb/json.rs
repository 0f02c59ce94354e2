//! Values as the JSON of W&B's client, in which `NaN` and `Infinity` may stand as they are.

use fulgurite_torch::{Dict, Value};
use fulgurite_trackers::wandb::json_number;

use crate::loggers::bins::Bins;
use crate::loggers::python_format::{display, tensor_number};

/// A value of the configuration. What JSON has no form for becomes a text.
pub(super) fn to_json(value: &Value) -> String {
    match value {
        Value::None => "null".into(),
        Value::Bool(on) => on.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => json_number(*number),
        Value::Str(held) => text(held),
        Value::List(items) | Value::Tuple(items) => {
            format!("[{}]", items.iter().map(to_json).collect::<Vec<_>>().join(", "))
        }
        Value::Dict(dict) => object(dict),
        Value::Tensor(tensor) => tensor_number(tensor).map_or_else(|| text(&display(value)), json_number),
        other => text(&display(other)),
    }
}

/// Keys become texts, as in Python.
pub(super) fn object(dict: &Dict) -> String {
    let entries = dict.iter().map(|(key, value)| format!("{}: {}", text(&display(key)), to_json(value)));
    format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
}

pub(super) fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Numbers, separated by commas.
pub(super) fn array(numbers: impl IntoIterator<Item = f64>) -> String {
    format!("[{}]", numbers.into_iter().map(json_number).collect::<Vec<_>>().join(", "))
}

/// A histogram, as the value of a row.
pub(super) fn histogram(bins: Bins) -> String {
    let counts = bins.counts.iter().map(f64::to_string).collect::<Vec<_>>().join(", ");
    format!("{{\"_type\": \"histogram\", \"values\": [{counts}], \"bins\": {}}}", array(bins.edges))
}
