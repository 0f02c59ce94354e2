//! The [`Logger`] trait.

use std::any::Any;
use std::path::Path;

use fulgurite_torch::Dict;
use fulgurite_torch::tch::Tensor;

use super::LoggerError;

/// How a run ended, for [`Logger::finalize`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatus {
    /// The run completed.
    Success,
    /// The run failed.
    Failed,
    /// The run was interrupted by a signal.
    Interrupted,
}

/// A destination of metrics, hyper-parameters and media of a run. Called on rank zero only.
pub trait Logger: Send + Any {
    /// The experiment's name: the folder below [`save_dir`](Logger::save_dir), `lightning_logs` by default.
    fn name(&self) -> &str;

    /// The version of the run, such as `version_3` or a text that the user chose.
    fn version(&self) -> &str;

    /// The root folder of its files.
    fn save_dir(&self) -> Option<&Path>;

    /// The folder of this run: `save_dir/name/version_N`.
    fn log_dir(&self) -> Option<&Path>;

    /// Uses the version of another logger or of an earlier run of the same program, unless one was given. Loggers without
    /// numbered versions ignore it.
    fn suggest_version(&mut self, version: &str) {
        let _ = version;
    }

    /// The versions of earlier runs that this one may continue: the one that was given, or all that exist.
    fn runs(&self) -> Vec<String> {
        Vec::new()
    }

    /// Called when the run resumes from a checkpoint that was written when `step` was the last logged step. Records of later
    /// steps in this folder come from the interrupted run, and are removed or marked; new records are appended.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read or written.
    fn resume_after(&mut self, step: i64) -> Result<(), LoggerError> {
        let _ = step;
        Ok(())
    }

    /// Writes scalars at `step`. `metrics` never holds a name twice.
    fn log_metrics(&mut self, metrics: &[(&str, f64)], step: i64) -> Result<(), LoggerError>;

    /// Records hyper-parameters (nested dicts are flattened where the format is flat).
    fn log_hyperparams(&mut self, params: &Dict) -> Result<(), LoggerError>;

    /// Records a text. Ignored by loggers that do not support it.
    fn log_text(&mut self, tag: &str, text: &str, step: i64) -> Result<(), LoggerError> {
        let _ = (tag, text, step);
        Ok(())
    }

    /// Records an image, `[C, H, W]` (C of 1, 3 or 4), float in 0..=1 or `u8` in 0..=255. Ignored by loggers that do not
    /// support it.
    fn log_image(&mut self, tag: &str, image: &Tensor, step: i64) -> Result<(), LoggerError> {
        let _ = (tag, image, step);
        Ok(())
    }

    /// Records the distribution of all elements of `values`. Ignored by loggers that do not support it.
    fn log_histogram(&mut self, tag: &str, values: &Tensor, step: i64) -> Result<(), LoggerError> {
        let _ = (tag, values, step);
        Ok(())
    }

    /// Flushes everything logged so far to storage.
    fn save(&mut self) -> Result<(), LoggerError>;

    /// Called last, at the end of the run.
    fn finalize(&mut self, status: RunStatus) -> Result<(), LoggerError>;
}
