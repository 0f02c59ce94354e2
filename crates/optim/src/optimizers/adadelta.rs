//! [`Adadelta`].

use fulgurite_torch::foreach;

use crate::error::{ensure, ensure_non_negative};
use crate::options::options;
use crate::rule::{Bucket, Fixed, Rule};
use crate::{GroupDefaults, OptimError, OptimizerBuilder, ParamGroup};

/// Adadelta, <https://arxiv.org/abs/1212.5701>:
/// [`torch.optim.Adadelta`](https://docs.pytorch.org/docs/stable/generated/torch.optim.Adadelta.html).
///
/// Options and defaults: [`AdadeltaOptions`].
pub type Adadelta = OptimizerBuilder<AdadeltaOptions>;

options! {
    /// Options of [`Adadelta`], and its update.
    AdadeltaOptions of Adadelta {
        /// Learning rate.
        lr: f64 = 1.0,
        /// Coefficient of the running average of squared gradients.
        rho: f64 = 0.9,
        /// Term added to the denominator for numerical stability.
        eps: f64 = 1e-6,
        /// Weight decay (L2 penalty).
        weight_decay: f64 = 0.0,
        /// Maximize the objective instead of minimizing it.
        maximize: bool = false,
    }
}

impl Rule for AdadeltaOptions {
    const NAME: &'static str = "Adadelta";
    const SLOTS: &'static [&'static str] = &["square_avg", "acc_delta"];
    const FIXED: &'static [(&'static str, Fixed)] =
        &[("capturable", Fixed::False), ("foreach", Fixed::None), ("differentiable", Fixed::False)];

    fn group_defaults(&self) -> GroupDefaults {
        GroupDefaults::new(self.lr).weight_decay(self.weight_decay)
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        ensure((0.0..=1.0).contains(&self.rho), Self::NAME, "rho value", self.rho, "between 0 and 1")?;
        ensure_non_negative(Self::NAME, "epsilon value", self.eps)
    }

    fn update(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        bucket.prepare_grads(self.maximize, group.weight_decay)?;
        let Bucket { params, grads, slots, work: [std, delta], .. } = bucket;
        let [square_avgs, acc_deltas] = &mut slots[..] else { return Ok(()) };
        foreach::mul_scalar_(square_avgs, self.rho)?;
        foreach::addcmul_(square_avgs, grads, grads, 1.0 - self.rho)?;
        foreach::add_scalar(square_avgs, self.eps, std)?;
        foreach::sqrt_(std)?;
        foreach::add_scalar(acc_deltas, self.eps, delta)?;
        foreach::sqrt_(delta)?;
        foreach::div_(delta, std)?;
        foreach::mul_(delta, grads)?;
        foreach::mul_scalar_(acc_deltas, self.rho)?;
        foreach::addcmul_(acc_deltas, delta, delta, 1.0 - self.rho)?;
        Ok(foreach::add_(params, delta, -group.lr)?)
    }
}
