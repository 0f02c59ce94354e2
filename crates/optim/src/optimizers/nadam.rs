//! [`NAdam`].

use fulgurite_torch::foreach;

use crate::error::ensure_non_negative;
use crate::options::options;
use crate::rule::{Bucket, Fixed, Rule};
use crate::{GroupDefaults, OptimError, OptimizerBuilder, ParamGroup};

/// Adam with Nesterov momentum, <https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ>:
/// [`torch.optim.NAdam`](https://docs.pytorch.org/docs/stable/generated/torch.optim.NAdam.html).
///
/// Options and defaults: [`NAdamOptions`].
pub type NAdam = OptimizerBuilder<NAdamOptions>;

options! {
    /// Options of [`NAdam`], and its update.
    NAdamOptions of NAdam {
        /// Learning rate.
        lr: f64 = 2e-3,
        /// Exponential decay rates of the first and second moment estimates.
        betas(beta1: f64, beta2: f64 => (beta1, beta2)): (f64, f64) = (0.9, 0.999),
        /// Term added to the denominator for numerical stability.
        eps: f64 = 1e-8,
        /// Weight decay (L2 penalty).
        weight_decay: f64 = 0.0,
        /// Decay of momentum in its warm-up.
        momentum_decay: f64 = 4e-3,
        /// Use decoupled weight decay, as AdamW does, instead of an L2 penalty.
        decoupled_weight_decay: bool = false,
        /// Maximize the objective instead of minimizing it.
        maximize: bool = false,
    }
}

impl Rule for NAdamOptions {
    const NAME: &'static str = "NAdam";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    const SCALARS: &'static [&'static str] = &["mu_product"];
    const FIXED: &'static [(&'static str, Fixed)] =
        &[("foreach", Fixed::None), ("capturable", Fixed::False), ("differentiable", Fixed::False)];

    fn group_defaults(&self) -> GroupDefaults {
        GroupDefaults::new(self.lr).weight_decay(self.weight_decay).betas(self.betas)
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        ensure_non_negative(Self::NAME, "epsilon value", self.eps)?;
        ensure_non_negative(Self::NAME, "momentum_decay value", self.momentum_decay)
    }

    fn initial_scalars(&self, _group: &ParamGroup) -> [f32; 2] {
        [1.0, 0.0]
    }

    fn update(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        let ((beta1, beta2), lr) = (group.betas(), group.lr);
        let decoupled = self.decoupled_weight_decay && group.weight_decay != 0.0;
        if decoupled {
            foreach::mul_scalar_(&mut bucket.params, 1.0 - lr * group.weight_decay)?;
        }
        bucket.prepare_grads(self.maximize, if decoupled { 0.0 } else { group.weight_decay })?;

        let step = bucket.step();
        let mu_at = |step: f64| beta1 * (1.0 - 0.5 * 0.96f64.powf(step * self.momentum_decay));
        let (mu, mu_next) = (mu_at(step), mu_at(step + 1.0));
        bucket.progress.scalars[0] *= mu as f32;
        let mu_product = f64::from(bucket.progress.scalars[0]);

        let Bucket { params, grads, slots, work: [denominator, _], .. } = bucket;
        let [exp_avgs, exp_avg_sqs] = &mut slots[..] else { return Ok(()) };
        foreach::lerp_(exp_avgs, grads, 1.0 - beta1)?;
        foreach::mul_scalar_(exp_avg_sqs, beta2)?;
        foreach::addcmul_(exp_avg_sqs, grads, grads, 1.0 - beta2)?;
        foreach::sqrt(exp_avg_sqs, denominator)?;
        foreach::div_scalar_(denominator, (1.0 - beta2.powf(step)).sqrt())?;
        foreach::add_scalar_(denominator, self.eps)?;
        foreach::addcdiv_(params, grads, denominator, -lr * (1.0 - mu) / (1.0 - mu_product))?;
        Ok(foreach::addcdiv_(params, exp_avgs, denominator, -lr * mu_next / (1.0 - mu_product * mu_next))?)
    }
}
