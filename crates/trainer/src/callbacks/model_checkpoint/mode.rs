//! [`Mode`], and what else callbacks that monitor a value share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::state::TrainerState;

/// Whether less or more of the monitored value is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Less: a loss.
    #[default]
    Min,
    /// More: an accuracy.
    Max,
}

impl Mode {
    /// Whether `a` is strictly better than `b`; never when one of them is NaN.
    pub(in crate::callbacks) fn is_better(self, a: f64, b: f64) -> bool {
        match self {
            Mode::Min => a < b,
            Mode::Max => a > b,
        }
    }

    /// What everything is better than.
    pub(in crate::callbacks) fn worst(self) -> f64 {
        match self {
            Mode::Min => f64::INFINITY,
            Mode::Max => f64::NEG_INFINITY,
        }
    }

    /// Lightning's name of it.
    pub(in crate::callbacks) fn name(self) -> &'static str {
        match self {
            Mode::Min => "min",
            Mode::Max => "max",
        }
    }
}

/// The error of a value that `who` monitors and nobody logged.
pub(in crate::callbacks) fn missing_monitor(trainer: &mut TrainerState, who: &str, monitor: &str) -> Error {
    let without_validation = trainer.validated_nothing();
    match trainer.callback_metrics() {
        Ok(metrics) => {
            let available = metrics.keys().cloned().collect();
            Error::MissingMonitor { who: who.to_owned(), monitor: monitor.to_owned(), available, without_validation }
        }
        Err(error) => error,
    }
}

/// `repr` of a Python string, for state keys.
pub(in crate::callbacks) fn python_str(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}
