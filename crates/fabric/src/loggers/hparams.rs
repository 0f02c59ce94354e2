//! Flattening, merging and writing of hyper-parameters.

use std::io;
use std::path::Path;

use fulgurite_torch::{Dict, Value};

use super::files::write_atomically;
use super::python_format::display;
use super::yaml::to_yaml;

/// The file with the hyper-parameters.
pub(super) const HPARAMS_FILE: &str = "hparams.yaml";

/// Flattens nested dicts (and lists of dicts) to one level, with keys joined by `/` as in Lightning.
///
/// ```
/// use fulgurite_fabric::loggers::flatten_hparams;
/// use fulgurite_torch::Dict;
///
/// let flat = flatten_hparams(&Dict::new().with("optim", Dict::new().with("lr", 0.1)));
/// assert_eq!(flat[0].0, "optim/lr");
/// ```
pub fn flatten_hparams(params: &Dict) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    flatten_into(&mut flat, "", params);
    flat
}

fn flatten_into(flat: &mut Vec<(String, Value)>, parent: &str, dict: &Dict) {
    for (key, value) in dict.iter() {
        let key = display(key);
        let path = if parent.is_empty() { key } else { format!("{parent}/{key}") };
        match value {
            Value::Dict(inner) => flatten_into(flat, &path, inner),
            Value::List(items) if !items.is_empty() && items.iter().all(|item| item.as_dict().is_some()) => {
                for (i, inner) in items.iter().filter_map(Value::as_dict).enumerate() {
                    flatten_into(flat, &format!("{path}/{i}"), inner);
                }
            }
            leaf => flat.push((path, leaf.clone())),
        }
    }
}

/// Updates `merged` with `new`, as Python's `dict.update`.
pub(super) fn merge(merged: &mut Dict, new: &Dict) {
    for (key, value) in new.iter() {
        merged.set(key.clone(), value.clone());
    }
}

/// Writes `hparams.yaml` to `folder` atomically.
pub(super) fn write_hparams(folder: &Path, params: &Dict) -> io::Result<()> {
    write_atomically(&folder.join(HPARAMS_FILE), to_yaml(params).as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use fulgurite_torch::{Dict, Value};

    use super::flatten_hparams;

    #[test]
    fn flattening_joins_with_slashes() {
        let params = Dict::new()
            .with("dl", Value::List(vec![Dict::new().with("a", 1).into(), Dict::new().with("b", 2).into()]))
            .with("l", vec![1, 2])
            .with("empty", Value::List(vec![]))
            .with(5, Dict::new().with("x", Dict::new().with("y", "z")));
        let flat: Vec<String> = flatten_hparams(&params).into_iter().map(|(key, _)| key).collect();
        assert_eq!(flat, ["dl/0/a", "dl/1/b", "l", "empty", "5/x/y"]);
    }
}
