//! [`MLFlowLoggerOptions`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use derive_setters::Setters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::loggers::log_model::LogModel;
use crate::loggers::run_folder::DEFAULT_NAME;

/// Options of [`MLFlowLogger`](super::MLFlowLogger).
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, into, generate_delegates(ty = "super::MLFlowLogger", field = "options"))]
#[non_exhaustive]
pub struct MLFlowLoggerOptions {
    /// The name of the experiment, which is created if it is not there; the variables `MLFLOW_EXPERIMENT_ID` and
    /// `MLFLOW_EXPERIMENT_NAME` replace the default.
    #[setters(skip)]
    pub experiment_name: String,
    /// The name of the run; the server invents one by default.
    pub run_name: Option<String>,
    /// The address of the server, such as `http://127.0.0.1:5000`; that of `MLFLOW_TRACKING_URI` by default.
    pub tracking_uri: Option<String>,
    /// Tags of the run.
    #[setters(skip)]
    pub tags: BTreeMap<String, String>,
    /// The folder of what is not sent yet, and of the run's checkpoints; the trainer's `default_root_dir` by default.
    pub save_dir: Option<PathBuf>,
    /// Whether checkpoints are uploaded: `true` at the end of the run (at once if all are kept), `all` whenever one is
    /// written.
    pub log_model: LogModel,
    /// A text put before every metric's name, joined by `-`.
    pub prefix: String,
    /// Where the files of a new experiment are kept; the server chooses by default.
    pub artifact_location: Option<String>,
    /// The run to go on with, instead of a new one; that of `MLFLOW_RUN_ID` by default.
    pub run_id: Option<String>,
    /// Whether each call waits until the server has the values; it does not by default.
    pub synchronous: Option<bool>,
    /// Asks no server: everything waits for `fulgurite sync`.
    pub offline: bool,
    /// How many seconds the end of a run waits for the server. A run that is interrupted waits ten at most.
    #[setters(into = false)]
    pub finish_timeout: u64,
}

impl fmt::Debug for MLFlowLoggerOptions {
    /// Without the address, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MLFlowLoggerOptions")
            .field("experiment_name", &self.experiment_name)
            .field("run_name", &self.run_name)
            .field("save_dir", &self.save_dir)
            .field("log_model", &self.log_model)
            .field("run_id", &self.run_id)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl MLFlowLoggerOptions {
    /// Whether the address holds a password, which would be written to files of the configuration.
    pub fn holds_key(&self) -> bool {
        self.tracking_uri.as_deref().is_some_and(|uri| uri.split('/').nth(2).is_some_and(|host| host.contains('@')))
    }
}

impl Default for MLFlowLoggerOptions {
    fn default() -> MLFlowLoggerOptions {
        MLFlowLoggerOptions {
            experiment_name: DEFAULT_NAME.into(),
            run_name: None,
            tracking_uri: None,
            tags: BTreeMap::new(),
            save_dir: None,
            log_model: LogModel::Never,
            prefix: String::new(),
            artifact_location: None,
            run_id: None,
            synchronous: None,
            offline: false,
            finish_timeout: 60,
        }
    }
}
