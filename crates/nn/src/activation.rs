//! Activations as layers, for [`sequential`](crate::sequential()) and in place of functions.

use fulgurite_torch::tch::{TchError, Tensor};
use fulgurite_torch::{Argument, Mode, Path, StaticOperator};

use crate::error::Result;
use crate::init;
use crate::module::{Build, Label, module, module_with_mode, python_float};
use crate::parameter::parameter;

/// A function of each value, or of the values along a dimension: PyTorch's modules `nn.ReLU`, `nn.GELU` and so on.
///
/// It has neither parameters nor a mode, so it can be used at once, and is the same wherever it is built.
///
/// ```
/// use fulgurite_nn::{self as nn, Module};
/// use fulgurite_torch::tch::Tensor;
///
/// let x = Tensor::from_slice(&[-1.0, 2.0]);
/// assert_eq!(nn::leaky_relu(0.5).forward(&x), Tensor::from_slice(&[-0.5, 2.0]));
/// ```
#[derive(Clone)]
pub struct Activation {
    function: Function,
    label: Label,
}

#[derive(Clone)]
enum Function {
    /// By `tch`, with its default arguments.
    Plain(&'static str, fn(&Tensor) -> Result<Tensor, TchError>),
    /// Of a dimension.
    Along(&'static str, fn(&Tensor, i64) -> Result<Tensor, TchError>, i64),
    /// By an operator of libtorch, with numbers.
    Operator(&'static str, &'static StaticOperator, Vec<f64>),
}

impl Activation {
    fn plain(repr: &str, name: &'static str, function: fn(&Tensor) -> Result<Tensor, TchError>) -> Activation {
        Activation { function: Function::Plain(name, function), label: Label::unnamed(repr) }
    }

    fn along(
        repr: &str,
        name: &'static str,
        function: fn(&Tensor, i64) -> Result<Tensor, TchError>,
        dim: i64,
    ) -> Activation {
        let label = Label::unnamed(format!("{repr}(dim={dim})"));
        Activation { function: Function::Along(name, function, dim), label }
    }

    fn operator(repr: String, name: &'static str, operator: &'static StaticOperator, numbers: &[f64]) -> Activation {
        Activation { function: Function::Operator(name, operator, numbers.into()), label: Label::unnamed(repr) }
    }

    /// [`forward`](crate::Module::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit.
    pub fn try_forward(&self, input: &Tensor) -> Result<Tensor> {
        match &self.function {
            Function::Plain(name, function) => self.label.forward(name, function(input)),
            Function::Along(name, function, dim) => self.label.forward(name, function(input, *dim)),
            Function::Operator(name, operator, numbers) => {
                let input = Argument::Tensor(input);
                let output = match numbers[..] {
                    [a] => operator.call(&[input, Argument::Double(a)]),
                    [a, b] => operator.call(&[input, Argument::Double(a), Argument::Double(b)]),
                    _ => operator.call(&[input]),
                };
                self.label.forward(name, output)
            }
        }
    }
}

module!(Activation);

impl Build for Activation {
    type Layer = Activation;

    fn at<'a>(&self, _: impl Into<Path<'a>>) -> Result<Activation> {
        Ok(self.clone())
    }
}

/// An operator that is looked up when it is first used.
macro_rules! operator {
    ($name:literal) => {{
        static OPERATOR: StaticOperator = StaticOperator::new($name, c"");
        &OPERATOR
    }};
}

macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident, $repr:literal, $method:expr;)+) => { $(
        $(#[$doc])*
        pub fn $name() -> Activation {
            Activation::plain($repr, stringify!($name), $method)
        }
    )+ };
}

