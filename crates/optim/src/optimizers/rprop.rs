//! [`Rprop`].

use fulgurite_torch::foreach;
use fulgurite_torch::tch::Tensor;

use crate::error::ensure;
use crate::options::options;
use crate::rule::{Bucket, Fixed, Rule};
use crate::{GroupDefaults, OptimError, OptimizerBuilder, ParamGroup};

/// Resilient backpropagation (M. Riedmiller, H. Braun, 1993), for full batches: only the sign of a gradient matters.
/// [`torch.optim.Rprop`](https://docs.pytorch.org/docs/stable/generated/torch.optim.Rprop.html).
///
/// Options and defaults: [`RpropOptions`].
pub type Rprop = OptimizerBuilder<RpropOptions>;

options! {
    /// Options of [`Rprop`], and its update.
    RpropOptions of Rprop {
        /// Learning rate.
        lr: f64 = 1e-2,
        /// Multiplicative factors that decrease and increase the step size.
        etas(minus: f64, plus: f64 => (minus, plus)): (f64, f64) = (0.5, 1.2),
        /// Minimum and maximum step size.
        step_sizes(min: f64, max: f64 => (min, max)): (f64, f64) = (1e-6, 50.0),
        /// Maximize the objective instead of minimizing it.
        maximize: bool = false,
    }
}

impl Rule for RpropOptions {
    const NAME: &'static str = "Rprop";
    const SLOTS: &'static [&'static str] = &["prev", "step_size"];
    const FIXED: &'static [(&'static str, Fixed)] =
        &[("foreach", Fixed::None), ("differentiable", Fixed::False), ("capturable", Fixed::False)];

    fn group_defaults(&self) -> GroupDefaults {
        GroupDefaults::new(self.lr)
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        let (minus, plus) = self.etas;
        let holds = 0.0 < minus && minus < 1.0 && 1.0 < plus;
        ensure(holds, Self::NAME, "eta values", format!("{minus}, {plus}"), "below 1 (but above 0) and above 1")?;
        let (min, max) = self.step_sizes;
        ensure(min <= max, Self::NAME, "step_sizes", format!("{min}, {max}"), "the smallest and the largest")
    }

    fn init(&self, slot: usize, group: &ParamGroup, param: &Tensor) -> Result<Option<Tensor>, OptimError> {
        Ok(Some(param.f_full_like(if slot == 0 { 0.0 } else { group.lr })?))
    }

    fn update(&self, _group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        bucket.prepare_grads(self.maximize, 0.0)?;
        let Bucket { params, grads, slots, work: [turns, _], .. } = bucket;
        let [prevs, step_sizes] = &mut slots[..] else { return Ok(()) };
        foreach::mul(grads, prevs, turns)?;
        foreach::copy_(prevs, grads)?;
        let (eta_minus, eta_plus) = self.etas;
        for i in 0..turns.len() {
            let mut factor = turns.get(i)?;
            let (on, back) = (factor.f_gt(0.0)?, factor.f_lt(0.0)?);
            let _ = factor.f_fill_(1.0)?;
            let _ = factor.f_masked_fill_(&on, eta_plus)?;
            let _ = factor.f_masked_fill_(&back, eta_minus)?;
            // A step that turns around is left out, and forgotten.
            let _ = prevs.get(i)?.f_masked_fill_(&back, 0.0)?;
            let (min, max) = self.step_sizes;
            let _ = step_sizes.get(i)?.f_mul_(&factor)?.f_clamp_(min, max)?;
        }
        let signs = turns;
        foreach::sign(prevs, signs)?;
        Ok(foreach::addcmul_(params, signs, step_sizes, -1.0)?)
    }
}
