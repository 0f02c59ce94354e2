//! [`LambdaLR`] and [`MultiplicativeLR`].

use std::fmt;

use fulgurite_torch::{Dict, Value};

use super::scheduler::{Moment, Schedule, Scheduler};
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
#[derive(serde::Serialize, serde::Deserialize)]
pub struct LambdaSchedule<const CUMULATIVE: bool> {
    #[serde(skip)]
    factors: Vec<Factor>,
    /// Whether there is one function for all groups.
    #[serde(skip)]
    shared: bool,
}

impl<const CUMULATIVE: bool> Scheduler<LambdaSchedule<CUMULATIVE>> {
    /// The same function for all groups.
    pub fn new(factor: impl Fn(u64) -> f64 + Send + 'static) -> Self {
        Scheduler::from_options(LambdaSchedule { factors: vec![Box::new(factor)], shared: true })
    }

    /// One function for each group, in their order.
    pub fn per_group(factors: Vec<Box<dyn Fn(u64) -> f64 + Send>>) -> Self {
        Scheduler::from_options(LambdaSchedule { factors, shared: false })
    }
}

impl<const CUMULATIVE: bool> fmt::Debug for LambdaSchedule<CUMULATIVE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(Self::NAME).field("functions", &self.factors.len()).finish_non_exhaustive()
    }
}

impl<const CUMULATIVE: bool> Schedule for LambdaSchedule<CUMULATIVE> {
    /// The number of parameter groups.
    type State = usize;
    const NAME: &'static str = if CUMULATIVE { "MultiplicativeLR" } else { "LambdaLR" };

    fn prepare(&self, groups: &mut usize, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        *groups = optimizer.param_groups().len();
        if !self.shared && self.factors.len() != *groups {
            let (values, groups) = (self.factors.len(), *groups);
            return Err(OptimError::PerGroupLength { scheduler: Self::NAME, option: "lr_lambda", values, groups });
        }
        Ok(())
    }

    fn join(&self, known: &mut usize, groups: usize) -> Result<(), OptimError> {
        if !self.shared && self.factors.len() < groups {
            let values = self.factors.len();
            return Err(OptimError::PerGroupLength { scheduler: Self::NAME, option: "lr_lambda", values, groups });
        }
        *known = groups;
        Ok(())
    }

    fn lr(&self, at: &Moment<'_, usize>) -> Result<f64, OptimError> {
        if CUMULATIVE && at.initial {
            return Ok(at.group.lr);
        }
        let factor = self.factors[if self.shared { 0 } else { at.index }](at.epoch as u64);
        Ok(factor * if CUMULATIVE { at.group.lr } else { at.base_lr })
    }

    fn save(&self, groups: &usize) -> Dict {
        Dict::new().with("lr_lambdas", Value::List(vec![Value::None; *groups]))
    }

    /// Functions are not saved.
    fn load(&mut self, _groups: &mut usize, _saved: &Dict) -> Result<(), String> {
        Ok(())
    }
}
