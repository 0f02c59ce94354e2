//! [`VarStore`] and [`Path`]: `tch`'s, whose layers also have a mode.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut, Div};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::TorchError;
use crate::params::{NamedTensor, NamedTensors, Parameters};
use crate::places::{LayerType, Places};
use crate::tch::{self, Device, Tensor};
use crate::tensor_list::tensor_id;
use crate::training_mode::Mode;

/// The parameters and buffers of a module by name, and the modes of its layers.
///
/// It is a [`tch::nn::VarStore`], to which it dereferences, whose layers can be switched between training and evaluation
/// by one call. Layers of `tch` are created from its paths too; they have no mode, and take `train` as an argument.
///
/// ```
/// use fulgurite_torch::VarStore;
/// use fulgurite_torch::tch::{Device, nn};
///
/// let vars = VarStore::new(Device::Cpu);
/// let dropout = (vars.root() / "dropout").mode();
/// let _layer = nn::linear(vars.root() / "fc", 2, 3, Default::default());
/// vars.eval();
/// assert!(!dropout.is_training());
/// assert_eq!(vars.trainable_variables().len(), 2);
/// ```
#[derive(Debug)]
pub struct VarStore {
    vars: tch::nn::VarStore,
    layers: Layers,
    created: Created,
    /// Its own, as a module of layers has one too.
    mode: Mode,
}

impl VarStore {
    /// An empty store, whose parameters are created on `device`.
    pub fn new(device: Device) -> VarStore {
        tch::nn::VarStore::new(device).into()
    }

    /// The path from which layers are created.
    pub fn root(&self) -> Path<'_> {
        Path { path: self.vars.root(), layers: Some(self.layers.clone()), created: self.created.clone() }
    }

    /// Switches every layer to training, or to evaluation: PyTorch's `module.train(mode)`.
    pub fn train(&self, mode: bool) {
        self.root().train(mode);
    }

    /// Switches every layer to evaluation: PyTorch's `module.eval()`.
    pub fn eval(&self) {
        self.train(false);
    }

    /// Whether the last switch of the whole store was to training: PyTorch's `module.training`.
    pub fn is_training(&self) -> bool {
        self.mode.is_training()
    }
}

impl From<tch::nn::VarStore> for VarStore {
    fn from(vars: tch::nn::VarStore) -> VarStore {
        let (layers, mode) = (Layers::default(), Mode::new());
        layers.modes.register(String::new(), &mode.0);
        VarStore { vars, layers, created: Created::default(), mode }
    }
}

impl Deref for VarStore {
    type Target = tch::nn::VarStore;

    fn deref(&self) -> &tch::nn::VarStore {
        &self.vars
    }
}

impl DerefMut for VarStore {
    fn deref_mut(&mut self) -> &mut tch::nn::VarStore {
        &mut self.vars
    }
}

/// What the layers of a store keep.
#[derive(Debug, Clone, Default)]
struct Layers {
    modes: Places<AtomicBool>,
    types: Places<str>,
}

/// The tensors that were created by [`Path::add`], in their order: what they are, and whether they are parameters. `tch` keeps
/// the order of parameters alone.
#[derive(Debug, Clone, Default)]
struct Created(Arc<Mutex<Vec<(usize, bool)>>>);

impl Created {
    fn push(&self, tensor: &Tensor, is_parameter: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((tensor_id(tensor), is_parameter));
    }

    /// Puts buffers behind the parameters that were created before them; those of `tch`'s layers stay last.
    fn order(&self, tensors: NamedTensors) -> NamedTensors {
        let mut tensors: Vec<NamedTensor> = tensors.into_iter().collect();
        let places: HashMap<usize, usize> =
            tensors.iter().enumerate().rev().map(|(place, named)| (tensor_id(&named.tensor), place)).collect();
        let mut before = None;
        let mut keys: HashMap<usize, (Option<usize>, usize)> = HashMap::new();
        let created = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (order, (id, is_parameter)) in created.iter().enumerate() {
            match is_parameter {
                true => before = places.get(id).copied().or(before),
                false => _ = keys.insert(*id, (before, order + 1)),
            }
        }
        let last = tensors.len();
        tensors.sort_by_key(|named| {
            let id = tensor_id(&named.tensor);
            let of_others = if named.is_parameter { places[&id] } else { last };
            keys.get(&id).copied().unwrap_or((Some(of_others), 0))
        });
        tensors.into_iter().fold(NamedTensors::new(), |all, NamedTensor { name, tensor, is_parameter }| {
            if is_parameter { all.parameter(name, &tensor) } else { all.buffer(name, &tensor) }
        })
    }
}

