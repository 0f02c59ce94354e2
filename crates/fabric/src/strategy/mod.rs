//! Strategies: how a run spreads over processes and devices.

mod choice;
mod consensus;
mod context_guard;
mod ddp;
mod ddp_options;
mod registry;
mod single_device;

use std::path::Path;

use fulgurite_optim::Optimizer;
use fulgurite_torch::distributed::{ProcessGroup, SyncBatchNorm};
use fulgurite_torch::grad::NoGradGuard;
use fulgurite_torch::params::{self, IncompatibleKeys, Parameters};
use fulgurite_torch::tch::{Device, Tensor};
use fulgurite_torch::{Dict, Value};

use crate::precision::{Clip, OptimizerStep, Pass};
use crate::{CheckpointIo, Commit, FabricError, Precision};

pub use choice::{Options, StrategyChoice};
pub use consensus::Consensus;
pub use context_guard::ContextGuard;
pub use ddp::DdpStrategy;
pub use ddp_options::{Compression, DdpOptions};
pub use fulgurite_torch::distributed::ReduceOp;
pub(crate) use registry::SINGLE_DEVICE;
pub use registry::{Groups, NoOptions, Strategies, StrategyContext, StrategyFactory, options_schema};
pub use single_device::SingleDeviceStrategy;

/// Where a process is among those of its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranks {
    /// This process among all.
    pub global: usize,
    /// This process on its node.
    pub local: usize,
    /// Its node among all.
    pub node: usize,
    /// Processes in the run.
    pub world_size: usize,
}

impl Ranks {
    /// The only process of a run.
    pub const ALONE: Ranks = Ranks { global: 0, local: 0, node: 0, world_size: 1 };
}

/// How a run spreads over processes and devices.
///
/// The loops call these at fixed points, the same on every rank, whatever the strategy. Those of a training step come in
/// this order, between those of [`Precision`]: [`begin_micro_batch`](Strategy::begin_micro_batch),
/// [`forward_context`](Strategy::forward_context) around the forward pass, [`backward`](Strategy::backward),
/// [`clip_gradients`](Strategy::clip_gradients), [`optimizer_step`](Strategy::optimizer_step). Each default does what one
/// device does. Whoever calls a collective must do so on every rank, in the same order.
pub trait Strategy: Send {
    /// The registered name, such as `single_device`.
    fn name(&self) -> &str;

    /// The device of this process.
    fn device(&self) -> Device;

    /// Where this process is among those of the run.
    fn ranks(&self) -> Ranks {
        Ranks::ALONE
    }

    /// Waits until every process is here.
    ///
    /// # Errors
    ///
    /// A process that never came.
    fn barrier(&self, name: &str) -> Result<(), FabricError> {
        let _ = name;
        Ok(())
    }

    /// The value of rank `source`, everywhere.
    ///
    /// # Errors
    ///
    /// A process that never came.
    fn broadcast(&self, value: Value, source: usize) -> Result<Value, FabricError> {
        let _ = source;
        Ok(value)
    }

    /// Every rank's value, in their order, everywhere. Tensors come back on the CPU.
    ///
    /// # Errors
    ///
    /// A process that never came.
    fn all_gather_values(&self, value: Value) -> Result<Vec<Value>, FabricError> {
        Ok(vec![value])
    }

    /// Every rank's tensor, in their order; all have one shape.
    ///
    /// # Errors
    ///
    /// A process that never came.
    fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>, FabricError> {
        Ok(vec![tensor.shallow_clone()])
    }

    /// One tensor out of every process's. Whether NaN is kept by [`ReduceOp::Min`] and [`ReduceOp::Max`] is the backend's:
    /// Gloo keeps it or not, as the ranks come.
    ///
    /// # Errors
    ///
    /// A process that never came.
    fn reduce(&self, tensor: &Tensor, op: ReduceOp) -> Result<Tensor, FabricError> {
        let _ = op;
        Ok(tensor.shallow_clone())
    }

    /// Whether all processes (`all`), or any, decide so.
    ///
    /// # Errors
    ///
    /// A process that never came.
    fn reduce_boolean_decision(&self, decision: bool, all: bool) -> Result<bool, FabricError> {
        let _ = all;
        Ok(decision)
    }

    /// The group of all ranks on the CPU, over which they decide; `None` where there is one rank.
    fn control_group(&self) -> Option<&ProcessGroup> {
        None
    }

    /// What makes batch norms in a forward pass of training see the batches of all ranks as one; `None` where each rank
    /// normalizes its own.
    fn sync_batch_norm(&self) -> Option<&SyncBatchNorm> {
        None
    }

    /// Makes every rank's module that of rank zero. After this the module is on the device.
    ///
    /// # Errors
    ///
    /// Modules that differ between ranks; the error names the parameter and the rank.
    fn setup_module(&mut self, vars: &dyn Parameters) -> Result<(), FabricError> {
        let _ = vars;
        Ok(())
    }

    /// Prepares the parameters that require a gradient for training, and again when these have changed.
    ///
    /// # Errors
    ///
    /// What the backend said.
    fn setup_training(&mut self, vars: &dyn Parameters) -> Result<(), FabricError> {
        let _ = vars;
        Ok(())
    }

    /// A forward pass begins. With `syncs`, the backward pass after it gives every rank the mean of the gradients;
    /// without, as within an accumulation window, each keeps its own.
    ///
    /// # Errors
    ///
    /// What the backend said; parameters that had no part in the last backward pass.
    fn begin_micro_batch(&mut self, syncs: bool) -> Result<(), FabricError> {
        let _ = syncs;
        Ok(())
    }

