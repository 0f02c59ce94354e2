//! Strategies: how a run spreads over processes and devices.

mod choice;
mod consensus;
mod context_guard;
mod ddp;
mod ddp_options;
mod options;
mod registry;
mod single_device;
mod unlaunched;

use std::path::Path;

use fulgurite_optim::Optimizer;
use fulgurite_torch::distributed::{ProcessGroup, SyncBatchNorm};
use fulgurite_torch::grad::NoGradGuard;
use fulgurite_torch::params::{self, IncompatibleKeys, Parameters};
use fulgurite_torch::tch::{Device, Tensor};
use fulgurite_torch::{Dict, Value};

use crate::precision::{Clip, OptimizerStep, Pass};
use crate::{CheckpointIo, Commit, FabricError, Precision};

pub use choice::StrategyChoice;
pub use consensus::Consensus;
pub use context_guard::ContextGuard;
pub use ddp::DdpStrategy;
pub use ddp_options::{Compression, DdpOptions};
pub use fulgurite_torch::distributed::ReduceOp;
pub use options::Options;
pub(crate) use registry::SINGLE_DEVICE;
pub use registry::{Groups, NoOptions, Strategies, StrategyContext, StrategyFactory, options_schema};
pub use single_device::SingleDeviceStrategy;
pub(crate) use unlaunched::Unlaunched;

/// The ranks of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranks {
    /// The rank of this process among all processes.
    pub global: usize,
    /// The rank of this process on its node.
    pub local: usize,
    /// The rank of its node among all nodes.
    pub node: usize,
    /// The number of processes.
    pub world_size: usize,
}

impl Ranks {
    /// The ranks of the only process of a run.
    pub const SINGLE_PROCESS: Ranks = Ranks { global: 0, local: 0, node: 0, world_size: 1 };
}

/// The error of a method that a strategy of several processes must implement, and does not.
fn one_process_only(strategy: &(impl Strategy + ?Sized), method: &str) -> Result<(), FabricError> {
    match strategy.ranks().world_size {
        1 => Ok(()),
        world_size => Err(FabricError::Setting(format!(
            "strategy `{}` runs {world_size} processes, and does not implement `Strategy::{method}`, whose default is for one; implement it, such as with the `groups` of its `StrategyContext`",
            strategy.name()
        ))),
    }
}

/// How a run spreads over processes and devices.
///
/// The loops call these at fixed points, the same on every rank, whatever the strategy. Those of a training step are
/// called in this order, between those of [`Precision`]: [`begin_micro_batch`](Strategy::begin_micro_batch),
/// [`forward_context`](Strategy::forward_context) around the forward pass, [`backward`](Strategy::backward),
/// [`clip_gradients`](Strategy::clip_gradients), [`optimizer_step`](Strategy::optimizer_step). Each default does what one
/// device does; where several processes need more, it fails if there are several. Collectives must be called on every rank,
/// in the same order.
pub trait Strategy: Send {
    /// The registered name, such as `single_device`.
    fn name(&self) -> &str;

    /// The name of its class, which profiles show. Derived from the name by default: `SingleDeviceStrategy` for
    /// `single_device`.
    fn class_name(&self) -> String {
        let capitalized = |word: &str| {
            let mut letters = word.chars();
            letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect::<String>()
        };
        self.name().split('_').map(capitalized).collect::<String>() + "Strategy"
    }

    /// The device of this process.
    fn device(&self) -> Device;

    /// The ranks of this process.
    fn ranks(&self) -> Ranks {
        Ranks::SINGLE_PROCESS
    }

    /// Blocks until every process has called it.
    ///
    /// # Errors
    ///
    /// Fails if a process does not participate within the timeout.
    fn barrier(&self, name: &str) -> Result<(), FabricError> {
        let _ = name;
        one_process_only(self, "barrier")
    }

    /// Broadcasts the value of rank `source` to all ranks.
    ///
    /// # Errors
    ///
    /// Fails if a process does not participate within the timeout.
    fn broadcast(&self, value: Value, source: usize) -> Result<Value, FabricError> {
        let _ = source;
        one_process_only(self, "broadcast")?;
        Ok(value)
    }

