//! [`CometLoggerOptions`].

use std::fmt;
use std::path::PathBuf;

use derive_setters::Setters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::loggers::LogModel;

/// Options of [`CometLogger`](super::CometLogger).
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, into, generate_delegates(ty = "super::CometLogger", field = "options"))]
#[non_exhaustive]
pub struct CometLoggerOptions {
    /// The key of the user; that of `COMET_API_KEY` or `~/.comet.config` by default.
    pub api_key: Option<String>,
    /// The workspace; that of `COMET_WORKSPACE`, or the user's own, by default.
    pub workspace: Option<String>,
    /// The project; that of `COMET_PROJECT_NAME`, or Comet's `general`, by default.
    pub project: Option<String>,
    /// The key of the experiment, 32 to 50 letters and digits; that of `COMET_EXPERIMENT_KEY`, or a new one, by default.
    pub experiment_key: Option<String>,
    /// Whether the experiment may, must or must not be there already.
    pub mode: CometMode,
    /// Whether the server gets the experiment, or an archive for `comet upload`; the server by default.
    pub online: Option<bool>,
    /// A text put before every metric's name, joined by `_`.
    pub prefix: String,
    /// The name of the experiment; the server invents one by default.
    pub name: Option<String>,
    /// Labels of the experiment.
    pub tags: Vec<String>,
    /// The folder of archives; that of `COMET_OFFLINE_DIRECTORY`, or `save_dir`, by default.
    pub offline_directory: Option<PathBuf>,
    /// Whether checkpoints are uploaded: `true` at the end of the run (at once if all are kept), `all` whenever one is
    /// written.
    pub log_model: LogModel,
    /// The folder of what is not sent yet, and of the run's checkpoints; the trainer's `default_root_dir` by default.
    pub save_dir: Option<PathBuf>,
    /// How many seconds the end of a run waits for the server. A run that is interrupted waits ten at most.
    pub finish_timeout: u64,
}

/// Whether an experiment may, must or must not be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CometMode {
    /// It goes on if it is there, and is created otherwise.
    #[default]
    GetOrCreate,
    /// It is there, and goes on.
    Get,
    /// It is created.
    Create,
}

impl fmt::Debug for CometLoggerOptions {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CometLoggerOptions")
            .field("workspace", &self.workspace)
            .field("project", &self.project)
            .field("experiment_key", &self.experiment_key)
            .field("online", &self.online)
            .field("save_dir", &self.save_dir)
            .finish_non_exhaustive()
    }
}

impl CometLoggerOptions {
    /// Whether they hold a key, which would be written to files of the configuration.
    pub fn holds_key(&self) -> bool {
        self.api_key.is_some()
    }
}

impl Default for CometLoggerOptions {
    fn default() -> CometLoggerOptions {
        CometLoggerOptions {
            api_key: None,
            workspace: None,
            project: None,
            experiment_key: None,
            mode: CometMode::GetOrCreate,
            online: None,
            prefix: String::new(),
            name: None,
            tags: Vec::new(),
            offline_directory: None,
            log_model: LogModel::Never,
            save_dir: None,
            finish_timeout: 60,
        }
    }
}
