//! [`Module`]: what can be applied to a tensor; [`Build`]: what can be made a layer.

use std::fmt;

use fulgurite_torch::tch::{self, Tensor};
use fulgurite_torch::{LayerType, Path, TorchError};

use crate::error::{NnError, Result};

/// A layer, or a network of layers, that makes one tensor of another: PyTorch's `nn.Module` with its `forward`.
///
/// Layers that act differently in training and in evaluation, such as dropout, do what their [`Mode`](crate::Mode) says,
/// which [`VarStore::train`](crate::VarStore::train) switches for all layers of a model at once. With `tch`'s
/// `input.apply_t(&layer, train)` it is an argument instead. Every `Module` of `tch` is one of ours too.
///
/// A network of one's own implements it to be part of a [`Sequential`](crate::Sequential):
///
/// ```
/// use fulgurite_nn::{self as nn, Build, Module};
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// #[derive(Debug)]
/// struct Residual(nn::Linear);
///
/// impl Module for Residual {
///     fn forward(&self, input: &Tensor) -> Tensor {
///         input + self.0.forward(input).relu()
///     }
/// }
///
/// let vars = nn::VarStore::new(Device::Cpu);
/// let net = nn::Sequential::new().add(Residual(nn::linear(4, 4).at(vars.root() / "block")?));
/// assert_eq!(net.forward(&Tensor::zeros([2, 4], (Kind::Float, Device::Cpu))).size(), [2, 4]);
/// # Ok::<(), nn::NnError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a layer that makes one tensor of another",
    note = "options such as `nn::linear(2, 3)` become a layer at their path, `.at(vars.root() / \"name\")?`; `nn::sequential()` takes them as they are",
    note = "a network of your own implements `nn::Module`; layers with further inputs or outputs, such as `Lstm`, are used in one"
)]
pub trait Module: fmt::Debug + Send {
    /// Applies the layer.
    ///
    /// # Panics
    ///
    /// Panics if the input does not fit, as operations of `tch` do; the trainer makes an error of it. Layers of this crate
    /// have `try_forward`, which returns it.
    fn forward(&self, input: &Tensor) -> Tensor;
}

impl<M: tch::nn::Module> Module for M {
    fn forward(&self, input: &Tensor) -> Tensor {
        tch::nn::Module::forward(self, input)
    }
}

/// The options of a layer, of which a layer with parameters is made.
///
/// ```
/// use fulgurite_nn::{self as nn, Build};
/// use fulgurite_torch::tch::Device;
///
/// let vars = nn::VarStore::new(Device::Cpu);
/// let conv = nn::conv2d(3, 16, 3).padding(1).bias(false).at(vars.root() / "conv")?;
/// assert_eq!(conv.weight.size(), [16, 3, 3, 3]);
/// assert!(vars.variables().contains_key("conv.weight"));
/// # Ok::<(), nn::NnError>(())
/// ```
pub trait Build {
    /// The layer.
    type Layer;

    /// Creates the layer: its parameters at `path`, drawn from libtorch's generator in PyTorch's order.
    ///
    /// # Errors
    ///
    /// Fails if options are out of their range or contradict each other, or if there is not enough memory.
    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<Self::Layer>;
}

/// What a layer is called in messages, and how PyTorch prints it.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    name: String,
    repr: String,
    /// Kept for summaries of the model.
    _layer_type: Option<LayerType>,
}

impl Label {
    pub(crate) fn new(path: &Path<'_>, repr: impl Into<String>) -> Label {
        let repr = repr.into();
        let layer_type = repr.split('(').next().map(|name| path.layer_type(name));
        Label { name: path.name(), repr, _layer_type: layer_type }
    }

    /// Of a layer without a place.
    pub(crate) fn unnamed(repr: impl Into<String>) -> Label {
        Label { name: String::new(), repr: repr.into(), _layer_type: None }
    }

    /// An error of its options.
    pub(crate) fn options(&self, message: impl Into<String>) -> NnError {
        NnError::Options { layer: self.layer(), message: message.into() }
    }

    /// An error of its input.
    pub(crate) fn input(&self, message: impl Into<String>) -> NnError {
        NnError::Forward { layer: self.layer(), message: message.into() }
    }

    /// Says which layer failed in which operation.
    pub(crate) fn forward<T>(&self, operation: &str, result: Result<T, impl Into<TorchError>>) -> Result<T> {
        result.map_err(|error| self.input(format!("{} (in {operation})", error.into())))
    }

    /// Checks that sizes are positive.
    pub(crate) fn check_positive(&self, sizes: &[(&str, i64)]) -> Result<()> {
        match sizes.iter().find(|(_, size)| *size < 1) {
            None => Ok(()),
            Some((name, size)) => Err(self.options(format!("{name} is {size}; it must be at least 1"))),
        }
    }

    fn layer(&self) -> String {
        match self.name.as_str() {
            "" => self.repr.clone(),
            name => format!("`{name}` ({})", self.repr),
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repr)
    }
}

