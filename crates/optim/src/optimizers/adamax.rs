//! [`Adamax`].

use fulgurite_torch::foreach;

use crate::error::ensure_non_negative;
use crate::options::options;
use crate::rule::{Bucket, Fixed, Rule};
use crate::{GroupDefaults, OptimError, OptimizerBuilder, ParamGroup};

/// Adamax, a variant of Adam based on the infinity norm, <https://arxiv.org/abs/1412.6980>:
/// [`torch.optim.Adamax`](https://docs.pytorch.org/docs/stable/generated/torch.optim.Adamax.html).
///
/// Options and defaults: [`AdamaxOptions`].
pub type Adamax = OptimizerBuilder<AdamaxOptions>;

options! {
    /// Options of [`Adamax`], and its update.
    AdamaxOptions of Adamax {
        /// Learning rate.
        lr: f64 = 2e-3,
        /// Exponential decay rates of the first moment estimate and of the infinity norm.
        betas(beta1: f64, beta2: f64 => (beta1, beta2)): (f64, f64) = (0.9, 0.999),
        /// Term added to the denominator for numerical stability.
        eps: f64 = 1e-8,
        /// Weight decay (L2 penalty).
        weight_decay: f64 = 0.0,
        /// Maximize the objective instead of minimizing it.
        maximize: bool = false,
    }
}

impl Rule for AdamaxOptions {
    const NAME: &'static str = "Adamax";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_inf"];
    const FIXED: &'static [(&'static str, Fixed)] =
        &[("foreach", Fixed::None), ("differentiable", Fixed::False), ("capturable", Fixed::False)];

    fn group_defaults(&self) -> GroupDefaults {
        GroupDefaults::new(self.lr).weight_decay(self.weight_decay).betas(self.betas)
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        ensure_non_negative(Self::NAME, "epsilon value", self.eps)
    }

    fn update(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        let (beta1, beta2) = group.betas();
        bucket.prepare_grads(self.maximize, group.weight_decay)?;
        let bias_correction = 1.0 - beta1.powf(bucket.step());
        let Bucket { params, grads, slots, work: [size, _], .. } = bucket;
        let [exp_avgs, exp_infs] = &mut slots[..] else { return Ok(()) };
        foreach::lerp_(exp_avgs, grads, 1.0 - beta1)?;
        foreach::mul_scalar_(exp_infs, beta2)?;
        foreach::abs(grads, size)?;
        foreach::add_scalar_(size, self.eps)?;
        foreach::maximum_(exp_infs, size)?;
        Ok(foreach::addcdiv_(params, exp_avgs, exp_infs, -group.lr / bias_correction)?)
    }
}
