//! [`Options`]: the options of a strategy, as they were given.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::FabricError;

/// Options by name, those that are as by default left out.
pub type Options = Map<String, Value>;

/// The options of the strategy `name`, those that are not given as by default.
pub(super) fn parse<O: DeserializeOwned>(name: &str, options: &Options) -> Result<O, FabricError> {
    serde_json::from_value(Value::Object(options.clone()))
        .map_err(|error| FabricError::Setting(format!("options of strategy `{name}`: {error}")))
}
