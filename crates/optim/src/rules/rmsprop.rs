//! [`RMSprop`].

use fulgurite_torch::foreach;

use crate::builder::{OptimizerBuilder, setters};
use crate::error::ensure_non_negative;
use crate::rule::{Batch, Inert, Rule};
use crate::settings::{Settings, settings};
use crate::{Momentum, OptimError, ParamGroup};

/// Gradients divided by their average size (G. Hinton's lecture notes):
/// [`torch.optim.RMSprop`](https://docs.pytorch.org/docs/stable/generated/torch.optim.RMSprop.html).
///
/// Defaults: `lr` 1e-2, `alpha` 0.99, `eps` 1e-8, `weight_decay` 0, `momentum` 0, not centered.
pub type RMSprop = OptimizerBuilder<RmspropRule>;

/// The update of [`RMSprop`].
#[derive(Debug, Clone)]
pub struct RmspropRule {
    alpha: f64,
    eps: f64,
    centered: bool,
    maximize: bool,
}

impl RMSprop {
    setters! {
        /// How slowly the average square of the gradient moves.
        alpha(alpha: f64) => rule.alpha = alpha;
        /// Added to the denominator.
        eps(eps: f64) => rule.eps = eps;
        /// Weight decay, added to the gradient.
        weight_decay(weight_decay: f64) => weight_decay = Some(weight_decay);
        /// Momentum.
        momentum(momentum: f64) => momentum = Momentum::Momentum(momentum);
        /// Divide by the standard deviation of the gradient instead, <https://arxiv.org/abs/1308.0850>.
        centered(centered: bool) => rule.centered = centered;
        /// Go up the gradient.
        maximize(maximize: bool) => rule.maximize = maximize;
    }
}

impl Settings for RmspropRule {
    settings! { "alpha" = alpha, "eps" = eps, "centered" = centered, "maximize" = maximize }
}

impl Rule for RmspropRule {
    const NAME: &'static str = "RMSprop";
    const LR: f64 = 1e-2;
    const WEIGHT_DECAY: Option<f64> = Some(0.0);
    const MOMENTUM: Momentum = Momentum::Momentum(0.0);
    const SLOTS: &'static [&'static str] = &["square_avg", "momentum_buffer", "grad_avg"];
    const INERT: &'static [(&'static str, Inert)] =
        &[("capturable", Inert::False), ("foreach", Inert::None), ("differentiable", Inert::False)];

    fn new() -> Self {
        RmspropRule { alpha: 0.99, eps: 1e-8, centered: false, maximize: false }
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

    fn update(&self, group: &ParamGroup, batch: &mut Batch) -> Result<(), OptimError> {
        batch.prepare_grads(self.maximize, group.weight_decay)?;
        let Batch { params, grads, slots, work: [denominator, _], .. } = batch;
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
