//! [`Profiler`]: measures the actions of a run.

use std::any::Any;
use std::path::PathBuf;

use fulgurite_torch::tch::Device;

use crate::error::Result;
use crate::stage::{Stage, TrainerFn};

/// Measures the actions of a run. The trainer brackets every hook and its own work with
/// [`start`](Profiler::start) and [`stop`](Profiler::stop); actions nest.
///
/// Actions are named as Lightning names them: `[LightningModule]Classifier.on_train_epoch_end`,
/// `[Strategy]SingleDeviceStrategy.training_step`, `[Callback]EarlyStopping.on_validation_end`, `run_training_batch`,
/// `[_TrainingEpochLoop].train_dataloader_next`, …
///
/// ```
/// use fulgurite::prelude::*;
///
/// /// Counts actions.
/// #[derive(Default)]
/// struct Counter(u64);
///
/// impl Profiler for Counter {
///     fn start(&mut self, _action: &str) {
///         self.0 += 1;
///     }
///
///     fn stop(&mut self, _action: &str) {}
///
///     fn summary(&mut self) -> Result<String> {
///         Ok(format!("{} actions", self.0))
///     }
/// }
///
/// let trainer = Trainer::builder().profiler(Counter::default());
/// ```
#[expect(unused_variables, reason = "the defaults do nothing with their arguments")]
pub trait Profiler: Any + Send {
    /// Called when an entry point begins. Actions that an earlier, failed one left open are discarded.
    fn setup(&mut self, run: &ProfiledRun) -> Result<()> {
        Ok(())
    }

    /// Called when an action begins.
    fn start(&mut self, action: &str);

    /// Ends the most recent action with this name; actions that started after it were left open by an error, and end
    /// too.
    fn stop(&mut self, action: &str);

    /// A batch of `stage` is about to be fetched. `batches`: the number of batches in an epoch, if known.
    fn batch_start(&mut self, stage: Stage, batches: Option<usize>) -> Result<()> {
        Ok(())
    }

    /// Called after the batch.
    fn batch_end(&mut self, stage: Stage) -> Result<()> {
        Ok(())
    }

    /// The report of the entry point; empty for none.
    fn summary(&mut self) -> Result<String> {
        Ok(String::new())
    }

    /// The file that the trainer adds the report to; `None` to print it.
    fn report_path(&self) -> Option<PathBuf> {
        None
    }

    /// Called when the entry point ends, also after an error: running actions are stopped.
    fn teardown(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The run that a profiler measures.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProfiledRun {
    /// The entry point.
    pub entry_point: TrainerFn,
    /// The default folder of the profiler's files.
    pub log_dir: PathBuf,
    /// The local rank of this process if there are several; `None` otherwise.
    pub rank: Option<usize>,
    /// The device of this process.
    pub device: Device,
}
