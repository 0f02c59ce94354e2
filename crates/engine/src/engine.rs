//! [`Engine`]: the trainer's state, its callbacks, and what makes the optimizers.

use fulgurite_fabric::Fabric;
use fulgurite_fabric::environments::SlurmJob;
use fulgurite_optim::Optimizers;
use fulgurite_torch::params::Parameters;

use crate::callback::Callback;
use crate::checkpointer::Checkpointer;
use crate::config::TrainerConfig;
use crate::console::Console;
use crate::error::Error;
use crate::profilers::Profiler;
use crate::scope::Scope;
use crate::signals::Signal;
use crate::state::TrainerState;

/// Makes the optimizers in place of the module.
pub type OptimizerFactory = Box<dyn FnMut(&dyn Parameters, &TrainerState) -> Result<Optimizers, Error>>;

/// What runs modules over data, with nothing that was not handed to it: a `Trainer` without defaults.
pub struct Engine {
    pub(crate) state: TrainerState,
    pub(crate) callbacks: Vec<Box<dyn Callback>>,
    pub(crate) optimizer_factory: Option<OptimizerFactory>,
    /// The module's callbacks were seen: a further entry point replaces its own by their like.
    pub(crate) module_callbacks_merged: bool,
}

/// What an [`Engine`] is made of.
pub struct EngineParts {
    /// The arguments, resolved.
    pub config: TrainerConfig,
    /// The fabric, with its loggers.
    pub fabric: Fabric,
    /// Where lines and bars go.
    pub console: Console,
    /// What measures.
    pub profiler: Option<Box<dyn Profiler>>,
    /// What watches.
    pub callbacks: Vec<Box<dyn Callback>>,
    /// What makes the optimizers in place of the module.
    pub optimizers: Option<OptimizerFactory>,
    /// The scheduler's job that this run is part of.
    pub job: Option<SlurmJob>,
    /// The signal on which the job is to be run again.
    pub requeue_signal: Option<Signal>,
}

impl Engine {
    /// An engine of these parts.
    pub fn new(parts: EngineParts) -> Engine {
        let EngineParts { config, fabric, console, profiler, callbacks, optimizers, job, requeue_signal } = parts;
        let mut state = TrainerState::new(config, fabric, console, profiler);
        state.shutdown.set_job(job, requeue_signal);
        Engine { state, callbacks, optimizer_factory: optimizers, module_callbacks_merged: false }
    }

    /// The trainer's state: progress, metrics, loggers.
    pub fn state(&self) -> &TrainerState {
        &self.state
    }

    /// The same, to ask for something or to change it.
    pub fn state_mut(&mut self) -> &mut TrainerState {
        &mut self.state
    }

    /// The callbacks, in the order in which they are called.
    pub fn callbacks(&self) -> impl Iterator<Item = &dyn Callback> {
        self.callbacks.iter().map(Box::as_ref)
    }

    /// The callbacks that write checkpoints.
    pub fn checkpointers(&self) -> impl Iterator<Item = &dyn Checkpointer> {
        self.callbacks.iter().filter_map(|callback| callback.checkpointer())
    }
}

impl Scope for Engine {
    fn state(&mut self) -> &mut TrainerState {
        &mut self.state
    }
}
