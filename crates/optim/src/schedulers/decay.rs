//! Schedules that multiply the learning rate by something simple: [`StepLR`], [`MultiStepLR`], [`ConstantLR`],
//! [`LinearLR`], [`ExponentialLR`], [`PolynomialLR`].
//!
//! They build on the learning rate before the step, as PyTorch's do, so that several can be chained.

use fulgurite_torch::{Dict, Value};

use super::scheduler::{Moment, Schedule, Scheduler};
use crate::OptimError;
use crate::error::ensure;
use crate::settings::{Setting, Settings, settings};

/// Multiplies the learning rate by `gamma` every `step_size` epochs.
pub type StepLR = Scheduler<StepSchedule>;

/// The formula of [`StepLR`].
#[derive(Debug)]
pub struct StepSchedule {
    step_size: i64,
    gamma: f64,
}

impl StepLR {
    /// With `gamma` 0.1.
    pub fn new(step_size: u32) -> StepLR {
        Scheduler::with(StepSchedule { step_size: step_size.into(), gamma: 0.1 })
    }

    /// The factor.
    #[must_use]
    pub fn gamma(mut self, gamma: f64) -> Self {
        self.schedule.gamma = gamma;
        self
    }
}

impl Settings for StepSchedule {
    settings! { "step_size" = step_size, "gamma" = gamma }
}

impl Schedule for StepSchedule {
    const NAME: &'static str = "StepLR";

    fn validate(&self) -> Result<(), OptimError> {
        ensure(self.step_size > 0, Self::NAME, "step_size", self.step_size, "1 or more")
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        let stay = at.epoch == 0 || at.epoch % self.step_size != 0;
        Ok(if stay { at.group.lr } else { at.group.lr * self.gamma })
    }

    fn closed_form(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        Ok(at.base_lr * self.gamma.powi((at.epoch / self.step_size) as i32))
    }
}

/// Multiplies the learning rate by `gamma` at each milestone; twice at one that is given twice.
///
/// PyTorch keeps the milestones as a `collections.Counter`; here they are a plain dict, which it also takes.
pub type MultiStepLR = Scheduler<MultiStepSchedule>;

/// The formula of [`MultiStepLR`].
#[derive(Debug)]
pub struct MultiStepSchedule {
    milestones: Milestones,
    gamma: f64,
}

/// Sorted.
#[derive(Debug)]
struct Milestones(Vec<i64>);

impl MultiStepLR {
    /// With `gamma` 0.1.
    pub fn new(milestones: impl IntoIterator<Item = u32>) -> MultiStepLR {
        let mut milestones: Vec<i64> = milestones.into_iter().map(i64::from).collect();
        milestones.sort_unstable();
        Scheduler::with(MultiStepSchedule { milestones: Milestones(milestones), gamma: 0.1 })
    }

    /// The factor.
    #[must_use]
    pub fn gamma(mut self, gamma: f64) -> Self {
        self.schedule.gamma = gamma;
        self
    }
}

impl Setting for Milestones {
    const EXPECTED: &'static str = "a dict of epochs and how often each counts";

    fn to_value(&self) -> Value {
        let counts = self.0.chunk_by(|a, b| a == b).map(|same| (same[0].into(), same.len().into()));
        Value::Dict(counts.collect::<Dict>())
    }

    fn from_value(value: &Value) -> Option<Milestones> {
        let mut milestones = Vec::new();
        for (epoch, count) in value.as_dict()?.iter() {
            milestones.extend(std::iter::repeat_n(epoch.as_int()?, count.as_int()?.try_into().ok()?));
        }
        milestones.sort_unstable();
        Some(Milestones(milestones))
    }
}

impl Settings for MultiStepSchedule {
    settings! { "milestones" = milestones, "gamma" = gamma }
}

impl Schedule for MultiStepSchedule {
    const NAME: &'static str = "MultiStepLR";

    fn validate(&self) -> Result<(), OptimError> {
        Ok(())
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        match self.milestones.0.iter().filter(|&&milestone| milestone == at.epoch).count() {
            0 => Ok(at.group.lr),
            times => Ok(at.group.lr * self.gamma.powi(times as i32)),
        }
    }

    fn closed_form(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        let passed = self.milestones.0.partition_point(|&milestone| milestone <= at.epoch);
        Ok(at.base_lr * self.gamma.powi(passed as i32))
    }
}

/// Multiplies the learning rate by `factor` for the first `total_iters` epochs.
pub type ConstantLR = Scheduler<ConstantSchedule>;

/// The formula of [`ConstantLR`].
#[derive(Debug)]
pub struct ConstantSchedule {
    factor: f64,
    total_iters: i64,
}

impl ConstantLR {
    /// With PyTorch's defaults: a third, for 5 epochs.
    #[expect(clippy::new_without_default, reason = "no other scheduler has a default")]
    pub fn new() -> ConstantLR {
        Scheduler::with(ConstantSchedule { factor: 1.0 / 3.0, total_iters: 5 })
    }

    /// The factor. Unlike PyTorch, which fails at the end of it, 0 is refused from the start.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.schedule.factor = factor;
        self
    }

    /// How long.
    #[must_use]
    pub fn total_iters(mut self, total_iters: u32) -> Self {
        self.schedule.total_iters = total_iters.into();
        self
    }
}

