//! [`BuildOptimizer`] and [`BuildLrScheduler`]: options, and what is built from them.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{LrScheduler, OptimError, Optimizer, OptimizerBuilder, ParamGroupConfig, Rule, Schedule, Scheduler};

/// Options of an optimizer, from which it is built by a program, a file or a command line.
///
/// Every [`Rule`] is one. Implement it by hand for an optimizer that is none.
pub trait BuildOptimizer: Serialize + DeserializeOwned + JsonSchema + Default + Clone + Send + 'static {
    /// The name of the optimizer's class, such as `AdamW`.
    fn class_name() -> &'static str;

    /// The optimizer of the parameters in `groups`.
    ///
    /// # Errors
    ///
    /// Fails if there is no parameter, one appears twice or cannot be optimized, or an option is out of range.
    fn build_optimizer(self, groups: Vec<ParamGroupConfig>) -> Result<Box<dyn Optimizer>, OptimError>;
}

impl<R: Rule> BuildOptimizer for R {
    fn class_name() -> &'static str {
        R::NAME
    }

    fn build_optimizer(self, groups: Vec<ParamGroupConfig>) -> Result<Box<dyn Optimizer>, OptimError> {
        OptimizerBuilder::from_options(groups, self).build()
    }
}

/// Options of a learning-rate scheduler, from which it is built by a program, a file or a command line.
///
/// Every [`Schedule`] with defaults and a [`JsonSchema`] is one. Implement it by hand for a scheduler that is none.
pub trait BuildLrScheduler: Serialize + DeserializeOwned + JsonSchema + Default + Clone + Send + 'static {
    /// Whether each step needs a monitored value, so that one must be named.
    const NEEDS_METRIC: bool = false;

    /// The name of the scheduler's class, such as `CosineAnnealingLR`.
    fn class_name() -> &'static str;

    /// The scheduler. `run_length` returns the length of the run in the interval that the scheduler is stepped by, if
    /// it is known; only schedulers that depend on it call it.
    ///
    /// # Errors
    ///
    /// Fails if an option without a default was left out, or an option is out of range.
    fn build_lr_scheduler(
        self,
        run_length: &mut dyn FnMut() -> Option<u32>,
    ) -> Result<Box<dyn LrScheduler>, OptimError>;
}

impl<S: Schedule + JsonSchema + Default + Clone> BuildLrScheduler for S {
    fn class_name() -> &'static str {
        S::NAME
    }

    fn build_lr_scheduler(
        mut self,
        run_length: &mut dyn FnMut() -> Option<u32>,
    ) -> Result<Box<dyn LrScheduler>, OptimError> {
        self.adapt_to_run(run_length);
        self.validate()?;
        Ok(Box::new(Scheduler::from_options(self)))
    }
}

/// A visitor of the options of every optimizer; see [`OptimizerOptions::visit_all`](crate::OptimizerOptions::visit_all).
pub trait OptimizerVisitor {
    /// The options of one optimizer.
    fn visit<O: BuildOptimizer>(&mut self);
}

/// A visitor of the options of every scheduler; see [`SchedulerOptions::visit_all`](crate::SchedulerOptions::visit_all).
pub trait SchedulerVisitor {
    /// The options of one scheduler.
    fn visit<O: BuildLrScheduler>(&mut self);
}