impl Parameters for VarStore {
    fn named_tensors(&self) -> NamedTensors {
        let tensors = self.created.order(self.vars.named_tensors());
        let modes = self.layers.modes.below("").into_iter();
        let tensors = modes.fold(tensors, |all, (name, mode)| all.mode(name, &Mode(mode)));
        let types = self.layers.types.below("").into_iter();
        types.fold(tensors, |all, (name, layer_type)| all.layer_type(name, &LayerType(layer_type)))
    }

    fn set_data(&self, tensor: &mut Tensor, data: &Tensor) -> Result<(), TorchError> {
        self.vars.set_data(tensor, data)
    }
}

/// A place in a [`VarStore`], from which a layer is created: the prefix of its parameters' names.
///
/// `path / "encoder" / 0` is the place `encoder.0` below it. It dereferences to `tch`'s path, and goes wherever that
/// does.
#[derive(Debug, Clone)]
pub struct Path<'a> {
    path: tch::nn::Path<'a>,
    /// `None`: a path of `tch`'s own store.
    layers: Option<Layers>,
    created: Created,
}

impl<'a> Path<'a> {
    /// A place below this one; dots in `name` separate several steps.
    #[must_use]
    pub fn sub(&self, name: impl ToString) -> Path<'a> {
        let name = name.to_string();
        let path = name.split('.').fold(self.path.clone(), |path, step| path.sub(step));
        Path { path, ..self.clone() }
    }

    /// The same place, whose parameters belong to the given group of `tch`'s optimizers.
    #[must_use]
    pub fn set_group(&self, group: usize) -> Path<'a> {
        Path { path: self.path.set_group(group), ..self.clone() }
    }

    /// Adds a parameter, or a buffer if it is not `trainable`: `tch`'s `add`. A state dict has buffers where they were added.
    pub fn add(&self, name: &str, tensor: Tensor, trainable: bool) -> Tensor {
        let tensor = self.path.add(name, tensor, trainable);
        self.created.push(&tensor, trainable);
        tensor
    }

    /// The name of this place, such as `encoder.0`; empty for the root.
    pub fn name(&self) -> String {
        self.path.components().collect::<Vec<_>>().join(".")
    }

    /// A new mode at this place, for a layer that acts differently in training and in evaluation. In a store of `tch`'s
    /// own nobody else can switch it.
    pub fn mode(&self) -> Mode {
        let mode = Mode::new();
        if let Some(layers) = &self.layers {
            layers.modes.register(self.name(), &mode.0);
        }
        mode
    }

    /// Notes what the layer at this place is, such as `BasicBlock`, as long as what is returned is kept: summaries of the model
    /// show it, and have a row for a layer without parameters.
    pub fn layer_type(&self, name: &str) -> LayerType {
        let layer_type = LayerType::new(name);
        if let Some(layers) = &self.layers {
            layers.types.register(self.name(), &layer_type.0);
        }
        layer_type
    }

    /// Switches the layers at this place and below to training, or to evaluation.
    pub fn train(&self, mode: bool) {
        for (_, layer) in self.layers.iter().flat_map(|layers| layers.modes.below(&self.name())) {
            Mode(layer).train(mode);
        }
    }
}

impl<'a> Deref for Path<'a> {
    type Target = tch::nn::Path<'a>;

    fn deref(&self) -> &tch::nn::Path<'a> {
        &self.path
    }
}

impl<'a> Borrow<tch::nn::Path<'a>> for Path<'a> {
    fn borrow(&self) -> &tch::nn::Path<'a> {
        &self.path
    }
}

impl<'a> Borrow<tch::nn::Path<'a>> for &Path<'a> {
    fn borrow(&self) -> &tch::nn::Path<'a> {
        &self.path
    }
}

