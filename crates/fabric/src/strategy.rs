//! Strategies: how a run spreads over processes and devices.

use fulgurite_torch::Value;
use fulgurite_torch::tch::{Device, Tensor};

use crate::FabricError;

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

/// How a run spreads over processes and devices.
///
/// The loops call these at fixed points, the same on every rank, whatever the strategy.
pub trait Strategy: Send {
    /// The registered name, such as `single_device`.
    fn name(&self) -> &'static str;

    /// The device of this process.
    fn device(&self) -> Device;

    /// Processes in the run.
    fn world_size(&self) -> usize {
        1
    }

    /// This process among all.
    fn global_rank(&self) -> usize {
        0
    }

    /// This process on its node.
    fn local_rank(&self) -> usize {
        0
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

    /// One tensor out of every process's.
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

    /// Gives back what the run held: process groups, device caches.
    ///
    /// # Errors
    ///
    /// What the backend said.
    fn teardown(&mut self) -> Result<(), FabricError> {
        Ok(())
    }
}

/// One process on one device: no communication.
#[derive(Debug)]
pub struct SingleDeviceStrategy {
    device: Device,
}

impl SingleDeviceStrategy {
    /// A run on `device`.
    pub fn new(device: Device) -> SingleDeviceStrategy {
        SingleDeviceStrategy { device }
    }
}

impl Strategy for SingleDeviceStrategy {
    fn name(&self) -> &'static str {
        "single_device"
    }

    fn device(&self) -> Device {
        self.device
    }
}
