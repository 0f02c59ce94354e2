//! [`Parameters`]: where a module's tensors come from.

use std::rc::Rc;
use std::sync::{Arc, PoisonError};

use crate::error::TorchError;
use crate::places::LayerType;
use crate::tch::{Tensor, nn};
use crate::tensor_list::tensor_id;
use crate::training_mode::Mode;

/// The parameters and buffers of a module: PyTorch's `named_parameters()` and `named_buffers()`.
///
/// A [`nn::VarStore`] is one implementation, [`NamedTensors`] another. A module with several stores, or with tensors in
/// none, implements it itself:
///
/// ```
/// use fulgurite_torch::params::{self, NamedTensors, Parameters};
/// use fulgurite_torch::tch::{Device, Kind, Tensor, nn};
///
/// struct Gan {
///     generator: nn::VarStore,
///     discriminator: nn::VarStore,
///     temperature: Tensor,
/// }
///
/// impl Parameters for Gan {
///     fn named_tensors(&self) -> NamedTensors {
///         NamedTensors::new()
///             .module("generator", &self.generator)
///             .module("discriminator", &self.discriminator)
///             .parameter("temperature", &self.temperature)
///     }
/// }
///
/// let gan = Gan {
///     generator: nn::VarStore::new(Device::Cpu),
///     discriminator: nn::VarStore::new(Device::Cpu),
///     temperature: Tensor::ones([1], (Kind::Float, Device::Cpu)).set_requires_grad(true),
/// };
/// let _layer = nn::linear(gan.generator.root() / "fc", 2, 3, Default::default());
/// let names: Vec<_> = params::named_parameters(&gan).into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["generator.fc.weight", "generator.fc.bias", "temperature"]);
/// ```
pub trait Parameters {
    /// All tensors under all of their names, in the order of creation, which is the order of optimizer states. The
    /// tensors are handles of the module's own, so freezing one or copying into it changes the module.
    ///
    /// A tensor that is listed under several names is *tied*: it is one parameter, known by the first name, and a state
    /// dict contains all of its names.
    fn named_tensors(&self) -> NamedTensors;

    /// Replaces the data of one of the tensors, or of its gradient, possibly by data of another device or kind. It
    /// stays the same object.
    ///
    /// # Errors
    ///
    /// Fails if libtorch does not accept the data, such as data of another layout.
    fn set_data(&self, tensor: &mut Tensor, data: &Tensor) -> Result<(), TorchError> {
        Ok(tensor.f_set_data(data)?)
    }
}

/// A tensor of a module with its name.
#[derive(Debug)]
pub struct NamedTensor {
    /// The name, such as `fc.weight`.
    pub name: String,
    /// A handle of the module's own tensor.
    pub tensor: Tensor,
    /// Whether it is a parameter, trained or frozen, or a buffer.
    pub is_parameter: bool,
}

/// Tensors with their names, in order. It implements [`Parameters`] itself, for modules whose tensors are in no
/// [`nn::VarStore`].
#[derive(Debug, Default)]
pub struct NamedTensors {
    tensors: Vec<NamedTensor>,
    modes: Vec<(String, Mode)>,
    layer_types: Vec<(String, LayerType)>,
}

impl NamedTensors {
    /// An empty list.
    pub fn new() -> NamedTensors {
        NamedTensors::default()
    }

    /// Adds a parameter, trained (`requires_grad`) or frozen.
    #[must_use]
    pub fn parameter(self, name: impl Into<String>, tensor: &Tensor) -> Self {
        self.and(name.into(), tensor, true)
    }

    /// Adds a buffer: part of the state dict, and not trained.
    #[must_use]
    pub fn buffer(self, name: impl Into<String>, tensor: &Tensor) -> Self {
        self.and(name.into(), tensor, false)
    }

    /// Adds the mode of a layer, so that [`params::train`](super::train) reaches it.
    #[must_use]
    pub fn mode(mut self, name: impl Into<String>, mode: &Mode) -> Self {
        self.modes.push((name.into(), mode.clone()));
        self
    }

    /// Notes what a layer is, for summaries of the model.
    #[must_use]
    pub fn layer_type(mut self, name: impl Into<String>, layer_type: &LayerType) -> Self {
        self.layer_types.push((name.into(), layer_type.clone()));
        self
    }

    /// Adds the tensors, modes and types of a submodule, with their names prefixed by `name` and a dot.
    #[must_use]
    pub fn module(mut self, name: &str, part: &(impl Parameters + ?Sized)) -> Self {
        let NamedTensors { tensors, modes, layer_types } = part.named_tensors();
        let prefixed = |tensor: NamedTensor| NamedTensor { name: format!("{name}.{}", tensor.name), ..tensor };
        self.tensors.extend(tensors.into_iter().map(prefixed));
        let place = |of: String| if of.is_empty() { name.to_owned() } else { format!("{name}.{of}") };
        self.modes.extend(modes.into_iter().map(|(of, mode)| (place(of), mode)));
        self.layer_types.extend(layer_types.into_iter().map(|(of, layer_type)| (place(of), layer_type)));
        self
    }

