//! [`WandbLoggerOptions`].

use std::path::PathBuf;

use derive_setters::Setters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::loggers::{LogModel, Resume};

/// Options of [`WandbLogger`](super::WandbLogger).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, into, generate_delegates(ty = "super::WandbLogger", field = "options"))]
#[non_exhaustive]
pub struct WandbLoggerOptions {
    /// The name of the run; that of `WANDB_NAME`, or else one that the server invents.
    pub name: Option<String>,
    /// The folder of the run's checkpoints, and of the folder `wandb`; the trainer's `default_root_dir` by default.
    pub save_dir: Option<PathBuf>,
    /// The identifier of the run, to go on with it; another name of `id`.
    pub version: Option<String>,
    /// Asks no server: `wandb sync` or `fulgurite sync` sends the run later.
    pub offline: bool,
    /// The folder of the folder `wandb`, if that is not `save_dir`; that of `WANDB_DIR` by default.
    pub dir: Option<PathBuf>,
    /// The identifier of the run, to go on with it; that of `WANDB_RUN_ID`, or else a new one.
    pub id: Option<String>,
    /// Has no effect: W&B no longer takes runs without an account.
    #[setters(skip)]
    pub anonymous: Option<bool>,
    /// The name of the project; that of `WANDB_PROJECT`, or else `lightning_logs`.
    #[setters(skip)]
    pub project: Option<String>,
    /// Whether checkpoints are uploaded as artifacts: `true` at the end of the run (at once if all are kept), `all` whenever one
    /// is written.
    pub log_model: LogModel,
    /// A text put before every metric's name, joined by `-`.
    pub prefix: String,
    /// The name of the artifact of checkpoints; `model-` and the identifier of the run by default.
    pub checkpoint_name: Option<String>,
    /// Has no effect: checkpoints have a second name until they are uploaded, so that nothing is copied, and nothing lost.
    #[setters(skip)]
    pub add_file_policy: FilePolicy,
    /// The user or team; that of `WANDB_ENTITY`, or else the key's.
    pub entity: Option<String>,
    /// The group in which the run is shown; that of `WANDB_RUN_GROUP` by default.
    pub group: Option<String>,
    /// What the run does, such as `train`; that of `WANDB_JOB_TYPE` by default.
    pub job_type: Option<String>,
    /// Labels of the run; those of `WANDB_TAGS`, separated by commas, by default.
    #[setters(skip)]
    pub tags: Vec<String>,
    /// A text about the run; that of `WANDB_NOTES` by default.
    pub notes: Option<String>,
    /// Whether a server is asked; `WANDB_MODE`, or else `online`.
    pub mode: Option<WandbMode>,
    /// Whether a run of this identifier may be there already; `WANDB_RESUME`, or else `allow`.
    pub resume: Option<Resume>,
    /// How many seconds the end of a run waits for the server. A run that is interrupted waits ten at most.
    #[setters(into = false)]
    pub finish_timeout: u64,
}

impl Default for WandbLoggerOptions {
    fn default() -> WandbLoggerOptions {
        WandbLoggerOptions {
            name: None,
            save_dir: None,
            version: None,
            offline: false,
            dir: None,
            id: None,
            anonymous: None,
            project: None,
            log_model: LogModel::Never,
            prefix: String::new(),
            checkpoint_name: None,
            add_file_policy: FilePolicy::Mutable,
            entity: None,
            group: None,
            job_type: None,
            tags: Vec::new(),
            notes: None,
            mode: None,
            resume: None,
            finish_timeout: 60,
        }
    }
}

/// Whether W&B's server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum WandbMode {
    /// A thread sends what is logged.
    Online,
    /// What is logged is kept in a file.
    #[serde(alias = "dryrun")]
    Offline,
    /// Nothing is logged.
    Disabled,
}

impl WandbMode {
    pub(super) fn of_name(name: &str) -> Option<WandbMode> {
        serde_json::from_value(name.to_lowercase().into()).ok()
    }
}

/// Lightning's option of whether files of an artifact are copied first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FilePolicy {
    /// They may change.
    Mutable,
    /// They do not.
    Immutable,
}
