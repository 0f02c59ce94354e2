//! [`GroupNorm`].

use fulgurite_torch::Path;
use fulgurite_torch::tch::Tensor;

use super::check_values;
use crate::error::Result;
use crate::module::{Build, Label, module, python_bool, python_float, setters};
use crate::parameter::constant;

/// Group normalization (Wu and He 2018) over inputs `[batch, num_channels, …]`: PyTorch's `nn.GroupNorm`.
pub struct GroupNorm {
    /// The scale of each channel.
    pub weight: Option<Tensor>,
    /// The offset of each channel.
    pub bias: Option<Tensor>,
    options: GroupNormOptions,
    label: Label,
}

/// The options of a [`GroupNorm`] layer.
#[derive(Debug, Clone, Copy)]
pub struct GroupNormOptions {
    num_groups: i64,
    num_channels: i64,
    eps: f64,
    affine: bool,
}

/// A [`GroupNorm`] layer.
pub fn group_norm(num_groups: i64, num_channels: i64) -> GroupNormOptions {
    GroupNormOptions { num_groups, num_channels, eps: 1e-5, affine: true }
}

impl GroupNormOptions {
    setters! {
        /// What is added to the variance; the default is 1e-5.
        eps: f64;
        /// Whether there are a weight and a bias; the default is `true`.
        affine: bool;
    }
}

impl Build for GroupNormOptions {
    type Layer = GroupNorm;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<GroupNorm> {
        let (path, GroupNormOptions { num_groups, num_channels, eps, affine }) = (path.into(), *self);
        let repr = format!(
            "GroupNorm({num_groups}, {num_channels}, eps={}, affine={})",
            python_float(eps),
            python_bool(affine)
        );
        let label = Label::new(&path, repr);
        label.check_positive(&[("num_groups", num_groups), ("num_channels", num_channels)])?;
        if num_channels % num_groups != 0 {
            let message = format!("num_channels ({num_channels}) must be divisible by num_groups ({num_groups})");
            return Err(label.options(message));
        }
        let parameter = |name, value| affine.then(|| constant(&path, name, &[num_channels], value)).transpose();
        Ok(GroupNorm { weight: parameter("weight", 1.0)?, bias: parameter("bias", 0.0)?, options: *self, label })
    }
}

impl GroupNorm {
    /// [`forward`](crate::Module::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit.
    pub fn try_forward(&self, input: &Tensor) -> Result<Tensor> {
        let GroupNormOptions { num_groups, eps, .. } = self.options;
        // As PyTorch counts them.
        if let [batch, channels, space @ ..] = input.size().as_slice() {
            let values = batch * channels / num_groups * space.iter().product::<i64>();
            check_values(&self.label, values, input)?;
        }
        let normalized = input.f_group_norm(num_groups, self.weight.as_ref(), self.bias.as_ref(), eps, true);
        self.label.forward("group_norm", normalized)
    }
}

module!(GroupNorm);
