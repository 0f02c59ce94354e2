//! [`ASGD`].

use fulgurite_torch::foreach;

use crate::builder::{OptimizerBuilder, setters};
use crate::error::ensure;
use crate::rule::{Batch, Inert, Rule};
use crate::settings::{Settings, settings};
use crate::{Momentum, OptimError, ParamGroup};

/// Gradient descent that also keeps the average of the weights (`ax` in its state; B. Polyak, A. Juditsky, 1992):
/// [`torch.optim.ASGD`](https://docs.pytorch.org/docs/stable/generated/torch.optim.ASGD.html).
///
/// Defaults: `lr` 1e-2, `lambd` 1e-4, `alpha` 0.75, `t0` 1e6, `weight_decay` 0.
pub type ASGD = OptimizerBuilder<AsgdRule>;

/// The update of [`ASGD`].
#[derive(Debug, Clone)]
pub struct AsgdRule {
    lambd: f64,
    alpha: f64,
    t0: f64,
    maximize: bool,
}

impl ASGD {
    setters! {
        /// How fast the weights and the learning rate decay.
        lambd(lambd: f64) => rule.lambd = lambd;
        /// The power of the learning rate's decay.
        alpha(alpha: f64) => rule.alpha = alpha;
        /// The step at which averaging begins.
        t0(t0: f64) => rule.t0 = t0;
        /// Weight decay, added to the gradient.
        weight_decay(weight_decay: f64) => weight_decay = Some(weight_decay);
        /// Go up the gradient.
        maximize(maximize: bool) => rule.maximize = maximize;
    }
}

impl Settings for AsgdRule {
    settings! { "lambd" = lambd, "alpha" = alpha, "t0" = t0, "maximize" = maximize }
}

impl Rule for AsgdRule {
    const NAME: &'static str = "ASGD";
    const LR: f64 = 1e-2;
    const WEIGHT_DECAY: Option<f64> = Some(0.0);
    const MOMENTUM: Momentum = Momentum::None;
    const SLOTS: &'static [&'static str] = &["ax"];
    const SCALARS: &'static [&'static str] = &["eta", "mu"];
    const INERT: &'static [(&'static str, Inert)] =
        &[("foreach", Inert::None), ("differentiable", Inert::False), ("capturable", Inert::False)];

    fn new() -> Self {
        AsgdRule { lambd: 1e-4, alpha: 0.75, t0: 1e6, maximize: false }
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        let finite = self.lambd.is_finite() && self.alpha.is_finite() && !self.t0.is_nan();
        let values = format!("{}, {}, {}", self.lambd, self.alpha, self.t0);
        ensure(finite, Self::NAME, "lambd, alpha, t0", values, "numbers")
    }

    fn initial_scalars(&self, group: &ParamGroup) -> [f32; 2] {
        [group.lr as f32, 1.0]
    }

    fn update(&self, group: &ParamGroup, batch: &mut Batch) -> Result<(), OptimError> {
        batch.prepare_grads(self.maximize, group.weight_decay)?;
        let step = batch.step();
        let Batch { params, grads, slots, work: [work, _], progress, .. } = batch;
        let [eta, mu] = progress.scalars.map(f64::from);
        foreach::add(grads, params, self.lambd, work)?;
        foreach::add_(params, work, -eta)?;
        foreach::sub(params, &slots[0], 1.0, work)?;
        foreach::add_(&mut slots[0], work, mu)?;
        let next_eta = group.lr / (1.0 + self.lambd * group.lr * step).powf(self.alpha);
        let next_mu = 1.0 / (step - self.t0).max(1.0);
        progress.scalars = [next_eta as f32, next_mu as f32];
        Ok(())
    }
}
