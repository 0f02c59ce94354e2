//! [`RAdam`].

use fulgurite_torch::foreach;

use crate::builder::{OptimizerBuilder, setters};
use crate::error::ensure_non_negative;
use crate::rule::{Batch, Inert, Rule};
use crate::settings::{Settings, settings};
use crate::{Momentum, OptimError, ParamGroup};

/// Adam that waits with dividing by the average square until that is known well enough,
/// <https://arxiv.org/abs/1908.03265>:
/// [`torch.optim.RAdam`](https://docs.pytorch.org/docs/stable/generated/torch.optim.RAdam.html).
///
/// Defaults: `lr` 1e-3, `betas` (0.9, 0.999), `eps` 1e-8, `weight_decay` 0.
pub type RAdam = OptimizerBuilder<RAdamRule>;

/// The update of [`RAdam`].
#[derive(Debug, Clone)]
pub struct RAdamRule {
    eps: f64,
    maximize: bool,
    decoupled_weight_decay: bool,
}

impl RAdam {
    setters! {
        /// How slowly the averages of the gradient and of its square move.
        betas(beta1: f64, beta2: f64) => momentum = Momentum::Betas(beta1, beta2);
        /// Added to the denominator.
        eps(eps: f64) => rule.eps = eps;
        /// Weight decay, added to the gradient unless it is decoupled.
        weight_decay(weight_decay: f64) => weight_decay = Some(weight_decay);
        /// Take weight decay off the weights, as AdamW does.
        decoupled_weight_decay(decoupled: bool) => rule.decoupled_weight_decay = decoupled;
        /// Go up the gradient.
        maximize(maximize: bool) => rule.maximize = maximize;
    }
}

impl Settings for RAdamRule {
    settings! { "eps" = eps, "maximize" = maximize, "decoupled_weight_decay" = decoupled_weight_decay }
}

impl Rule for RAdamRule {
    const NAME: &'static str = "RAdam";
    const LR: f64 = 1e-3;
    const WEIGHT_DECAY: Option<f64> = Some(0.0);
    const MOMENTUM: Momentum = Momentum::Betas(0.9, 0.999);
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    const INERT: &'static [(&'static str, Inert)] =
        &[("foreach", Inert::None), ("capturable", Inert::False), ("differentiable", Inert::False)];

    fn new() -> Self {
        RAdamRule { eps: 1e-8, maximize: false, decoupled_weight_decay: false }
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        ensure_non_negative(Self::NAME, "epsilon value", self.eps)
    }

    fn update(&self, group: &ParamGroup, batch: &mut Batch) -> Result<(), OptimError> {
        let ((beta1, beta2), lr, step) = (group.betas(), group.lr, batch.step());
        let decoupled = self.decoupled_weight_decay && group.weight_decay != 0.0;
        if decoupled {
            foreach::mul_scalar_(&mut batch.params, 1.0 - lr * group.weight_decay)?;
        }
        batch.prepare_grads(self.maximize, if decoupled { 0.0 } else { group.weight_decay })?;

        let Batch { params, grads, slots, work: [scale, _], .. } = batch;
        let [exp_avgs, exp_avg_sqs] = &mut slots[..] else { return Ok(()) };
        foreach::lerp_(exp_avgs, grads, 1.0 - beta1)?;
        foreach::mul_scalar_(exp_avg_sqs, beta2)?;
        foreach::addcmul_(exp_avg_sqs, grads, grads, 1.0 - beta2)?;

        let step_size = lr / (1.0 - beta1.powf(step));
        let bias_correction2 = 1.0 - beta2.powf(step);
        // How many gradients the average square is worth, and at most will be.
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
