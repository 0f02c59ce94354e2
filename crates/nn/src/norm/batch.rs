//! [`BatchNorm`].

use fulgurite_torch::tch::{self, Tensor};
use fulgurite_torch::{Mode, Path};

use super::channels::{ChannelNorm, Tensors, channel_norm};
use super::{check_input, check_values};
use crate::error::Result;
use crate::module::{Build, Label, module_with_mode, setters};

const DEFAULT: ChannelNorm =
    ChannelNorm { space: 1, num_features: 1, eps: 1e-5, momentum: Some(0.1), affine: true, track_running_stats: true };

channel_norm! {
    /// Batch normalization (Ioffe and Szegedy 2015): PyTorch's `nn.BatchNorm1d` to `nn.BatchNorm3d`.
    ///
    /// In training each channel is normalized by its own mean and variance over the batch, of which running averages are kept;
    /// in evaluation by those averages. The weight begins at 1 and the bias at 0.
    BatchNorm, BatchNormOptions, "BatchNorm", counter: /** How many batches the running statistics have seen. */;
    default: DEFAULT;
    /// A [`BatchNorm`] layer over inputs `[batch, num_features]` or `[batch, num_features, length]`.
    batch_norm1d, 1;
    /// A [`BatchNorm`] layer over inputs `[batch, num_features, height, width]`.
    batch_norm2d, 2;
    /// A [`BatchNorm`] layer over inputs `[batch, num_features, depth, height, width]`.
    batch_norm3d, 3;
}

impl BatchNormOptions {
    setters! {
        in 0;
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
        let of_batch = train || self.running_mean.is_none();
        if of_batch {
            let size = input.size();
            check_values(&self.label, size[0] * size[2..].iter().product::<i64>(), input)?;
        }
        let momentum = if train { self.count()? } else { 0.0 };
        let normalized = input.f_batch_norm(
            self.weight.as_ref(),
            self.bias.as_ref(),
            self.running_mean.as_ref(),
            self.running_var.as_ref(),
            of_batch,
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
