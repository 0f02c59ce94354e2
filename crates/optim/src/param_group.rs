//! [`ParamGroup`]: parameters with common settings.

use fulgurite_torch::Dict;
use fulgurite_torch::tch::Tensor;

use crate::OptimError;
use crate::error::{ensure, ensure_non_negative};

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

/// Handles of the same parameters, with copies of the settings.
pub(crate) fn copy_groups(groups: &[ParamGroup]) -> Vec<ParamGroup> {
    let copy = |group: &ParamGroup| ParamGroup {
        params: group.params.iter().map(Tensor::shallow_clone).collect(),
        name: group.name.clone(),
        extra: group.extra.clone(),
        ..*group
    };
    groups.iter().map(copy).collect()
}

/// The settings that every optimizer has.
pub(crate) fn check_settings(optimizer: &'static str, group: &ParamGroup) -> Result<(), OptimError> {
    ensure_non_negative(optimizer, "learning rate", group.lr)?;
    ensure_non_negative(optimizer, "weight_decay value", group.weight_decay)?;
    match group.momentum {
        Momentum::None => Ok(()),
        Momentum::Momentum(momentum) => ensure_non_negative(optimizer, "momentum value", momentum),
        Momentum::Betas(beta1, beta2) => {
            for (index, beta) in [beta1, beta2].into_iter().enumerate() {
                let option = format!("beta parameter at index {index}");
                ensure((0.0..1.0).contains(&beta), optimizer, &option, beta, "in [0, 1)")?;
            }
            Ok(())
        }
    }
}
