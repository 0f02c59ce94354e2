//! Hyper-parameters and histograms as Comet takes them.

use fulgurite_torch::{Dict, Value};
use serde_json::{Value as Json, json};

use crate::loggers::json::to_json;
use crate::loggers::python_format::display;
use crate::loggers::tensorboard::histogram::Histogram;

/// Nested dicts on one level, with keys joined by `|`.
pub(super) fn flatten(params: &Dict) -> Vec<(String, Json)> {
    let mut flat = Vec::new();
    flatten_into(&mut flat, "", params);
    flat
}

fn flatten_into(flat: &mut Vec<(String, Json)>, parent: &str, dict: &Dict) {
    for (key, value) in dict.iter() {
        let key = display(key);
        let path = if parent.is_empty() { key } else { format!("{parent}|{key}") };
        match value {
            Value::Dict(inner) if inner.iter().next().is_some() => flatten_into(flat, &path, inner),
            leaf => flat.push((path, leaf_value(leaf))),
        }
    }
}

/// A number, text, switch, nothing, or a list of those; what is none of them is a text.
fn leaf_value(value: &Value) -> Json {
    match value {
        Value::Float(number) if number.is_nan() => "NaN".into(),
        Value::Float(number) if number.is_infinite() => if *number > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Value::List(items) | Value::Tuple(items) => {
            let is_flat = !items.iter().any(|item| matches!(item, Value::List(_) | Value::Tuple(_) | Value::Dict(_)));
            if is_flat { items.iter().map(leaf_value).collect() } else { display(value).into() }
        }
        Value::Dict(_) => display(value).into(),
        other => to_json(other),
    }
}

/// The file of a histogram: the bins that are not empty, of a row of edges each 1.1 times the next one towards zero.
pub(super) fn histogram(histogram: &Histogram) -> String {
    let bins = histogram.numbered_bins();
    let counts: Vec<Json> = bins.map(|(bin, count)| json!([bin, count as i64])).collect();
    json!({
        "version": 2, "index_values": counts, "values": null, "offset": 0, "start": 1e-12, "stop": 1e20, "step": 1.1,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use fulgurite_torch::tch::Tensor;

    use super::*;

    #[test]
    fn hyper_parameters_are_flat() {
        let optim = Dict::new().with("betas", (0.9, 0.999)).with("eps", f64::NAN).with("none", Value::None);
        let nested = Value::List(vec![Dict::new().with("a", 1).into()]);
        let params = Dict::new().with("optim", optim).with("on", true).with("list", nested).with("empty", Dict::new());
        let flat = flatten(&params);
        let expected = [
            ("optim|betas", json!([0.9, 0.999])),
            ("optim|eps", json!("NaN")),
            ("optim|none", Json::Null),
            ("on", json!(true)),
            ("list", json!("[{'a': 1}]")),
            ("empty", json!("{}")),
        ];
        assert_eq!(flat, expected.map(|(key, value)| (key.to_owned(), value)));
    }

    #[test]
    fn histograms_have_the_bins_of_comet() {
        // What its own client writes of the same values.
        let held = Histogram::of("a", &Tensor::from_slice(&[0.0, 1.0, 1.0, 2.0])).unwrap().unwrap();
        let json: Json = serde_json::from_str(&histogram(&held)).unwrap();
        assert_eq!(json["index_values"], json!([[775, 1], [1065, 2], [1073, 1]]));
    }
}
