//! The parameters and buffers of a module: their names in a fixed order, their state dict, and moving them.
//!
//! Files, optimizers and collectives need names in a fixed order; [`Parameters`] provides them.

mod load;
mod mismatch;
mod source;

use std::collections::HashSet;

use crate::error::TorchError;
use crate::modes::NoGradGuard;
use crate::tch::{Device, Kind, Tensor};
use crate::tensor_list::tensor_id;
use crate::training_mode::Mode;
use crate::value::Dict;

pub use load::{IncompatibleKeys, load_state_dict, load_state_dict_of};
pub use mismatch::{Difference, Given, Prefix, StateDictMismatch};
pub use source::{NamedTensor, NamedTensors, Parameters};

/// The parameters with their names, in the order of their creation, a layer's bias after its weight: PyTorch's
/// `named_parameters()`.
///
/// Frozen parameters are among them. The tensors are handles of the module's own.
///
/// ```
/// use fulgurite_torch::params;
/// use fulgurite_torch::tch::{Device, nn};
///
/// let vars = nn::VarStore::new(Device::Cpu);
/// let _layer = nn::linear(vars.root() / "fc", 2, 3, Default::default());
/// let names: Vec<_> = params::named_parameters(&vars).into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["fc.weight", "fc.bias"]);
/// ```
pub fn named_parameters(vars: &dyn Parameters) -> Vec<(String, Tensor)> {
    Tensors::of(vars).parameters
}

/// The parameters that are not frozen, in the order of [`named_parameters`]: pass these to an optimizer while a part of
/// the model is frozen.
pub fn trainable_parameters(vars: &dyn Parameters) -> Vec<Tensor> {
    named_parameters(vars).into_iter().map(|(_, tensor)| tensor).filter(Tensor::requires_grad).collect()
}

/// The parameters of one part of a module: those whose names begin with `path`, in the order of
/// [`named_parameters`]. Pass these to an optimizer of that part.
///
/// ```
/// use fulgurite_torch::params;
/// use fulgurite_torch::tch::{Device, nn};
///
/// let vars = nn::VarStore::new(Device::Cpu);
/// let _generator = nn::linear(vars.root() / "generator" / "fc", 2, 3, Default::default());
/// let _discriminator = nn::linear(vars.root() / "discriminator" / "fc", 3, 1, Default::default());
/// assert_eq!(params::parameters_of(&vars, "generator").len(), 2);
/// ```
pub fn parameters_of(vars: &dyn Parameters, path: &str) -> Vec<Tensor> {
    let is_inside = |name: &str| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
    named_parameters(vars).into_iter().filter(|(name, _)| is_inside(name)).map(|(_, tensor)| tensor).collect()
}

/// The tensors that are not parameters, such as the running mean of a batch norm; those of a `VarStore` are sorted by
/// name.
pub fn named_buffers(vars: &dyn Parameters) -> Vec<(String, Tensor)> {
    Tensors::of(vars).buffers
}

/// The further names of tied tensors, each with its tensor; see [`Parameters::named_tensors`].
pub fn tied_names(vars: &dyn Parameters) -> Vec<(String, Tensor)> {
    Tensors::of(vars).tied
}

/// The parameters and buffers in the order of [`Parameters::named_tensors`], then the further names of tied tensors: PyTorch's
/// `state_dict()`.
///
/// The tensors share the module's memory and are detached: copy them if they must outlive the next step.
///
/// # Errors
///
/// Fails if two tensors have the same name.
pub fn state_dict(vars: &dyn Parameters) -> Result<Dict, TorchError> {
    let tensors = Tensors::of(vars);
    tensors.check_names()?;
    let mut state = Dict::new();
    for (name, tensor) in tensors.every_name() {
        state.push(name.clone(), tensor.f_detach()?);
    }
    Ok(state)
}

/// Checks that a state dict can have an entry for each tensor.
///
/// # Errors
///
/// Fails if two tensors have the same name.
pub fn check_names(vars: &dyn Parameters) -> Result<(), TorchError> {
    Tensors::of(vars).check_names()
}

