//! [`RAdam`].

use fulgurite_torch::foreach;

use crate::error::ensure_non_negative;
use crate::options::options;
use crate::rule::{Bucket, Fixed, Rule};
use crate::{GroupDefaults, OptimError, OptimizerBuilder, ParamGroup};

/// Rectified Adam, <https://arxiv.org/abs/1908.03265>: the adaptive learning rate starts once its variance is tractable.
/// [`torch.optim.RAdam`](https://docs.pytorch.org/docs/stable/generated/torch.optim.RAdam.html).
///
/// Options and defaults: [`RAdamOptions`].
pub type RAdam = OptimizerBuilder<RAdamOptions>;

options! {
    /// Options of [`RAdam`], and its update.
    RAdamOptions of RAdam {
        /// Learning rate.
        lr: f64 = 1e-3,
        /// Exponential decay rates of the first and second moment estimates.
        betas(beta1: f64, beta2: f64 => (beta1, beta2)): (f64, f64) = (0.9, 0.999),
        /// Term added to the denominator for numerical stability.
        eps: f64 = 1e-8,
        /// Weight decay (L2 penalty).
        weight_decay: f64 = 0.0,
        /// Use decoupled weight decay, as AdamW does, instead of an L2 penalty.
        decoupled_weight_decay: bool = false,
        /// Maximize the objective instead of minimizing it.
        maximize: bool = false,
    }
}

impl Rule for RAdamOptions {
    const NAME: &'static str = "RAdam";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    const FIXED: &'static [(&'static str, Fixed)] =
        &[("foreach", Fixed::None), ("capturable", Fixed::False), ("differentiable", Fixed::False)];

    fn group_defaults(&self) -> GroupDefaults {
        GroupDefaults::new(self.lr).weight_decay(self.weight_decay).betas(self.betas)
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        ensure_non_negative(Self::NAME, "epsilon value", self.eps)
    }

    fn update(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        let ((beta1, beta2), lr, step) = (group.betas(), group.lr, bucket.step());
        let decoupled = self.decoupled_weight_decay && group.weight_decay != 0.0;
        if decoupled {
            foreach::mul_scalar_(&mut bucket.params, 1.0 - lr * group.weight_decay)?;
        }
        bucket.prepare_grads(self.maximize, if decoupled { 0.0 } else { group.weight_decay })?;

        let Bucket { params, grads, slots, work: [scale, _], .. } = bucket;
        let [exp_avgs, exp_avg_sqs] = &mut slots[..] else { return Ok(()) };
        foreach::lerp_(exp_avgs, grads, 1.0 - beta1)?;
        foreach::mul_scalar_(exp_avg_sqs, beta2)?;
        foreach::addcmul_(exp_avg_sqs, grads, grads, 1.0 - beta2)?;

        let step_size = lr / (1.0 - beta1.powf(step));
        let bias_correction2 = 1.0 - beta2.powf(step);
        // The length of the approximated simple moving average, and its limit.
        let rho_inf = 2.0 / (1.0 - beta2) - 1.0;
        let rho = rho_inf - 2.0 * step * beta2.powf(step) / bias_correction2;
        if rho <= 5.0 {
            return Ok(foreach::add_(params, exp_avgs, -step_size)?);
        }
        let rectified = ((rho - 4.0) * (rho - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho)).sqrt();
        foreach::sqrt(exp_avg_sqs, scale)?;
        foreach::add_scalar_(scale, self.eps)?;
        foreach::div_scalar_(scale, -bias_correction2.sqrt() * step_size * rectified)?;
        foreach::reciprocal_(scale)?;
        Ok(foreach::addcmul_(params, exp_avgs, scale, 1.0)?)
    }
}
