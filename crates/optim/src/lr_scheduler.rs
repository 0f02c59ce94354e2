//! [`LrScheduler`]: the interface of every learning-rate scheduler.

use std::any::Any;

use fulgurite_torch::Dict;

use crate::{OptimError, Optimizer};

/// A learning-rate schedule over the parameter groups of one optimizer.
///
/// A [`Schedule`](crate::Schedule), a formula, is sufficient for most schedulers; implement this for one that works
/// differently.
pub trait LrScheduler: Any + Send {
    /// The class name, PyTorch's where it has the scheduler, such as `CosineAnnealingLR`.
    fn name(&self) -> &str;

    /// Attaches the scheduler: records `initial_lr` and sets the first learning rate, as PyTorch's constructors do.
    ///
    /// # Errors
    ///
    /// Fails if an option is missing or out of range, or does not fit the optimizer, such as a list without a value for
    /// each parameter group.
    fn attach(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError>;

    /// Advances by one step. `metric` is the monitored value; only [`needs_metric`](LrScheduler::needs_metric) schedulers
    /// use it.
    ///
    /// # Errors
    ///
    /// Fails if the scheduler was not attached, needs a value and got none, or is at its end (`OneCycleLR`).
    fn step(&mut self, optimizer: &mut dyn Optimizer, metric: Option<f64>) -> Result<(), OptimError>;

    /// Whether a step needs a monitored value (`ReduceLROnPlateau`).
    fn needs_metric(&self) -> bool {
        false
    }

    /// The learning rates of the last step, one per group.
    fn last_lr(&self) -> &[f64];

    /// The state, in PyTorch's layout and names.
    ///
    /// # Errors
    ///
    /// Fails if the scheduler is of another crate, and its state is not available. Those of this crate always have one.
    fn state_dict(&self) -> Result<Dict, OptimError>;

    /// Restores what [`state_dict`](LrScheduler::state_dict), here or in PyTorch, returned.
    ///
    /// # Errors
    ///
    /// Fails if the scheduler was not attached, or the state has entries of the wrong type or for fewer parameter
    /// groups.
    fn load_state_dict(&mut self, state: &Dict) -> Result<(), OptimError>;
}

impl dyn LrScheduler {
    /// The scheduler, if it is of this type.
    pub fn downcast_ref<T: LrScheduler>(&self) -> Option<&T> {
        let any: &dyn Any = self;
        any.downcast_ref()
    }

    /// The scheduler, if it is of this type.
    pub fn downcast_mut<T: LrScheduler>(&mut self) -> Option<&mut T> {
        let any: &mut dyn Any = self;
        any.downcast_mut()
    }
}
