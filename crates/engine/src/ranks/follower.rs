//! [`FollowerLogger`]: represents a logger of rank zero on the other ranks.

use std::path::{Path, PathBuf};

use fulgurite_fabric::loggers::{Logger, LoggerError, RunStatus};
use fulgurite_torch::{Dict, Value};

/// Has the name and folder of a logger on rank zero, and writes nothing.
#[derive(Debug, Default)]
pub(super) struct FollowerLogger {
    class: String,
    name: String,
    version: String,
    save_dir: Option<PathBuf>,
    log_dir: Option<PathBuf>,
    runs: Vec<String>,
}

/// The logger information that rank zero broadcasts.
pub(super) fn describe(logger: &dyn Logger) -> Value {
    let path = |path: Option<&Path>| path.map(|path| path.to_string_lossy().into_owned());
    let runs: Vec<Value> = logger.runs().iter().map(|run| run.as_str().into()).collect();
    Value::Dict(
        Dict::new()
            .with("class", logger.class())
            .with("name", logger.name())
            .with("version", logger.version())
            .with("save_dir", path(logger.save_dir()))
            .with("log_dir", path(logger.log_dir()))
            .with("runs", runs),
    )
}

impl FollowerLogger {
    pub(super) fn new(described: &Value) -> FollowerLogger {
        let Some(described) = described.as_dict() else { return FollowerLogger::default() };
        let text = |name: &str| described.str(name).ok().map(str::to_owned);
        let runs = described.list("runs").unwrap_or_default();
        FollowerLogger {
            class: text("class").unwrap_or_default(),
            name: text("name").unwrap_or_default(),
            version: text("version").unwrap_or_default(),
            save_dir: text("save_dir").map(PathBuf::from),
            log_dir: text("log_dir").map(PathBuf::from),
            runs: runs.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }
}

impl Logger for FollowerLogger {
    fn class(&self) -> &str {
        &self.class
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn save_dir(&self) -> Option<&Path> {
        self.save_dir.as_deref()
    }

    fn log_dir(&self) -> Option<&Path> {
        self.log_dir.as_deref()
    }

    fn runs(&self) -> Vec<String> {
        self.runs.clone()
    }

    fn log_metrics(&mut self, _: &[(&str, f64)], _: i64) -> Result<(), LoggerError> {
        Ok(())
    }

    fn log_hyperparams(&mut self, _: &Dict) -> Result<(), LoggerError> {
        Ok(())
    }

    fn save(&mut self) -> Result<(), LoggerError> {
        Ok(())
    }

    fn finalize(&mut self, _: RunStatus) -> Result<(), LoggerError> {
        Ok(())
    }
}
