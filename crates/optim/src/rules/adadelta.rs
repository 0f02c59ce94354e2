//! [`Adadelta`].

use fulgurite_torch::foreach;

use crate::builder::{OptimizerBuilder, setters};
use crate::error::{ensure, ensure_non_negative};
use crate::rule::{Batch, Inert, Rule};
use crate::settings::{Settings, settings};
use crate::{Momentum, OptimError, ParamGroup};

/// Steps as large as the recent ones, in units of the recent gradients, <https://arxiv.org/abs/1212.5701>:
/// [`torch.optim.Adadelta`](https://docs.pytorch.org/docs/stable/generated/torch.optim.Adadelta.html).
///
/// Defaults: `lr` 1, `rho` 0.9, `eps` 1e-6, `weight_decay` 0.
pub type Adadelta = OptimizerBuilder<AdadeltaRule>;

/// The update of [`Adadelta`].
#[derive(Debug, Clone)]
pub struct AdadeltaRule {
    rho: f64,
    eps: f64,
    maximize: bool,
}

impl Adadelta {
    setters! {
        /// How slowly the averages move.
        rho(rho: f64) => rule.rho = rho;
        /// Added under both roots.
        eps(eps: f64) => rule.eps = eps;
        /// Weight decay, added to the gradient.
        weight_decay(weight_decay: f64) => weight_decay = Some(weight_decay);
        /// Go up the gradient.
        maximize(maximize: bool) => rule.maximize = maximize;
    }
}

impl Settings for AdadeltaRule {
    settings! { "rho" = rho, "eps" = eps, "maximize" = maximize }
}

impl Rule for AdadeltaRule {
    const NAME: &'static str = "Adadelta";
    const LR: f64 = 1.0;
    const WEIGHT_DECAY: Option<f64> = Some(0.0);
    const MOMENTUM: Momentum = Momentum::None;
    const SLOTS: &'static [&'static str] = &["square_avg", "acc_delta"];
    const INERT: &'static [(&'static str, Inert)] =
        &[("capturable", Inert::False), ("foreach", Inert::None), ("differentiable", Inert::False)];

    fn new() -> Self {
        AdadeltaRule { rho: 0.9, eps: 1e-6, maximize: false }
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        ensure((0.0..=1.0).contains(&self.rho), Self::NAME, "rho value", self.rho, "between 0 and 1")?;
        ensure_non_negative(Self::NAME, "epsilon value", self.eps)
    }

    fn update(&self, group: &ParamGroup, batch: &mut Batch) -> Result<(), OptimError> {
        batch.prepare_grads(self.maximize, group.weight_decay)?;
        let Batch { params, grads, slots, work: [std, delta], .. } = batch;
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
