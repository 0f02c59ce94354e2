//! [`Options`]: the options of a strategy that were given.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::FabricError;

/// Options by name, without those that have their default values.
pub type Options = Map<String, Value>;

/// The options of the strategy `name`, with defaults for those that are not given.
pub(super) fn parse<O: DeserializeOwned>(name: &str, options: &Options) -> Result<O, FabricError> {
    serde_json::from_value(Value::Object(options.clone()))
        .map_err(|error| FabricError::Setting(format!("options of strategy `{name}`: {error}")))
}
