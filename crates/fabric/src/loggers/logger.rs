//! The [`Logger`] trait.

use std::any::Any;
use std::path::Path;

use fulgurite_torch::Dict;
use fulgurite_torch::tch::Tensor;

use super::{CheckpointNews, LoggerError};

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
///
/// A trainer calls [`connect`](Logger::connect), then what concerns the run that is continued
/// ([`suggest_version`](Logger::suggest_version)), then [`start`](Logger::start), in every entry point; and
/// [`finalize`](Logger::finalize) at its end.
pub trait Logger: Send + Any {
    /// The name of the class, by which a resumed run finds the logger's version in a checkpoint.
    fn class(&self) -> &str {
        fulgurite_torch::short_type_name::<Self>()
    }

    /// Reaches the server, if there is one, so that [`name`](Logger::name) is known.
    ///
    /// # Errors
    ///
    /// Fails if the server cannot be reached, or refuses keys or names: a run that logs nothing should not begin.
    fn connect(&mut self) -> Result<(), LoggerError> {
        Ok(())
    }

    /// Begins the run on the server, or goes on with the one that was given or suggested. From here on
    /// [`version`](Logger::version) stays what it is.
    ///
    /// # Errors
    ///
    /// Fails as [`connect`](Logger::connect) does.
    fn start(&mut self) -> Result<(), LoggerError> {
        Ok(())
    }

    /// The experiment's name: the folder below [`save_dir`](Logger::save_dir), `lightning_logs` by default.
    fn name(&self) -> &str;

    /// The version of the run, such as `version_3`, a text that the user chose, or the identifier of the run on a server, which
    /// is empty before [`start`](Logger::start).
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

    /// Writes statistics of the machine at `step`: as other scalars, unless the format has a place of its own for them.
    ///
    /// # Errors
    ///
    /// Fails as [`log_metrics`](Logger::log_metrics) does.
    fn log_system(&mut self, stats: &[(&str, f64)], step: i64) -> Result<(), LoggerError> {
        self.log_metrics(stats, step)
    }

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

    /// A callback's checkpoint is complete on the disk. Ignored by loggers that keep no checkpoints.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be written.
    fn after_save_checkpoint(&mut self, news: &CheckpointNews) -> Result<(), LoggerError> {
        let _ = news;
        Ok(())
    }

    /// What the user should know, once. A trainer asks after every batch, so this is cheap.
    fn take_warnings(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Why the run is to stop, if the user asks for that where the logger writes to. It says so once, and is asked after every
    /// batch.
    fn stop_request(&mut self) -> Option<String> {
        None
    }

    /// Flushes everything logged so far to storage, without waiting for a server.
    fn save(&mut self) -> Result<(), LoggerError>;

    /// Called last, at the end of the run.
    fn finalize(&mut self, status: RunStatus) -> Result<(), LoggerError>;
}
