//! Loading a state dict into a module.

use std::collections::{HashMap, HashSet};

use super::Tensors;
use super::mismatch::{Difference, Given, StateDictMismatch};
use super::source::Parameters;
use crate::error::TorchError;
use crate::modes::NoGradGuard;
use crate::tch::Tensor;
use crate::tensor_list::tensor_id;
use crate::value::{Dict, Value};

/// The keys that a state dict and a model do not share, as PyTorch's `load_state_dict` returns them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IncompatibleKeys {
    /// The keys in the model that are not in the state dict.
    pub missing_keys: Vec<String>,
    /// The keys in the state dict that are not in the model.
    pub unexpected_keys: Vec<String>,
}

/// Copies the values of `state` into the module, in place: PyTorch's `load_state_dict()`.
///
/// Values are converted to the kind and device that the module's tensors have. Everything is checked before anything is
/// copied, so an error leaves the module as it was. A tied tensor needs one of its names; of several, the last is
/// copied, as PyTorch does. The `num_batches_tracked` of batch norms, which `tch`'s do not count, is neither unexpected nor
/// missing.
///
/// # Errors
///
/// Fails if two tensors of the module have the same name, and with a [`StateDictMismatch`] if the state dict has entries
/// that are not tensors or have another shape and, if `strict`, if keys are missing or unexpected.
pub fn load_state_dict(vars: &dyn Parameters, state: &Dict, strict: bool) -> Result<IncompatibleKeys, TorchError> {
    load_state_dict_of(vars, state, strict, |_| true, false)
}

/// [`load_state_dict`] for a part of the module: tensors for whose names `is_wanted` returns `false` are unchanged, and
/// are not missing. A `dry` run only checks.
///
/// # Errors
///
/// Fails as [`load_state_dict`] does.
pub fn load_state_dict_of(
    vars: &dyn Parameters,
    state: &Dict,
    strict: bool,
    is_wanted: impl Fn(&str) -> bool,
    dry: bool,
) -> Result<IncompatibleKeys, TorchError> {
    let tensors = Tensors::of(vars);
    let wanted: Vec<(&String, &Tensor)> = tensors.every_name().filter(|(name, _)| is_wanted(name)).collect();
    let norms: HashSet<String> = wanted
        .iter()
        .filter_map(|(name, _)| Some(format!("{}num_batches_tracked", name.strip_suffix("running_mean")?)))
        .collect();
    let mut given: HashMap<&str, &Value> = state.iter().filter_map(|(k, v)| Some((k.as_str()?, v))).collect();
    tensors.check_names()?;
    let mut mismatch = StateDictMismatch { in_model: wanted.len(), ..Default::default() };
    let mut missing = Vec::new();
    let mut different = Vec::new();
    let mut copies = Vec::new();
    let found: HashSet<usize> =
        wanted.iter().filter(|(name, _)| given.contains_key(name.as_str())).map(|(_, t)| tensor_id(t)).collect();
    for (name, target) in wanted {
        let model = target.size();
        match given.remove(name.as_str()) {
            None if found.contains(&tensor_id(target)) => mismatch.fitting += 1,
            None if norms.contains(name) => mismatch.in_model -= 1, // not asked for
            None => missing.push(Difference { key: name.clone(), given: None, model: Some(model) }),
            Some(Value::Tensor(source)) if source.size() == model => copies.push((target.shallow_clone(), source)),
            Some(value) => {
                different.push(Difference { key: name.clone(), given: Some(given_of(value)), model: Some(model) });
            }
        }
    }
    mismatch.fitting += copies.len();
    let unexpected = state.iter().filter_map(|(key, value)| Some((key.as_str()?, value)));
    let unexpected = unexpected.filter(|(key, _)| given.contains_key(key) && !norms.contains(*key));
    let unexpected: Vec<Difference> = unexpected
        .map(|(key, value)| Difference { key: key.to_owned(), given: Some(given_of(value)), model: None })
        .collect();
    let keys = IncompatibleKeys { missing_keys: keys_of(&missing), unexpected_keys: keys_of(&unexpected) };
    if strict {
        mismatch.differences = missing;
        mismatch.differences.extend(unexpected);
    }
    mismatch.differences.extend(different);
    if !mismatch.differences.is_empty() {
        return Err(TorchError::StateDict(Box::new(mismatch)));
    }
    if dry {
        return Ok(keys);
    }
    let _no_grad = NoGradGuard::new();
    for (mut target, source) in copies {
        target.f_copy_(source)?;
    }
    Ok(keys)
}

fn given_of(value: &Value) -> Given {
    match value {
        Value::Tensor(tensor) => Given::Tensor(Tensor::size(tensor)),
        other => Given::Other(other.type_name()),
    }
}

