//! [`Optimizer`]: what every optimizer offers to a training loop.

use fulgurite_torch::Dict;
use fulgurite_torch::tch::Tensor;

use crate::{OptimError, ParamGroupConfig};

/// The momentum of a parameter group, under the name its optimizer gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Momentum {
    /// The optimizer has none.
    None,
    /// `momentum` (SGD, RMSprop, …).
    Momentum(f64),
    /// `betas` (the Adam family); the first is the momentum.
    Betas(f64, f64),
}

/// Parameters that share their settings; what schedulers change.
#[derive(Debug)]
#[non_exhaustive]
pub struct ParamGroup {
    /// The parameters, in the order of the state dict.
    pub params: Vec<Tensor>,
    /// Its name, for the learning-rate monitor.
    pub name: Option<String>,
    /// Learning rate.
    pub lr: f64,
    /// Learning rate before any scheduler touched it; set by the first one attached.
    pub initial_lr: Option<f64>,
    /// Weight decay.
    pub weight_decay: f64,
    /// Momentum, or betas.
    pub momentum: Momentum,
    /// Further entries of the group in the state dict: what schedulers keep there (`max_lr`, …), and what PyTorch wrote
    /// and Fulgurite has no use for.
    pub extra: Dict,
}

impl ParamGroup {
    /// The betas, for rules that have them.
    pub(crate) fn betas(&self) -> (f64, f64) {
        match self.momentum {
            Momentum::Betas(beta1, beta2) => (beta1, beta2),
            Momentum::Momentum(momentum) => (momentum, 0.0),
            Momentum::None => (0.0, 0.0),
        }
    }

    /// Sets the momentum, or the first of the betas.
    pub(crate) fn set_momentum(&mut self, value: f64) {
        match &mut self.momentum {
            Momentum::None => {}
            Momentum::Momentum(momentum) | Momentum::Betas(momentum, _) => *momentum = value,
        }
    }

    /// The momentum, or the first of the betas.
    pub(crate) fn momentum(&self) -> f64 {
        self.betas().0
    }
}

/// Evaluates the model and its gradients again and returns the loss. It is lent the optimizer that asks.
pub type Closure<'a> =
    &'a mut dyn FnMut(&mut dyn Optimizer) -> Result<Tensor, Box<dyn std::error::Error + Send + Sync>>;

/// An optimizer: parameters in groups, one update per [`step`](Optimizer::step), and a state dict in PyTorch's layout.
pub trait Optimizer: Send {
    /// PyTorch's class name, such as `AdamW`.
    fn name(&self) -> &'static str;

    /// The parameter groups.
    fn param_groups(&self) -> &[ParamGroup];

    /// The parameter groups, to change learning rates and the like.
    fn param_groups_mut(&mut self) -> &mut [ParamGroup];

    /// Adds a group of parameters, with the optimizer's own settings where `group` leaves them open. The state of the
    /// other parameters is kept; the new ones come after them in the state dict.
    ///
    /// Schedulers take the group up at their next step; its base learning rate is the one it has then.
    ///
    /// # Errors
    ///
    /// When a parameter is in a group already or cannot be optimized, a setting makes no sense, or the optimizer takes
    /// one group only (LBFGS). The optimizer is then as before.
    fn add_param_group(&mut self, group: ParamGroupConfig) -> Result<(), OptimError>;

    /// Updates every parameter that has a gradient. Allocates nothing on the Rust heap once warm, and never waits for
    /// the device.
    fn step(&mut self) -> Result<(), OptimError>;

    /// Whether a step evaluates the loss more than once, so that only [`step_with`](Optimizer::step_with) can take it
    /// (LBFGS). Of any other optimizer, evaluating the loss and then [`step`](Optimizer::step) is the same.
    fn needs_closure(&self) -> bool {
        false
    }

    /// Evaluates `closure`, possibly several times (LBFGS), and updates the parameters. Returns the first loss.
    fn step_with(&mut self, closure: Closure<'_>) -> Result<Tensor, OptimError>;

    /// Drops the gradients (sets them to none, as PyTorch does by default).
    fn zero_grad(&mut self);

    /// `{"state": {0: {...}, ...}, "param_groups": [{..., "params": [0, ...]}, ...]}`, PyTorch's layout and names.
    fn state_dict(&self) -> Dict;

    /// Restores what [`state_dict`](Optimizer::state_dict), here or in PyTorch, returned.
    fn load_state_dict(&mut self, state: &Dict) -> Result<(), OptimError>;
}
