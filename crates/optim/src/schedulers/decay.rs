//! Schedules that multiply the learning rate by something simple: [`StepLR`], [`MultiStepLR`], [`ConstantLR`],
//! [`LinearLR`], [`ExponentialLR`], [`PolynomialLR`].
//!
//! They build on the learning rate before the step, as PyTorch's do, so that several can be chained.

use fulgurite_torch::{Dict, Value};

use super::scheduler::{Moment, Schedule, Scheduler};
use crate::OptimError;
use crate::error::{ensure, needed};
use crate::options::options;
use crate::typed;

/// Multiplies the learning rate by `gamma` every `step_size` epochs.
pub type StepLR = Scheduler<StepLROptions>;

options! {
    /// Options of [`StepLR`], and its formula.
    StepLROptions of StepLR {
        /// Period of the decay, in epochs (or steps); required.
        step_size(step_size: u32 => Some(step_size)): Option<u32> = None,
        /// Multiplicative factor of learning rate decay.
        gamma: f64 = 0.1,
    }
}

impl StepLR {
    /// With `gamma` 0.1.
    pub fn new(step_size: u32) -> StepLR {
        Scheduler::from_options(StepLROptions::default().step_size(step_size))
    }
}

impl Schedule for StepLROptions {
    type State = ();
    const NAME: &'static str = "StepLR";

    fn validate(&self) -> Result<(), OptimError> {
        let step_size = self.required_step_size()?;
        ensure(step_size > 0, Self::NAME, "step_size", step_size, "1 or more")
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        let stay = at.epoch == 0 || at.epoch % self.required_step_size()? != 0;
        Ok(if stay { at.group.lr } else { at.group.lr * self.gamma })
    }

    fn closed_form(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        Ok(at.base_lr * self.gamma.powi((at.epoch / self.required_step_size()?) as i32))
    }
}

impl StepLROptions {
    fn required_step_size(&self) -> Result<i64, OptimError> {
        needed(Self::NAME, "step_size", self.step_size).map(i64::from)
    }
}

/// Multiplies the learning rate by `gamma` at each milestone; twice at a milestone that is given twice.
///
/// PyTorch keeps the milestones as a `collections.Counter`; here they are a plain dict, which it also takes.
pub type MultiStepLR = Scheduler<MultiStepLROptions>;

options! {
    /// Options of [`MultiStepLR`], and its formula.
    MultiStepLROptions of MultiStepLR {
        /// The epochs (or steps) at which it decays, in any order; required.
        milestones(milestones: Vec<u32> => Some(milestones)): Option<Vec<u32>> = None,
        /// Multiplicative factor of learning rate decay.
        gamma: f64 = 0.1,
    }
}

impl MultiStepLR {
    /// With `gamma` 0.1.
    pub fn new(milestones: impl IntoIterator<Item = u32>) -> MultiStepLR {
        Scheduler::from_options(MultiStepLROptions::default().milestones(milestones.into_iter().collect::<Vec<_>>()))
    }
}

impl Schedule for MultiStepLROptions {
    type State = ();
    const NAME: &'static str = "MultiStepLR";

    fn validate(&self) -> Result<(), OptimError> {
        self.count(|_| true).map(drop)
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        match self.count(|milestone| milestone == at.epoch)? {
            0 => Ok(at.group.lr),
            times => Ok(at.group.lr * self.gamma.powi(times)),
        }
    }

    fn closed_form(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        Ok(at.base_lr * self.gamma.powi(self.count(|milestone| milestone <= at.epoch)?))
    }

    fn save(&self, _state: &()) -> Dict {
        let mut milestones = self.milestones.clone().unwrap_or_default();
        milestones.sort_unstable();
        let counts = milestones.chunk_by(|a, b| a == b).map(|same| (Value::from(same[0]), Value::from(same.len())));
        Dict::new().with("milestones", Value::Dict(counts.collect::<Dict>())).with("gamma", self.gamma)
    }

    fn load(&mut self, _state: &mut (), saved: &Dict) -> Result<(), String> {
        if let Some(saved) = saved.get("milestones") {
            let expected = || format!("entry `milestones` is {}, expected a dict of epochs and counts", saved.type_name());
            self.milestones = Some(milestones(saved).ok_or_else(expected)?);
        }
        typed::load(saved, "gamma", &mut self.gamma)
    }
}

impl MultiStepLROptions {
    /// How many milestones are like this.
    fn count(&self, is_like: impl Fn(i64) -> bool) -> Result<i32, OptimError> {
        let milestones = needed(Self::NAME, "milestones", self.milestones.as_deref())?;
        Ok(milestones.iter().filter(|&&milestone| is_like(milestone.into())).count() as i32)
    }
}

/// The milestones of a dict of epochs, and how often each counts.
fn milestones(saved: &Value) -> Option<Vec<u32>> {
    let mut milestones = Vec::new();
    for (epoch, count) in saved.as_dict()?.iter() {
        let epoch = u32::try_from(epoch.as_int()?).ok()?;
        // Each entry of a sane schedule counts a few times; a damaged file must not fill the memory.
        let count = usize::try_from(count.as_int()?).ok().filter(|&count| count <= 1000)?;
        milestones.extend(std::iter::repeat_n(epoch, count));
    }
    Some(milestones)
}

/// Multiplies the learning rate by `factor` for the first `total_iters` epochs.
pub type ConstantLR = Scheduler<ConstantLROptions>;

options! {
    /// Options of [`ConstantLR`], and its formula.
    ConstantLROptions of ConstantLR {
        /// Multiplicative factor. Unlike PyTorch, which fails at the end of it, 0 is refused from the start.
        factor: f64 = 1.0 / 3.0,
        /// Number of epochs (or steps) with the factor.
        total_iters: u32 = 5,
    }
}

