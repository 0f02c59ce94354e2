//! [`Adamax`].

use fulgurite_torch::foreach;

use crate::builder::{OptimizerBuilder, setters};
use crate::error::ensure_non_negative;
use crate::rule::{Batch, Inert, Rule};
use crate::settings::{Settings, settings};
use crate::{Momentum, OptimError, ParamGroup};

/// Adam with the largest gradient in place of the average square, <https://arxiv.org/abs/1412.6980>:
/// [`torch.optim.Adamax`](https://docs.pytorch.org/docs/stable/generated/torch.optim.Adamax.html).
///
/// Defaults: `lr` 2e-3, `betas` (0.9, 0.999), `eps` 1e-8, `weight_decay` 0.
pub type Adamax = OptimizerBuilder<AdamaxRule>;

/// The update of [`Adamax`].
#[derive(Debug, Clone)]
pub struct AdamaxRule {
    eps: f64,
    maximize: bool,
}

impl Adamax {
    setters! {
        /// How slowly the average of the gradient moves, and how slowly its largest value is forgotten.
        betas(beta1: f64, beta2: f64) => momentum = Momentum::Betas(beta1, beta2);
        /// Added to the gradient's absolute value.
        eps(eps: f64) => rule.eps = eps;
        /// Weight decay, added to the gradient.
        weight_decay(weight_decay: f64) => weight_decay = Some(weight_decay);
        /// Go up the gradient.
        maximize(maximize: bool) => rule.maximize = maximize;
    }
}

impl Settings for AdamaxRule {
    settings! { "eps" = eps, "maximize" = maximize }
}

impl Rule for AdamaxRule {
    const NAME: &'static str = "Adamax";
    const LR: f64 = 2e-3;
    const WEIGHT_DECAY: Option<f64> = Some(0.0);
    const MOMENTUM: Momentum = Momentum::Betas(0.9, 0.999);
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_inf"];
    const INERT: &'static [(&'static str, Inert)] =
        &[("foreach", Inert::None), ("differentiable", Inert::False), ("capturable", Inert::False)];

    fn new() -> Self {
        AdamaxRule { eps: 1e-8, maximize: false }
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        ensure_non_negative(Self::NAME, "epsilon value", self.eps)
    }

    fn update(&self, group: &ParamGroup, batch: &mut Batch) -> Result<(), OptimError> {
        let (beta1, beta2) = group.betas();
        batch.prepare_grads(self.maximize, group.weight_decay)?;
        let bias_correction = 1.0 - beta1.powf(batch.step());
        let Batch { params, grads, slots, work: [size, _], .. } = batch;
        let [exp_avgs, exp_infs] = &mut slots[..] else { return Ok(()) };
        foreach::lerp_(exp_avgs, grads, 1.0 - beta1)?;
        foreach::mul_scalar_(exp_infs, beta2)?;
        foreach::abs(grads, size)?;
        foreach::add_scalar_(size, self.eps)?;
        foreach::maximum_(exp_infs, size)?;
        Ok(foreach::addcdiv_(params, exp_avgs, exp_infs, -group.lr / bias_correction)?)
    }
}
