//! [`Mode`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a monitored value should be low or high.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Low, such as a loss.
    #[default]
    Min,
    /// High, such as an accuracy.
    Max,
}

impl Mode {
    /// Whether `a` is strictly better than `b`; never when one of them is NaN.
    pub fn is_better(self, a: f64, b: f64) -> bool {
        match self {
            Mode::Min => a < b,
            Mode::Max => a > b,
        }
    }

    /// The value that every other is better than.
    pub fn worst(self) -> f64 {
        match self {
            Mode::Min => f64::INFINITY,
            Mode::Max => f64::NEG_INFINITY,
        }
    }

    /// Its name in files: `min` or `max`.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Min => "min",
            Mode::Max => "max",
        }
    }
}
