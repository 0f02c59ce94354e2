//! Strategies: how a run spreads over processes and devices.

mod choice;
mod consensus;
mod ddp;
mod ddp_options;
mod registry;
mod single_device;

use fulgurite_torch::Value;
use fulgurite_torch::distributed::{ProcessGroup, SyncBatchNorm};
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::{Device, Tensor};

use crate::FabricError;

pub use choice::StrategyChoice;
pub use consensus::Consensus;
pub use ddp::DdpStrategy;
pub use ddp_options::{Compression, DdpOptions};
pub(crate) use registry::SINGLE_DEVICE;
pub use registry::{Groups, Strategies, StrategyContext, StrategyFactory};
pub use single_device::SingleDeviceStrategy;

/// How values of several processes become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReduceOp {
    /// The mean.
    Mean,
    /// The sum.
    Sum,
    /// The smallest.
    Min,
    /// The greatest.
    Max,
}

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
/// this order: [`begin_micro_batch`](Strategy::begin_micro_batch), the forward pass,
/// [`before_backward`](Strategy::before_backward), the backward pass, [`after_backward`](Strategy::after_backward).
/// Whoever calls a collective must do so on every rank, in the same order.
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

    /// The backward pass of `loss` comes next.
    ///
    /// # Errors
    ///
    /// What the backend said.
    fn before_backward(&mut self, loss: &Tensor) -> Result<(), FabricError> {
        let _ = loss;
        Ok(())
    }

    /// What it knows of an error of the backward pass: the rank, the operation, the parameter.
    fn explain(&self, error: FabricError) -> FabricError {
        error
    }

    /// The backward pass is over.
    ///
    /// # Errors
    ///
    /// What the backend said.
    fn after_backward(&mut self) -> Result<(), FabricError> {
        Ok(())
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
