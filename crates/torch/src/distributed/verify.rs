//! Whether all ranks have the same model.

use serde::{Deserialize, Serialize};

use super::DistributedError;
use super::process_group::ProcessGroup;
use crate::error::TorchError;
use crate::tch::Tensor;

/// What must be equal on all ranks of one parameter.
#[derive(Serialize, Deserialize, PartialEq)]
struct Parameter {
    name: String,
    shape: Vec<i64>,
    kind: String,
    requires_grad: bool,
}

impl Parameter {
    fn describe(&self) -> String {
        let frozen = if self.requires_grad { "" } else { ", frozen" };
        format!("{:?} of {}{frozen}", self.shape, self.kind)
    }
}

/// Compares names, shapes and kinds of the parameters between the ranks; call it before training, on all ranks. `names`
/// belong to `parameters`; if empty, indices are used. Values are not compared.
///
/// # Errors
///
/// Fails with [`DistributedError::ParametersDiffer`] on all ranks, which names the first rank that differs from rank 0,
/// and the first differing parameter. Fails if there are not as many names as parameters, or if a rank has exited.
pub fn verify_parameters(parameters: &[Tensor], names: &[String], group: &ProcessGroup) -> Result<(), TorchError> {
    if !names.is_empty() && names.len() != parameters.len() {
        let problem = format!("{} names were given for {} parameters", names.len(), parameters.len());
        return Err(group.argument("verify_parameters", problem));
    }
    let mine: Vec<Parameter> = parameters
        .iter()
        .enumerate()
        .map(|(index, parameter)| Parameter {
            name: names.get(index).cloned().unwrap_or_else(|| index.to_string()),
            shape: parameter.size(),
            kind: format!("{:?}", parameter.kind()),
            requires_grad: parameter.requires_grad(),
        })
        .collect();
    let bytes = serde_json::to_vec(&mine).map_err(|error| TorchError::Bridge(error.to_string()))?;
    let mut models = Vec::with_capacity(group.size());
    for bytes in group.all_gather_bytes(&bytes)? {
        let model: Vec<Parameter> =
            serde_json::from_slice(&bytes).map_err(|error| TorchError::Bridge(error.to_string()))?;
        models.push(model);
    }
    let Some((first, others)) = models.split_first() else { return Ok(()) };
    match others.iter().enumerate().find_map(|(index, other)| difference(first, other, index + 1)) {
        Some(problem) => Err(DistributedError::ParametersDiffer { problem }.into()),
        None => Ok(()),
    }
}

/// The first difference between the models of rank 0 and another rank.
fn difference(first: &[Parameter], other: &[Parameter], rank: usize) -> Option<String> {
    for (a, b) in first.iter().zip(other) {
        if a.name != b.name {
            return Some(format!("where rank 0 has the parameter `{}`, rank {rank} has `{}`", a.name, b.name));
        }
        if a != b {
            let (name, a, b) = (&a.name, a.describe(), b.describe());
            return Some(format!("the parameter `{name}` is {a} on rank 0, and {b} on rank {rank}"));
        }
    }
    let more = |whose: usize, model: &[Parameter], than: usize| {
        format!(
            "rank {whose} has {} parameters, and rank {} has {than}; `{}` is the first that only rank {whose} has",
            model.len(),
            if whose == 0 { rank } else { 0 },
            model[than].name
        )
    };
    match first.len().cmp(&other.len()) {
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(more(0, first, other.len())),
        std::cmp::Ordering::Less => Some(more(rank, other, first.len())),
    }
}
