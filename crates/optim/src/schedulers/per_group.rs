//! [`PerGroup`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::OptimError;

/// One value for all parameter groups, or one for each: converted from an `f64` or a `Vec<f64>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PerGroup {
    /// The same for all groups.
    Same(f64),
    /// One for each group, in their order.
    Each(Vec<f64>),
}

impl From<f64> for PerGroup {
    fn from(value: f64) -> PerGroup {
        PerGroup::Same(value)
    }
}

impl From<Vec<f64>> for PerGroup {
    fn from(values: Vec<f64>) -> PerGroup {
        PerGroup::Each(values)
    }
}

impl PerGroup {
    /// Adds values for groups that were added to the optimizer, up to `groups`.
    pub(crate) fn extend(
        &self,
        scheduler: &'static str,
        option: &'static str,
        values: &mut Vec<f64>,
        groups: usize,
    ) -> Result<(), OptimError> {
        match self {
            PerGroup::Same(value) => values.resize(groups.max(values.len()), *value),
            PerGroup::Each(_) if values.len() < groups => {
                return Err(OptimError::PerGroupLength { scheduler, option, values: values.len(), groups });
            }
            PerGroup::Each(_) => {}
        }
        Ok(())
    }

    /// One value for each of `groups` groups.
    pub(crate) fn spread(
        &self,
        scheduler: &'static str,
        option: &'static str,
        groups: usize,
    ) -> Result<Vec<f64>, OptimError> {
        match self {
            PerGroup::Same(value) => Ok(vec![*value; groups]),
            PerGroup::Each(values) if values.len() == groups => Ok(values.clone()),
            PerGroup::Each(values) => {
                Err(OptimError::PerGroupLength { scheduler, option, values: values.len(), groups })
            }
        }
    }
}
