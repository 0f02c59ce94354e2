//! [`LrScheduler`]: what every learning-rate scheduler offers to a training loop.

use fulgurite_torch::Dict;

use crate::{OptimError, Optimizer};

/// A learning-rate schedule over the parameter groups of one optimizer.
pub trait LrScheduler: Send {
    /// PyTorch's class name, such as `CosineAnnealingLR`.
    fn name(&self) -> &'static str;

    /// Takes charge of `optimizer`: records `initial_lr` and sets the first learning rate, as PyTorch's constructors do.
    fn attach(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError>;

    /// Moves one step on. `metric` is the monitored value; only [`needs_metric`](LrScheduler::needs_metric) schedulers
    /// use it.
    fn step(&mut self, optimizer: &mut dyn Optimizer, metric: Option<f64>) -> Result<(), OptimError>;

    /// Whether a step needs a monitored value (`ReduceLROnPlateau`).
    fn needs_metric(&self) -> bool {
        false
    }

    /// The learning rates set last, one per group.
    fn last_lr(&self) -> &[f64];

    /// The state, in PyTorch's layout and names.
    fn state_dict(&self) -> Dict;

    /// Restores what [`state_dict`](LrScheduler::state_dict), here or in PyTorch, returned.
    fn load_state_dict(&mut self, state: &Dict) -> Result<(), OptimError>;
}
