//! [`ModelCheckpointOptions`].

use std::path::PathBuf;
use std::time::Duration;

use derive_setters::Setters;
use fulgurite_engine::OnSaveError;
use fulgurite_engine::config::{Maximum, spelling};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Unexpected};
use serde::{Deserialize, Serialize, Serializer};

use super::Mode;

/// Options of [`ModelCheckpoint`](crate::ModelCheckpoint).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, generate_delegates(ty = "super::ModelCheckpoint", field = "options"))]
#[non_exhaustive]
pub struct ModelCheckpointOptions {
    /// The folder of the checkpoints; `checkpoints` in the folder of the first logger's run by default.
    #[setters(skip)]
    pub dirpath: Option<PathBuf>,
    /// The template of the file names, without extension; `{epoch}-{step}` by default.
    ///
    /// `{key}` stands for a logged value, or for `epoch` (0-based) or `step` (optimizer steps); what was not logged is
    /// 0. A format in Python's syntax may follow: `{val_loss:.2f}`, `{epoch:03d}`, `{acc:.1%}`.
    #[setters(into)]
    pub filename: String,
    /// The name of the metric to monitor; without one, the latest checkpoint is kept.
    #[setters(skip)]
    pub monitor: Option<String>,
    /// Prints a line for each save and each rejection.
    pub verbose: bool,
    /// Gives each checkpoint that is written a second name, `last.ckpt`; off by default.
    #[setters(strip_option = false, into)]
    #[serde(with = "self::save_last")]
    #[schemars(with = "Option<SaveLast>")]
    pub save_last: Option<SaveLast>,
    /// Also saves when an error ends the run.
    pub save_on_exception: bool,
    /// What happens when a checkpoint cannot be written: `raise` ends the run (the default), `warn` continues without
    /// it.
    pub on_save_error: OnSaveError,
    /// How many checkpoints to keep: 0 for none, -1 for all. Values other than these and 1 need a monitor.
    ///
    /// In Rust, all are [`Maximum::Unlimited`].
    #[setters(skip)]
    pub save_top_k: Maximum,
    /// Saves only weights and hyper-parameters. Such a file can be evaluated, but not resumed from.
    pub save_weights_only: bool,
    /// Whether a lower or a higher monitored value is better.
    #[setters(skip)]
    pub mode: Mode,
    /// Whether `{val_loss}` becomes `val_loss=0.25` (the default) or `0.25`. Turn it off when names of metrics contain
    /// `/`, which would make folders.
    pub auto_insert_metric_name: bool,
    /// Saves every `n` optimizer steps, counted over the whole run; 0 for never.
    pub every_n_train_steps: Option<u64>,
    /// Saves when this much time has passed since the last time it did; `DD:HH:MM:SS` in files.
    #[serde(with = "spelling::optional_time")]
    #[schemars(with = "Option<String>")]
    pub train_time_interval: Option<Duration>,
    /// Saves every `n` epochs; 0 for never. 1 when no other trigger is chosen.
    pub every_n_epochs: Option<u64>,
    /// Whether an epoch's save is made at the end of the training epoch or at the end of validation. By default at the
    /// end of validation if that runs within epochs, by time or not after each epoch, and else at the end of the epoch.
    #[setters(strip_option = false, into)]
    pub save_on_train_epoch_end: Option<bool>,
    /// Whether `-v1`, `-v2`, … is appended where a file of the same name exists (it is), or that file overwritten.
    pub enable_version_counter: bool,
    /// The separator between the parts of a name: `-` (`CHECKPOINT_JOIN_CHAR`).
    #[setters(into)]
    pub checkpoint_join_char: String,
    /// The separator between a metric's name and its value: `=` (`CHECKPOINT_EQUALS_CHAR`).
    #[setters(into)]
    pub checkpoint_equals_char: String,
    /// The name of the last checkpoint, which may be a template: `last` (`CHECKPOINT_NAME_LAST`).
    #[setters(into)]
    pub checkpoint_name_last: String,
    /// The extension: `.ckpt` (`FILE_EXTENSION`).
    #[setters(into)]
    pub file_extension: String,
}

impl Default for ModelCheckpointOptions {
    fn default() -> ModelCheckpointOptions {
        ModelCheckpointOptions {
            dirpath: None,
            filename: String::new(),
            monitor: None,
            verbose: false,
            save_last: None,
            save_on_exception: false,
            on_save_error: OnSaveError::Raise,
            save_top_k: Maximum::Of(1),
            save_weights_only: false,
            mode: Mode::Min,
            auto_insert_metric_name: true,
            every_n_train_steps: None,
            train_time_interval: None,
            every_n_epochs: None,
            save_on_train_epoch_end: None,
            enable_version_counter: true,
            checkpoint_join_char: "-".into(),
            checkpoint_equals_char: "=".into(),
            checkpoint_name_last: "last".into(),
            file_extension: ".ckpt".into(),
        }
    }
}

impl ModelCheckpointOptions {
    /// Whether neither the best nor the latest are kept.
    pub(super) fn keeps_none(&self) -> bool {
        self.save_top_k == Maximum::Of(0)
    }
}

/// What `last.ckpt` is; in files `true` or `link`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveLast {
    /// A separate file. As long as the checkpoint it equals exists, both share their disk space.
    Copy,
    /// A relative symbolic link to the newest checkpoint; a copy where links cannot be made.
    Link,
}

impl JsonSchema for SaveLast {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SaveLast".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "boolean" }, { "const": "link" }] })
    }
}

mod save_last {
    use super::{Deserialize, Deserializer, Error, SaveLast, Serializer, Unexpected};

    pub(crate) fn serialize<S: Serializer>(last: &Option<SaveLast>, serializer: S) -> Result<S::Ok, S::Error> {
        match last {
            None => serializer.serialize_none(),
            Some(SaveLast::Copy) => serializer.serialize_bool(true),
            Some(SaveLast::Link) => serializer.serialize_str("link"),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SaveLast>, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Spelling {
            Bool(bool),
            Text(String),
        }
        match Option::<Spelling>::deserialize(deserializer)? {
            None | Some(Spelling::Bool(false)) => Ok(None),
            Some(Spelling::Bool(true)) => Ok(Some(SaveLast::Copy)),
            Some(Spelling::Text(text)) if text == "link" => Ok(Some(SaveLast::Link)),
            Some(Spelling::Text(text)) => {
                Err(D::Error::invalid_value(Unexpected::Str(&text), &"true, false or `link`"))
            }
        }
    }
}
