//! [`BatchNorm`].

use fulgurite_torch::tch::{self, Tensor};
use fulgurite_torch::{Mode, Path};

use super::check_input;
use crate::error::Result;
use crate::module::{Build, Label, module_with_mode, python_bool, python_float, setters};
use crate::parameter::{buffer, constant, counter};

/// Batch normalization (Ioffe and Szegedy 2015): PyTorch's `nn.BatchNorm1d` to `nn.BatchNorm3d`.
///
/// In training each channel is normalized by its own mean and variance over the batch, of which running averages are kept; in
/// evaluation by those averages. The weight begins at 1 and the bias at 0.
#[derive(Debug)]
pub struct BatchNorm {
    /// The scale of each channel.
    pub weight: Option<Tensor>,
    /// The offset of each channel.
    pub bias: Option<Tensor>,
    /// The running mean of each channel.
    pub running_mean: Option<Tensor>,
    /// The running variance of each channel.
    pub running_var: Option<Tensor>,
    /// How many batches the running statistics have seen.
    pub num_batches_tracked: Option<Tensor>,
    options: BatchNormOptions,
    mode: Mode,
    label: Label,
}

/// The options of a [`BatchNorm`] layer.
#[derive(Debug, Clone, Copy)]
pub struct BatchNormOptions {
    space: usize,
    num_features: i64,
    eps: f64,
    momentum: Option<f64>,
    affine: bool,
    track_running_stats: bool,
}

fn batch_norm(space: usize, num_features: i64) -> BatchNormOptions {
    BatchNormOptions { space, num_features, eps: 1e-5, momentum: Some(0.1), affine: true, track_running_stats: true }
}

/// A [`BatchNorm`] layer over inputs `[batch, num_features]` or `[batch, num_features, length]`.
pub fn batch_norm1d(num_features: i64) -> BatchNormOptions {
    batch_norm(1, num_features)
}

/// A [`BatchNorm`] layer over inputs `[batch, num_features, height, width]`.
pub fn batch_norm2d(num_features: i64) -> BatchNormOptions {
    batch_norm(2, num_features)
}

/// A [`BatchNorm`] layer over inputs `[batch, num_features, depth, height, width]`.
pub fn batch_norm3d(num_features: i64) -> BatchNormOptions {
    batch_norm(3, num_features)
}

impl BatchNormOptions {
    setters! {
        /// What is added to the variance; the default is 1e-5.
        eps: f64;
        /// How much of a batch's statistics goes into the running ones, 0.1 by default; `None`: their mean over all batches.
        momentum: Option<f64>;
        /// Whether there are a weight and a bias; the default is `true`.
        affine: bool;
        /// Whether running statistics are kept; if not, those of the batch are used in evaluation too. The default is `true`.
        track_running_stats: bool;
    }
}

impl Build for BatchNormOptions {
    type Layer = BatchNorm;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<BatchNorm> {
        let path = path.into();
        let BatchNormOptions { space, num_features, eps, momentum, affine, track_running_stats } = *self;
        let momentum = momentum.map_or_else(|| "None".to_owned(), python_float);
        let label = Label::new(
            &path,
            format!(
                "BatchNorm{space}d({num_features}, eps={}, momentum={momentum}, affine={}, track_running_stats={})",
                python_float(eps),
                python_bool(affine),
                python_bool(track_running_stats)
            ),
        );
        label.check_positive(&[("num_features", num_features)])?;
        let size = [num_features];
        let parameter = |name, value| affine.then(|| constant(&path, name, &size, value)).transpose();
        let statistic = |name, value| track_running_stats.then(|| buffer(&path, name, &size, value)).transpose();
        Ok(BatchNorm {
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

impl BatchNorm {
    /// [`forward`](crate::Module::forward) in the given mode.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit.
    pub fn try_forward_t(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        match self.options.space {
            1 => check_input(&self.label, input, &[2, 3])?,
            space => check_input(&self.label, input, &[space + 2])?,
        }
        let momentum = if train { self.count()? } else { 0.0 };
        let normalized = input.f_batch_norm(
            self.weight.as_ref(),
            self.bias.as_ref(),
            self.running_mean.as_ref(),
            self.running_var.as_ref(),
            train || self.running_mean.is_none(),
            momentum,
            self.options.eps,
            true,
        );
        self.label.forward("batch_norm", normalized)
    }

    /// Counts a batch; the share that its statistics have.
    fn count(&self) -> Result<f64> {
        let Some(seen) = &self.num_batches_tracked else { return Ok(self.options.momentum.unwrap_or(0.0)) };
        self.label.forward("add_", tch::no_grad(|| seen.shallow_clone().f_add_scalar_(1)).map(drop))?;
        Ok(self.options.momentum.unwrap_or_else(|| 1.0 / seen.double_value(&[])))
    }
}

module_with_mode!(BatchNorm);
