//! Linear layers: [`Linear`], [`Bilinear`].

use fulgurite_torch::Path;
use fulgurite_torch::tch::Tensor;

use crate::error::Result;
use crate::init::{self, Fan, Nonlinearity};
use crate::module::{Build, Label, display, module, output, python_bool, setters};
use crate::parameter::parameter;

/// `y = x Aᵀ + b`: PyTorch's `nn.Linear`, for inputs `[…, in_features]`.
///
/// ```
/// use fulgurite_nn::{self as nn, Build, Module};
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let vars = nn::VarStore::new(Device::Cpu);
/// let layer = nn::linear(20, 30).at(&vars)?;
/// assert_eq!(layer.forward(&Tensor::zeros([128, 20], (Kind::Float, Device::Cpu))).size(), [128, 30]);
/// assert_eq!(layer.to_string(), "Linear(in_features=20, out_features=30, bias=True)");
/// # Ok::<(), nn::NnError>(())
/// ```
pub struct Linear {
    /// `[out_features, in_features]`.
    pub weight: Tensor,
    /// `[out_features]`.
    pub bias: Option<Tensor>,
    label: Label,
}

/// The options of a [`Linear`] layer.
#[derive(Debug, Clone, Copy)]
pub struct LinearOptions {
    in_features: i64,
    out_features: i64,
    bias: bool,
}

/// A [`Linear`] layer.
pub fn linear(in_features: i64, out_features: i64) -> LinearOptions {
    LinearOptions { in_features, out_features, bias: true }
}

impl LinearOptions {
    setters! {
        /// Whether there is a bias; the default is `true`.
        bias: bool;
    }
}

impl Build for LinearOptions {
    type Layer = Linear;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<Linear> {
        let (path, LinearOptions { in_features, out_features, bias }) = (path.into(), *self);
        let bias_text = python_bool(bias);
        let repr = format!("Linear(in_features={in_features}, out_features={out_features}, bias={bias_text})");
        let label = Label::new(&path, repr);
        label.check_positive(&[("in_features", in_features), ("out_features", out_features)])?;
        let weight = parameter(&path, "weight", &[out_features, in_features])?;
        let bias = bias.then(|| parameter(&path, "bias", &[out_features])).transpose()?;
        draw(&weight, bias.as_ref())?;
        Ok(Linear { weight, bias, label })
    }
}

/// The initial values of linear layers and convolutions.
pub(crate) fn draw(weight: &Tensor, bias: Option<&Tensor>) -> Result<()> {
    init::kaiming_uniform_(weight, Fan::In, Nonlinearity::LeakyRelu(5f64.sqrt()))?;
    let Some(bias) = bias else { return Ok(()) };
    let (fan_in, _) = init::fan_in_and_fan_out(weight)?;
    let bound = 1.0 / (fan_in as f64).sqrt();
    init::uniform_(bias, -bound, bound)
}

impl Linear {
    /// [`forward`](crate::Module::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the last dimension of the input is not `in_features`.
    pub fn try_forward(&self, input: &Tensor) -> Result<Tensor> {
        self.label.forward("linear", input.f_linear(&self.weight, self.bias.as_ref()))
    }
}

module!(Linear);

/// `y = x₁ᵀ A x₂ + b`: PyTorch's `nn.Bilinear`, for inputs `[…, in1_features]` and `[…, in2_features]`.
pub struct Bilinear {
    /// `[out_features, in1_features, in2_features]`.
    pub weight: Tensor,
    /// `[out_features]`.
    pub bias: Option<Tensor>,
    label: Label,
}

/// The options of a [`Bilinear`] layer.
#[derive(Debug, Clone, Copy)]
pub struct BilinearOptions {
    in1_features: i64,
    in2_features: i64,
    out_features: i64,
    bias: bool,
}

/// A [`Bilinear`] layer.
pub fn bilinear(in1_features: i64, in2_features: i64, out_features: i64) -> BilinearOptions {
    BilinearOptions { in1_features, in2_features, out_features, bias: true }
}

impl BilinearOptions {
    setters! {
        /// Whether there is a bias; the default is `true`.
        bias: bool;
    }
}

impl Build for BilinearOptions {
    type Layer = Bilinear;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<Bilinear> {
        let (path, BilinearOptions { in1_features, in2_features, out_features, bias }) = (path.into(), *self);
        let label = Label::new(
            &path,
            format!(
                "Bilinear(in1_features={in1_features}, in2_features={in2_features}, out_features={out_features}, bias={})",
                python_bool(bias)
            ),
        );
        label.check_positive(&[
            ("in1_features", in1_features),
            ("in2_features", in2_features),
            ("out_features", out_features),
        ])?;
        let weight = parameter(&path, "weight", &[out_features, in1_features, in2_features])?;
        let bias = bias.then(|| parameter(&path, "bias", &[out_features])).transpose()?;
        let bound = 1.0 / (in1_features as f64).sqrt();
        init::uniform_(&weight, -bound, bound)?;
        bias.as_ref().map_or(Ok(()), |bias| init::uniform_(bias, -bound, bound))?;
        Ok(Bilinear { weight, bias, label })
    }
}

impl Bilinear {
    /// Applies the layer.
    ///
    /// # Panics
    ///
    /// Panics if the inputs do not fit.
    pub fn forward(&self, input1: &Tensor, input2: &Tensor) -> Tensor {
        output(self.try_forward(input1, input2))
    }

    /// [`forward`](Bilinear::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the inputs do not fit.
    pub fn try_forward(&self, input1: &Tensor, input2: &Tensor) -> Result<Tensor> {
        self.label.forward("bilinear", Tensor::f_bilinear(input1, input2, &self.weight, self.bias.as_ref()))
    }
}

display!(Bilinear);