impl Settings for ConstantSchedule {
    settings! { "factor" = factor, "total_iters" = total_iters }
}

impl Schedule for ConstantSchedule {
    const NAME: &'static str = "ConstantLR";

    fn validate(&self) -> Result<(), OptimError> {
        let holds = self.factor > 0.0 && self.factor <= 1.0;
        ensure(holds, Self::NAME, "constant multiplicative factor", self.factor, "greater than 0 and at most 1")
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        Ok(if at.epoch == 0 {
            at.group.lr * self.factor
        } else if at.epoch == self.total_iters {
            at.group.lr * (1.0 / self.factor)
        } else {
            at.group.lr
        })
    }

    fn closed_form(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        Ok(at.base_lr * if at.epoch >= self.total_iters { 1.0 } else { self.factor })
    }
}

/// Moves the factor of the learning rate in a line from `start_factor` to `end_factor`, over `total_iters` epochs.
pub type LinearLR = Scheduler<LinearSchedule>;

/// The formula of [`LinearLR`].
#[derive(Debug)]
pub struct LinearSchedule {
    start_factor: f64,
    end_factor: f64,
    total_iters: i64,
}

impl LinearLR {
    /// With PyTorch's defaults: from a third to 1, over 5 epochs.
    #[expect(clippy::new_without_default, reason = "no other scheduler has a default")]
    pub fn new() -> LinearLR {
        Scheduler::with(LinearSchedule { start_factor: 1.0 / 3.0, end_factor: 1.0, total_iters: 5 })
    }

    /// The first factor.
    #[must_use]
    pub fn start_factor(mut self, start_factor: f64) -> Self {
        self.schedule.start_factor = start_factor;
        self
    }

    /// The last factor.
    #[must_use]
    pub fn end_factor(mut self, end_factor: f64) -> Self {
        self.schedule.end_factor = end_factor;
        self
    }

    /// How long.
    #[must_use]
    pub fn total_iters(mut self, total_iters: u32) -> Self {
        self.schedule.total_iters = total_iters.into();
        self
    }
}

impl Settings for LinearSchedule {
    settings! { "start_factor" = start_factor, "end_factor" = end_factor, "total_iters" = total_iters }
}

impl Schedule for LinearSchedule {
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
        if at.initial || at.epoch > self.total_iters {
            return Ok(at.group.lr);
        }
        let rise = self.end_factor - self.start_factor;
        let before = self.total_iters as f64 * self.start_factor + (at.epoch - 1) as f64 * rise;
        Ok(at.group.lr * (1.0 + rise / before))
    }

    fn closed_form(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        let part = self.total_iters.min(at.epoch) as f64 / self.total_iters.max(1) as f64;
        Ok(at.base_lr * (self.start_factor + (self.end_factor - self.start_factor) * part))
    }
}

/// Multiplies the learning rate by `gamma` every epoch.
pub type ExponentialLR = Scheduler<ExponentialSchedule>;

/// The formula of [`ExponentialLR`].
#[derive(Debug)]
pub struct ExponentialSchedule {
    gamma: f64,
}

impl ExponentialLR {
    /// With this factor.
    pub fn new(gamma: f64) -> ExponentialLR {
        Scheduler::with(ExponentialSchedule { gamma })
    }
}

impl Settings for ExponentialSchedule {
    settings! { "gamma" = gamma }
}

impl Schedule for ExponentialSchedule {
    const NAME: &'static str = "ExponentialLR";

    fn validate(&self) -> Result<(), OptimError> {
        Ok(())
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        Ok(if at.initial { at.group.lr } else { at.group.lr * self.gamma })
    }

    fn closed_form(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        Ok(at.base_lr * self.gamma.powi(at.epoch as i32))
    }
}

/// Lets the learning rate fall to 0 over `total_iters` epochs, as `(1 - epoch / total_iters) ^ power`.
pub type PolynomialLR = Scheduler<PolynomialSchedule>;

/// The formula of [`PolynomialLR`].
#[derive(Debug)]
pub struct PolynomialSchedule {
    total_iters: i64,
    power: f64,
}

impl PolynomialLR {
    /// With power 1, a straight line.
    pub fn new(total_iters: u32) -> PolynomialLR {
        Scheduler::with(PolynomialSchedule { total_iters: total_iters.into(), power: 1.0 })
    }

    /// The power.
    #[must_use]
    pub fn power(mut self, power: f64) -> Self {
        self.schedule.power = power;
        self
    }
}

impl Settings for PolynomialSchedule {
    settings! { "total_iters" = total_iters, "power" = power }
}

impl Schedule for PolynomialSchedule {
    const NAME: &'static str = "PolynomialLR";

    fn validate(&self) -> Result<(), OptimError> {
        ensure(self.total_iters > 0, Self::NAME, "total_iters", self.total_iters, "1 or more")
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        if at.initial || at.epoch > self.total_iters {
            return Ok(at.group.lr);
        }
        let total = self.total_iters as f64;
        let left = |epoch: i64| 1.0 - epoch as f64 / total;
        Ok(at.group.lr * (left(at.epoch) / left(at.epoch - 1)).powf(self.power))
    }

    fn closed_form(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        let left = 1.0 - self.total_iters.min(at.epoch) as f64 / self.total_iters as f64;
        Ok(at.base_lr * left.powf(self.power))
    }
}
