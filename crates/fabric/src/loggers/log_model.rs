//! [`LogModel`].

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Unexpected};
use serde::{Deserialize, Serialize, Serializer};

/// When checkpoints are uploaded; in files `false`, `true` or `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogModel {
    /// Never.
    #[default]
    Never,
    /// At the end of the run those that are kept; whenever one is written, if all are kept.
    AtEnd,
    /// Whenever one is written.
    All,
}

impl From<bool> for LogModel {
    fn from(log: bool) -> LogModel {
        if log { LogModel::AtEnd } else { LogModel::Never }
    }
}

impl JsonSchema for LogModel {
    fn schema_name() -> Cow<'static, str> {
        "LogModel".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "boolean" }, { "const": "all" }] })
    }
}

impl Serialize for LogModel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            LogModel::Never => serializer.serialize_bool(false),
            LogModel::AtEnd => serializer.serialize_bool(true),
            LogModel::All => serializer.serialize_str("all"),
        }
    }
}

impl<'de> Deserialize<'de> for LogModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LogModel, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelling {
            Bool(bool),
            Text(String),
        }
        match Spelling::deserialize(deserializer)? {
            Spelling::Bool(log) => Ok(log.into()),
            Spelling::Text(text) if text == "all" => Ok(LogModel::All),
            Spelling::Text(text) => Err(D::Error::invalid_value(Unexpected::Str(&text), &"true, false or `all`")),
        }
    }
}
