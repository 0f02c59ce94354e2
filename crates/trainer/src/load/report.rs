//! [`LoadReport`]: what was copied into a model, and what was not.

use std::collections::HashMap;

use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, Value};

/// What [`Checkpoint::load_into`](super::Checkpoint::load_into) copied, and what it did not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The model's names of what was copied.
    pub loaded_keys: Vec<String>,
    /// In the model, and not in the file.
    pub missing_keys: Vec<String>,
    /// In the file, under the name that the renaming gave it, and not in the model.
    pub unexpected_keys: Vec<String>,
    /// Of another shape, so not copied.
    pub mismatched: Vec<SizeMismatch>,
    /// In the file, under its name there, and not asked for.
    pub skipped_keys: Vec<String>,
}

/// A tensor that has another shape in the file than in the model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SizeMismatch {
    /// The model's name of it.
    pub key: String,
    /// Its shape in the file.
    pub checkpoint: Vec<i64>,
    /// Its shape in the model.
    pub model: Vec<i64>,
}

impl LoadReport {
    /// Takes what has another shape than in `model` out of `wanted`, and notes it.
    pub(super) fn without_mismatched(&mut self, wanted: Dict, model: &Dict) -> Dict {
        let shapes: HashMap<&str, Vec<i64>> =
            model.iter().filter_map(|(key, value)| Some((key.as_str()?, value.as_tensor()?.size()))).collect();
        let fits = |(key, value): &(Value, Value)| {
            let (Some(key), Some(tensor)) = (key.as_str(), value.as_tensor()) else { return true };
            let Some(shape) = shapes.get(key).filter(|shape| **shape != Tensor::size(tensor)) else { return true };
            self.mismatched.push(SizeMismatch { key: key.to_owned(), checkpoint: tensor.size(), model: shape.clone() });
            false
        };
        wanted.into_iter().filter(fits).collect()
    }

    /// What a user should know who asked for a module and not for a report.
    pub(super) fn warning(&self) -> Option<String> {
        let mismatched = self
            .mismatched
            .iter()
            .map(|m| format!("{} ({:?} in the checkpoint, {:?} in the model)", m.key, m.checkpoint, m.model));
        let mismatched: Vec<String> = mismatched.collect();
        let parts = [
            ("found keys that are in the model state dict but not in the checkpoint", &self.missing_keys),
            ("found keys that are not in the model state dict but in the checkpoint", &self.unexpected_keys),
            ("left as they were, because their sizes differ", &mismatched),
        ];
        let told = parts.iter().filter(|(_, keys)| !keys.is_empty());
        let told: Vec<String> = told.map(|(what, keys)| format!("{what}: {}", keys.join(", "))).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }
}
