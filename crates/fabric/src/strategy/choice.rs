//! [`StrategyChoice`]: which strategy a run asks for.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::DdpOptions;
use crate::ended::{self, Place};

/// Which strategy a run asks for: a name that [`Strategies`](super::Strategies) knows, or `ddp` with options.
///
/// In files, the name, or `class_path: DdpStrategy` (Lightning's `DDPStrategy` is the same) with `init_args`.
///
/// ```
/// use fulgurite_fabric::strategy::{DdpOptions, StrategyChoice};
///
/// let choice = StrategyChoice::from(DdpOptions::default().static_graph(true));
/// assert_eq!(choice.name(), "ddp");
/// assert_eq!(StrategyChoice::from("auto").name(), "auto");
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StrategyChoice {
    /// By name.
    Name(String),
    /// `ddp`.
    Ddp(DdpOptions),
}

impl StrategyChoice {
    /// The strategy's name.
    pub fn name(&self) -> &str {
        match self {
            StrategyChoice::Name(name) => name,
            StrategyChoice::Ddp(_) => "ddp",
        }
    }

    /// What `ddp` is told.
    pub fn ddp(&self) -> DdpOptions {
        match self {
            StrategyChoice::Name(_) => DdpOptions::default(),
            StrategyChoice::Ddp(options) => options.clone(),
        }
    }
}

/// The name, and the options that are not what they are by default.
impl fmt::Display for StrategyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let [options, default] = [self.ddp(), DdpOptions::default()].map(|options| serde_json::json!(options));
        let Value::Object(options) = options else { return Ok(()) };
        for (name, value) in options.iter().filter(|(name, value)| default[name.as_str()] != **value) {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

impl From<&str> for StrategyChoice {
    fn from(name: &str) -> StrategyChoice {
        StrategyChoice::Name(name.into())
    }
}

impl From<&String> for StrategyChoice {
    fn from(name: &String) -> StrategyChoice {
        StrategyChoice::Name(name.clone())
    }
}

impl From<String> for StrategyChoice {
    fn from(name: String) -> StrategyChoice {
        StrategyChoice::Name(name)
    }
}

impl From<DdpOptions> for StrategyChoice {
    fn from(options: DdpOptions) -> StrategyChoice {
        StrategyChoice::Ddp(options)
    }
}

/// As in a file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Spelt {
    Name(String),
    Class(Class),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Class {
    class_path: String,
    #[serde(default)]
    init_args: DdpOptions,
}

const CLASS: &str = "DdpStrategy";

impl Serialize for StrategyChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            StrategyChoice::Name(name) => name.serialize(serializer),
            StrategyChoice::Ddp(options) => {
                Class { class_path: CLASS.into(), init_args: options.clone() }.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for StrategyChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StrategyChoice, D::Error> {
        match Spelt::deserialize(deserializer)? {
            Spelt::Name(name) => Ok(name.into()),
            Spelt::Class(Class { class_path, init_args }) => match class_path.rsplit('.').next() {
                Some(CLASS | "DDPStrategy") => Ok(init_args.into()),
                _ => Err(de::Error::custom(match ended::fate(Place::Strategy, &class_path) {
                    Some(fate) => format!("strategy `{class_path}` is no more: {fate}"),
                    None => format!("there is no class of strategies `{class_path}`; write {CLASS}"),
                })),
            },
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
        assert!(
            read(r#"{"class_path": "BaguaStrategy"}"#).unwrap_err().to_string().contains("removed Bagua; write `ddp`")
        );
        assert!(read(r#"{"class_path": "Fsdp"}"#).unwrap_err().to_string().contains("write DdpStrategy"));
    }
}
