//! [`Engine`]: the trainer's state, its callbacks, and the optimizer factory.

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

/// Creates the optimizers instead of the module's `configure_optimizers`.
pub type OptimizerFactory = Box<dyn FnMut(&dyn Parameters, &TrainerState) -> Result<Optimizers, Error> + Send>;

/// Runs modules over data, using only the parts it was given: a `Trainer` without defaults.
pub struct Engine {
    pub(crate) state: TrainerState,
    pub(crate) callbacks: Vec<Box<dyn Callback>>,
    pub(crate) optimizer_factory: Option<OptimizerFactory>,
    /// Whether the module's callbacks were added: a later entry point replaces them with new ones.
    pub(crate) module_callbacks_merged: bool,
}

/// The parts of an [`Engine`].
pub struct EngineParts {
    /// The arguments, resolved.
    pub config: TrainerConfig,
    /// The fabric, with its loggers.
    pub fabric: Fabric,
    /// The console.
    pub console: Console,
    /// The profiler.
    pub profiler: Option<Box<dyn Profiler>>,
    /// The callbacks.
    pub callbacks: Vec<Box<dyn Callback>>,
    /// The optimizer factory that replaces the module's `configure_optimizers`.
    pub optimizers: Option<OptimizerFactory>,
    /// The scheduler's job that this run is part of.
    pub job: Option<SlurmJob>,
    /// The signal on which the job is requeued.
    pub requeue_signal: Option<Signal>,
    /// Whether a run that a signal ends writes a checkpoint to resume from.
    pub saves_on_signal: bool,
}

impl Engine {
    /// Creates an engine from its parts.
    pub fn new(parts: EngineParts) -> Engine {
        let EngineParts { config, fabric, console, profiler, callbacks, optimizers, .. } = parts;
        let mut state = TrainerState::new(config, fabric, console, profiler);
        state.shutdown.set_job(parts.job, parts.requeue_signal);
        state.shutdown.set_saves_on_signal(parts.saves_on_signal);
        Engine { state, callbacks, optimizer_factory: optimizers, module_callbacks_merged: false }
    }

    /// The trainer's state: progress, metrics, loggers.
    pub fn state(&self) -> &TrainerState {
        &self.state
    }

    /// The trainer's state, mutably, for requests and changes.
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
