//! [`Lion`].

use fulgurite_torch::foreach;

use crate::builder::{OptimizerBuilder, setters};
use crate::rule::{Batch, Inert, Rule};
use crate::settings::{Settings, settings};
use crate::{Momentum, OptimError, ParamGroup};

/// Steps of equal size in the direction of the sign of momentum, <https://arxiv.org/abs/2302.06675>, algorithm 2.
///
/// Every weight moves by `lr` at every step, so `lr` is 3 to 10 times lower than for AdamW, and weight decay as much
/// higher. Defaults: `lr` 1e-4, `betas` (0.9, 0.99), `weight_decay` 0. PyTorch has none; the state dict has the layout
/// of the paper authors' own (`exp_avg`).
pub type Lion = OptimizerBuilder<LionRule>;

/// The update of [`Lion`].
#[derive(Debug, Clone)]
pub struct LionRule {
    maximize: bool,
}

impl Lion {
    setters! {
        /// How much of momentum is in a step, and how slowly momentum moves.
        betas(beta1: f64, beta2: f64) => momentum = Momentum::Betas(beta1, beta2);
        /// Weight decay, taken off the weights.
        weight_decay(weight_decay: f64) => weight_decay = Some(weight_decay);
        /// Go up the gradient.
        maximize(maximize: bool) => rule.maximize = maximize;
    }
}

impl Settings for LionRule {
    settings! { "maximize" = maximize }
}

impl Rule for LionRule {
    const NAME: &'static str = "Lion";
    const LR: f64 = 1e-4;
    const WEIGHT_DECAY: Option<f64> = Some(0.0);
    const MOMENTUM: Momentum = Momentum::Betas(0.9, 0.99);
    const SLOTS: &'static [&'static str] = &["exp_avg"];
    const COUNTS_STEPS: bool = false;
    const INERT: &'static [(&'static str, Inert)] = &[];

    fn new() -> Self {
        LionRule { maximize: false }
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        Ok(())
    }

    fn batch_key(_step: u64) -> u64 {
        0
    }

    fn update(&self, group: &ParamGroup, batch: &mut Batch) -> Result<(), OptimError> {
        let (beta1, beta2) = group.betas();
        batch.prepare_grads(self.maximize, 0.0)?;
        let Batch { params, grads, slots, work: [update, _], .. } = batch;
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