    /// Gathers the values of all ranks, in rank order, on every rank. Tensors are returned on the CPU.
    ///
    /// # Errors
    ///
    /// Fails if a process does not participate within the timeout.
    fn all_gather_values(&self, value: Value) -> Result<Vec<Value>, FabricError> {
        one_process_only(self, "all_gather_values")?;
        Ok(vec![value])
    }

    /// Gathers the tensors of all ranks, in rank order. All must have the same shape.
    ///
    /// # Errors
    ///
    /// Fails if a process does not participate within the timeout, or if the tensors differ in shape.
    fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>, FabricError> {
        one_process_only(self, "all_gather")?;
        Ok(vec![tensor.shallow_clone()])
    }

    /// Reduces the tensors of all processes to one. Whether [`ReduceOp::Min`] and [`ReduceOp::Max`] propagate NaN
    /// depends on the backend: with Gloo it depends on the order of the ranks.
    ///
    /// # Errors
    ///
    /// Fails if a process does not participate within the timeout.
    fn reduce(&self, tensor: &Tensor, op: ReduceOp) -> Result<Tensor, FabricError> {
        let _ = op;
        one_process_only(self, "reduce")?;
        Ok(tensor.shallow_clone())
    }

    /// Whether all processes (`all`), or any process, pass `true`.
    ///
    /// # Errors
    ///
    /// Fails if a process does not participate within the timeout.
    fn reduce_boolean_decision(&self, decision: bool, all: bool) -> Result<bool, FabricError> {
        let _ = all;
        one_process_only(self, "reduce_boolean_decision")?;
        Ok(decision)
    }

    /// The group of all ranks on the CPU, for decisions; `None` if there is one rank.
    fn control_group(&self) -> Option<&ProcessGroup> {
        None
    }

    /// Synchronizes batch norms in training over all ranks; `None` if each rank normalizes its own batches.
    fn sync_batch_norm(&self) -> Option<&SyncBatchNorm> {
        None
    }

    /// Broadcasts the parameters and buffers of rank zero to all ranks. The module is on the device already.
    ///
    /// # Errors
    ///
    /// Fails if the modules differ between ranks; the error names the parameter and the rank.
    fn setup_module(&mut self, vars: &dyn Parameters) -> Result<(), FabricError> {
        let _ = vars;
        one_process_only(self, "setup_module")
    }

    /// Prepares the parameters that require a gradient for training. Called again when these have changed.
    ///
    /// # Errors
    ///
    /// Fails if the parameters cannot be prepared, such as for ranks that differ in them.
    fn setup_training(&mut self, vars: &dyn Parameters) -> Result<(), FabricError> {
        let _ = vars;
        one_process_only(self, "setup_training")
    }

    /// Start of a forward pass. With `syncs`, the backward pass after it gives every rank the mean of the gradients;
    /// without, as within an accumulation window, each keeps its own.
    ///
    /// # Errors
    ///
    /// Fails if parameters got no gradient in the last backward pass, or if another process has exited.
    fn begin_micro_batch(&mut self, syncs: bool) -> Result<(), FabricError> {
        let _ = syncs;
        Ok(())
    }

    /// Start of an evaluation. If the buffers, such as a batch norm's running mean, are broadcast from rank zero in
    /// each training step, they are broadcast here too, so that the module that is evaluated is the one that rank zero
    /// saves.
    ///
    /// # Errors
    ///
    /// Fails if a process does not participate within the timeout.
    fn begin_evaluation(&mut self, vars: &dyn Parameters) -> Result<(), FabricError> {
        let _ = vars;
        Ok(())
    }

    /// The context in which a module is created, active until the guard is dropped.
    ///
    /// # Errors
    ///
    /// Fails if the context cannot be entered.
    fn model_init_context(&self) -> Result<ContextGuard, FabricError> {
        Ok(ContextGuard::none())
    }

    /// The context of a forward pass and its loss, within that of the precision.
    ///
    /// # Errors
    ///
    /// Fails if the context cannot be entered.
    fn forward_context(&self, pass: Pass) -> Result<ContextGuard, FabricError> {
        let sync_batch_norm = self.sync_batch_norm().filter(|_| pass == Pass::Training);
        Ok(sync_batch_norm.map_or_else(ContextGuard::none, |norms| norms.enter().into()))
    }

