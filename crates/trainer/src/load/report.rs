//! [`LoadReport`]: what was copied into a model, and what was skipped.

use std::collections::HashMap;

use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, Value};

/// The result of [`Checkpoint::load_into`](super::Checkpoint::load_into): what was copied, and what was skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The names in the model of copied tensors.
    pub loaded_keys: Vec<String>,
    /// Names in the model that are missing in the file.
    pub missing_keys: Vec<String>,
    /// Names in the file, after renaming, that are not in the model.
    pub unexpected_keys: Vec<String>,
    /// Tensors that were not copied because their shapes differ.
    pub mismatched: Vec<SizeMismatch>,
    /// Names in the file that were not selected.
    pub skipped_keys: Vec<String>,
}

/// A tensor whose shapes in the file and in the model differ.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SizeMismatch {
    /// Its name in the model.
    pub key: String,
    /// Its shape in the file.
    pub checkpoint: Vec<i64>,
    /// Its shape in the model.
    pub model: Vec<i64>,
}

impl LoadReport {
    /// Removes tensors with another shape than in `model` from `wanted`, and records them.
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

    /// The warning for a user who loaded a module without a report.
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
        let told: Vec<String> =
            told.map(|(what, keys)| format!("{what}: {}", first_of(keys.iter().cloned()))).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }
}

/// The first ten of some names, and the number of the others.
pub(super) fn first_of(mut names: impl Iterator<Item = String>) -> String {
    const LISTED: usize = 10;
    let mut listed: Vec<String> = names.by_ref().take(LISTED).collect();
    match names.count() {
        0 => {}
        more => listed.push(format!("and {more} more")),
    }
    listed.join(", ")
}
