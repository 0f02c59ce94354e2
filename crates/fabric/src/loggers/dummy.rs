//! [`DummyLogger`].

use std::path::Path;

use fulgurite_torch::Dict;

use super::{Logger, LoggerError, RunStatus};

/// Discards everything. `fast_dev_run` replaces the loggers by it.
#[derive(Debug, Clone, Copy, Default)]
pub struct DummyLogger;

impl Logger for DummyLogger {
    fn name(&self) -> &str {
        ""
    }

    fn version(&self) -> &str {
        ""
    }

    fn save_dir(&self) -> Option<&Path> {
        None
    }

    fn log_dir(&self) -> Option<&Path> {
        None
    }

    fn log_metrics(&mut self, _metrics: &[(&str, f64)], _step: i64) -> Result<(), LoggerError> {
        Ok(())
    }

    fn log_hyperparams(&mut self, _params: &Dict) -> Result<(), LoggerError> {
        Ok(())
    }

    fn save(&mut self) -> Result<(), LoggerError> {
        Ok(())
    }

    fn finalize(&mut self, _status: RunStatus) -> Result<(), LoggerError> {
        Ok(())
    }
}
