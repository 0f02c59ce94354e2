//! [`Engine`]: the trainer's state, its callbacks, and what makes the optimizers.

use fulgurite_optim::Optimizers;
use fulgurite_torch::tch::nn;

use crate::callbacks::Callback;
use crate::checkpointer::Checkpointer;
use crate::error::Error;
use crate::scope::Scope;
use crate::state::TrainerState;

/// Makes the optimizers in place of the module.
pub(crate) type OptimizerFactory = Box<dyn FnMut(&nn::VarStore, &TrainerState) -> Result<Optimizers, Error>>;

/// What lives as long as the trainer.
pub(crate) struct Engine {
    pub state: TrainerState,
    pub callbacks: Vec<Box<dyn Callback>>,
    pub optimizer_factory: Option<OptimizerFactory>,
    /// The module's callbacks were seen: a further entry point replaces its own by their like.
    pub module_callbacks_merged: bool,
}

impl Engine {
    /// The callbacks that write checkpoints.
    pub(crate) fn checkpointers(&self) -> impl Iterator<Item = &dyn Checkpointer> {
        self.callbacks.iter().filter_map(|callback| callback.checkpointer())
    }
}

impl Scope for Engine {
    fn state(&mut self) -> &mut TrainerState {
        &mut self.state
    }
}