    /// The tensors.
    pub fn iter(&self) -> std::slice::Iter<'_, NamedTensor> {
        self.tensors.iter()
    }

    /// The modes of layers, with the layers' names; that of a whole store has the empty name.
    pub fn modes(&self) -> impl Iterator<Item = (&str, &Mode)> {
        self.modes.iter().map(|(name, mode)| (name.as_str(), mode))
    }

    /// What layers are, with their names, in the order of creation. The last of a name counts.
    pub fn layer_types(&self) -> impl Iterator<Item = (&str, &LayerType)> {
        self.layer_types.iter().map(|(name, layer_type)| (name.as_str(), layer_type))
    }

    fn and(mut self, name: String, tensor: &Tensor, is_parameter: bool) -> Self {
        self.tensors.push(NamedTensor { name, tensor: tensor.shallow_clone(), is_parameter });
        self
    }
}

impl IntoIterator for NamedTensors {
    type Item = NamedTensor;
    type IntoIter = std::vec::IntoIter<NamedTensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.tensors.into_iter()
    }
}

impl<'a> IntoIterator for &'a NamedTensors {
    type Item = &'a NamedTensor;
    type IntoIter = std::slice::Iter<'a, NamedTensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.tensors.iter()
    }
}

impl Parameters for NamedTensors {
    fn named_tensors(&self) -> NamedTensors {
        let (modes, layer_types) = (self.modes.clone(), self.layer_types.clone());
        let copy = NamedTensors { tensors: Vec::new(), modes, layer_types };
        self.iter()
            .fold(copy, |all, NamedTensor { name, tensor, is_parameter }| all.and(name.clone(), tensor, *is_parameter))
    }
}

/// A `VarStore` has its names in a hash map, in an order that changes from run to run, and its parameters in the order
/// of their creation, without names: the two are matched by object identity. Buffers are sorted by name.
impl Parameters for nn::VarStore {
    fn named_tensors(&self) -> NamedTensors {
        let variables = self.variables_.lock().unwrap_or_else(PoisonError::into_inner);
        let creation: std::collections::HashMap<_, usize> = variables
            .trainable_variables
            .iter()
            .enumerate()
            .rev()
            .map(|(order, variable)| (tensor_id(&variable.tensor), order))
            .collect();
        let mut named: Vec<(Option<usize>, NamedTensor)> = variables
            .named_variables
            .iter()
            .map(|(name, tensor)| {
                let order = creation.get(&tensor_id(tensor)).copied();
                let is_parameter = order.is_some();
                (order, NamedTensor { name: name.clone(), tensor: tensor.shallow_clone(), is_parameter })
            })
            .collect();
        // Buffers last; the first in the alphabet names a tensor that has several names, in every run.
        named.sort_by(|(a, x), (b, y)| (a.is_none(), a, &x.name).cmp(&(b.is_none(), b, &y.name)));
        let mut tensors: Vec<NamedTensor> = named.into_iter().map(|(_, tensor)| tensor).collect();
        weights_before_biases(&mut tensors);
        NamedTensors { tensors, ..NamedTensors::default() }
    }
}

/// `tch` creates the bias of a linear or convolutional layer before its weight, PyTorch after it; and the states of an
/// optimizer are identified by position only.
fn weights_before_biases(tensors: &mut [NamedTensor]) {
    for at in 1..tensors.len() {
        let (first, second) = (&tensors[at - 1], &tensors[at]);
        let paths = (first.name.strip_suffix("bias"), second.name.strip_suffix("weight"));
        let is_path = |path: &str| path.is_empty() || path.ends_with('.');
        if second.is_parameter && paths.0.is_some_and(is_path) && paths.0 == paths.1 {
            tensors.swap(at - 1, at);
        }
    }
}

impl<T: Parameters + ?Sized> Parameters for &T {
    fn named_tensors(&self) -> NamedTensors {
        (**self).named_tensors()
    }

    fn set_data(&self, tensor: &mut Tensor, data: &Tensor) -> Result<(), TorchError> {
        (**self).set_data(tensor, data)
    }
}

impl<T: Parameters + ?Sized> Parameters for Box<T> {
    fn named_tensors(&self) -> NamedTensors {
        (**self).named_tensors()
    }

    fn set_data(&self, tensor: &mut Tensor, data: &Tensor) -> Result<(), TorchError> {
        (**self).set_data(tensor, data)
    }
}

impl<T: Parameters + ?Sized> Parameters for Rc<T> {
    fn named_tensors(&self) -> NamedTensors {
        (**self).named_tensors()
    }

    fn set_data(&self, tensor: &mut Tensor, data: &Tensor) -> Result<(), TorchError> {
        (**self).set_data(tensor, data)
    }
}

impl<T: Parameters + ?Sized> Parameters for Arc<T> {
    fn named_tensors(&self) -> NamedTensors {
        (**self).named_tensors()
    }

    fn set_data(&self, tensor: &mut Tensor, data: &Tensor) -> Result<(), TorchError> {
        (**self).set_data(tensor, data)
    }
}