    /// The backward pass of a loss that was scaled: that of the precision, and what the strategy does before and after
    /// it.
    ///
    /// # Errors
    ///
    /// Fails if autograd does, or if gradients cannot be exchanged with another process.
    fn backward(&mut self, loss: &Tensor, precision: &mut dyn Precision) -> Result<(), FabricError> {
        precision.backward(loss)
    }

    /// Clips the unscaled gradients of an optimizer's parameters. Returns their norm before clipping, on their device,
    /// when clipping by norm.
    ///
    /// # Errors
    ///
    /// Fails as [`Clip::clip`] does.
    fn clip_gradients(&mut self, optimizer: &dyn Optimizer, clip: Clip) -> Result<Option<Tensor>, FabricError> {
        clip.clip(optimizer)
    }

    /// Rejects an optimizer that this strategy cannot step, when it is set up. One that
    /// [evaluates the loss itself](Optimizer::needs_closure) calls back into the loops from its own step, and is not
    /// stepped by [`optimizer_step`](Strategy::optimizer_step).
    ///
    /// # Errors
    ///
    /// Fails if the strategy does not support the optimizer.
    fn check_optimizer(&self, optimizer: &dyn Optimizer) -> Result<(), FabricError> {
        let _ = optimizer;
        Ok(())
    }

    /// Steps an optimizer whose gradients are complete, as the precision does it.
    ///
    /// # Errors
    ///
    /// Fails if the step of the optimizer does.
    fn optimizer_step(
        &mut self,
        optimizer: &mut dyn Optimizer,
        precision: &mut dyn Precision,
    ) -> Result<OptimizerStep, FabricError> {
        precision.optimizer_step(optimizer)
    }

    /// The module's state, in the format for checkpoints.
    ///
    /// # Errors
    ///
    /// Fails if a tensor cannot be copied, or if another process has exited.
    fn module_state_dict(&mut self, vars: &dyn Parameters) -> Result<Dict, FabricError> {
        Ok(params::state_dict(vars)?)
    }

    /// Restores what [`module_state_dict`](Strategy::module_state_dict) returned.
    ///
    /// # Errors
    ///
    /// Fails if the state does not fit the module; see [`params::load_state_dict`].
    fn load_module_state_dict(
        &mut self,
        vars: &dyn Parameters,
        state: &Dict,
        strict: bool,
    ) -> Result<IncompatibleKeys, FabricError> {
        let _no_grad = NoGradGuard::new();
        Ok(params::load_state_dict(vars, state, strict)?)
    }

    /// An optimizer's state, in the format for checkpoints.
    ///
    /// # Errors
    ///
    /// Fails as [`Optimizer::state_dict`] does, or if the state is gathered from several processes and one has exited.
    fn optimizer_state_dict(&mut self, optimizer: &dyn Optimizer) -> Result<Dict, FabricError> {
        Ok(optimizer.state_dict()?)
    }

    /// Restores what [`optimizer_state_dict`](Strategy::optimizer_state_dict) returned.
    ///
    /// # Errors
    ///
    /// Fails if the state does not fit the optimizer.
    fn load_optimizer_state_dict(&mut self, optimizer: &mut dyn Optimizer, state: &Dict) -> Result<(), FabricError> {
        Ok(optimizer.load_state_dict(state)?)
    }

    /// Writes a checkpoint with `io`. Called on every rank.
    ///
    /// # Errors
    ///
    /// Fails as [`CheckpointIo::commit`] does.
    fn save_checkpoint(
        &mut self,
        io: &mut dyn CheckpointIo,
        checkpoint: &Value,
        commit: &Commit,
    ) -> Result<(), FabricError> {
        io.commit(checkpoint, commit)
    }

    /// Reads a checkpoint with `io`. Called on every rank.
    ///
    /// # Errors
    ///
    /// Fails as [`CheckpointIo::load`] does.
    fn load_checkpoint(&mut self, io: &mut dyn CheckpointIo, path: &Path) -> Result<Value, FabricError> {
        io.load(path)
    }

    /// Marks this process as failed, while others may not be. From now on every collective returns an error instead of waiting
    /// for processes that are elsewhere in the program.
    fn abandon(&self) {}

    /// End of training: releases what only training needs.
    fn end_training(&mut self) {}

    /// Releases the resources of the run: process groups, device caches.
    ///
    /// # Errors
    ///
    /// Fails if the process groups cannot be released.
    fn teardown(&mut self) -> Result<(), FabricError> {
        Ok(())
    }
}
