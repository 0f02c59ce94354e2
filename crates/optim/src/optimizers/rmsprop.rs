//! [`RMSprop`].

use fulgurite_torch::foreach;

use crate::error::ensure_non_negative;
use crate::options::options;
use crate::rule::{Bucket, Fixed, Rule};
use crate::{GroupDefaults, OptimError, OptimizerBuilder, ParamGroup};

/// RMSprop (G. Hinton's lecture notes):
/// [`torch.optim.RMSprop`](https://docs.pytorch.org/docs/stable/generated/torch.optim.RMSprop.html).
///
/// Options and defaults: [`RMSpropOptions`].
pub type RMSprop = OptimizerBuilder<RMSpropOptions>;

options! {
    /// Options of [`RMSprop`], and its update.
    RMSpropOptions of RMSprop {
        /// Learning rate.
        lr: f64 = 1e-2,
        /// Smoothing constant of the running average of squared gradients.
        alpha: f64 = 0.99,
        /// Term added to the denominator for numerical stability.
        eps: f64 = 1e-8,
        /// Weight decay (L2 penalty).
        weight_decay: f64 = 0.0,
        /// Momentum factor.
        momentum: f64 = 0.0,
        /// Normalize gradients by an estimate of their variance.
        centered: bool = false,
        /// Maximize the objective instead of minimizing it.
        maximize: bool = false,
    }
}

impl Rule for RMSpropOptions {
    const NAME: &'static str = "RMSprop";
    const SLOTS: &'static [&'static str] = &["square_avg", "momentum_buffer", "grad_avg"];
    const FIXED: &'static [(&'static str, Fixed)] =
        &[("capturable", Fixed::False), ("foreach", Fixed::None), ("differentiable", Fixed::False)];

    fn group_defaults(&self) -> GroupDefaults {
        GroupDefaults::new(self.lr).weight_decay(self.weight_decay).momentum(self.momentum)
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        ensure_non_negative(Self::NAME, "epsilon value", self.eps)?;
        ensure_non_negative(Self::NAME, "alpha value", self.alpha)
    }

    fn uses(&self, slot: usize, group: &ParamGroup) -> bool {
        match slot {
            1 => group.momentum() > 0.0,
            2 => self.centered,
            _ => true,
        }
    }

    fn update(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        bucket.prepare_grads(self.maximize, group.weight_decay)?;
        let Bucket { params, grads, slots, work: [denominator, _], .. } = bucket;
        let [square_avgs, momentum_buffers, grad_avgs] = &mut slots[..] else { return Ok(()) };
        foreach::mul_scalar_(square_avgs, self.alpha)?;
        foreach::addcmul_(square_avgs, grads, grads, 1.0 - self.alpha)?;
        if self.centered {
            foreach::lerp_(grad_avgs, grads, 1.0 - self.alpha)?;
            foreach::addcmul(square_avgs, grad_avgs, grad_avgs, -1.0, denominator)?;
            foreach::sqrt_(denominator)?;
        } else {
            foreach::sqrt(square_avgs, denominator)?;
        }
        foreach::add_scalar_(denominator, self.eps)?;
        if group.momentum() > 0.0 {
            foreach::mul_scalar_(momentum_buffers, group.momentum())?;
            foreach::addcdiv_(momentum_buffers, grads, denominator, 1.0)?;
            Ok(foreach::add_(params, momentum_buffers, -group.lr)?)
        } else {
            Ok(foreach::addcdiv_(params, grads, denominator, -group.lr)?)
        }
    }
}
