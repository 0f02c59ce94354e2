//! A strategy: what it does at the points of a training step that it cares for.

use std::time::Duration;

use fulgurite::fabric::strategy::{Strategy, StrategyContext};
use fulgurite::fabric::{FabricError, Precision};
use fulgurite::tch::{Device, Tensor};

/// One device that is left to other programs for a moment in each step.
pub struct PoliteStrategy {
    name: String,
    device: Device,
}

impl PoliteStrategy {
    /// Made when a run asks for it by name.
    pub fn build(context: StrategyContext) -> Result<Box<dyn Strategy>, FabricError> {
        Ok(Box::new(PoliteStrategy { name: context.name, device: context.device }))
    }
}

impl Strategy for PoliteStrategy {
    fn name(&self) -> &str {
        &self.name
    }

    fn device(&self) -> Device {
        self.device
    }

    fn backward(&mut self, loss: &Tensor, precision: &mut dyn Precision) -> Result<(), FabricError> {
        std::thread::sleep(Duration::from_millis(1));
        precision.backward(loss)
    }
}
