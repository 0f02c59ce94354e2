//! [`InstanceNorm`].

use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Mode, Path};

use super::check_input;
use crate::error::Result;
use crate::module::{Build, Label, module_with_mode, python_bool, python_float, setters};
use crate::parameter::{buffer, constant, counter};

/// Instance normalization (Ulyanov et al. 2016): PyTorch's `nn.InstanceNorm1d` to `nn.InstanceNorm3d`.
///
/// Each channel of each sample is normalized by itself. By default there are neither parameters nor running statistics.
#[derive(Debug)]
pub struct InstanceNorm {
    /// The scale of each channel.
    pub weight: Option<Tensor>,
    /// The offset of each channel.
    pub bias: Option<Tensor>,
    /// The running mean of each channel.
    pub running_mean: Option<Tensor>,
    /// The running variance of each channel.
    pub running_var: Option<Tensor>,
    /// A buffer that PyTorch has too, and that stays 0.
    pub num_batches_tracked: Option<Tensor>,
    options: InstanceNormOptions,
    mode: Mode,
    label: Label,
}

/// The options of an [`InstanceNorm`] layer.
#[derive(Debug, Clone, Copy)]
pub struct InstanceNormOptions {
    space: usize,
    num_features: i64,
    eps: f64,
    momentum: f64,
    affine: bool,
    track_running_stats: bool,
}

fn instance_norm(space: usize, num_features: i64) -> InstanceNormOptions {
    InstanceNormOptions { space, num_features, eps: 1e-5, momentum: 0.1, affine: false, track_running_stats: false }
}

/// An [`InstanceNorm`] layer over inputs `[batch, num_features, length]`, or without batch.
pub fn instance_norm1d(num_features: i64) -> InstanceNormOptions {
    instance_norm(1, num_features)
}

/// An [`InstanceNorm`] layer over inputs `[batch, num_features, height, width]`, or without batch.
pub fn instance_norm2d(num_features: i64) -> InstanceNormOptions {
    instance_norm(2, num_features)
}

/// An [`InstanceNorm`] layer over inputs `[batch, num_features, depth, height, width]`, or without batch.
pub fn instance_norm3d(num_features: i64) -> InstanceNormOptions {
    instance_norm(3, num_features)
}

impl InstanceNormOptions {
    setters! {
        /// What is added to the variance; the default is 1e-5.
        eps: f64;
        /// How much of a batch's statistics goes into the running ones; the default is 0.1.
        momentum: f64;
        /// Whether there are a weight and a bias; the default is `false`.
        affine: bool;
        /// Whether running statistics are kept, and used in evaluation; the default is `false`.
        track_running_stats: bool;
    }
}

impl Build for InstanceNormOptions {
    type Layer = InstanceNorm;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<InstanceNorm> {
        let path = path.into();
        let InstanceNormOptions { space, num_features, eps, momentum, affine, track_running_stats } = *self;
        let label = Label::new(
            &path,
            format!(
                "InstanceNorm{space}d({num_features}, eps={}, momentum={}, affine={}, track_running_stats={})",
                python_float(eps),
                python_float(momentum),
                python_bool(affine),
                python_bool(track_running_stats)
            ),
        );
        label.check_positive(&[("num_features", num_features)])?;
        let size = [num_features];
        let parameter = |name, value| affine.then(|| constant(&path, name, &size, value)).transpose();
        let statistic = |name, value| track_running_stats.then(|| buffer(&path, name, &size, value)).transpose();
        Ok(InstanceNorm {
            weight: parameter("weight", 1.0)?,
            bias: parameter("bias", 0.0)?,
            running_mean: statistic("running_mean", 0.0)?,
            running_var: statistic("running_var", 1.0)?,
            num_batches_tracked: track_running_stats.then(|| counter(&path, "num_batches_tracked")).transpose()?,
            options: *self,
            mode: path.mode(),
            label,
        })
    }
}

impl InstanceNorm {
    /// [`forward`](crate::Module::forward) in the given mode.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit.
    pub fn try_forward_t(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        let dims = self.options.space + 2;
        check_input(&self.label, input, &[dims - 1, dims])?;
        let is_sample = input.dim() < dims;
        let batch = if is_sample { input.unsqueeze(0) } else { input.shallow_clone() };
        let normalized = batch.f_instance_norm(
            self.weight.as_ref(),
            self.bias.as_ref(),
            self.running_mean.as_ref(),
            self.running_var.as_ref(),
            train || self.running_mean.is_none(),
            self.options.momentum,
            self.options.eps,
            true,
        );
        let normalized = self.label.forward("instance_norm", normalized)?;
        Ok(if is_sample { normalized.squeeze_dim(0) } else { normalized })
    }
}

module_with_mode!(InstanceNorm);
