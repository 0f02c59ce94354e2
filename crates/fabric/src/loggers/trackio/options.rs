//! [`TrackioLoggerOptions`].

use std::fmt;
use std::path::PathBuf;

use derive_setters::Setters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::loggers::Resume;
use crate::loggers::run_folder::DEFAULT_NAME;

/// Options of [`TrackioLogger`](super::TrackioLogger).
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, into, generate_delegates(ty = "super::TrackioLogger", field = "options"))]
#[non_exhaustive]
pub struct TrackioLoggerOptions {
    /// The name of the project.
    #[setters(skip)]
    pub project: String,
    /// The name of the run; `run-` and the first digits of its identifier by default.
    pub name: Option<String>,
    /// A Space of Hugging Face, `user/name`, that takes the values; that of `TRACKIO_SPACE_ID` by default.
    pub space_id: Option<String>,
    /// The address of a dashboard that takes the values, such as `http://127.0.0.1:7860`; that of `TRACKIO_SERVER_URL` by
    /// default, and Trackio's folder on this machine without one.
    pub server_url: Option<String>,
    /// What is shown as the configuration of the run, beside the hyper-parameters.
    #[setters(skip)]
    pub config: Map<String, Value>,
    /// Whether an earlier run of the same name goes on.
    pub resume: Resume,
    /// The group of the run.
    pub group: Option<String>,
    /// The folder of what is not sent yet, and of the run's checkpoints; the trainer's `default_root_dir` by default.
    pub save_dir: Option<PathBuf>,
    /// How many seconds the end of a run waits for the dashboard. A run that is interrupted waits ten at most.
    #[setters(into = false)]
    pub finish_timeout: u64,
}

impl fmt::Debug for TrackioLoggerOptions {
    /// Without the address, which may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackioLoggerOptions")
            .field("project", &self.project)
            .field("name", &self.name)
            .field("space_id", &self.space_id)
            .field("resume", &self.resume)
            .field("group", &self.group)
            .field("save_dir", &self.save_dir)
            .finish_non_exhaustive()
    }
}

impl TrackioLoggerOptions {
    /// Whether the address holds a token, which would be written to files of the configuration.
    pub fn holds_key(&self) -> bool {
        self.server_url.as_deref().is_some_and(|url| {
            url.contains("write_token=") || url.split('/').nth(2).is_some_and(|host| host.contains('@'))
        })
    }
}

impl Default for TrackioLoggerOptions {
    fn default() -> TrackioLoggerOptions {
        TrackioLoggerOptions {
            project: DEFAULT_NAME.into(),
            name: None,
            space_id: None,
            server_url: None,
            config: Map::new(),
            resume: Resume::Never,
            group: None,
            save_dir: None,
            finish_timeout: 60,
        }
    }
}