plain! {
    /// `max(0, x)`: PyTorch's `nn.ReLU`.
    relu, "ReLU()", Tensor::f_relu;
    /// `min(max(0, x), 6)`: PyTorch's `nn.ReLU6`.
    relu6, "ReLU6()", Tensor::f_relu6;
    /// The logistic function: PyTorch's `nn.Sigmoid`.
    sigmoid, "Sigmoid()", Tensor::f_sigmoid;
    /// Its logarithm: PyTorch's `nn.LogSigmoid`.
    log_sigmoid, "LogSigmoid()", Tensor::f_log_sigmoid;
    /// The hyperbolic tangent: PyTorch's `nn.Tanh`.
    tanh, "Tanh()", Tensor::f_tanh;
    /// `x − tanh(x)`: PyTorch's `nn.Tanhshrink`.
    tanhshrink, "Tanhshrink()", |x| x.f_sub(&x.f_tanh()?);
    /// `x / (1 + |x|)`: PyTorch's `nn.Softsign`.
    softsign, "Softsign()", |x| x.f_div(&x.f_abs()?.f_add_scalar(1.0)?);
    /// `x Φ(x)` (Hendrycks and Gimpel 2016): PyTorch's `nn.GELU`.
    gelu, "GELU(approximate='none')", |x| x.f_gelu("none");
    /// [`gelu`] by its approximation with `tanh`: PyTorch's `nn.GELU(approximate='tanh')`.
    gelu_tanh, "GELU(approximate='tanh')", |x| x.f_gelu("tanh");
    /// `x σ(x)`, also called swish: PyTorch's `nn.SiLU`.
    silu, "SiLU()", Tensor::f_silu;
    /// `x tanh(softplus(x))`: PyTorch's `nn.Mish`.
    mish, "Mish()", Tensor::f_mish;
    /// Self-normalizing (Klambauer et al. 2017): PyTorch's `nn.SELU`.
    selu, "SELU()", Tensor::f_selu;
    /// A sigmoid of straight lines: PyTorch's `nn.Hardsigmoid`.
    hardsigmoid, "Hardsigmoid()", Tensor::f_hardsigmoid;
    /// A swish of straight lines: PyTorch's `nn.Hardswish`.
    hardswish, "Hardswish()", Tensor::f_hardswish;
    /// Passes its input on: PyTorch's `nn.Identity`.
    identity, "Identity()", |x| Ok(x.shallow_clone());
    /// The softmax over the channels of `[batch, channels, height, width]`: PyTorch's `nn.Softmax2d`.
    softmax2d, "Softmax2d()", |x| x.f_softmax(-3, x.kind());
}

