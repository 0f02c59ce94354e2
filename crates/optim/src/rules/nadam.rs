//! [`NAdam`].

use fulgurite_torch::foreach;

use crate::builder::{OptimizerBuilder, setters};
use crate::error::ensure_non_negative;
use crate::rule::{Batch, Inert, Rule};
use crate::settings::{Settings, settings};
use crate::{Momentum, OptimError, ParamGroup};

/// Adam with Nesterov momentum, <https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ>:
/// [`torch.optim.NAdam`](https://docs.pytorch.org/docs/stable/generated/torch.optim.NAdam.html).
///
/// Defaults: `lr` 2e-3, `betas` (0.9, 0.999), `eps` 1e-8, `weight_decay` 0, `momentum_decay` 4e-3.
pub type NAdam = OptimizerBuilder<NAdamRule>;

/// The update of [`NAdam`].
#[derive(Debug, Clone)]
pub struct NAdamRule {
    eps: f64,
    momentum_decay: f64,
    decoupled_weight_decay: bool,
    maximize: bool,
}

impl NAdam {
    setters! {
        /// How slowly the averages of the gradient and of its square move.
        betas(beta1: f64, beta2: f64) => momentum = Momentum::Betas(beta1, beta2);
        /// Added to the denominator.
        eps(eps: f64) => rule.eps = eps;
        /// Weight decay, added to the gradient unless it is decoupled.
        weight_decay(weight_decay: f64) => weight_decay = Some(weight_decay);
        /// How fast momentum warms up.
        momentum_decay(momentum_decay: f64) => rule.momentum_decay = momentum_decay;
        /// Take weight decay off the weights, as AdamW does.
        decoupled_weight_decay(decoupled: bool) => rule.decoupled_weight_decay = decoupled;
        /// Go up the gradient.
        maximize(maximize: bool) => rule.maximize = maximize;
    }
}

impl Settings for NAdamRule {
    settings! {
        "eps" = eps,
        "momentum_decay" = momentum_decay,
        "decoupled_weight_decay" = decoupled_weight_decay,
        "maximize" = maximize,
    }
}

impl Rule for NAdamRule {
    const NAME: &'static str = "NAdam";
    const LR: f64 = 2e-3;
    const WEIGHT_DECAY: Option<f64> = Some(0.0);
    const MOMENTUM: Momentum = Momentum::Betas(0.9, 0.999);
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    const SCALARS: &'static [&'static str] = &["mu_product"];
    const INERT: &'static [(&'static str, Inert)] =
        &[("foreach", Inert::None), ("capturable", Inert::False), ("differentiable", Inert::False)];

    fn new() -> Self {
        NAdamRule { eps: 1e-8, momentum_decay: 4e-3, decoupled_weight_decay: false, maximize: false }
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        ensure_non_negative(Self::NAME, "epsilon value", self.eps)?;
        ensure_non_negative(Self::NAME, "momentum_decay value", self.momentum_decay)
    }

    fn initial_scalars(&self, _group: &ParamGroup) -> [f32; 2] {
        [1.0, 0.0]
    }

    fn update(&self, group: &ParamGroup, batch: &mut Batch) -> Result<(), OptimError> {
        let ((beta1, beta2), lr) = (group.betas(), group.lr);
        let decoupled = self.decoupled_weight_decay && group.weight_decay != 0.0;
        if decoupled {
            foreach::mul_scalar_(&mut batch.params, 1.0 - lr * group.weight_decay)?;
        }
        batch.prepare_grads(self.maximize, if decoupled { 0.0 } else { group.weight_decay })?;

        let step = batch.step();
        let mu_at = |step: f64| beta1 * (1.0 - 0.5 * 0.96f64.powf(step * self.momentum_decay));
        let (mu, mu_next) = (mu_at(step), mu_at(step + 1.0));
        batch.progress.scalars[0] *= mu as f32;
        let mu_product = f64::from(batch.progress.scalars[0]);

        let Batch { params, grads, slots, work: [denominator, _], .. } = batch;
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
