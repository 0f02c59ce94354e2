//! [`Optimizer`]: what every optimizer offers to a training loop.

use std::any::Any;

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

/// Parameters with common settings, which schedulers change.
#[derive(Debug)]
#[non_exhaustive]
pub struct ParamGroup {
    /// The parameters, in the order of the state dict.
    pub params: Vec<Tensor>,
    /// Its name, for the learning-rate monitor.
    pub name: Option<String>,
    /// Learning rate.
    pub lr: f64,
    /// Learning rate before any scheduler changed it; set by the first one attached.
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
    /// A group without weight decay, momentum and further entries.
    pub fn new(params: Vec<Tensor>, lr: f64) -> ParamGroup {
        ParamGroup {
            params,
            name: None,
            lr,
            initial_lr: None,
            weight_decay: 0.0,
            momentum: Momentum::None,
            extra: Dict::new(),
        }
    }

    /// The betas, for optimizers that have them.
    pub fn betas(&self) -> (f64, f64) {
        match self.momentum {
            Momentum::Betas(beta1, beta2) => (beta1, beta2),
            Momentum::Momentum(momentum) => (momentum, 0.0),
            Momentum::None => (0.0, 0.0),
        }
    }

    /// Sets the momentum, or the first of the betas.
    pub fn set_momentum(&mut self, value: f64) {
        match &mut self.momentum {
            Momentum::None => {}
            Momentum::Momentum(momentum) | Momentum::Betas(momentum, _) => *momentum = value,
        }
    }

    /// The momentum, or the first of the betas.
    pub fn momentum(&self) -> f64 {
        self.betas().0
    }
}

/// Reevaluates the model and its gradients and returns the loss. It is passed the optimizer that calls it.
pub type Closure<'a> =
    &'a mut dyn FnMut(&mut dyn Optimizer) -> Result<Tensor, Box<dyn std::error::Error + Send + Sync>>;

/// An optimizer: parameters in groups, one update per [`step`](Optimizer::step), and a state dict in PyTorch's layout.
///
/// A [`Rule`](crate::Rule) is all that most optimizers need; implement this for one that works differently.
pub trait Optimizer: Any + Send {
    /// The class name, PyTorch's where it has the optimizer, such as `AdamW`.
    fn name(&self) -> &str;

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
    /// A parameter is in a group already or cannot be optimized, a setting is out of range, or the optimizer takes one
    /// group only (LBFGS). The optimizer is then unchanged.
    fn add_param_group(&mut self, group: ParamGroupConfig) -> Result<(), OptimError>;

    /// Updates every parameter that has a gradient. After the first steps it allocates nothing on the Rust heap, and
    /// it never waits for the device.
    ///
    /// # Errors
    ///
    /// The optimizer needs a closure (LBFGS), the parameters of a group were changed since it was built, or libtorch
    /// refuses an operation, such as on a sparse gradient.
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
    /// What the closure returned, as [`OptimError::Closure`], and those of [`step`](Optimizer::step).
    fn step_with(&mut self, closure: Closure<'_>) -> Result<Tensor, OptimError>;

    /// Resets the gradients to none, as PyTorch does by default.
    fn zero_grad(&mut self);

    /// `{"state": {0: {...}, ...}, "param_groups": [{..., "params": [0, ...]}, ...]}`, PyTorch's layout and names.
    fn state_dict(&self) -> Dict;

    /// Restores what [`state_dict`](Optimizer::state_dict), here or in PyTorch, returned.
    ///
    /// # Errors
    ///
    /// The state has other parameter groups, entries of the wrong type or shape, or settings that are out of range. The
    /// optimizer is then unchanged.
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
