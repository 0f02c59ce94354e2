//! [`StrategyChoice`]: the strategy that a run requests.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::options::{self, Options};
use super::registry::DDP;
use super::{DdpOptions, DdpStrategy, Strategies};
use crate::FabricError;
use crate::removed::{self, Place};

/// The strategy that a run requests: a name registered in [`Strategies`], and its options.
///
/// In files, the name; or `name: ddp` beside the options; or `class_path: DdpStrategy` (Lightning's `DDPStrategy` is
/// the same, and the name of any strategy is accepted too) with `init_args`.
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

impl StrategyChoice {
    /// A strategy with options, which are checked when it is created.
    pub fn new(name: impl Into<String>, options: Options) -> StrategyChoice {
        StrategyChoice { name: name.into(), options }
    }

    /// Sets an option.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<Value>) -> StrategyChoice {
        self.options.insert(name.into(), value.into());
        self
    }

    /// The strategy's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The given options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The same strategy, with an alias such as `ddp_find_unused_parameters_true` expanded to its options.
    ///
    /// ```
    /// use fulgurite_fabric::strategy::StrategyChoice;
    ///
    /// let choice = StrategyChoice::from("ddp").option("find_unused_parameters", true);
    /// assert_eq!(StrategyChoice::from("ddp_find_unused_parameters_true").expand_alias(), choice);
    /// ```
    #[must_use]
    pub fn expand_alias(mut self) -> StrategyChoice {
        if let Some((name, options)) = Strategies::alias(&self.name) {
            self.name = name.to_owned();
            self.options.extend(options);
        }
        self
    }

    /// The class that takes its options in files: `DdpStrategy` for `ddp`, and otherwise the name itself.
    pub fn class_path(&self) -> &str {
        if self.name == DDP { CLASS } else { &self.name }
    }

    /// The timeout of collective operations: the option `timeout` of strategies that have one, else 30 minutes.
    pub(crate) fn timeout(&self) -> Result<Duration, FabricError> {
        let timeout = self.options.get("timeout").map(|timeout| ("timeout".to_owned(), timeout.clone()));
        Ok(options::parse::<DdpOptions>(&self.name, &timeout.into_iter().collect())?.timeout)
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
        StrategyChoice::new(DDP, options)
    }
}

/// The representation in a file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Repr {
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
        Class { class_path: self.class_path().to_owned(), init_args: self.options.clone() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StrategyChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StrategyChoice, D::Error> {
        let (name, options) = match Repr::deserialize(deserializer)? {
            Repr::Name(name) => return Ok(name.into()),
            Repr::Named(Named { name, options }) => (name, options),
            Repr::Class(Class { class_path, init_args }) => match class_path.rsplit('.').next() {
                Some(CLASS | DdpStrategy::CLASS_NAME) => (DDP.to_owned(), init_args),
                Some(name) if Strategies::names().iter().any(|known| known == name) => (name.to_owned(), init_args),
                _ => {
                    return Err(de::Error::custom(match removed::hint(Place::Strategy, &class_path) {
                        Some(hint) => format!("strategy `{class_path}` no longer exists: {hint}"),
                        None => format!("there is no class of strategies `{class_path}`; write {CLASS}"),
                    }));
                }
            },
        };
        match name.as_str() {
            DDP => options::parse::<DdpOptions>(&name, &options).map(Into::into).map_err(de::Error::custom),
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
