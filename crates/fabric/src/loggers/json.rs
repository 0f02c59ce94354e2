//! Hyper-parameters as JSON, for trackers that keep their structure.

use fulgurite_torch::{Dict, Value};
use serde_json::{Map, Value as Json};

use super::python_format::display;

/// A dict as an object. What JSON has no form for is a text, as Python shows it.
pub(super) fn to_object(dict: &Dict) -> Map<String, Json> {
    dict.iter().map(|(key, value)| (display(key), to_json(value))).collect()
}

/// A value as JSON.
pub(super) fn to_json(value: &Value) -> Json {
    match value {
        Value::None => Json::Null,
        Value::Bool(on) => (*on).into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) if number.is_finite() => (*number).into(),
        Value::Str(text) => text.as_str().into(),
        Value::List(items) | Value::Tuple(items) => items.iter().map(to_json).collect(),
        Value::Dict(dict) => Json::Object(to_object(dict)),
        other => display(other).into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hyper_parameters_keep_their_structure() {
        let optim = Dict::new().with("betas", (0.9, 0.999)).with("on", true).with("eps", f64::NAN);
        let params = Dict::new().with("optim", optim).with("none", Value::None).with(5, vec![1, 2]);
        let json = json!({
            "optim": { "betas": [0.9, 0.999], "on": true, "eps": "nan" }, "none": null, "5": [1, 2],
        });
        assert_eq!(Json::Object(to_object(&params)), json);
    }
}