/// Switches every layer of the module to training, or to evaluation: PyTorch's `module.train(mode)`.
pub fn train(vars: &dyn Parameters, mode: bool) {
    for (_, layer) in vars.named_tensors().modes() {
        layer.train(mode);
    }
}

/// The modes that the layers of a module have now, to be restored later: a layer that evaluates while the others train
/// shall still do so after a validation.
pub fn modes(vars: &dyn Parameters) -> SavedModes {
    let named = vars.named_tensors();
    SavedModes(named.modes().map(|(_, mode)| (mode.clone(), mode.is_training())).collect())
}

/// The modes of a module's layers at a moment; see [`modes`].
#[derive(Debug, Default)]
pub struct SavedModes(Vec<(Mode, bool)>);

impl SavedModes {
    /// Switches each layer back. Those that were created since keep their mode.
    pub fn restore(&self) {
        for (layer, was_training) in &self.0 {
            layer.train(*was_training);
        }
    }
}

/// Moves every tensor of the module, and its gradient, to `device`: PyTorch's `module.to(device)`.
///
/// The tensors stay the same objects, so layers and optimizers that hold them follow. Variables that are created
/// later in a `VarStore` still go to its own device.
///
/// # Errors
///
/// Fails if the device runs out of memory.
pub fn move_to(vars: &dyn Parameters, device: Device) -> Result<(), TorchError> {
    replace_data(vars, |tensor| match tensor.device() == device {
        true => Ok(None),
        false => Ok(Some(tensor.f_to_device(device)?)),
    })
}

/// Converts every floating-point tensor of the module, and its gradient, to `kind`: PyTorch's `module.to(dtype)`.
///
/// The tensors stay the same objects, so layers and optimizers that hold them follow. Integer tensors, such as
/// counters, keep their kind. Variables that are created later in a `VarStore` still have its own
/// kind.
///
/// # Errors
///
/// Fails if the device runs out of memory.
pub fn to_kind(vars: &dyn Parameters, kind: Kind) -> Result<(), TorchError> {
    replace_data(vars, |tensor| match tensor.is_floating_point() && tensor.kind() != kind {
        true => Ok(Some(tensor.f_to_kind(kind)?)),
        false => Ok(None),
    })
}

fn replace_data(
    vars: &dyn Parameters,
    convert: impl Fn(&Tensor) -> Result<Option<Tensor>, TorchError>,
) -> Result<(), TorchError> {
    let _no_grad = NoGradGuard::new();
    let Tensors { parameters, buffers, .. } = Tensors::of(vars);
    for (_, mut tensor) in parameters.into_iter().chain(buffers) {
        let Some(data) = convert(&tensor)? else { continue };
        let grad = tensor.f_grad()?;
        let converted_grad = if grad.defined() { convert(&grad)? } else { None };
        vars.set_data(&mut tensor, &data)?;
        if let Some(converted) = converted_grad {
            vars.set_data(&mut tensor.f_grad()?, &converted)?;
        }
    }
    Ok(())
}

type Named = Vec<(String, Tensor)>;

/// The tensors of a module, each once.
#[derive(Default)]
struct Tensors {
    parameters: Named,
    buffers: Named,
    /// Whether each tensor that is listed is a parameter, or a buffer.
    are_parameters: Vec<bool>,
    /// Further names of the tensors above.
    tied: Named,
}

impl Tensors {
    fn of(vars: &dyn Parameters) -> Tensors {
        let mut tensors = Tensors::default();
        let mut seen = HashSet::new();
        let mut entries = HashSet::new();
        for NamedTensor { name, tensor, is_parameter } in vars.named_tensors() {
            // A part that is listed twice.
            if !entries.insert((name.clone(), tensor_id(&tensor))) {
                continue;
            }
            if !seen.insert(tensor_id(&tensor)) {
                tensors.tied.push((name, tensor));
                continue;
            }
            tensors.are_parameters.push(is_parameter);
            let named = if is_parameter { &mut tensors.parameters } else { &mut tensors.buffers };
            named.push((name, tensor));
        }
        tensors
    }

