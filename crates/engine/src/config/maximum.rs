//! [`Maximum`]: a limit on a number, or none.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A maximum number, or no limit.
///
/// Setters take a number or [`Maximum::Unlimited`]. Files, environment variables and the command line write -1 for no
/// limit, as Lightning does.
///
/// ```
/// use fulgurite::prelude::*;
///
/// let every_epoch = ModelCheckpoint::new().save_top_k(Maximum::Unlimited);
/// let trainer = Trainer::builder().max_epochs(Maximum::Unlimited).max_steps(10_000).callback(every_epoch);
/// ```
///
/// In Rust, -1 does not compile:
///
/// ```compile_fail
/// use fulgurite::prelude::*;
///
/// let trainer = Trainer::builder().max_epochs(-1);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Maximum {
    /// At most this many.
    Of(u64),
    /// No limit.
    #[default]
    Unlimited,
}

impl Maximum {
    /// The number; `None` without a limit.
    pub const fn finite(self) -> Option<u64> {
        match self {
            Maximum::Of(max) => Some(max),
            Maximum::Unlimited => None,
        }
    }

    /// Whether `count` is not above it.
    pub const fn allows(self, count: u64) -> bool {
        match self {
            Maximum::Of(max) => count <= max,
            Maximum::Unlimited => true,
        }
    }

    /// Whether no more than `count` is allowed.
    pub const fn is_reached_by(self, count: u64) -> bool {
        match self {
            Maximum::Of(max) => count >= max,
            Maximum::Unlimited => false,
        }
    }
}

// The only integer, so that the type of a literal is inferred, and a negative one is refused by the compiler.
impl From<u64> for Maximum {
    fn from(max: u64) -> Maximum {
        Maximum::Of(max)
    }
}

impl Serialize for Maximum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Maximum::Of(max) => serializer.serialize_u64(*max),
            Maximum::Unlimited => serializer.serialize_i64(-1),
        }
    }
}

impl<'de> Deserialize<'de> for Maximum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Maximum, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Maximum;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number from 0, or -1 for no limit")
            }

            fn visit_u64<E: de::Error>(self, max: u64) -> Result<Maximum, E> {
                Ok(Maximum::Of(max))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Maximum, E> {
                match u64::try_from(number) {
                    Ok(max) => Ok(Maximum::Of(max)),
                    Err(_) if number == -1 => Ok(Maximum::Unlimited),
                    Err(_) => Err(E::custom(format_args!("{number} is below -1; write 0 or more, or -1 for no limit"))),
                }
            }
        }
        deserializer.deserialize_any(Number)
    }
}

impl JsonSchema for Maximum {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Maximum".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": -1 })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Maximum;

    #[test]
    fn files_write_minus_one_for_no_limit() {
        for (maximum, written) in [
            (Maximum::Of(0), json!(0)),
            (10.into(), json!(10)),
            (u64::MAX.into(), json!(u64::MAX)),
            (Maximum::Unlimited, json!(-1)),
        ] {
            assert_eq!(serde_json::to_value(maximum).unwrap(), written);
            assert_eq!(serde_json::from_value::<Maximum>(written).unwrap(), maximum);
        }
        let optional = |value: Value| serde_json::from_value::<Option<Maximum>>(value).unwrap();
        assert_eq!([json!(null), json!(-1)].map(optional), [None, Some(Maximum::Unlimited)]);
    }

    #[test]
    fn other_values_are_refused() {
        let refused = |value: Value| serde_json::from_value::<Maximum>(value).unwrap_err().to_string();
        assert_eq!(refused(json!(-2)), "-2 is below -1; write 0 or more, or -1 for no limit");
        assert_eq!(
            refused(json!(1.5)),
            "invalid type: floating point `1.5`, expected a number from 0, or -1 for no limit"
        );
        assert_eq!(refused(json!("ten")), "invalid type: string \"ten\", expected a number from 0, or -1 for no limit");
    }

    #[test]
    fn counts_are_compared() {
        let (two, none) = (Maximum::Of(2), Maximum::Unlimited);
        assert_eq!([1, 2, 3].map(|count| two.allows(count)), [true, true, false]);
        assert_eq!([1, 2, 3].map(|count| two.is_reached_by(count)), [false, true, true]);
        assert!(none.allows(u64::MAX) && !none.is_reached_by(u64::MAX));
        assert_eq!((two.finite(), none.finite()), (Some(2), None));
    }
}
