//! [`Fabric`]: the hardware, numerics and outputs of a run, without its loop.

use std::any::Any;
use std::fmt;
use std::path::Path;

use fulgurite_optim::Optimizer;
use fulgurite_torch::params::{IncompatibleKeys, Parameters};
use fulgurite_torch::tch::Device;
use fulgurite_torch::{Dict, Value, params};

use crate::loggers::Logger;
use crate::strategy::{ContextGuard, Ranks};
use crate::{CheckpointIo, Commit, FabricError, Precision, RankZeroCheckpointIo, Strategy};

mod builder;
mod own_loop;

pub use builder::FabricBuilder;

/// What a run stands on: devices, a precision, a strategy, loggers and checkpoint I/O.
///
/// The `Trainer` is loops and callbacks on a `Fabric`; a loop of your own can stand on one too.
///
/// ```
/// use fulgurite_fabric::Fabric;
///
/// let fabric = Fabric::builder().accelerator("cpu").precision("32-true").build().unwrap();
/// assert_eq!(fabric.world_size(), 1);
/// assert!(fabric.is_global_zero());
/// ```
pub struct Fabric {
    accelerator: &'static str,
    num_nodes: usize,
    strategy: Box<dyn Strategy>,
    precision: Box<dyn Precision>,
    checkpoint_io: Box<dyn CheckpointIo>,
    warnings: Vec<String>,
    /// Whether backward passes end with the mean of the gradients of all processes.
    syncs_gradients: bool,
    /// The loggers, in the order given; the first decides directories.
    pub loggers: Vec<Box<dyn Logger>>,
    /// What [`Fabric::call`] calls.
    pub callbacks: Vec<Box<dyn Any + Send>>,
}

