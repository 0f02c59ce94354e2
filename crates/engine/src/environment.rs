//! Defaults of the trainer's arguments from the environment: `PL_TRAINER_MAX_EPOCHS=3`.

use fulgurite_fabric::removed::{self, Place};
use serde_json::{Map, Value};

use crate::config::TrainerConfig;
use crate::error::Error;

const PREFIX: &str = "PL_TRAINER_";

/// Trainer arguments from environment variables.
#[derive(Default)]
pub struct Environment {
    /// The arguments.
    pub config: TrainerConfig,
    /// Variables that look like arguments but match none.
    pub unknown: Vec<String>,
}

impl TrainerConfig {
    /// Lightning's defaults, overridden by the environment: the variable `PL_TRAINER_MAX_EPOCHS` sets the argument
    /// `max_epochs`, and so on. `Trainer::builder` starts from this.
    ///
    /// # Errors
    ///
    /// Fails if the value of a variable is not valid for its argument.
    pub fn from_env() -> Result<TrainerConfig, Error> {
        Ok(Environment::of(variables())?.config)
    }
}

/// The trainer's environment variables of this process.
pub fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
        Some((name, value.to_string_lossy().into_owned()))
    })
}

/// The replacement of a removed Lightning argument that a variable refers to.
pub fn removed_hint(variable: &str) -> Option<&'static str> {
    removed::hint(Place::Argument, variable.strip_prefix(PREFIX)?)
}

impl Environment {
    /// Parses the given variables.
    ///
    /// # Errors
    ///
    /// Fails if the value of a variable is not valid for its argument.
    pub fn of(variables: impl Iterator<Item = (String, String)>) -> Result<Environment, Error> {
        let known = serde_json::to_value(TrainerConfig::default()).unwrap_or_default();
        let mut arguments = Map::new();
        let mut unknown = Vec::new();
        for (name, text) in variables {
            let argument = name.trim_start_matches(PREFIX).to_lowercase();
            if known.get(&argument).is_none() {
                unknown.push(name);
                continue;
            }
            let check = |value: &Value| {
                let alone = Map::from_iter([(argument.clone(), value.clone())]);
                serde_json::from_value::<TrainerConfig>(Value::Object(alone)).map(drop)
            };
            let (value, as_text) = (literal(&text), Value::String(text.clone()));
            let value = match check(&value) {
                Ok(()) => value,
                Err(_) if check(&as_text).is_ok() => as_text,
                Err(error) => {
                    let advice = advice_of(&error.to_string(), known.get(&argument));
                    return Err(Error::Config(format!(
                        "the environment variable {name}={text} is not a valid value of `{argument}`{advice}"
                    )));
                }
            };
            arguments.insert(argument, value);
        }
        let config = serde_json::from_value(Value::Object(arguments))
            .map_err(|error| Error::Config(format!("the environment variables {PREFIX}*: {error}")))?;
        unknown.sort();
        Ok(Environment { config, unknown })
    }
}

/// What to write instead, preceded by the reason if it comes from the argument and not from its type.
fn advice_of(error: &str, default: Option<&Value>) -> String {
    let is_of_type = ["invalid ", "unknown variant", "data did not match"].iter().any(|start| error.starts_with(start));
    match default.filter(|default| !default.is_null()) {
        _ if !is_of_type => format!(": {error}"),
        Some(default) => format!("; write one, such as its default {default}, or unset it"),
        None => "; write one, or unset it".into(),
    }
}

