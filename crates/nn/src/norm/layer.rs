//! [`LayerNorm`] and [`RmsNorm`].

use fulgurite_torch::Path;
use fulgurite_torch::tch::Tensor;

use crate::error::Result;
use crate::module::{Build, Label, module, python_bool, python_float, python_tuple, setters};
use crate::parameter::constant;

/// Layer normalization (Ba et al. 2016) over the last dimensions: PyTorch's `nn.LayerNorm`.
pub struct LayerNorm {
    /// Of the normalized shape.
    pub weight: Option<Tensor>,
    /// Of the normalized shape.
    pub bias: Option<Tensor>,
    options: LayerNormOptions,
    label: Label,
}

/// The options of a [`LayerNorm`].
#[derive(Debug, Clone)]
pub struct LayerNormOptions {
    normalized_shape: Vec<i64>,
    eps: f64,
    elementwise_affine: bool,
    bias: bool,
}

/// The last dimensions of a tensor: one of them, or several.
#[derive(Debug, Clone)]
pub struct NormalizedShape(Vec<i64>);

impl From<i64> for NormalizedShape {
    fn from(size: i64) -> NormalizedShape {
        NormalizedShape(vec![size])
    }
}

impl<const N: usize> From<[i64; N]> for NormalizedShape {
    fn from(size: [i64; N]) -> NormalizedShape {
        NormalizedShape(size.into())
    }
}

impl From<&[i64]> for NormalizedShape {
    fn from(size: &[i64]) -> NormalizedShape {
        NormalizedShape(size.into())
    }
}

impl From<Vec<i64>> for NormalizedShape {
    fn from(size: Vec<i64>) -> NormalizedShape {
        NormalizedShape(size)
    }
}

/// A [`LayerNorm`] layer over the last dimensions, which have the given sizes.
pub fn layer_norm(normalized_shape: impl Into<NormalizedShape>) -> LayerNormOptions {
    let NormalizedShape(normalized_shape) = normalized_shape.into();
    LayerNormOptions { normalized_shape, eps: 1e-5, elementwise_affine: true, bias: true }
}

impl LayerNormOptions {
    setters! {
        /// What is added to the variance; the default is 1e-5.
        eps: f64;
        /// Whether there are a weight and a bias; the default is `true`.
        elementwise_affine: bool;
        /// Whether there is a bias beside the weight; the default is `true`.
        bias: bool;
    }
}

fn check_shape(label: &Label, shape: &[i64]) -> Result<()> {
    if shape.is_empty() {
        return Err(label.options("normalized_shape is empty; it names the sizes of the last dimensions"));
    }
    shape.iter().try_for_each(|&size| label.check_positive(&[("normalized_shape", size)]))
}

impl Build for LayerNormOptions {
    type Layer = LayerNorm;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<LayerNorm> {
        let (path, shape) = (path.into(), &self.normalized_shape);
        let (size, affine) = (python_tuple(shape), python_bool(self.elementwise_affine));
        let label = Label::new(
            &path,
            format!("LayerNorm({size}, eps={}, elementwise_affine={affine})", python_float(self.eps)),
        );
        check_shape(&label, shape)?;
        let has_bias = self.elementwise_affine && self.bias;
        let weight = self.elementwise_affine.then(|| constant(&path, "weight", shape, 1.0)).transpose()?;
        let bias = has_bias.then(|| constant(&path, "bias", shape, 0.0)).transpose()?;
        Ok(LayerNorm { weight, bias, options: self.clone(), label })
    }
}

impl LayerNorm {
    /// [`forward`](crate::Module::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit.
    pub fn try_forward(&self, input: &Tensor) -> Result<Tensor> {
        let shape = self.options.normalized_shape.as_slice();
        let normalized = input.f_layer_norm(shape, self.weight.as_ref(), self.bias.as_ref(), self.options.eps, true);
        self.label.forward("layer_norm", normalized)
    }
}

module!(LayerNorm);

/// Root mean square normalization (Zhang and Sennrich 2019) over the last dimensions: PyTorch's `nn.RMSNorm`.
pub struct RmsNorm {
    /// Of the normalized shape.
    pub weight: Option<Tensor>,
    options: RmsNormOptions,
    label: Label,
}

/// The options of an [`RmsNorm`].
#[derive(Debug, Clone)]
pub struct RmsNormOptions {
    normalized_shape: Vec<i64>,
    eps: Option<f64>,
    elementwise_affine: bool,
}

/// An [`RmsNorm`] layer over the last dimensions, which have the given sizes.
pub fn rms_norm(normalized_shape: impl Into<NormalizedShape>) -> RmsNormOptions {
    let NormalizedShape(normalized_shape) = normalized_shape.into();
    RmsNormOptions { normalized_shape, eps: None, elementwise_affine: true }
}

impl RmsNormOptions {
    setters! {
        /// What is added to the mean square; by default the distance from 1 to the next number of the kind.
        eps: Option<f64>;
        /// Whether there is a weight; the default is `true`.
        elementwise_affine: bool;
    }
}

impl Build for RmsNormOptions {
    type Layer = RmsNorm;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<RmsNorm> {
        let (path, shape) = (path.into(), &self.normalized_shape);
        let (size, affine) = (python_tuple(shape), python_bool(self.elementwise_affine));
        let eps = self.eps.map_or_else(|| "None".to_owned(), python_float);
        let label = Label::new(&path, format!("RMSNorm({size}, eps={eps}, elementwise_affine={affine})"));
        check_shape(&label, shape)?;
        let weight = self.elementwise_affine.then(|| constant(&path, "weight", shape, 1.0)).transpose()?;
        Ok(RmsNorm { weight, options: self.clone(), label })
    }
}

impl RmsNorm {
    /// [`forward`](crate::Module::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit.
    pub fn try_forward(&self, input: &Tensor) -> Result<Tensor> {
        let shape = self.options.normalized_shape.as_slice();
        self.label.forward("rms_norm", input.f_rms_norm(shape, self.weight.as_ref(), self.options.eps))
    }
}

module!(RmsNorm);
