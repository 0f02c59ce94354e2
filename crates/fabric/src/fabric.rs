//! [`Fabric`]: the hardware, numerics and outputs of a run, without its loop.

use std::any::Any;
use std::fmt;
use std::path::Path;

use fulgurite_optim::Optimizer;
use fulgurite_torch::params::{IncompatibleKeys, Parameters};
use fulgurite_torch::tch::Device;
use fulgurite_torch::{Dict, Value, params};

use crate::launcher::{self, LaunchPlan};
use crate::loggers::Logger;
use crate::strategy::{ContextGuard, Ranks};
use crate::{CheckpointIo, Commit, FabricError, Precision, RankZeroCheckpointIo, Strategy};

mod builder;
mod own_loop;

pub use builder::FabricBuilder;

/// Devices, precision, strategy, loggers and checkpoint I/O of a run.
///
/// The `Trainer` adds loops and callbacks to a `Fabric`; a training loop of your own can use one directly.
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
    /// How the processes of the run are started, if this is not one of them.
    launch_plan: Option<LaunchPlan>,
    warnings: Vec<String>,
    /// Whether backward passes end with the mean of the gradients of all processes.
    syncs_gradients: bool,
    /// The loggers, in the order given; the first determines the folders.
    pub loggers: Vec<Box<dyn Logger>>,
    /// What [`Fabric::call`] calls.
    pub callbacks: Vec<Box<dyn Any + Send>>,
}

impl Fabric {
    /// Starts the processes of the run, if the configuration has several and they are not started yet: the program
    /// starts itself once for each. In that case the call does not return: the process exits with their exit code when
    /// they have exited, without running destructors. Otherwise it does nothing.
    ///
    /// # Errors
    ///
    /// Fails if the processes cannot be started; see [`launcher::launch`].
    pub fn launch(&mut self) -> Result<(), FabricError> {
        match &self.launch_plan {
            // Everything after this call is executed by the ranks.
            Some(plan) => std::process::exit(launcher::launch(plan)?),
            None => Ok(()),
        }
    }

    /// Whether this process is one of the run: the only one, or one that was started for it.
    pub fn is_launched(&self) -> bool {
        self.launch_plan.is_none()
    }

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

    /// The strategy, mutably.
    pub fn strategy_mut(&mut self) -> &mut dyn Strategy {
        self.strategy.as_mut()
    }

    /// The precision.
    pub fn precision(&self) -> &dyn Precision {
        self.precision.as_ref()
    }

    /// The precision, mutably.
    pub fn precision_mut(&mut self) -> &mut dyn Precision {
        self.precision.as_mut()
    }

    /// Takes the warnings about the configuration, one sentence each.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Both, for operations of the strategy that use the precision.
    pub(crate) fn step_parts(&mut self) -> (&mut dyn Strategy, &mut dyn Precision) {
        (self.strategy.as_mut(), self.precision.as_mut())
    }

    /// Replaces the precision. Call it before the module is set up.
    pub fn set_precision(&mut self, precision: Box<dyn Precision>) {
        self.precision = precision;
    }

    /// Replaces the checkpoint I/O. With several processes, only rank zero writes; the others receive the outcome.
    pub fn set_checkpoint_io(&mut self, checkpoint_io: Box<dyn CheckpointIo>) {
        self.checkpoint_io = on_rank_zero(self.strategy.as_ref(), checkpoint_io);
    }

    /// Checkpoint I/O.
    pub fn checkpoint_io(&mut self) -> &mut dyn CheckpointIo {
        self.checkpoint_io.as_mut()
    }

    /// The ranks of this process.
    pub fn ranks(&self) -> Ranks {
        self.strategy.ranks()
    }

    /// The number of nodes.
    pub fn num_nodes(&self) -> usize {
        self.num_nodes
    }

    /// The number of processes that the run has, started or not.
    pub fn world_size(&self) -> usize {
        self.ranks().world_size
    }

    /// The rank of this process among all processes; 0 before they are [started](Fabric::launch).
    pub fn global_rank(&self) -> usize {
        self.ranks().global
    }

    /// The rank of this process on its node.
    pub fn local_rank(&self) -> usize {
        self.ranks().local
    }

    /// The rank of this node among all nodes.
    pub fn node_rank(&self) -> usize {
        self.ranks().node
    }

    /// Whether this process writes logs and checkpoints: rank zero does, and before the ranks are
    /// [started](Fabric::launch) no process does.
    pub fn is_global_zero(&self) -> bool {
        self.is_launched() && self.global_rank() == 0
    }

