//! Serialization of arguments whose form in files differs from their type.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::Deterministic;
use crate::error::Error;

/// A duration in Lightning's format: `DD:HH:MM:SS`, with two digits for hours, minutes and seconds.
///
/// # Errors
///
/// Fails if the text has any other form.
pub fn parse_time(text: &str) -> Result<Duration, Error> {
    let parts: Vec<&str> = text.split(':').collect();
    let two_digits = |part: &&str| part.len() == 2;
    // More days would overflow the number of seconds.
    let numbers: Option<Vec<u64>> = parts.iter().map(|part| part.parse::<u32>().ok().map(u64::from)).collect();
    match numbers.as_deref() {
        Some(&[days, hours, minutes, seconds])
            if parts[1..].iter().all(two_digits) && hours < 24 && minutes < 60 && seconds < 60 =>
        {
            Ok(Duration::from_secs(((days * 24 + hours) * 60 + minutes) * 60 + seconds))
        }
        _ => Err(Error::Config(format!(
            "`{text}` is not a time; write DD:HH:MM:SS, such as 00:12:00:00 for twelve hours"
        ))),
    }
}

fn format_time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    format!("{days:02}:{hours:02}:{:02}:{:02}", seconds / 60 % 60, seconds % 60)
}

/// A duration as `DD:HH:MM:SS`. For `#[serde(with = ...)]`.
pub mod time {
    use super::{Deserialize, Deserializer, Duration, Serializer, de::Error, format_time, parse_time};

    /// Serializes the value.
    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_time(*time))
    }

    /// Deserializes the value.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse_time(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// An optional duration as `DD:HH:MM:SS`. For `#[serde(with = ...)]`.
pub mod optional_time {
    use super::{Deserialize, Deserializer, Duration, Serializer, de::Error, format_time, parse_time};

    /// Serializes the value.
    pub fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_some(&format_time(*time)),
            None => serializer.serialize_none(),
        }
    }

    /// Deserializes the value.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Option::<String>::deserialize(deserializer)?.map(|text| parse_time(&text).map_err(D::Error::custom)).transpose()
    }
}

/// A duration in seconds. For `#[serde(with = ...)]`.
pub mod seconds {
    use super::{Deserialize, Deserializer, Duration, Serializer, de::Error};

    /// Serializes the value.
    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(time.as_secs_f64())
    }

    /// Deserializes the value.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// `true`, `false` or a count; held as a count.
pub(super) mod count_or_bool {
    use super::{CountOrBool, Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(count: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        if *count == 0 { serializer.serialize_bool(false) } else { serializer.serialize_u64(*count) }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        Ok(match CountOrBool::deserialize(deserializer)? {
            CountOrBool::Bool(on) => on.into(),
            CountOrBool::Count(count) => count,
        })
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum CountOrBool {
    Bool(bool),
    Count(u64),
}

impl Serialize for Deterministic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Deterministic::False => serializer.serialize_bool(false),
            Deterministic::Warn => serializer.serialize_str("warn"),
            Deterministic::True => serializer.serialize_bool(true),
        }
    }
}

impl<'de> Deserialize<'de> for Deterministic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Deterministic, D::Error> {
        struct BoolOrWarn;
        impl Visitor<'_> for BoolOrWarn {
            type Value = Deterministic;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("true, false or `warn`")
            }

            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Deterministic, E> {
                Ok(if on { Deterministic::True } else { Deterministic::False })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Deterministic, E> {
                match text {
                    "warn" => Ok(Deterministic::Warn),
                    "true" => Ok(Deterministic::True),
                    "false" => Ok(Deterministic::False),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(BoolOrWarn)
    }
}

impl JsonSchema for Deterministic {
    fn schema_name() -> Cow<'static, str> {
        "Deterministic".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "boolean" }, { "const": "warn" }] })
    }
}
