//! [`SGD`].

use fulgurite_torch::foreach::{self, FusedSgd};

use crate::builder::{OptimizerBuilder, setters};
use crate::error::ensure;
use crate::rule::{Batch, Inert, Rule};
use crate::settings::{Settings, settings};
use crate::{Momentum, OptimError, ParamGroup};

/// Stochastic gradient descent, with momentum if wanted:
/// [`torch.optim.SGD`](https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html).
///
/// Defaults: `lr` 1e-3, everything else 0 or off.
pub type SGD = OptimizerBuilder<SgdRule>;

/// The update of [`SGD`].
#[derive(Debug, Clone)]
pub struct SgdRule {
    dampening: f64,
    nesterov: bool,
    maximize: bool,
}

impl OptimizerBuilder<SgdRule> {
    setters! {
        /// Momentum; 0.9 is usual.
        momentum(momentum: f64) => momentum = Momentum::Momentum(momentum);
        /// How much of each gradient the momentum leaves out.
        dampening(dampening: f64) => rule.dampening = dampening;
        /// Weight decay, added to the gradient.
        weight_decay(weight_decay: f64) => weight_decay = Some(weight_decay);
        /// Nesterov's momentum.
        nesterov(nesterov: bool) => rule.nesterov = nesterov;
        /// Go up the gradient.
        maximize(maximize: bool) => rule.maximize = maximize;
    }
}

impl Settings for SgdRule {
    settings! {
        "dampening" = dampening,
        "nesterov" = nesterov,
        "maximize" = maximize,
    }
}

impl Rule for SgdRule {
    const NAME: &'static str = "SGD";
    const LR: f64 = 1e-3;
    const WEIGHT_DECAY: Option<f64> = Some(0.0);
    const MOMENTUM: Momentum = Momentum::Momentum(0.0);
    const SLOTS: &'static [&'static str] = &["momentum_buffer"];
    const COUNTS_STEPS: bool = false;
    const INERT: &'static [(&'static str, Inert)] =
        &[("foreach", Inert::None), ("differentiable", Inert::False), ("fused", Inert::None)];

    fn new() -> Self {
        SgdRule { dampening: 0.0, nesterov: false, maximize: false }
    }

    fn validate(&self, group: &ParamGroup) -> Result<(), OptimError> {
        let (momentum, dampening) = (group.momentum(), self.dampening);
        ensure(dampening.is_finite(), Self::NAME, "dampening", dampening, "a finite number")?;
        if self.nesterov && (momentum <= 0.0 || dampening != 0.0) {
            return Err(OptimError::NesterovNeedsMomentum { momentum, dampening });
        }
        Ok(())
    }

    fn uses(&self, _slot: usize, group: &ParamGroup) -> bool {
        group.momentum() != 0.0
    }

    /// The first step sets the momentum, the others add to it.
    fn batch_key(step: u64) -> u64 {
        step.min(2)
    }

    fn update(&self, group: &ParamGroup, batch: &mut Batch) -> Result<(), OptimError> {
        let momentum = group.momentum();
        let options = FusedSgd {
            lr: group.lr,
            momentum,
            dampening: self.dampening,
            weight_decay: group.weight_decay,
            nesterov: self.nesterov,
            maximize: self.maximize,
            is_first_step: momentum != 0.0 && batch.progress.step == 1,
        };
        let Batch { params, grads, slots, work: [none, _], .. } = batch;
        let buffers = if momentum == 0.0 { none } else { &mut slots[0] };
        Ok(foreach::fused_sgd_(params, grads, buffers, &options)?)
    }
}
