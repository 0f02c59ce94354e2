//! Initial values of parameters: PyTorch's `nn.init`, which draws the same numbers from the same seed.
//!
//! The functions change a tensor in place, without a gradient. The tensor is a handle of the layer's own, so a shared
//! reference is enough:
//!
//! ```
//! use fulgurite_nn::init::{self, Fan, Nonlinearity};
//! use fulgurite_nn::{self as nn, Build};
//! use fulgurite_torch::tch::Device;
//!
//! let vars = nn::VarStore::new(Device::Cpu);
//! let conv = nn::conv2d(3, 16, 3).at(vars.root())?;
//! init::kaiming_normal_(&conv.weight, Fan::Out, Nonlinearity::Relu)?;
//! # Ok::<(), nn::NnError>(())
//! ```

use std::f64::consts::SQRT_2;

use fulgurite_torch::tch::{self, Kind, Tensor};

use crate::error::{NnError, Result};

/// Which end of a layer keeps its variance: the argument `mode` of PyTorch's Kaiming initialization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fan {
    /// The activations, in the forward pass: `fan_in`.
    #[default]
    In,
    /// The gradients, in the backward pass: `fan_out`.
    Out,
}

/// The function that follows a layer, for [`gain`](Nonlinearity::gain).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Nonlinearity {
    /// None.
    Linear,
    /// Sigmoid.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// ReLU.
    Relu,
    /// Leaky ReLU with its slope below zero; PyTorch's default is 0.01, and its layers are initialized with √5.
    LeakyRelu(f64),
    /// SELU.
    Selu,
}

impl Nonlinearity {
    /// The recommended gain: PyTorch's `calculate_gain`.
    pub fn gain(self) -> f64 {
        match self {
            Nonlinearity::Linear | Nonlinearity::Sigmoid => 1.0,
            Nonlinearity::Tanh => 5.0 / 3.0,
            Nonlinearity::Relu => 2f64.sqrt(),
            Nonlinearity::LeakyRelu(slope) => (2.0 / (1.0 + slope * slope)).sqrt(),
            Nonlinearity::Selu => 0.75,
        }
    }
}

/// The number of inputs and outputs of one unit: PyTorch's `_calculate_fan_in_and_fan_out`.
///
/// # Errors
///
/// Fails if the tensor has less than two dimensions.
pub fn fan_in_and_fan_out(tensor: &Tensor) -> Result<(i64, i64)> {
    let size = tensor.size();
    let [outputs, inputs, field @ ..] = size.as_slice() else {
        return Err(unfit("fan in and fan out", "two or more dimensions", tensor));
    };
    let field: i64 = field.iter().product();
    Ok((inputs * field, outputs * field))
}

/// Draws from the uniform distribution over `low..high`.
///
/// # Errors
///
/// Fails if the bounds are in the wrong order.
pub fn uniform_(tensor: &Tensor, low: f64, high: f64) -> Result<()> {
    in_place(tensor, |tensor| tensor.f_uniform_(low, high))
}

/// Draws from the normal distribution.
///
/// # Errors
///
/// Fails if `std` is negative.
pub fn normal_(tensor: &Tensor, mean: f64, std: f64) -> Result<()> {
    in_place(tensor, |tensor| tensor.f_normal_(mean, std))
}

/// Draws from the normal distribution, without values outside `low..=high`.
///
/// # Errors
///
/// Fails if the bounds are in the wrong order, or `std` is not positive.
pub fn trunc_normal_(tensor: &Tensor, mean: f64, std: f64, low: f64, high: f64) -> Result<()> {
    if std.is_nan() || std <= 0.0 || low > high {
        let message = format!("cannot draw from a normal distribution of std {std} within {low}..={high}");
        return Err(NnError::Options { layer: "trunc_normal_".into(), message });
    }
    let quantile = |x: f64| 2.0 * normal_cdf((x - mean) / std) - 1.0;
    in_place(tensor, |tensor| tensor.f_uniform_(quantile(low), quantile(high)))?;
    in_place(tensor, Tensor::f_erfinv_)?;
    in_place(tensor, |tensor| tensor.f_mul_scalar_(std * SQRT_2))?;
    in_place(tensor, |tensor| tensor.f_add_scalar_(mean))?;
    in_place(tensor, |tensor| tensor.f_clamp_(low, high))
}

