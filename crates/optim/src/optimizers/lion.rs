//! [`Lion`].

use fulgurite_torch::foreach;

use crate::options::options;
use crate::rule::{Bucket, Rule};
use crate::{GroupDefaults, OptimError, OptimizerBuilder, ParamGroup};

/// Lion, <https://arxiv.org/abs/2302.06675>, algorithm 2: updates by the sign of an interpolation of momentum and gradient.
///
/// Every weight moves by `lr` at every step, so `lr` is 3 to 10 times lower than for AdamW, and weight decay as much
/// higher. PyTorch has none; the state dict has the layout of the paper authors' own (`exp_avg`). Options and defaults:
/// [`LionOptions`].
pub type Lion = OptimizerBuilder<LionOptions>;

options! {
    /// Options of [`Lion`], and its update.
    LionOptions of Lion {
        /// Learning rate.
        lr: f64 = 1e-4,
        /// Interpolation of momentum and gradient in the update, and exponential decay rate of momentum.
        betas(beta1: f64, beta2: f64 => (beta1, beta2)): (f64, f64) = (0.9, 0.99),
        /// Decoupled weight decay: the weights shrink by `lr * weight_decay` at each step.
        weight_decay: f64 = 0.0,
        /// Maximize the objective instead of minimizing it.
        maximize: bool = false,
    }
}

impl Rule for LionOptions {
    const NAME: &'static str = "Lion";
    const SLOTS: &'static [&'static str] = &["exp_avg"];
    const COUNTS_STEPS: bool = false;

    fn group_defaults(&self) -> GroupDefaults {
        GroupDefaults::new(self.lr).weight_decay(self.weight_decay).betas(self.betas)
    }

    fn bucket_key(_step: u64) -> u64 {
        0
    }

    fn update(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        let (beta1, beta2) = group.betas();
        bucket.prepare_grads(self.maximize, 0.0)?;
        let Bucket { params, grads, slots, work: [update, _], .. } = bucket;
        let exp_avgs = &mut slots[0];
        if group.weight_decay != 0.0 {
            foreach::mul_scalar_(params, 1.0 - group.lr * group.weight_decay)?;
        }
        foreach::lerp(exp_avgs, grads, 1.0 - beta1, update)?;
        foreach::sign_(update)?;
        foreach::add_(params, update, -group.lr)?;
        Ok(foreach::lerp_(exp_avgs, grads, 1.0 - beta2)?)
    }
}
