//! [`Sequential`]: layers one after the other.

use std::fmt::{self, Write};
use std::sync::Arc;

use fulgurite_torch::tch::{self, Tensor};
use fulgurite_torch::{LayerType, Mode, Path};

use crate::error::Result;
use crate::module::{Build, Module, debug, tree};

/// Layers that are applied one after the other: PyTorch's `nn.Sequential`.
///
/// Each layer acts by its own mode. To pass the mode at every call instead, put the layers into `tch`'s `seq_t`.
///
/// It is made of layers that exist, with names of one's own, or by [`sequential`] of options, with PyTorch's names:
///
/// ```
/// use fulgurite_nn::{self as nn, Build, Module};
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let vars = nn::VarStore::new(Device::Cpu);
/// let root = vars.root();
/// let encoder = nn::Sequential::new()
///     .add(nn::linear(784, 64).at(&root / "hidden")?)
///     .add(nn::relu())
///     .add_fn(|x| x.view([-1, 8, 8]));
///
/// // nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10))
/// let head = nn::sequential()
///     .add(nn::linear(64, 64))
///     .add(nn::relu())
///     .add(nn::dropout(0.1))
///     .add(nn::linear(64, 10))
///     .at(&root / "head")?;
///
/// let x = Tensor::zeros([2, 784], (Kind::Float, Device::Cpu));
/// assert_eq!(head.forward(&encoder.forward(&x).flatten(1, -1)).size(), [2, 10]);
/// assert!(vars.variables().contains_key("head.3.weight"));
/// # Ok::<(), nn::NnError>(())
/// ```
#[derive(Default)]
pub struct Sequential {
    layers: Vec<Step>,
    /// Its own and those of its layers, kept for summaries of the model.
    _layer_types: Vec<LayerType>,
}

enum Step {
    Layer(Box<dyn Module>),
    /// A layer of `tch` whose mode is an argument.
    WithMode(Box<dyn tch::nn::ModuleT>, Mode),
    Function(Box<dyn Fn(&Tensor) -> Tensor + Send>),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Layer(layer) => layer.fmt(f),
            Step::WithMode(layer, _) => layer.fmt(f),
            Step::Function(_) => f.write_str("a function"),
        }
    }
}

impl Sequential {
    /// No layers, which pass their input on.
    pub fn new() -> Sequential {
        Sequential::default()
    }

    /// Appends a layer.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "the name that `tch` has for it")]
    pub fn add(mut self, layer: impl Module + 'static) -> Self {
        self.layers.push(Step::Layer(Box::new(layer)));
        self
    }

    /// Appends a layer of `tch` that takes its mode as an argument; here it is that of `path`.
    #[must_use]
    pub fn add_t<'a>(mut self, layer: impl tch::nn::ModuleT + 'static, path: impl Into<Path<'a>>) -> Self {
        let mode = path.into().mode();
        self.layers.push(Step::WithMode(Box::new(layer), mode));
        self
    }

    /// Appends a function.
    #[must_use]
    pub fn add_fn(mut self, function: impl Fn(&Tensor) -> Tensor + Send + 'static) -> Self {
        self.layers.push(Step::Function(Box::new(function)));
        self
    }

    /// How many layers there are.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Whether there is no layer.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// The outputs of all layers, in their order.
    pub fn forward_all(&self, input: &Tensor) -> Vec<Tensor> {
        let mut outputs: Vec<Tensor> = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            outputs.push(layer.forward(outputs.last().unwrap_or(input)));
        }
        outputs
    }
}

impl Step {
    fn forward(&self, input: &Tensor) -> Tensor {
        match self {
            Step::Layer(layer) => layer.forward(input),
            Step::WithMode(layer, mode) => layer.forward_t(input, mode.is_training()),
            Step::Function(function) => function(input),
        }
    }

    /// The type of a layer, with which its `Debug` begins.
    fn type_name(&self) -> Option<String> {
        let mut name = Identifier(String::new());
        // An error is how the layer is told that the rest is not needed.
        let _ = match self {
            Step::Layer(layer) => write!(name, "{layer:?}"),
            Step::WithMode(layer, _) => write!(name, "{layer:?}"),
            Step::Function(_) => Ok(()),
        };
        Some(name.0).filter(|name| !name.is_empty())
    }
}

/// Takes what is written up to the end of the first identifier.
struct Identifier(String);

impl fmt::Write for Identifier {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
        self.0.push_str(&text[..end.unwrap_or(text.len())]);
        end.map_or(Ok(()), |_| Err(fmt::Error))
    }
}

impl Module for Sequential {
    fn forward(&self, input: &Tensor) -> Tensor {
        let mut layers = self.layers.iter();
        let Some(first) = layers.next() else { return input.shallow_clone() };
        layers.fold(first.forward(input), |x, layer| layer.forward(&x))
    }
}

impl fmt::Display for Sequential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers = self.layers.iter().enumerate().map(|(i, layer)| (i.to_string(), format!("{layer:?}")));
        f.write_str(&tree("Sequential", &layers.collect::<Vec<_>>()))
    }
}

debug!(Sequential);

type MakeLayer = dyn Fn(&Path<'_>) -> Result<Step> + Send + Sync;

/// The options of a [`Sequential`]: those of its layers.
#[derive(Clone, Default)]
pub struct SequentialOptions(Vec<Arc<MakeLayer>>);

/// A [`Sequential`] whose layers are created at its path, with the names `0`, `1`, … as in PyTorch.
pub fn sequential() -> SequentialOptions {
    SequentialOptions::default()
}

impl fmt::Debug for SequentialOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SequentialOptions({} layers)", self.0.len())
    }
}

impl SequentialOptions {
    /// Appends the layer that is made of `options`.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "the name that `tch` has for it")]
    pub fn add<B>(mut self, options: B) -> Self
    where
        B: Build<Layer: Module + 'static> + Send + Sync + 'static,
    {
        self.0.push(Arc::new(move |path| Ok(Step::Layer(Box::new(options.at(path)?)))));
        self
    }

    /// Appends a function.
    #[must_use]
    pub fn add_fn(mut self, function: impl Fn(&Tensor) -> Tensor + Send + Sync + 'static) -> Self {
        let function = Arc::new(function);
        self.0.push(Arc::new(move |_| {
            let function = function.clone();
            Ok(Step::Function(Box::new(move |input| function(input))))
        }));
        self
    }
}

impl Build for SequentialOptions {
    type Layer = Sequential;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<Sequential> {
        let path = path.into();
        let mut layer_types = vec![path.layer_type("Sequential")];
        let mut layers = Vec::with_capacity(self.0.len());
        for (i, make) in self.0.iter().enumerate() {
            let path = &path / i;
            let layer = make(&path)?;
            layer_types.extend(layer.type_name().map(|name| path.layer_type(&name)));
            layers.push(layer);
        }
        Ok(Sequential { layers, _layer_types: layer_types })
    }
}
