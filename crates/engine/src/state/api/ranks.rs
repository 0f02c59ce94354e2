//! Runs with several processes, as seen by hooks.

use fulgurite_torch::Value;

use crate::error::Error;
use crate::state::TrainerState;

impl TrainerState {
    /// Whether the run has several processes.
    pub fn is_distributed(&self) -> bool {
        self.fabric.world_size() > 1
    }

    /// Broadcasts a number from rank zero. Every rank must call this.
    ///
    /// # Errors
    ///
    /// Fails if another process does not respond in time.
    pub fn broadcast_number(&self, value: f64) -> Result<f64, Error> {
        let told = self.fabric.strategy().broadcast(Value::Float(value), 0)?;
        Ok(told.as_float().unwrap_or(value))
    }

    /// Broadcasts a decision of rank zero. Every rank must call this.
    ///
    /// # Errors
    ///
    /// Fails if another process does not respond in time.
    pub fn broadcast_decision(&self, decision: bool) -> Result<bool, Error> {
        Ok(self.fabric.strategy().reduce_boolean_decision(decision && self.is_global_zero(), false)?)
    }
}
