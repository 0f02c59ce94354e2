//! [`Unlaunched`].

use fulgurite_torch::Value;
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::{Device, Tensor};

use super::{Ranks, ReduceOp, Strategy};
use crate::FabricError;

/// Takes the strategy's place until the processes of the run are started. It knows how many there will be, and refuses
/// whatever needs them.
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

    fn refuse<T>(&self, what: &str) -> Result<T, FabricError> {
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
        self.refuse(&format!("the barrier `{name}`"))
    }

    fn broadcast(&self, _: Value, _: usize) -> Result<Value, FabricError> {
        self.refuse("a broadcast")
    }

    fn all_gather_values(&self, _: Value) -> Result<Vec<Value>, FabricError> {
        self.refuse("gathering values")
    }

    fn all_gather(&self, _: &Tensor) -> Result<Vec<Tensor>, FabricError> {
        self.refuse("gathering tensors")
    }

    fn reduce(&self, _: &Tensor, _: ReduceOp) -> Result<Tensor, FabricError> {
        self.refuse("a reduction")
    }

    fn reduce_boolean_decision(&self, _: bool, _: bool) -> Result<bool, FabricError> {
        self.refuse("a common decision")
    }

    fn setup_module(&mut self, _: &dyn Parameters) -> Result<(), FabricError> {
        self.refuse("setting up a module")
    }

    fn setup_training(&mut self, _: &dyn Parameters) -> Result<(), FabricError> {
        self.refuse("setting up training")
    }
}