/// Activations of numbers, which PyTorch prints with them.
macro_rules! of_numbers {
    ($($(#[$doc:meta])* $name:ident($($number:ident),+), $repr:literal, $operator:literal;)+) => { $(
        $(#[$doc])*
        pub fn $name($($number: f64),+) -> Activation {
            let repr = format!($repr, $($number = python_float($number)),+);
            Activation::operator(repr, stringify!($name), operator!($operator), &[$($number),+])
        }
    )+ };
}

of_numbers! {
    /// `max(0, x) + negative_slope · min(0, x)`: PyTorch's `nn.LeakyReLU`, whose default slope is 0.01.
    leaky_relu(negative_slope), "LeakyReLU(negative_slope={negative_slope})", c"aten::leaky_relu";
    /// `alpha (exp(x) − 1)` below 0: PyTorch's `nn.ELU`, whose default `alpha` is 1.
    elu(alpha), "ELU(alpha={alpha})", c"aten::elu";
    /// `alpha (exp(x / alpha) − 1)` below 0: PyTorch's `nn.CELU`, whose default `alpha` is 1.
    celu(alpha), "CELU(alpha={alpha})", c"aten::celu";
    /// Values cut off below `min_val` and above `max_val`: PyTorch's `nn.Hardtanh`, whose defaults are −1 and 1.
    hardtanh(min_val, max_val), "Hardtanh(min_val={min_val}, max_val={max_val})", c"aten::hardtanh";
    /// 0 within `lambd` of 0: PyTorch's `nn.Hardshrink`, whose default is 0.5.
    hardshrink(lambd), "Hardshrink({lambd})", c"aten::hardshrink";
    /// Values moved towards 0 by `lambd`: PyTorch's `nn.Softshrink`, whose default is 0.5.
    softshrink(lambd), "Softshrink({lambd})", c"aten::softshrink";
    /// `log(1 + exp(beta x)) / beta`, linear above `threshold`: PyTorch's `nn.Softplus`, whose defaults are 1 and 20.
    softplus(beta, threshold), "Softplus(beta={beta}, threshold={threshold})", c"aten::softplus";
    /// `value` where the input is not above `threshold`: PyTorch's `nn.Threshold`.
    threshold(threshold, value), "Threshold(threshold={threshold}, value={value})", c"aten::threshold";
}

/// The first half along `dim` times the sigmoid of the second: PyTorch's `nn.GLU`, whose default is −1.
pub fn glu(dim: i64) -> Activation {
    Activation::along("GLU", "glu", Tensor::f_glu, dim)
}

/// Positive numbers of sum 1 along `dim`: PyTorch's `nn.Softmax`.
pub fn softmax(dim: i64) -> Activation {
    Activation::along("Softmax", "softmax", |x, dim| x.f_softmax(dim, x.kind()), dim)
}

/// [`softmax`] of the negated input: PyTorch's `nn.Softmin`.
pub fn softmin(dim: i64) -> Activation {
    Activation::along("Softmin", "softmin", |x, dim| x.f_neg()?.f_softmax(dim, x.kind()), dim)
}

/// The logarithm of [`softmax`]: PyTorch's `nn.LogSoftmax`.
pub fn log_softmax(dim: i64) -> Activation {
    Activation::along("LogSoftmax", "log_softmax", |x, dim| x.f_log_softmax(dim, x.kind()), dim)
}

/// A leaky ReLU whose slope is learned (He et al. 2015): PyTorch's `nn.PReLU`.
pub struct PRelu {
    /// The slopes: one, or one for each channel.
    pub weight: Tensor,
    label: Label,
}

/// The options of a [`PRelu`] layer.
#[derive(Debug, Clone, Copy)]
pub struct PReluOptions {
    num_parameters: i64,
    init: f64,
}

/// A [`PRelu`] layer with one slope for all channels.
pub fn prelu() -> PReluOptions {
    PReluOptions { num_parameters: 1, init: 0.25 }
}

impl PReluOptions {
    crate::module::setters! {
        /// How many slopes there are: 1, the default, or the number of channels.
        num_parameters: i64;
        /// Their initial value; the default is 0.25.
        init: f64;
    }
}

impl Build for PReluOptions {
    type Layer = PRelu;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<PRelu> {
        let (path, PReluOptions { num_parameters, init: value }) = (path.into(), *self);
        let label = Label::new(&path, format!("PReLU(num_parameters={num_parameters})"));
        label.check_positive(&[("num_parameters", num_parameters)])?;
        let weight = parameter(&path, "weight", &[num_parameters])?;
        init::constant_(&weight, value)?;
        Ok(PRelu { weight, label })
    }
}

impl PRelu {
    /// [`forward`](crate::Module::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the number of slopes is neither 1 nor that of the input's channels.
    pub fn try_forward(&self, input: &Tensor) -> Result<Tensor> {
        self.label.forward("prelu", input.f_prelu(&self.weight))
    }
}

module!(PRelu);

/// A leaky ReLU whose slope is drawn in training (Xu et al. 2015): PyTorch's `nn.RReLU`.
pub struct RRelu {
    options: RReluOptions,
    mode: Mode,
    label: Label,
}

/// The options of an [`RRelu`] layer.
#[derive(Debug, Clone, Copy)]
pub struct RReluOptions {
    lower: f64,
    upper: f64,
}

/// An [`RRelu`] layer with slopes from `lower` to `upper`; PyTorch's defaults are 1/8 and 1/3.
pub fn rrelu(lower: f64, upper: f64) -> RReluOptions {
    RReluOptions { lower, upper }
}

impl Build for RReluOptions {
    type Layer = RRelu;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<RRelu> {
        let (path, RReluOptions { lower, upper }) = (path.into(), *self);
        let label = Label::new(&path, format!("RReLU(lower={}, upper={})", python_float(lower), python_float(upper)));
        if lower > upper {
            return Err(label.options(format!("lower ({lower}) must not be above upper ({upper})")));
        }
        Ok(RRelu { options: *self, mode: path.mode(), label })
    }
}

impl RRelu {
    /// [`forward`](crate::Module::forward) in the given mode.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit.
    pub fn try_forward_t(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        let RReluOptions { lower, upper } = self.options;
        let arguments =
            [Argument::Tensor(input), Argument::Double(lower), Argument::Double(upper), Argument::Bool(train)];
        self.label.forward("rrelu", operator!(c"aten::rrelu").call(&arguments))
    }
}

module_with_mode!(RRelu);