impl<'a> From<&Path<'a>> for Path<'a> {
    fn from(path: &Path<'a>) -> Path<'a> {
        path.clone()
    }
}

impl<'a> From<&'a VarStore> for Path<'a> {
    fn from(vars: &'a VarStore) -> Path<'a> {
        vars.root()
    }
}

impl<'a> From<tch::nn::Path<'a>> for Path<'a> {
    fn from(path: tch::nn::Path<'a>) -> Path<'a> {
        Path { path, layers: None, created: Created::default() }
    }
}

impl<'a> From<&tch::nn::Path<'a>> for Path<'a> {
    fn from(path: &tch::nn::Path<'a>) -> Path<'a> {
        path.clone().into()
    }
}

impl<'a, T: ToString> Div<T> for Path<'a> {
    type Output = Path<'a>;

    fn div(self, name: T) -> Path<'a> {
        self.sub(name)
    }
}

impl<'a, T: ToString> Div<T> for &Path<'a> {
    type Output = Path<'a>;

    fn div(self, name: T) -> Path<'a> {
        self.sub(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params;

    #[test]
    fn one_switch_reaches_every_layer_and_a_path_only_those_below() {
        let vars = VarStore::new(Device::Cpu);
        let [a, b, ab] = ["a", "b.c", "ab"].map(|name| (vars.root() / name).mode());
        let modes = || [&a, &b, &ab].map(Mode::is_training);
        (vars.root() / "a").train(false);
        assert_eq!(modes(), [false, true, true]);
        (vars.root() / "b").train(false);
        assert_eq!(modes(), [false, false, true]);
        vars.train(true);
        assert_eq!((modes(), vars.is_training()), ([true; 3], true));
        vars.eval();
        assert_eq!((modes(), vars.is_training()), ([false; 3], false));
    }

    #[test]
    fn buffers_are_listed_where_they_were_created() {
        let vars = VarStore::new(Device::Cpu);
        let zeros = || Tensor::zeros([2], (tch::Kind::Float, Device::Cpu));
        let _tch = tch::nn::batch_norm1d(vars.root() / "tch", 2, Default::default());
        let layers = [("first", "z", true), ("first", "y", false), ("first", "x", false), ("last", "a", true)];
        for (layer, name, is_parameter) in layers {
            let _ = (vars.root() / layer).add(name, zeros(), is_parameter);
        }
        let names: Vec<String> = params::state_dict(&vars).unwrap().keys().map(String::from).collect();
        let of_ours = ["first.z", "first.y", "first.x", "last.a"];
        let expected = [&["tch.weight", "tch.bias"][..], &of_ours, &["tch.running_mean", "tch.running_var"]].concat();
        assert_eq!(names, expected);
    }

    #[test]
    fn layers_that_are_gone_are_not_kept() {
        let vars = VarStore::new(Device::Cpu);
        for _ in 0..1000 {
            drop(vars.root().mode());
        }
        let kept = vars.root().mode();
        assert_eq!(vars.layers.modes.below("").len(), 2);
        assert!(vars.layers.modes.len() < 10);
        assert!(kept.is_training());
    }

    #[test]
    fn modes_are_restored_as_they_were() {
        let vars = VarStore::new(Device::Cpu);
        let (frozen, layer) = ((vars.root() / "frozen").mode(), (vars.root() / "layer").mode());
        frozen.train(false);
        let before = params::modes(&vars);
        vars.eval();
        let created_later = (vars.root() / "later").mode();
        before.restore();
        assert_eq!([&frozen, &layer, &created_later].map(Mode::is_training), [false, true, true]);
        assert!(vars.is_training());
    }

    #[test]
    fn the_paths_of_tch_take_layers_too() {
        let vars = tch::nn::VarStore::new(Device::Cpu);
        let path = Path::from(vars.root() / "fc");
        assert_eq!((path.sub("a.b").name().as_str(), path.mode().is_training()), ("fc.a.b", true));
        let _layer = tch::nn::linear(&path, 2, 3, Default::default());
        assert_eq!(vars.len(), 2);
    }
}