impl Fabric {
    /// The accelerator's name.
    pub fn accelerator(&self) -> &'static str {
        self.accelerator
    }

    /// The device of this process.
    pub fn device(&self) -> Device {
        self.strategy.device()
    }

    /// The strategy.
    pub fn strategy(&self) -> &dyn Strategy {
        self.strategy.as_ref()
    }

    /// The strategy, to train with.
    pub fn strategy_mut(&mut self) -> &mut dyn Strategy {
        self.strategy.as_mut()
    }

    /// The precision.
    pub fn precision(&self) -> &dyn Precision {
        self.precision.as_ref()
    }

    /// The precision, to restore its state.
    pub fn precision_mut(&mut self) -> &mut dyn Precision {
        self.precision.as_mut()
    }

    /// What the user should know about what was asked for and is done, one sentence each; empty from then on.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Both, for a step that the strategy takes in the precision.
    pub(crate) fn step_parts(&mut self) -> (&mut dyn Strategy, &mut dyn Precision) {
        (self.strategy.as_mut(), self.precision.as_mut())
    }

    /// Takes another precision, before the module is set up.
    pub fn set_precision(&mut self, precision: Box<dyn Precision>) {
        self.precision = precision;
    }

    /// Writes and reads checkpoints in another way. With several processes, rank zero writes, and tells the others.
    pub fn set_checkpoint_io(&mut self, checkpoint_io: Box<dyn CheckpointIo>) {
        self.checkpoint_io = on_rank_zero(self.strategy.as_ref(), checkpoint_io);
    }

    /// Checkpoint I/O.
    pub fn checkpoint_io(&mut self) -> &mut dyn CheckpointIo {
        self.checkpoint_io.as_mut()
    }

    /// Where this process is among those of the run.
    pub fn ranks(&self) -> Ranks {
        self.strategy.ranks()
    }

    /// Machines in the run.
    pub fn num_nodes(&self) -> usize {
        self.num_nodes
    }

    /// Processes in the run.
    pub fn world_size(&self) -> usize {
        self.ranks().world_size
    }

    /// This process among all.
    pub fn global_rank(&self) -> usize {
        self.ranks().global
    }

    /// This process on its machine.
    pub fn local_rank(&self) -> usize {
        self.ranks().local
    }

    /// This machine among all.
    pub fn node_rank(&self) -> usize {
        self.ranks().node
    }

    /// Whether this process writes logs and checkpoints.
    pub fn is_global_zero(&self) -> bool {
        self.global_rank() == 0
    }

    /// Moves the parameters to the device and converts them to the precision, in place: every layer follows. With several
    /// processes, all get the parameters and buffers of rank zero.
    ///
    /// # Errors
    ///
    /// What libtorch said, such as out of memory; modules that differ between ranks.
    pub fn setup_module(&mut self, vars: &dyn Parameters) -> Result<(), FabricError> {
        self.precision.convert_module(vars)?;
        params::move_to(vars, self.device())?;
        self.strategy.setup_module(vars)
    }

    /// Prepares for training what was set up, before optimizers exist; and again when other parameters require a gradient.
    ///
    /// # Errors
    ///
    /// What the strategy's backend said.
    pub fn setup_training(&mut self, vars: &dyn Parameters) -> Result<(), FabricError> {
        self.strategy.setup_training(vars)
    }

    /// A forward pass of training begins. Its backward pass ends with the mean of the gradients of all processes, unless
    /// `syncs` is false, as it is within an accumulation window.
    ///
    /// # Errors
    ///
    /// What the strategy's backend said.
    pub fn begin_micro_batch(&mut self, syncs: bool) -> Result<(), FabricError> {
        self.strategy.begin_micro_batch(syncs)
    }

    /// An evaluation begins: all processes get the buffers of rank zero, so that the module that is evaluated is the one
    /// that is saved. See [`Strategy::begin_evaluation`](crate::Strategy::begin_evaluation).
    ///
    /// # Errors
    ///
    /// A process that never came.
    pub fn begin_evaluation(&mut self, vars: &dyn Parameters) -> Result<(), FabricError> {
        self.strategy.begin_evaluation(vars)
    }

    /// What surrounds the making of a module: it is in force until it is dropped. The trainer makes it for
    /// `configure_model`.
    ///
    /// # Errors
    ///
    /// What the strategy's backend said.
    pub fn model_init_context(&self) -> Result<ContextGuard, FabricError> {
        self.strategy.model_init_context()
    }

    /// The module's state as the strategy wants it in a checkpoint.
    ///
    /// # Errors
    ///
    /// What libtorch or the strategy's backend said.
    pub fn module_state_dict(&mut self, vars: &dyn Parameters) -> Result<Dict, FabricError> {
        self.strategy.module_state_dict(vars)
    }

    /// Brings back what [`module_state_dict`](Fabric::module_state_dict) returned.
    ///
    /// # Errors
    ///
    /// A state of another module.
    pub fn load_module_state_dict(
        &mut self,
        vars: &dyn Parameters,
        state: &Dict,
        strict: bool,
    ) -> Result<IncompatibleKeys, FabricError> {
        self.strategy.load_module_state_dict(vars, state, strict)
    }

    /// An optimizer's state as the strategy wants it in a checkpoint.
    ///
    /// # Errors
    ///
    /// What the strategy's backend said.
    pub fn optimizer_state_dict(&mut self, optimizer: &dyn Optimizer) -> Result<Dict, FabricError> {
        self.strategy.optimizer_state_dict(optimizer)
    }

    /// Brings back what [`optimizer_state_dict`](Fabric::optimizer_state_dict) returned.
    ///
    /// # Errors
    ///
    /// A state of another optimizer.
    pub fn load_optimizer_state_dict(
        &mut self,
        optimizer: &mut dyn Optimizer,
        state: &Dict,
    ) -> Result<(), FabricError> {
        self.strategy.load_optimizer_state_dict(optimizer, state)
    }

    /// Writes a checkpoint through the strategy, which writes it with [`checkpoint_io`](Fabric::checkpoint_io) unless it
    /// knows better. Called on every rank.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn save_checkpoint(&mut self, checkpoint: &Value, commit: &Commit) -> Result<(), FabricError> {
        self.strategy.save_checkpoint(self.checkpoint_io.as_mut(), checkpoint, commit)
    }

    /// Reads a checkpoint through the strategy. Called on every rank.
    ///
    /// # Errors
    ///
    /// A missing, damaged or foreign file.
    pub fn load_checkpoint(&mut self, path: &Path) -> Result<Value, FabricError> {
        self.strategy.load_checkpoint(self.checkpoint_io.as_mut(), path)
    }

    /// This process has an error that others may not have. Whatever needs all of them is an error from now on, where it would
    /// wait for processes that are elsewhere in the program.
    pub fn abandon(&self) {
        self.strategy.abandon();
    }

    /// Training is over: what only training needs is given back.
    pub fn end_training(&mut self) {
        self.strategy.end_training();
    }

    /// Gives back what the run held.
    ///
    /// # Errors
    ///
    /// What the strategy's backend said.
    pub fn teardown(&mut self) -> Result<(), FabricError> {
        self.strategy.teardown()
    }
}

/// Where there are other ranks, only the first writes.
fn on_rank_zero(strategy: &dyn Strategy, checkpoint_io: Box<dyn CheckpointIo>) -> Box<dyn CheckpointIo> {
    match strategy.control_group() {
        Some(group) => Box::new(RankZeroCheckpointIo::new(checkpoint_io, group.clone())),
        None => checkpoint_io,
    }
}

impl fmt::Debug for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fabric")
            .field("accelerator", &self.accelerator)
            .field("strategy", &self.strategy.name())
            .field("precision", &self.precision.name())
            .field("loggers", &self.loggers.len())
            .finish_non_exhaustive()
    }
}
