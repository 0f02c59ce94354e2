//! [`Rprop`].

use fulgurite_torch::foreach;
use fulgurite_torch::tch::{TchError, Tensor};

use crate::builder::{OptimizerBuilder, setters};
use crate::error::ensure;
use crate::rule::{Batch, Inert, Rule};
use crate::settings::{Settings, settings};
use crate::{Momentum, OptimError, ParamGroup};

/// Steps that look only at the sign of the gradient, and grow while it stays the same (M. Riedmiller, H. Braun, 1993):
/// [`torch.optim.Rprop`](https://docs.pytorch.org/docs/stable/generated/torch.optim.Rprop.html). For full batches.
///
/// Defaults: `lr` 1e-2, `etas` (0.5, 1.2), `step_sizes` (1e-6, 50).
pub type Rprop = OptimizerBuilder<RpropRule>;

/// The update of [`Rprop`].
#[derive(Debug, Clone)]
pub struct RpropRule {
    etas: [f64; 2],
    step_sizes: [f64; 2],
    maximize: bool,
}

impl Rprop {
    setters! {
        /// The factors of a step that turns around, and of one that goes on.
        etas(minus: f64, plus: f64) => rule.etas = [minus, plus];
        /// The smallest and the largest step.
        step_sizes(min: f64, max: f64) => rule.step_sizes = [min, max];
        /// Go up the gradient.
        maximize(maximize: bool) => rule.maximize = maximize;
    }
}

impl Settings for RpropRule {
    settings! { "etas" = etas, "step_sizes" = step_sizes, "maximize" = maximize }
}

impl Rule for RpropRule {
    const NAME: &'static str = "Rprop";
    const LR: f64 = 1e-2;
    const WEIGHT_DECAY: Option<f64> = None;
    const MOMENTUM: Momentum = Momentum::None;
    const SLOTS: &'static [&'static str] = &["prev", "step_size"];
    const INERT: &'static [(&'static str, Inert)] =
        &[("foreach", Inert::None), ("differentiable", Inert::False), ("capturable", Inert::False)];

    fn new() -> Self {
        RpropRule { etas: [0.5, 1.2], step_sizes: [1e-6, 50.0], maximize: false }
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        let [minus, plus] = self.etas;
        let holds = 0.0 < minus && minus < 1.0 && 1.0 < plus;
        ensure(holds, Self::NAME, "eta values", format!("{minus}, {plus}"), "below 1 (but above 0) and above 1")?;
        let [min, max] = self.step_sizes;
        ensure(min <= max, Self::NAME, "step_sizes", format!("{min}, {max}"), "the smallest and the largest")
    }

    fn init(&self, slot: usize, group: &ParamGroup, param: &Tensor) -> Result<Option<Tensor>, TchError> {
        param.f_full_like(if slot == 0 { 0.0 } else { group.lr }).map(Some)
    }

    fn update(&self, _group: &ParamGroup, batch: &mut Batch) -> Result<(), OptimError> {
        batch.prepare_grads(self.maximize, 0.0)?;
        let Batch { params, grads, slots, work: [turns, _], .. } = batch;
        let [prevs, step_sizes] = &mut slots[..] else { return Ok(()) };
        foreach::mul(grads, prevs, turns)?;
        foreach::copy_(prevs, grads)?;
        let [eta_minus, eta_plus] = self.etas;
        for i in 0..turns.len() {
            let mut factor = turns.get(i)?;
            let (on, back) = (factor.f_gt(0.0)?, factor.f_lt(0.0)?);
            let _ = factor.f_fill_(1.0)?;
            let _ = factor.f_masked_fill_(&on, eta_plus)?;
            let _ = factor.f_masked_fill_(&back, eta_minus)?;
            // A step that turns around is left out, and forgotten.
            let _ = prevs.get(i)?.f_masked_fill_(&back, 0.0)?;
            let [min, max] = self.step_sizes;
            let _ = step_sizes.get(i)?.f_mul_(&factor)?.f_clamp_(min, max)?;
        }
        let signs = turns;
        foreach::sign(prevs, signs)?;
        Ok(foreach::addcmul_(params, signs, step_sizes, -1.0)?)
    }
}