fn keys_of(differences: &[Difference]) -> Vec<String> {
    differences.iter().map(|difference| difference.key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::params::{state_dict, to_kind};
    use crate::tch::{Device, Kind, nn};

    struct Net {
        vars: nn::VarStore,
        layers: Vec<nn::Linear>,
    }

    const NAMES: usize = 10;

    fn net() -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let layers = ["z", "m", "a"].map(|name| nn::linear(vars.root() / name, 2, 2, Default::default())).into();
        let _norm = nn::batch_norm1d(vars.root() / "norm", 2, Default::default());
        Net { vars, layers }
    }

    #[test]
    fn a_state_dict_goes_into_another_model_in_place() {
        let (from, to) = (net(), net());
        let keys = load_state_dict(&to.vars, &state_dict(&from.vars).unwrap(), true).unwrap();
        assert_eq!(keys, IncompatibleKeys::default());
        assert_eq!(to.layers[0].ws, from.layers[0].ws);
        assert!(to.layers[0].ws.requires_grad());
    }

    #[test]
    fn values_take_the_kind_of_the_model() {
        let (from, to) = (net(), net());
        to_kind(&from.vars, Kind::Double).unwrap();
        load_state_dict(&to.vars, &state_dict(&from.vars).unwrap(), true).unwrap();
        assert_eq!(to.layers[0].ws.kind(), Kind::Float);
        assert_eq!(to.layers[0].ws, from.layers[0].ws.to_kind(Kind::Float));
    }

    #[test]
    fn everything_wrong_is_listed_at_once_and_nothing_is_changed() {
        let net = net();
        let before = net.layers[1].ws.copy();
        let mut state = state_dict(&net.vars).unwrap().map_tensors(&mut |t| t + 1.0);
        state.remove("a.bias");
        state.remove("norm.running_var");
        state.set("head.weight", Tensor::from(1.0));
        state.set("z.weight", Tensor::zeros([3, 2], (Kind::Float, Device::Cpu)));
        state.set("z.bias", 7);
        let error = load_state_dict(&net.vars, &state, true).unwrap_err();
        expect![[r#"
            the state dict does not fit the model: 2 missing, 1 unexpected, 1 of another shape, 1 not a tensor; 6 of the model's 10 tensors can be loaded:
                missing: "a.bias" [2]
                missing: "norm.running_var" [2]
                unexpected: "head.weight" []
                of another shape: "z.weight" is [3, 2] in the state dict and [2, 2] in the model
                not a tensor: "z.bias" is int in the state dict and [2] in the model
                Nothing was loaded. Load it into a model of the class and sizes that it was saved from; for another model, rename its entries, leave out those of other shapes, and load the rest with `strict` off"#]].assert_eq(&error.to_string().replace('\t', "    "));
        assert_eq!(net.layers[1].ws, before);
    }

    #[test]
    fn without_strict_the_keys_are_returned_and_shapes_still_checked() {
        let net = net();
        let mut state = Dict::new().with("z.bias", Tensor::from_slice(&[5.0f32, 6.0])).with("extra", 1);
        let keys = load_state_dict(&net.vars, &state, false).unwrap();
        assert_eq!(keys.unexpected_keys, ["extra"]);
        assert_eq!(keys.missing_keys.len(), NAMES - 1);
        assert_eq!(net.layers[0].bs.as_ref().unwrap(), &Tensor::from_slice(&[5.0f32, 6.0]));
        state.set("z.bias", Tensor::from(1.0));
        let error = load_state_dict(&net.vars, &state, false).unwrap_err().to_string();
        assert!(error.contains("of another shape: \"z.bias\" is [] in the state dict and [2] in the model"), "{error}");
    }

    #[test]
    fn the_batches_that_pytorch_counts_are_expected_of_batch_norms_alone() {
        let net = net();
        let mut state = state_dict(&net.vars).unwrap().with("norm.num_batches_tracked", Tensor::from(7i64));
        assert_eq!(load_state_dict(&net.vars, &state, true).unwrap(), IncompatibleKeys::default());
        state.set("z.num_batches_tracked", Tensor::from(7i64));
        let keys = load_state_dict(&net.vars, &state, false).unwrap();
        assert_eq!(keys.unexpected_keys, ["z.num_batches_tracked"]);
    }

    #[test]
    fn counts_of_batches_that_a_file_lacks_are_not_said_to_be_loaded() {
        let net = net();
        let _count = (net.vars.root() / "norm").add("num_batches_tracked", Tensor::from(0i64), false);
        assert_eq!(load_state_dict(&net.vars, &Dict::new(), false).unwrap().missing_keys.len(), NAMES);
        let error = load_state_dict(&net.vars, &Dict::new(), true).unwrap_err().to_string();
        assert!(error.contains("10 missing; none of the model's 10 tensors can be loaded"), "{error}");
    }

    #[test]
    fn a_part_is_loaded_and_the_rest_is_neither_missing_nor_changed() {
        let (from, to) = (net(), net());
        let kept = to.layers[1].ws.copy();
        let state: Dict = state_dict(&from.vars)
            .unwrap()
            .into_iter()
            .filter(|(key, _)| key.as_str().unwrap().starts_with("z."))
            .collect();
        let keys = load_state_dict_of(&to.vars, &state, true, |name| name.starts_with("z."), false).unwrap();
        assert_eq!(keys, IncompatibleKeys::default());
        assert_eq!(to.layers[0].ws, from.layers[0].ws);
        assert_eq!(to.layers[1].ws, kept);
    }
}