/// The output of a layer, or a panic, as in `tch`.
#[expect(clippy::panic, reason = "a forward pass is an expression of tensors, whose operations panic in `tch`")]
#[track_caller]
pub(crate) fn output<T>(result: Result<T>) -> T {
    match result {
        Ok(output) => output,
        Err(error) => panic!("{error}"),
    }
}

/// Makes a layer without a mode, which has `label` and `try_forward`, a module.
macro_rules! module {
    ($($layer:ty),+) => { $(
        impl ::fulgurite_torch::tch::nn::Module for $layer {
            fn forward(&self, input: &::fulgurite_torch::tch::Tensor) -> ::fulgurite_torch::tch::Tensor {
                $crate::module::output(self.try_forward(input))
            }
        }

        $crate::module::display!($layer);
    )+ };
}

/// Makes a layer with `mode`, `label`, and `try_forward_t` a module.
macro_rules! module_with_mode {
    ($($layer:ty),+) => { $(
        impl $layer {
            /// [`forward`](crate::Module::forward), whose errors are returned.
            ///
            /// # Errors
            ///
            /// Fails if the input does not fit.
            pub fn try_forward(
                &self,
                input: &::fulgurite_torch::tch::Tensor,
            ) -> $crate::Result<::fulgurite_torch::tch::Tensor> {
                self.try_forward_t(input, self.mode.is_training())
            }

            /// Switches this layer to training, or to evaluation.
            pub fn train(&self, mode: bool) {
                self.mode.train(mode);
            }

            /// Whether it trains.
            pub fn is_training(&self) -> bool {
                self.mode.is_training()
            }
        }

        impl $crate::Module for $layer {
            fn forward(&self, input: &::fulgurite_torch::tch::Tensor) -> ::fulgurite_torch::tch::Tensor {
                $crate::module::output(self.try_forward(input))
            }
        }

        impl ::fulgurite_torch::tch::nn::ModuleT for $layer {
            fn forward_t(
                &self,
                input: &::fulgurite_torch::tch::Tensor,
                train: bool,
            ) -> ::fulgurite_torch::tch::Tensor {
                $crate::module::output(self.try_forward_t(input, train))
            }
        }

        $crate::module::display!($layer);
    )+ };
}

/// Prints a layer as PyTorch does.
macro_rules! display {
    ($($layer:ty),+) => { $(
        impl ::std::fmt::Display for $layer {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(&self.label, f)
            }
        }

        $crate::module::debug!($layer);
    )+ };
}

/// Prints a layer in the same way where it is part of something else.
macro_rules! debug {
    ($($layer:ty),+) => { $(
        impl ::std::fmt::Debug for $layer {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(self, f)
            }
        }
    )+ };
}

/// The methods that set options, of the struct or of a part of it.
macro_rules! setters {
    (in $part:tt; $($(#[$doc:meta])* $name:ident: $type:ty;)+) => { $(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: impl Into<$type>) -> Self {
            self.$part.$name = $name.into();
            self
        }
    )+ };
    ($($(#[$doc:meta])* $name:ident: $type:ty;)+) => { $(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: impl Into<$type>) -> Self {
            self.$name = $name.into();
            self
        }
    )+ };
}

pub(crate) use {debug, display, module, module_with_mode, setters};

/// How Python prints a truth value.
pub(crate) fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// How Python prints a tuple of integers, or of what is printed already.
pub(crate) fn python_tuple(values: &[impl ToString]) -> String {
    let inside: Vec<String> = values.iter().map(ToString::to_string).collect();
    match inside.as_slice() {
        [only] => format!("({only},)"),
        _ => format!("({})", inside.join(", ")),
    }
}

/// How Python prints a number.
pub(crate) fn python_float(value: f64) -> String {
    let text = format!("{value:?}").to_lowercase();
    match text.split_once('e').map(|(digits, exponent)| (digits, exponent.parse::<i32>())) {
        Some((digits, Ok(exponent))) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => text,
    }
}

/// How PyTorch prints a layer that consists of others.
pub(crate) fn tree(name: &str, parts: &[(impl AsRef<str>, String)]) -> String {
    let line = |name: &str, part: &str| format!("  ({name}): {}\n", part.replace('\n', "\n  "));
    let lines: Vec<String> = parts.iter().map(|(name, part)| line(name.as_ref(), part)).collect();
    let begin = if lines.is_empty() { "" } else { "\n" };
    format!("{name}({begin}{})", lines.concat())
}

/// How PyTorch prints a list of layers, in which those that look alike are printed once.
pub(crate) fn module_list(layers: &[impl fmt::Display]) -> String {
    let printed: Vec<String> = layers.iter().map(ToString::to_string).collect();
    let mut parts: Vec<(String, String)> = Vec::new();
    let mut begin = 0;
    for alike in printed.chunk_by(|a, b| a == b) {
        let (count, first) = (alike.len(), &alike[0]);
        parts.push(match count {
            1 => (begin.to_string(), first.clone()),
            _ => (format!("{begin}-{}", begin + count - 1), format!("{count} x {first}")),
        });
        begin += count;
    }
    tree("ModuleList", &parts)
}