/// Sets every value.
///
/// # Errors
///
/// Fails if the tensor cannot be written to.
pub fn constant_(tensor: &Tensor, value: f64) -> Result<()> {
    in_place(tensor, |tensor| tensor.f_fill_(value))
}

/// Sets every value to 1.
///
/// # Errors
///
/// Fails if the tensor cannot be written to.
pub fn ones_(tensor: &Tensor) -> Result<()> {
    constant_(tensor, 1.0)
}

/// Sets every value to 0.
///
/// # Errors
///
/// Fails if the tensor cannot be written to.
pub fn zeros_(tensor: &Tensor) -> Result<()> {
    constant_(tensor, 0.0)
}

/// Makes a matrix the identity: a linear layer passes on as many inputs as it can.
///
/// # Errors
///
/// Fails if the tensor has not two dimensions.
pub fn eye_(tensor: &Tensor) -> Result<()> {
    let [rows, columns] = tensor.size()[..] else { return Err(unfit("eye_", "two dimensions", tensor)) };
    let eye = Tensor::f_eye_m(rows, columns, (tensor.kind(), tensor.device()))?;
    copy_(tensor, &eye)
}

/// Makes the weight of a convolution pass on as many channels as it can, in each of `groups` groups.
///
/// # Errors
///
/// Fails if the tensor has not three to five dimensions, or its channels are no multiple of `groups`.
pub fn dirac_(tensor: &Tensor, groups: i64) -> Result<()> {
    let size = tensor.size();
    let [out, inputs, field @ ..] = size.as_slice() else { return Err(unfit("dirac_", "3 to 5 dimensions", tensor)) };
    if !(1..=3).contains(&field.len()) {
        return Err(unfit("dirac_", "3 to 5 dimensions", tensor));
    }
    if groups < 1 || out % groups != 0 {
        return Err(unfit("dirac_", &format!("a first dimension that {groups} groups divide"), tensor));
    }
    let of_a_group = out / groups;
    zeros_(tensor)?;
    for group in 0..groups {
        for channel in 0..of_a_group.min(*inputs) {
            let filter = tensor.f_detach()?.f_select(0, group * of_a_group + channel)?.f_select(0, channel)?;
            let center = field.iter().try_fold(filter, |filter, size| filter.f_select(0, size / 2))?;
            ones_(&center)?;
        }
    }
    Ok(())
}

/// Glorot's uniform initialization.
///
/// # Errors
///
/// Fails if the tensor has less than two dimensions.
pub fn xavier_uniform_(tensor: &Tensor, gain: f64) -> Result<()> {
    let bound = 3f64.sqrt() * xavier_std(tensor, gain)?;
    uniform_(tensor, -bound, bound)
}

/// Glorot's normal initialization.
///
/// # Errors
///
/// Fails if the tensor has less than two dimensions.
pub fn xavier_normal_(tensor: &Tensor, gain: f64) -> Result<()> {
    normal_(tensor, 0.0, xavier_std(tensor, gain)?)
}

fn xavier_std(tensor: &Tensor, gain: f64) -> Result<f64> {
    let (fan_in, fan_out) = fan_in_and_fan_out(tensor)?;
    Ok(gain * (2.0 / (fan_in + fan_out) as f64).sqrt())
}

/// He's uniform initialization.
///
/// # Errors
///
/// Fails if the tensor has less than two dimensions.
pub fn kaiming_uniform_(tensor: &Tensor, fan: Fan, nonlinearity: Nonlinearity) -> Result<()> {
    if tensor.numel() == 0 {
        return Ok(());
    }
    let bound = 3f64.sqrt() * kaiming_std(tensor, fan, nonlinearity)?;
    uniform_(tensor, -bound, bound)
}

