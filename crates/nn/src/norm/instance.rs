//! [`InstanceNorm`].

use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Mode, Path};

use super::channels::{ChannelNorm, Tensors, channel_norm};
use super::{check_input, check_values};
use crate::error::Result;
use crate::module::{Build, Label, module_with_mode, setters};

const MOMENTUM: f64 = 0.1;
const DEFAULT: ChannelNorm = ChannelNorm {
    space: 1,
    num_features: 1,
    eps: 1e-5,
    momentum: Some(MOMENTUM),
    affine: false,
    track_running_stats: false,
};

channel_norm! {
    /// Instance normalization (Ulyanov et al. 2016): PyTorch's `nn.InstanceNorm1d` to `nn.InstanceNorm3d`.
    ///
    /// Each channel of each sample is normalized by itself. By default there are neither parameters nor running statistics.
    InstanceNorm, InstanceNormOptions, "InstanceNorm", counter: /** A buffer that PyTorch has too, and that stays 0. */;
    default: DEFAULT;
    /// An [`InstanceNorm`] layer over inputs `[batch, num_features, length]`, or without batch.
    instance_norm1d, 1;
    /// An [`InstanceNorm`] layer over inputs `[batch, num_features, height, width]`, or without batch.
    instance_norm2d, 2;
    /// An [`InstanceNorm`] layer over inputs `[batch, num_features, depth, height, width]`, or without batch.
    instance_norm3d, 3;
}

impl InstanceNormOptions {
    setters! {
        in 0;
        /// What is added to the variance; the default is 1e-5.
        eps: f64;
        /// Whether there are a weight and a bias; the default is `false`.
        affine: bool;
        /// Whether running statistics are kept, and used in evaluation; the default is `false`.
        track_running_stats: bool;
    }

    /// How much of a batch's statistics goes into the running ones; the default is 0.1.
    #[must_use]
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.0.momentum = Some(momentum);
        self
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
        let of_input = train || self.running_mean.is_none();
        if of_input {
            check_values(&self.label, batch.size()[2..].iter().product(), input)?;
        }
        let normalized = batch.f_instance_norm(
            self.weight.as_ref(),
            self.bias.as_ref(),
            self.running_mean.as_ref(),
            self.running_var.as_ref(),
            of_input,
            self.options.momentum.unwrap_or(MOMENTUM),
            self.options.eps,
            true,
        );
        let normalized = self.label.forward("instance_norm", normalized)?;
        Ok(if is_sample { normalized.squeeze_dim(0) } else { normalized })
    }
}
