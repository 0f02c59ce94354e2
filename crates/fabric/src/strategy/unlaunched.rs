//! [`Unlaunched`].

use fulgurite_torch::Value;
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::{Device, Tensor};

use super::{Ranks, ReduceOp, Strategy};
use crate::FabricError;

/// The placeholder of the strategy until the processes of the run are started. It knows their number, and rejects
/// operations that need them.
#[derive(Debug)]
pub(crate) struct Unlaunched {
    name: String,
    device: Device,
    ranks: Ranks,
}

impl Unlaunched {
    pub(crate) fn new(name: String, device: Device, ranks: Ranks) -> Unlaunched {
        Unlaunched { name, device, ranks }
    }

    fn reject<T>(&self, what: &str) -> Result<T, FabricError> {
        let world_size = self.ranks.world_size;
        Err(FabricError::Setting(format!(
            "{what} needs the {world_size} processes of the run, which are not started yet; call `launch` before it"
        )))
    }
}

impl Strategy for Unlaunched {
    fn name(&self) -> &str {
        &self.name
    }

    fn device(&self) -> Device {
        self.device
    }

    fn ranks(&self) -> Ranks {
        self.ranks
    }

    fn barrier(&self, name: &str) -> Result<(), FabricError> {
        self.reject(&format!("the barrier `{name}`"))
    }

    fn broadcast(&self, _: Value, _: usize) -> Result<Value, FabricError> {
        self.reject("a broadcast")
    }

    fn all_gather_values(&self, _: Value) -> Result<Vec<Value>, FabricError> {
        self.reject("gathering values")
    }

    fn all_gather(&self, _: &Tensor) -> Result<Vec<Tensor>, FabricError> {
        self.reject("gathering tensors")
    }

    fn reduce(&self, _: &Tensor, _: ReduceOp) -> Result<Tensor, FabricError> {
        self.reject("a reduction")
    }

    fn reduce_boolean_decision(&self, _: bool, _: bool) -> Result<bool, FabricError> {
        self.reject("a common decision")
    }

    fn setup_module(&mut self, _: &dyn Parameters) -> Result<(), FabricError> {
        self.reject("setting up a module")
    }

    fn setup_training(&mut self, _: &dyn Parameters) -> Result<(), FabricError> {
        self.reject("setting up training")
    }
}
