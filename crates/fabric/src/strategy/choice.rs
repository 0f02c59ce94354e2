//! [`StrategyChoice`]: which strategy a run asks for.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use super::{DdpOptions, Strategies};
use crate::FabricError;
use crate::ended::{self, Place};

/// Which strategy a run asks for: a name that [`Strategies`] knows, and options that it has.
///
/// In files, the name; or `name: ddp` beside the options; or `class_path: DdpStrategy` (Lightning's `DDPStrategy` is the
/// same, and the name of any strategy stands here too) with `init_args`.
///
/// ```
/// use fulgurite_fabric::strategy::{DdpOptions, StrategyChoice};
///
/// let choice = StrategyChoice::from(DdpOptions::default().static_graph(true));
/// assert_eq!(choice.name(), "ddp");
/// assert_eq!(StrategyChoice::from("ddp").option("static_graph", true), choice);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct StrategyChoice {
    name: String,
    options: Options,
}

/// Options by name, those that are as by default left out.
pub type Options = Map<String, Value>;

impl StrategyChoice {
    /// A strategy with some of its options, checked when it is made.
    pub fn new(name: impl Into<String>, options: Options) -> StrategyChoice {
        StrategyChoice { name: name.into(), options }
    }

    /// And an option.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<Value>) -> StrategyChoice {
        self.options.insert(name.into(), value.into());
        self
    }

    /// The strategy's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The options that were given.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// How long processes wait for each other: the option `timeout`, of any strategy that has one, or half an hour.
    pub(crate) fn timeout(&self) -> Result<Duration, FabricError> {
        let timeout = self.options.get("timeout").map(|timeout| ("timeout".to_owned(), timeout.clone()));
        Ok(Strategies::parse::<DdpOptions>(&self.name, &timeout.into_iter().collect())?.timeout)
    }
}

/// The name, and the options that were given.
impl fmt::Display for StrategyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.options.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

impl From<&str> for StrategyChoice {
    fn from(name: &str) -> StrategyChoice {
        StrategyChoice::new(name, Options::new())
    }
}

impl From<&String> for StrategyChoice {
    fn from(name: &String) -> StrategyChoice {
        StrategyChoice::new(name, Options::new())
    }
}

impl From<String> for StrategyChoice {
    fn from(name: String) -> StrategyChoice {
        StrategyChoice::new(name, Options::new())
    }
}

impl From<DdpOptions> for StrategyChoice {
    fn from(options: DdpOptions) -> StrategyChoice {
        let [mut options, default] = [options, DdpOptions::default()].map(|options| match serde_json::json!(options) {
            Value::Object(options) => options,
            _ => Options::new(),
        });
        options.retain(|name, value| default.get(name) != Some(value));
        StrategyChoice::new("ddp", options)
    }
}

/// As in a file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Spelt {
    Name(String),
    Class(Class),
    Named(Named),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Class {
    class_path: String,
    #[serde(default)]
    init_args: Options,
}

#[derive(Serialize, Deserialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    options: Options,
}

const CLASS: &str = "DdpStrategy";

impl Serialize for StrategyChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.options.is_empty() {
            return self.name.serialize(serializer);
        }
        let class_path = if self.name == "ddp" { CLASS.into() } else { self.name.clone() };
        Class { class_path, init_args: self.options.clone() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StrategyChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StrategyChoice, D::Error> {
        let (name, options) = match Spelt::deserialize(deserializer)? {
            Spelt::Name(name) => return Ok(name.into()),
            Spelt::Named(Named { name, options }) => (name, options),
            Spelt::Class(Class { class_path, init_args }) => match class_path.rsplit('.').next() {
                Some(CLASS | "DDPStrategy") => ("ddp".to_owned(), init_args),
                Some(name) if Strategies::names().iter().any(|known| known == name) => (name.to_owned(), init_args),
                _ => {
                    return Err(de::Error::custom(match ended::fate(Place::Strategy, &class_path) {
                        Some(fate) => format!("strategy `{class_path}` was removed: {fate}"),
                        None => format!("there is no class of strategies `{class_path}`; write {CLASS}"),
                    }));
                }
            },
        };
        match name.as_str() {
            "ddp" => Strategies::parse::<DdpOptions>(&name, &options).map(Into::into).map_err(de::Error::custom),
            _ => Ok(StrategyChoice::new(name, options)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<StrategyChoice, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn what_is_not_default_is_shown() {
        assert_eq!(StrategyChoice::from("auto").to_string(), "auto");
        let options = DdpOptions::default().bucket_cap_mb(1.5).timeout(std::time::Duration::from_secs(90));
        assert_eq!(StrategyChoice::from(options).to_string(), r#"ddp bucket_cap_mb=1.5 timeout="0:01:30""#);
    }

    #[test]
    fn names_and_classes_are_read_as_they_are_written() {
        let options = DdpOptions::default().find_unused_parameters(true).timeout(std::time::Duration::from_secs(90));
        for choice in [StrategyChoice::from("ddp"), options.into()] {
            assert_eq!(read(&serde_json::to_string(&choice).unwrap()).unwrap(), choice);
        }
        let lightnings =
            r#"{"class_path": "lightning.pytorch.strategies.DDPStrategy", "init_args": {"static_graph": true}}"#;
        assert_eq!(read(lightnings).unwrap(), DdpOptions::default().static_graph(true).into());
        let named = r#"{"name": "ddp", "static_graph": true, "bucket_cap_mb": 25.0}"#;
        assert_eq!(read(named).unwrap(), DdpOptions::default().static_graph(true).into());
        assert!(read(r#"{"name": "ddp", "bucket": 1}"#).unwrap_err().to_string().contains("unknown field `bucket`"));
        assert!(
            read(r#"{"class_path": "BaguaStrategy"}"#).unwrap_err().to_string().contains("removed Bagua; write `ddp`")
        );
        assert!(read(r#"{"class_path": "Fsdp"}"#).unwrap_err().to_string().contains("write DdpStrategy"));
    }
}