    /// Moves the parameters to the device and converts them to the precision, in place: every layer follows. With several
    /// processes, all get the parameters and buffers of rank zero.
    ///
    /// # Errors
    ///
    /// Fails if the device runs out of memory, or if the modules differ between ranks.
    pub fn setup_module(&mut self, vars: &dyn Parameters) -> Result<(), FabricError> {
        self.precision.convert_module(vars)?;
        params::move_to(vars, self.device())?;
        self.strategy.setup_module(vars)
    }

    /// Prepares the parameters for training, before optimizers are created, and again when other parameters require a
    /// gradient.
    ///
    /// # Errors
    ///
    /// Fails if the strategy cannot prepare the parameters, such as for ranks that differ in them.
    pub fn setup_training(&mut self, vars: &dyn Parameters) -> Result<(), FabricError> {
        self.strategy.setup_training(vars)
    }

    /// Start of a forward pass of training. Its backward pass ends with the mean of the gradients of all processes, unless
    /// `syncs` is false, as it is within an accumulation window.
    ///
    /// # Errors
    ///
    /// Fails if parameters got no gradient in the last backward pass, or if another process has exited.
    pub fn begin_micro_batch(&mut self, syncs: bool) -> Result<(), FabricError> {
        self.strategy.begin_micro_batch(syncs)
    }

    /// Start of an evaluation: all processes receive the buffers of rank zero, so that the module that is evaluated is the one
    /// that is saved. See [`Strategy::begin_evaluation`](crate::Strategy::begin_evaluation).
    ///
    /// # Errors
    ///
    /// Fails if a process does not participate within the timeout.
    pub fn begin_evaluation(&mut self, vars: &dyn Parameters) -> Result<(), FabricError> {
        self.strategy.begin_evaluation(vars)
    }

    /// The context in which a module is created, active until the guard is dropped. The trainer enters it for
    /// `configure_model`.
    ///
    /// # Errors
    ///
    /// Fails if the strategy cannot enter its context.
    pub fn model_init_context(&self) -> Result<ContextGuard, FabricError> {
        self.strategy.model_init_context()
    }

    /// The module's state, in the strategy's format for checkpoints.
    ///
    /// # Errors
    ///
    /// Fails if a tensor cannot be copied, or if another process has exited.
    pub fn module_state_dict(&mut self, vars: &dyn Parameters) -> Result<Dict, FabricError> {
        self.strategy.module_state_dict(vars)
    }

    /// Restores what [`module_state_dict`](Fabric::module_state_dict) returned.
    ///
    /// # Errors
    ///
    /// Fails if the state does not fit the module.
    pub fn load_module_state_dict(
        &mut self,
        vars: &dyn Parameters,
        state: &Dict,
        strict: bool,
    ) -> Result<IncompatibleKeys, FabricError> {
        self.strategy.load_module_state_dict(vars, state, strict)
    }

    /// An optimizer's state, in the strategy's format for checkpoints.
    ///
    /// # Errors
    ///
    /// Fails if the strategy cannot gather the state from the processes.
    pub fn optimizer_state_dict(&mut self, optimizer: &dyn Optimizer) -> Result<Dict, FabricError> {
        self.strategy.optimizer_state_dict(optimizer)
    }

    /// Restores what [`optimizer_state_dict`](Fabric::optimizer_state_dict) returned.
    ///
    /// # Errors
    ///
    /// Fails if the state does not fit the optimizer.
    pub fn load_optimizer_state_dict(
        &mut self,
        optimizer: &mut dyn Optimizer,
        state: &Dict,
    ) -> Result<(), FabricError> {
        self.strategy.load_optimizer_state_dict(optimizer, state)
    }

    /// Writes a checkpoint through the strategy, which writes it with [`checkpoint_io`](Fabric::checkpoint_io) unless it
    /// overrides that. Called on every rank.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn save_checkpoint(&mut self, checkpoint: &Value, commit: &Commit) -> Result<(), FabricError> {
        self.strategy.save_checkpoint(self.checkpoint_io.as_mut(), checkpoint, commit)
    }

    /// Reads a checkpoint through the strategy. Called on every rank.
    ///
    /// # Errors
    ///
    /// Fails if the file is missing, damaged, or not a checkpoint.
    pub fn load_checkpoint(&mut self, path: &Path) -> Result<Value, FabricError> {
        self.strategy.load_checkpoint(self.checkpoint_io.as_mut(), path)
    }

    /// Marks this process as failed, while others may not be. From now on every collective returns an error instead of waiting
    /// for processes that are elsewhere in the program.
    pub fn abandon(&self) {
        self.strategy.abandon();
    }

    /// End of training: releases what only training needs.
    pub fn end_training(&mut self) {
        self.strategy.end_training();
    }

    /// Releases the resources of the run.
    ///
    /// # Errors
    ///
    /// Fails if the strategy cannot release its process groups.
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
