//! [`Resume`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a run goes on with an earlier one on the server: W&B's by its identifier, Trackio's by its name. A program that is
/// resumed from a checkpoint goes on with its own run nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Resume {
    /// If it is there.
    Allow,
    /// It has to be there.
    Must,
    /// No: with W&B it must not be there, with Trackio there are two of the name then.
    Never,
    /// As `allow`.
    Auto,
}

impl Resume {
    pub(super) fn of_name(name: &str) -> Option<Resume> {
        serde_json::from_value(name.to_lowercase().into()).ok()
    }
}
