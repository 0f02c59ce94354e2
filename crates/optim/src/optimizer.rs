//! [`Optimizer`]: the interface of every optimizer.

use std::any::Any;

use fulgurite_torch::Dict;
use fulgurite_torch::tch::Tensor;

use crate::{OptimError, ParamGroup, ParamGroupConfig};

/// Reevaluates the model and its gradients and returns the loss. It is passed the optimizer that calls it.
pub type Closure<'a> =
    &'a mut dyn FnMut(&mut dyn Optimizer) -> Result<Tensor, Box<dyn std::error::Error + Send + Sync>>;

/// An optimizer: parameters in groups, one update per [`step`](Optimizer::step), and a state dict in PyTorch's layout.
///
/// A [`Rule`](crate::Rule) is sufficient for most optimizers; implement this for one that works differently.
pub trait Optimizer: Any + Send {
    /// The class name, PyTorch's where it has the optimizer, such as `AdamW`.
    fn name(&self) -> &str;

    /// The parameter groups.
    fn param_groups(&self) -> &[ParamGroup];

    /// The parameter groups, mutably, such as to change learning rates.
    fn param_groups_mut(&mut self) -> &mut [ParamGroup];

    /// Adds a group of parameters, with the optimizer's own settings where `group` leaves them open. The state of the
    /// other parameters is kept; the new ones come after them in the state dict.
    ///
    /// Schedulers include the group at their next step; its base learning rate is the one it has then.
    ///
    /// # Errors
    ///
    /// Fails if a parameter is in a group already or cannot be optimized, a setting is out of range, or the optimizer
    /// takes one group only (LBFGS). The optimizer is then unchanged.
    fn add_param_group(&mut self, group: ParamGroupConfig) -> Result<(), OptimError>;

    /// Updates every parameter that has a gradient. After the first steps it allocates nothing on the Rust heap, and
    /// it never waits for the device.
    ///
    /// # Errors
    ///
    /// Fails if the optimizer needs a closure (LBFGS), the parameters of a group were changed since it was built, or
    /// libtorch refuses an operation, such as on a sparse gradient.
    fn step(&mut self) -> Result<(), OptimError>;

    /// Whether a step evaluates the loss more than once, so that only [`step_with`](Optimizer::step_with) can take it
    /// (LBFGS). Of any other optimizer, evaluating the loss and then [`step`](Optimizer::step) is the same.
    fn needs_closure(&self) -> bool {
        false
    }

    /// Evaluates `closure`, possibly several times (LBFGS), and updates the parameters. Returns the first loss.
    ///
    /// # Errors
    ///
    /// Returns the error of the closure as [`OptimError::Closure`], and the errors of [`step`](Optimizer::step).
    fn step_with(&mut self, closure: Closure<'_>) -> Result<Tensor, OptimError>;

    /// Resets the gradients to none, as PyTorch does by default.
    ///
    /// # Errors
    ///
    /// Fails if libtorch does, or the optimizer is of another crate and fails.
    fn zero_grad(&mut self) -> Result<(), OptimError>;

    /// `{"state": {0: {...}, ...}, "param_groups": [{..., "params": [0, ...]}, ...]}`, PyTorch's layout and names.
    ///
    /// # Errors
    ///
    /// Fails if the optimizer is of another crate, and its state is not available. Those of this crate always have one.
    fn state_dict(&self) -> Result<Dict, OptimError>;

    /// Restores what [`state_dict`](Optimizer::state_dict), here or in PyTorch, returned.
    ///
    /// # Errors
    ///
    /// Fails if the state has other parameter groups, entries of the wrong type or shape, or settings that are out of
    /// range. The optimizer is then unchanged.
    fn load_state_dict(&mut self, state: &Dict) -> Result<(), OptimError>;
}

impl dyn Optimizer {
    /// The optimizer, if it is of this type.
    pub fn downcast_ref<T: Optimizer>(&self) -> Option<&T> {
        let any: &dyn Any = self;
        any.downcast_ref()
    }

    /// The optimizer, if it is of this type.
    pub fn downcast_mut<T: Optimizer>(&mut self) -> Option<&mut T> {
        let any: &mut dyn Any = self;
        any.downcast_mut()
    }
}