    fn every_name(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        let (mut parameters, mut buffers) = (self.parameters.iter(), self.buffers.iter());
        let listed = self.are_parameters.iter();
        let listed =
            listed.filter_map(move |is_parameter| if *is_parameter { parameters.next() } else { buffers.next() });
        listed.chain(&self.tied).map(|(name, tensor)| (name, tensor))
    }

    /// Names in a state dict must be unique.
    fn check_names(&self) -> Result<(), TorchError> {
        let mut seen = HashSet::new();
        match self.every_name().map(|(name, _)| name).find(|name| !seen.insert(name.as_str())) {
            None => Ok(()),
            Some(name) => Err(TorchError::AmbiguousName { name: name.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;
    use crate::tch::nn::{self, Module};

    struct Net {
        vars: nn::VarStore,
        layers: Vec<nn::Linear>,
        norm: nn::BatchNorm,
    }

    /// Names that a sort would put in another order than their creation.
    fn net() -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let layers = ["z", "m", "a"].map(|name| nn::linear(vars.root() / name, 2, 2, Default::default())).into();
        let norm = nn::batch_norm1d(vars.root() / "norm", 2, Default::default());
        Net { vars, layers, norm }
    }

    fn names(named: &[(String, Tensor)]) -> Vec<&str> {
        named.iter().map(|(name, _)| name.as_str()).collect()
    }

    const PARAMETERS: [&str; 8] =
        ["z.weight", "z.bias", "m.weight", "m.bias", "a.weight", "a.bias", "norm.weight", "norm.bias"];
    const BUFFERS: [&str; 2] = ["norm.running_mean", "norm.running_var"];

    #[test]
    fn names_come_in_the_order_of_creation_and_buffers_sorted() {
        let net = net();
        assert_eq!(names(&named_parameters(&net.vars)), PARAMETERS);
        assert_eq!(names(&named_buffers(&net.vars)), BUFFERS);
        let state = state_dict(&net.vars).unwrap();
        assert_eq!(state.keys().collect::<Vec<_>>(), [&PARAMETERS[..], &BUFFERS].concat());
        assert!(state.iter().all(|(_, value)| value.as_tensor().is_some_and(|t| !t.requires_grad())));
    }

    #[test]
    fn frozen_parameters_stay_parameters() {
        let mut net = net();
        net.vars.freeze();
        assert_eq!(names(&named_parameters(&net.vars)), PARAMETERS);
        assert!(trainable_parameters(&net.vars).is_empty());
        let _ = net.layers[1].ws.set_requires_grad(true);
        assert_eq!(trainable_parameters(&net.vars), [net.layers[1].ws.shallow_clone()]);
    }

    #[test]
    fn layers_and_gradients_follow_a_change_of_kind() {
        let net = net();
        let x = Tensor::ones([4, 2], (Kind::Float, Device::Cpu));
        let id = tensor_id(&net.layers[0].ws);
        net.layers[0].forward(&x).sum(Kind::Float).backward();
        to_kind(&net.vars, Kind::Double).unwrap();
        assert_eq!(tensor_id(&net.layers[0].ws), id);
        assert_eq!(net.layers[0].ws.grad().kind(), Kind::Double);
        assert_eq!(net.norm.running_mean.kind(), Kind::Double);
        let y = net.layers[0].forward(&x.to_kind(Kind::Double)).sum(Kind::Double);
        y.backward();
        assert_eq!(net.layers[0].ws.grad(), Tensor::full([2, 2], 8.0, (Kind::Double, Device::Cpu)));
        assert!(net.layers[0].ws.requires_grad() && net.layers[0].ws.is_leaf());
    }

    /// Two stores, a tensor of its own, and a head whose weight is the embedding's.
    struct Composed {
        encoder: nn::VarStore,
        decoder: nn::VarStore,
        scale: Tensor,
        steps: Tensor,
    }

    impl Composed {
        fn new() -> Composed {
            let stores = [(); 2].map(|()| nn::VarStore::new(Device::Cpu));
            for store in &stores {
                let _layer = nn::linear(store.root() / "fc", 2, 2, Default::default());
            }
            let [encoder, decoder] = stores;
            let scale = Tensor::ones([1], (Kind::Float, Device::Cpu)).set_requires_grad(true);
            Composed { encoder, decoder, scale, steps: Tensor::from(0i64) }
        }

        fn weight(&self) -> Tensor {
            self.encoder.variables()["fc.weight"].shallow_clone()
        }
    }

    impl Parameters for Composed {
        fn named_tensors(&self) -> NamedTensors {
            NamedTensors::new()
                .parameter("scale", &self.scale)
                .buffer("steps", &self.steps)
                .module("encoder", &self.encoder)
                .module("decoder", &self.decoder)
                .parameter("head.weight", &self.weight())
        }
    }

    const COMPOSED: [&str; 5] =
        ["scale", "encoder.fc.weight", "encoder.fc.bias", "decoder.fc.weight", "decoder.fc.bias"];

    #[test]
    fn a_module_may_be_made_of_stores_and_tensors() {
        let module = Composed::new();
        assert_eq!(names(&named_parameters(&module)), COMPOSED);
        assert_eq!(names(&named_buffers(&module)), ["steps"]);
        let listed = module.named_tensors();
        assert_eq!(names(&named_parameters(&listed)), COMPOSED);
        to_kind(&module, Kind::Double).unwrap();
        assert_eq!((module.scale.kind(), module.steps.kind()), (Kind::Double, Kind::Int64));
        assert_eq!(module.weight().kind(), Kind::Double);
        assert_eq!(parameters_of(&module, "decoder").len(), 2);
    }

    #[test]
    fn a_tied_weight_has_both_names_in_a_state_dict() {
        let (from, to) = (Composed::new(), Composed::new());
        let mut state = state_dict(&from).unwrap();
        assert_eq!(state.keys().collect::<Vec<_>>(), [&["scale", "steps"], &COMPOSED[1..], &["head.weight"]].concat());
        let tied = |name: &str| state.get(name).and_then(Value::as_tensor).unwrap().data_ptr();
        assert_eq!(tied("head.weight"), tied("encoder.fc.weight"));
        assert_eq!(load_state_dict(&to, &state, true).unwrap(), IncompatibleKeys::default());
        assert_eq!(to.weight(), from.weight());
        state.remove("encoder.fc.weight");
        assert_eq!(load_state_dict(&Composed::new(), &state, true).unwrap(), IncompatibleKeys::default());
        state.remove("head.weight");
        let keys = load_state_dict(&to, &state, false).unwrap();
        assert_eq!(keys.missing_keys, ["encoder.fc.weight", "head.weight"]);
    }

    #[test]
    fn a_variable_of_two_names_in_a_store_has_both_in_a_state_dict() {
        let net = net();
        let weight = net.layers[0].ws.shallow_clone();
        net.vars.variables_.lock().unwrap().named_variables.insert("zz.tied".to_owned(), weight);
        assert_eq!(names(&named_parameters(&net.vars)), PARAMETERS);
        assert_eq!(state_dict(&net.vars).unwrap().keys().last(), Some("zz.tied"));
    }

    #[test]
    fn two_tensors_of_one_name_are_refused() {
        let module = NamedTensors::new().parameter("w", &Tensor::from(1.0)).buffer("w", &Tensor::from(2.0));
        let problem = "the model has two tensors of the name `w`; give one of them another name";
        assert_eq!(state_dict(&module).unwrap_err().to_string(), problem);
        let shared = Tensor::from(1.0);
        let listed_twice = NamedTensors::new().parameter("w", &shared).parameter("w", &shared);
        assert_eq!(state_dict(&listed_twice).unwrap().len(), 1);
        let state = Dict::new().with("w", Tensor::from(3.0));
        assert!(load_state_dict(&module, &state, false).unwrap_err().to_string().contains(problem));
    }

    #[test]
    fn moving_to_where_everything_is_changes_nothing() {
        let net = net();
        let data = net.layers[0].ws.data_ptr();
        move_to(&net.vars, Device::Cpu).unwrap();
        assert_eq!(net.layers[0].ws.data_ptr(), data);
    }
}
