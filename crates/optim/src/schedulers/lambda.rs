//! [`LambdaLR`] and [`MultiplicativeLR`].

use std::fmt;

use fulgurite_torch::{Dict, Value};

use super::scheduler::{Moment, Schedule, Scheduler};
use crate::settings::Settings;
use crate::{OptimError, Optimizer};

/// A factor for each epoch, one function for all groups or one for each.
type Factor = Box<dyn Fn(u64) -> f64 + Send>;

/// Multiplies the base learning rate by a function of the epoch.
///
/// The function itself is not part of the state dict, as in PyTorch.
pub type LambdaLR = Scheduler<LambdaSchedule<false>>;

/// Multiplies the learning rate of the epoch before by a function of the epoch.
///
/// The function itself is not part of the state dict, as in PyTorch.
pub type MultiplicativeLR = Scheduler<LambdaSchedule<true>>;

/// The formula of [`LambdaLR`] (`CUMULATIVE` false) and [`MultiplicativeLR`] (`CUMULATIVE` true).
pub struct LambdaSchedule<const CUMULATIVE: bool> {
    factors: Vec<Factor>,
    /// Whether there is one function for all groups.
    shared: bool,
    groups: usize,
}

impl<const CUMULATIVE: bool> Scheduler<LambdaSchedule<CUMULATIVE>> {
    /// The same function for all groups.
    pub fn new(factor: impl Fn(u64) -> f64 + Send + 'static) -> Self {
        Scheduler::with(LambdaSchedule { factors: vec![Box::new(factor)], shared: true, groups: 0 })
    }

    /// One function for each group, in their order.
    pub fn per_group(factors: Vec<Box<dyn Fn(u64) -> f64 + Send>>) -> Self {
        Scheduler::with(LambdaSchedule { factors, shared: false, groups: 0 })
    }
}

impl<const CUMULATIVE: bool> fmt::Debug for LambdaSchedule<CUMULATIVE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(Self::NAME).field("functions", &self.factors.len()).finish_non_exhaustive()
    }
}

impl<const CUMULATIVE: bool> Settings for LambdaSchedule<CUMULATIVE> {
    fn save(&self, state: &mut Dict) {
        state.push("lr_lambdas", Value::List(vec![Value::None; self.groups]));
    }

    fn load(&mut self, _state: &Dict) -> Result<(), String> {
        Ok(())
    }
}

impl<const CUMULATIVE: bool> Schedule for LambdaSchedule<CUMULATIVE> {
    const NAME: &'static str = if CUMULATIVE { "MultiplicativeLR" } else { "LambdaLR" };

    fn validate(&self) -> Result<(), OptimError> {
        Ok(())
    }

    fn prepare(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        self.groups = optimizer.param_groups().len();
        if !self.shared && self.factors.len() != self.groups {
            let (values, groups) = (self.factors.len(), self.groups);
            return Err(OptimError::PerGroupLength { scheduler: Self::NAME, option: "lr_lambda", values, groups });
        }
        Ok(())
    }

    fn join(&mut self, groups: usize) -> Result<(), OptimError> {
        if !self.shared && self.factors.len() < groups {
            let values = self.factors.len();
            return Err(OptimError::PerGroupLength { scheduler: Self::NAME, option: "lr_lambda", values, groups });
        }
        self.groups = groups;
        Ok(())
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        if CUMULATIVE && at.initial {
            return Ok(at.group.lr);
        }
        let factor = self.factors[if self.shared { 0 } else { at.index }](at.epoch as u64);
        Ok(factor * if CUMULATIVE { at.group.lr } else { at.base_lr })
    }
}