/// He's normal initialization.
///
/// # Errors
///
/// Fails if the tensor has less than two dimensions.
pub fn kaiming_normal_(tensor: &Tensor, fan: Fan, nonlinearity: Nonlinearity) -> Result<()> {
    if tensor.numel() == 0 {
        return Ok(());
    }
    normal_(tensor, 0.0, kaiming_std(tensor, fan, nonlinearity)?)
}

fn kaiming_std(tensor: &Tensor, fan: Fan, nonlinearity: Nonlinearity) -> Result<f64> {
    let (fan_in, fan_out) = fan_in_and_fan_out(tensor)?;
    let fan = match fan {
        Fan::In => fan_in,
        Fan::Out => fan_out,
    };
    Ok(nonlinearity.gain() / (fan as f64).sqrt())
}

/// A (semi) orthogonal matrix, by Saxe et al. 2013; further dimensions are taken as columns.
///
/// # Errors
///
/// Fails if the tensor has less than two dimensions.
pub fn orthogonal_(tensor: &Tensor, gain: f64) -> Result<()> {
    let size = tensor.size();
    let [rows, rest @ ..] = size.as_slice() else {
        return Err(unfit("orthogonal_", "two or more dimensions", tensor));
    };
    if rest.is_empty() {
        return Err(unfit("orthogonal_", "two or more dimensions", tensor));
    }
    let columns: i64 = rest.iter().product();
    if rows * columns == 0 {
        return Ok(());
    }
    let mut drawn = Tensor::f_empty([*rows, columns], (tensor.kind(), tensor.device()))?;
    drawn = drawn.f_normal_(0.0, 1.0)?;
    if *rows < columns {
        drawn = drawn.f_t_()?;
    }
    let (q, r) = Tensor::f_linalg_qr(&drawn, "reduced")?;
    let mut q = q.f_mul(&r.f_diag(0)?.f_sign()?)?;
    if *rows < columns {
        q = q.f_t_()?;
    }
    copy_(tensor, &q.f_mul_scalar(gain)?.f_reshape(&size)?)
}

/// Normal values, of which the share `sparsity` of each column is 0.
///
/// # Errors
///
/// Fails if the tensor has not two dimensions.
pub fn sparse_(tensor: &Tensor, sparsity: f64, std: f64) -> Result<()> {
    let [rows, columns] = tensor.size()[..] else { return Err(unfit("sparse_", "two dimensions", tensor)) };
    let zeros = ((sparsity * rows as f64).ceil() as i64).clamp(0, rows);
    normal_(tensor, 0.0, std)?;
    for column in 0..columns {
        let drawn = Tensor::f_randperm(rows, (Kind::Int64, tensor.device()))?.f_narrow(0, 0, zeros)?;
        in_place(&tensor.f_detach()?.f_select(1, column)?, |column| column.f_index_fill_(0, &drawn, 0.0))?;
    }
    Ok(())
}

pub(crate) fn copy_(tensor: &Tensor, values: &Tensor) -> Result<()> {
    in_place(tensor, |tensor| {
        tensor.f_copy_(values)?;
        Ok(tensor.shallow_clone())
    })
}

fn in_place(tensor: &Tensor, change: impl FnOnce(&mut Tensor) -> Result<Tensor, tch::TchError>) -> Result<()> {
    let mut handle = tensor.shallow_clone();
    let changed = tch::no_grad(|| change(&mut handle));
    Ok(changed.map(drop)?)
}

fn unfit(what: &str, needed: &str, tensor: &Tensor) -> NnError {
    NnError::Options { layer: what.into(), message: format!("a tensor of {needed} is needed, not {:?}", tensor.size()) }
}

/// The distribution function of the standard normal distribution, as `(1 + erf(x / √2)) / 2`.
fn normal_cdf(x: f64) -> f64 {
    let erf = Tensor::from(x / SQRT_2).erf().double_value(&[]);
    (1.0 + erf) / 2.0
}
