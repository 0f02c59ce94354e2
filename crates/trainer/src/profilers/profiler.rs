//! [`Profiler`]: what is told when an action begins and ends.

use std::any::Any;
use std::path::Path;

use crate::error::Result;
use crate::state::TrainerFn;

/// Measures the actions of a run. The trainer brackets every hook and its own work with
/// [`start`](Profiler::start) and [`stop`](Profiler::stop); actions nest.
///
/// Actions are named as Lightning names them: `[LightningModule]Classifier.training_step`,
/// `[Callback]EarlyStopping.on_validation_end`, `run_training_batch`, `[_TrainingEpochLoop].train_dataloader_next`, …
#[expect(unused_variables, reason = "the defaults do nothing with their arguments")]
pub trait Profiler: Any + Send {
    /// An entry point begins. Files go to `log_dir` unless the profiler was given a folder.
    fn setup(&mut self, stage: TrainerFn, log_dir: &Path) -> Result<()> {
        Ok(())
    }

    /// An action begins.
    fn start(&mut self, action: &str);

    /// The action that began last ends.
    fn stop(&mut self, action: &str);

    /// A batch of any stage is done.
    fn step(&mut self) -> Result<()> {
        Ok(())
    }

    /// The report; empty for none. The trainer prints it at the end of an entry point, unless it went to a file.
    fn summary(&mut self) -> Result<String> {
        Ok(String::new())
    }

    /// The entry point ended, however it ended: what still runs is stopped, files are closed.
    fn teardown(&mut self) -> Result<()> {
        Ok(())
    }
}