/// A value as written in YAML on one line: true, 3, 0.5, null, [0, 1], or a string.
fn literal(text: &str) -> Value {
    match text.trim() {
        "true" | "True" => Value::Bool(true),
        "false" | "False" => Value::Bool(false),
        "~" | "null" | "None" => Value::Null,
        text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use fulgurite_fabric::DdpOptions;
    use std::path::Path;

    use super::*;
    use crate::config::{Deterministic, Limit, Maximum, ValCheckInterval};

    fn of(variables: &[(&str, &str)]) -> Result<Environment, Error> {
        Environment::of(variables.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned())))
    }

    fn config(name: &str, value: &str) -> TrainerConfig {
        of(&[(name, value)]).unwrap().config
    }

    #[test]
    fn values_are_literals_or_else_texts() {
        assert_eq!(config("MAX_EPOCHS", "3").max_epochs, Some(Maximum::Of(3)));
        assert_eq!(config("MAX_EPOCHS", "None").max_epochs, None);
        assert_eq!(config("MAX_STEPS", " -1 ").max_steps, Maximum::Unlimited);
        assert_eq!(config("LIMIT_TRAIN_BATCHES", "1").limit_train_batches, Limit::Batches(1));
        assert_eq!(config("LIMIT_TRAIN_BATCHES", "1.0").limit_train_batches, Limit::Fraction(1.0));
        assert_eq!(config("CHECK_VAL_EVERY_N_EPOCH", "null").check_val_every_n_epoch, None);
        assert!(config("DETECT_ANOMALY", "True").detect_anomaly);
        assert_eq!(config("ENABLE_PROGRESS_BAR", "false").enable_progress_bar, Some(false));
        assert_eq!(config("DETERMINISTIC", "warn").deterministic, Deterministic::Warn);
        assert_eq!(config("PRECISION", "64").precision, "64");
        let options = r#"{"class_path": "DdpStrategy", "init_args": {"static_graph": true}}"#;
        assert_eq!(config("STRATEGY", "ddp").strategy, "ddp".into());
        assert_eq!(config("STRATEGY", options).strategy, DdpOptions::default().static_graph(true).into());
        assert_eq!(config("DEFAULT_ROOT_DIR", "/tmp/3").default_root_dir.as_deref(), Some(Path::new("/tmp/3")));
        assert_eq!(config("MAX_TIME", "00:00:01:00").max_time.map(|time| time.as_secs()), Some(60));
        let hour = ValCheckInterval::Time(std::time::Duration::from_secs(3600));
        assert_eq!(config("VAL_CHECK_INTERVAL", "00:01:00:00").val_check_interval, hour);
    }

    #[test]
    fn several_variables_and_unknown_ones() {
        let both = of(&[("MAX_EPOCHS", "3"), ("MAX_EPOCH", "4"), ("BAREBONES", "true")]).unwrap();
        assert_eq!((both.config.max_epochs, both.config.barebones), (Some(Maximum::Of(3)), true));
        assert_eq!(both.unknown, ["PL_TRAINER_MAX_EPOCH"]);
        assert_eq!(of(&[]).unwrap().config, TrainerConfig::default());
    }

    #[track_caller]
    fn refused(name: &str, value: &str, expected: Expect) {
        expected.assert_eq(&of(&[(name, value)]).err().map(|error| error.to_string()).unwrap_or_default());
    }

    #[test]
    fn wrong_values_are_named() {
        refused(
            "MAX_STEPS",
            "many",
            expect![
                "the environment variable PL_TRAINER_MAX_STEPS=many is not a valid value of `max_steps`; write one, such as its default -1, or unset it"
            ],
        );
        refused(
            "MAX_EPOCHS",
            "-2",
            expect![
                "the environment variable PL_TRAINER_MAX_EPOCHS=-2 is not a valid value of `max_epochs`: -2 is below -1; write 0 or more, or -1 for no limit"
            ],
        );
        // An empty value is not null: an unset variable in a script must not select 1000 epochs.
        for empty in ["", " "] {
            for name in ["MAX_EPOCHS", "DETECT_ANOMALY", "ENABLE_PROGRESS_BAR", "GRADIENT_CLIP_VAL", "DETERMINISTIC"] {
                let message = of(&[(name, empty)]).err().map(|error| error.to_string()).unwrap_or_default();
                assert!(
                    message.contains(&format!("PL_TRAINER_{name}={empty} is not a valid value of")),
                    "{name}: {message}"
                );
            }
        }
        refused(
            "MAX_TIME",
            "1h",
            expect![
                "the environment variable PL_TRAINER_MAX_TIME=1h is not a valid value of `max_time`: `1h` is not a time; write DD:HH:MM:SS, such as 00:12:00:00 for twelve hours"
            ],
        );
        refused(
            "GRADIENT_CLIP_ALGORITHM",
            "cut",
            expect![[
                r#"the environment variable PL_TRAINER_GRADIENT_CLIP_ALGORITHM=cut is not a valid value of `gradient_clip_algorithm`; write one, such as its default "norm", or unset it"#
            ]],
        );
    }
}