impl ConstantLR {
    /// With default options.
    #[expect(clippy::new_without_default, reason = "no other scheduler has a default")]
    pub fn new() -> ConstantLR {
        Scheduler::from_options(ConstantLROptions::default())
    }
}

impl Schedule for ConstantLROptions {
    type State = ();
    const NAME: &'static str = "ConstantLR";

    fn validate(&self) -> Result<(), OptimError> {
        let holds = self.factor > 0.0 && self.factor <= 1.0;
        ensure(holds, Self::NAME, "constant multiplicative factor", self.factor, "greater than 0 and at most 1")
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        Ok(if at.epoch == 0 {
            at.group.lr * self.factor
        } else if at.epoch == i64::from(self.total_iters) {
            at.group.lr * (1.0 / self.factor)
        } else {
            at.group.lr
        })
    }

    fn closed_form(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        Ok(at.base_lr * if at.epoch >= i64::from(self.total_iters) { 1.0 } else { self.factor })
    }
}

/// Changes the factor of the learning rate linearly from `start_factor` to `end_factor`, over `total_iters` epochs.
pub type LinearLR = Scheduler<LinearLROptions>;

options! {
    /// Options of [`LinearLR`], and its formula.
    LinearLROptions of LinearLR {
        /// Multiplicative factor in the first epoch.
        start_factor: f64 = 1.0 / 3.0,
        /// Multiplicative factor at the end.
        end_factor: f64 = 1.0,
        /// Number of epochs (or steps) until the end factor is reached.
        total_iters: u32 = 5,
    }
}

impl LinearLR {
    /// With default options.
    #[expect(clippy::new_without_default, reason = "no other scheduler has a default")]
    pub fn new() -> LinearLR {
        Scheduler::from_options(LinearLROptions::default())
    }
}

impl Schedule for LinearLROptions {
    type State = ();
    const NAME: &'static str = "LinearLR";

    fn validate(&self) -> Result<(), OptimError> {
        let (start, end) = (self.start_factor, self.end_factor);
        let start_holds = start > 0.0 && start <= 1.0;
        ensure(start_holds, Self::NAME, "starting multiplicative factor", start, "greater than 0 and at most 1")?;
        ensure((0.0..=1.0).contains(&end), Self::NAME, "ending multiplicative factor", end, "between 0 and 1")
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        if at.epoch == 0 {
            return Ok(at.group.lr * self.start_factor);
        }
        if at.initial || at.epoch > i64::from(self.total_iters) {
            return Ok(at.group.lr);
        }
        let rise = self.end_factor - self.start_factor;
        let before = f64::from(self.total_iters) * self.start_factor + (at.epoch - 1) as f64 * rise;
        Ok(at.group.lr * (1.0 + rise / before))
    }

    fn closed_form(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        let part = at.epoch.min(self.total_iters.into()) as f64 / f64::from(self.total_iters.max(1));
        Ok(at.base_lr * (self.start_factor + (self.end_factor - self.start_factor) * part))
    }
}

/// Multiplies the learning rate by `gamma` every epoch.
pub type ExponentialLR = Scheduler<ExponentialLROptions>;

options! {
    /// Options of [`ExponentialLR`], and its formula.
    ExponentialLROptions of ExponentialLR {
        /// Multiplicative factor of each epoch (or step); required.
        gamma(gamma: f64 => Some(gamma)): Option<f64> = None,
    }
}

impl ExponentialLR {
    /// With this factor.
    pub fn new(gamma: f64) -> ExponentialLR {
        Scheduler::from_options(ExponentialLROptions::default().gamma(gamma))
    }
}

impl Schedule for ExponentialLROptions {
    type State = ();
    const NAME: &'static str = "ExponentialLR";

    fn validate(&self) -> Result<(), OptimError> {
        self.required_gamma().map(drop)
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        Ok(if at.initial { at.group.lr } else { at.group.lr * self.required_gamma()? })
    }

    fn closed_form(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        Ok(at.base_lr * self.required_gamma()?.powi(at.epoch as i32))
    }
}

impl ExponentialLROptions {
    fn required_gamma(&self) -> Result<f64, OptimError> {
        needed(Self::NAME, "gamma", self.gamma)
    }
}

/// Decays the learning rate to 0 over `total_iters` epochs, as `(1 - epoch / total_iters) ^ power`.
pub type PolynomialLR = Scheduler<PolynomialLROptions>;

options! {
    /// Options of [`PolynomialLR`], and its formula.
    PolynomialLROptions of PolynomialLR {
        /// Number of epochs (or steps) of the decay.
        total_iters: u32 = 5,
        /// Power of the polynomial; 1 is linear.
        power: f64 = 1.0,
    }
}

impl PolynomialLR {
    /// With power 1.
    pub fn new(total_iters: u32) -> PolynomialLR {
        Scheduler::from_options(PolynomialLROptions::default().total_iters(total_iters))
    }
}

impl Schedule for PolynomialLROptions {
    type State = ();
    const NAME: &'static str = "PolynomialLR";

    fn validate(&self) -> Result<(), OptimError> {
        ensure(self.total_iters > 0, Self::NAME, "total_iters", self.total_iters, "1 or more")
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        if at.initial || at.epoch > i64::from(self.total_iters) {
            return Ok(at.group.lr);
        }
        let total = f64::from(self.total_iters);
        let left = |epoch: i64| 1.0 - epoch as f64 / total;
        Ok(at.group.lr * (left(at.epoch) / left(at.epoch - 1)).powf(self.power))
    }

    fn closed_form(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        let left = 1.0 - at.epoch.min(self.total_iters.into()) as f64 / f64::from(self.total_iters);
        Ok(at.base_lr * left.powf(self.power))
    }
}