    /// An evaluation begins: where buffers, such as batch norm's running means, are rank zero's at each step of training,
    /// they are so here too. What is evaluated is then the module that rank zero saves.
    ///
    /// # Errors
    ///
    /// A process that never came.
    fn begin_evaluation(&mut self, vars: &dyn Parameters) -> Result<(), FabricError> {
        let _ = vars;
        Ok(())
    }

    /// What surrounds the making of a module: it is in force until it is dropped.
    ///
    /// # Errors
    ///
    /// What the backend said.
    fn model_init_context(&self) -> Result<ContextGuard, FabricError> {
        Ok(ContextGuard::none())
    }

    /// What surrounds a forward pass and its loss, within what the precision puts around it.
    ///
    /// # Errors
    ///
    /// What the backend said.
    fn forward_context(&self, pass: Pass) -> Result<ContextGuard, FabricError> {
        let sync_batch_norm = self.sync_batch_norm().filter(|_| pass == Pass::Training);
        Ok(sync_batch_norm.map_or_else(ContextGuard::none, |norms| norms.enter().into()))
    }

    /// The backward pass of a loss that was scaled: the precision's, and what the strategy does before and after it.
    ///
    /// # Errors
    ///
    /// What autograd or the backend said.
    fn backward(&mut self, loss: &Tensor, precision: &mut dyn Precision) -> Result<(), FabricError> {
        precision.backward(loss)
    }

    /// Clips the gradients of an optimizer's parameters, which have no scale any more. Returns the norm they had, on their
    /// device, when clipping by norm.
    ///
    /// # Errors
    ///
    /// A norm that is not finite, if that is to be an error; what libtorch said.
    fn clip_gradients(&mut self, optimizer: &dyn Optimizer, clip: Clip) -> Result<Option<Tensor>, FabricError> {
        clip.clip(optimizer)
    }

    /// Refuses an optimizer that this strategy cannot step, when it is set up. One that
    /// [evaluates the loss itself](Optimizer::needs_closure) calls back into the loops from its own step, and is not
    /// stepped by [`optimizer_step`](Strategy::optimizer_step).
    ///
    /// # Errors
    ///
    /// Why it cannot.
    fn check_optimizer(&self, optimizer: &dyn Optimizer) -> Result<(), FabricError> {
        let _ = optimizer;
        Ok(())
    }

    /// Steps an optimizer whose gradients are complete, as the precision does it.
    ///
    /// # Errors
    ///
    /// What the optimizer or the backend said.
    fn optimizer_step(
        &mut self,
        optimizer: &mut dyn Optimizer,
        precision: &mut dyn Precision,
    ) -> Result<OptimizerStep, FabricError> {
        precision.optimizer_step(optimizer)
    }

    /// The module's state as a checkpoint holds it.
    ///
    /// # Errors
    ///
    /// What libtorch or the backend said.
    fn module_state_dict(&mut self, vars: &dyn Parameters) -> Result<Dict, FabricError> {
        Ok(params::state_dict(vars)?)
    }

    /// Brings back what [`module_state_dict`](Strategy::module_state_dict) returned.
    ///
    /// # Errors
    ///
    /// A state of another module; see [`params::load_state_dict`].
    fn load_module_state_dict(
        &mut self,
        vars: &dyn Parameters,
        state: &Dict,
        strict: bool,
    ) -> Result<IncompatibleKeys, FabricError> {
        let _no_grad = NoGradGuard::new();
        Ok(params::load_state_dict(vars, state, strict)?)
    }

    /// An optimizer's state as a checkpoint holds it.
    ///
    /// # Errors
    ///
    /// What the backend said.
    fn optimizer_state_dict(&mut self, optimizer: &dyn Optimizer) -> Result<Dict, FabricError> {
        Ok(optimizer.state_dict())
    }

    /// Brings back what [`optimizer_state_dict`](Strategy::optimizer_state_dict) returned.
    ///
    /// # Errors
    ///
    /// A state of another optimizer.
    fn load_optimizer_state_dict(&mut self, optimizer: &mut dyn Optimizer, state: &Dict) -> Result<(), FabricError> {
        Ok(optimizer.load_state_dict(state)?)
    }

    /// Writes a checkpoint as `io` does: called on every rank.
    ///
    /// # Errors
    ///
    /// What `io` said.
    fn save_checkpoint(
        &mut self,
        io: &mut dyn CheckpointIo,
        checkpoint: &Value,
        commit: &Commit,
    ) -> Result<(), FabricError> {
        io.commit(checkpoint, commit)
    }

    /// Reads a checkpoint as `io` does: called on every rank.
    ///
    /// # Errors
    ///
    /// What `io` said.
    fn load_checkpoint(&mut self, io: &mut dyn CheckpointIo, path: &Path) -> Result<Value, FabricError> {
        io.load(path)
    }

    /// This process has an error that others may not have: from now on, what needs all of them is an error as well, where it
    /// would wait for processes that are elsewhere in the program.
    fn abandon(&self) {}

    /// Training is over: what only training needs is given back.
    fn end_training(&mut self) {}

    /// Gives back what the run held: process groups, device caches.
    ///
    /// # Errors
    ///
    /// What the backend said.
    fn teardown(&mut self) -> Result<(), FabricError> {
        Ok(())
    }
}
