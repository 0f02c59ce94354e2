//! Dropout: [`Dropout`], of single values, of channels, and for SELU.

use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Mode, Path};

use crate::error::Result;
use crate::module::{Build, Label, module_with_mode, python_float};

/// Sets values to 0 at random in training, and scales the others up (Hinton et al. 2012): PyTorch's `nn.Dropout` and its
/// kinds.
///
/// ```
/// use fulgurite_nn::{self as nn, Build, Module};
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let vars = nn::VarStore::new(Device::Cpu);
/// let dropout = nn::dropout(0.5).at(&vars)?;
/// let x = Tensor::ones([100], (Kind::Float, Device::Cpu));
/// assert_eq!(dropout.forward(&x).max().double_value(&[]), 2.0);
/// vars.eval();
/// assert_eq!(dropout.forward(&x), x);
/// # Ok::<(), nn::NnError>(())
/// ```
pub struct Dropout {
    options: DropoutOptions,
    mode: Mode,
    label: Label,
}

/// The options of a [`Dropout`] layer.
#[derive(Debug, Clone, Copy)]
pub struct DropoutOptions {
    p: f64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Values,
    /// With the number of dimensions of space.
    Channels(usize),
    Alpha,
    FeatureAlpha,
}

impl Kind {
    fn name(self) -> String {
        match self {
            Kind::Values => "Dropout".into(),
            Kind::Channels(space) => format!("Dropout{space}d"),
            Kind::Alpha => "AlphaDropout".into(),
            Kind::FeatureAlpha => "FeatureAlphaDropout".into(),
        }
    }
}

/// A [`Dropout`] layer that sets each value to 0 with probability `p`: PyTorch's `nn.Dropout`.
pub fn dropout(p: f64) -> DropoutOptions {
    DropoutOptions { p, kind: Kind::Values }
}

/// A [`Dropout`] layer for whole channels of `[batch, channels, length]`: PyTorch's `nn.Dropout1d`.
pub fn dropout1d(p: f64) -> DropoutOptions {
    DropoutOptions { p, kind: Kind::Channels(1) }
}

/// A [`Dropout`] layer for whole channels of `[batch, channels, height, width]`: PyTorch's `nn.Dropout2d`.
pub fn dropout2d(p: f64) -> DropoutOptions {
    DropoutOptions { p, kind: Kind::Channels(2) }
}

/// A [`Dropout`] layer for whole channels of `[batch, channels, depth, height, width]`: PyTorch's `nn.Dropout3d`.
pub fn dropout3d(p: f64) -> DropoutOptions {
    DropoutOptions { p, kind: Kind::Channels(3) }
}

/// A [`Dropout`] layer that keeps mean and variance, for networks of SELU (Klambauer et al. 2017): PyTorch's `nn.AlphaDropout`.
pub fn alpha_dropout(p: f64) -> DropoutOptions {
    DropoutOptions { p, kind: Kind::Alpha }
}

/// [`alpha_dropout`] of whole channels: PyTorch's `nn.FeatureAlphaDropout`.
pub fn feature_alpha_dropout(p: f64) -> DropoutOptions {
    DropoutOptions { p, kind: Kind::FeatureAlpha }
}

impl Build for DropoutOptions {
    type Layer = Dropout;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<Dropout> {
        let (path, DropoutOptions { p, kind }) = (path.into(), *self);
        let label = Label::new(&path, format!("{}(p={}, inplace=False)", kind.name(), python_float(p)));
        if !(0.0..=1.0).contains(&p) {
            return Err(label.options(format!("the probability of dropout is {p}; it must be from 0 to 1")));
        }
        Ok(Dropout { options: *self, mode: path.mode(), label })
    }
}

impl Dropout {
    /// [`forward`](crate::Module::forward) in the given mode.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit.
    pub fn try_forward_t(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        let p = self.options.p;
        match self.options.kind {
            Kind::Values => self.label.forward("dropout", input.f_dropout(p, train)),
            Kind::Channels(space) => self.channels(input, space, train),
            Kind::Alpha => self.label.forward("alpha_dropout", input.f_alpha_dropout(p, train)),
            Kind::FeatureAlpha => self.label.forward("feature_alpha_dropout", input.f_feature_alpha_dropout(p, train)),
        }
    }

    /// A sample without batch is a batch of one; in two dimensions of space PyTorch takes it for `[batch, channels, length]`.
    fn channels(&self, input: &Tensor, space: usize, train: bool) -> Result<Tensor> {
        let lacks_one = input.dim() == space + 1;
        let is_sample = space != 2 && lacks_one;
        if !lacks_one && input.dim() != space + 2 {
            let message = format!("expected an input of {} dimensions, not {:?}", space + 2, input.size());
            return Err(self.label.input(message));
        }
        let batch = if is_sample { input.unsqueeze(0) } else { input.shallow_clone() };
        let dropped = self.label.forward("feature_dropout", batch.f_feature_dropout(self.options.p, train))?;
        Ok(if is_sample { dropped.squeeze_dim(0) } else { dropped })
    }
}

module_with_mode!(Dropout);
