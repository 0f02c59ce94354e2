//! A learning-rate scheduler: its options, and its formula.

use fulgurite::optim::{Moment, OptimError, Schedule, Scheduler};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Linear warm-up, then decay by the inverse square root.
pub type InverseSqrtLR = Scheduler<InverseSqrtOptions>;

/// Options of [`InverseSqrtLR`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InverseSqrtOptions {
    /// Number of steps of the warm-up.
    pub warmup: u32,
}

impl Default for InverseSqrtOptions {
    fn default() -> InverseSqrtOptions {
        InverseSqrtOptions { warmup: 4000 }
    }
}

impl Schedule for InverseSqrtOptions {
    type State = ();
    const NAME: &'static str = "InverseSqrtLR";

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        let (step, warmup) = (at.epoch as f64 + 1.0, f64::from(self.warmup).max(1.0));
        Ok(at.base_lr * (step / warmup).min((warmup / step).sqrt()))
    }
}
