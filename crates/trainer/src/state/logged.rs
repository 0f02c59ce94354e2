//! What hooks log, and what was logged.

use std::collections::BTreeMap;

use fulgurite_fabric::loggers::Logger;
use fulgurite_metrics::LogValue;
use indexmap::IndexMap;

use super::{Stage, TrainerState};
use crate::error::Error;
use crate::logging::{LogEntries, LogEntry, LogOptions, LoggedValue};

impl TrainerState {
    /// Records a value under `name`, as [`Step::log`](crate::Step::log) does.
    pub fn log<'b>(&'b mut self, name: &'b str, value: impl Into<LogValue<'b>>) -> LogEntry<'b> {
        LogEntry {
            hook: self.hook,
            metrics: &mut self.metrics,
            name,
            value: value.into(),
            options: LogOptions::default(),
        }
    }

    /// Records several values with the same options.
    pub fn log_many<'b, V: Into<LogValue<'b>>>(
        &'b mut self,
        values: impl IntoIterator<Item = (&'b str, V)>,
    ) -> LogEntries<'b> {
        LogEntries {
            hook: self.hook,
            metrics: &mut self.metrics,
            values: values.into_iter().map(|(name, value)| (name, value.into())).collect(),
            options: LogOptions::default(),
        }
    }

    /// The latest value of everything logged: `name`, and `name_step` or `name_epoch` where both are recorded.
    pub fn callback_metrics(&mut self) -> Result<&BTreeMap<String, LoggedValue>, Error> {
        self.metrics.callback_metrics()
    }

    /// The latest value of everything logged with `prog_bar`, in the order first logged.
    pub fn progress_bar_metrics(&mut self) -> Result<&IndexMap<String, LoggedValue>, Error> {
        self.metrics.progress_bar_metrics()
    }

    /// What was last sent to loggers.
    pub fn logged_metrics(&self) -> &BTreeMap<String, f64> {
        self.metrics.logged_metrics()
    }

    /// Makes a value known to monitoring callbacks without logging it.
    pub fn set_callback_metric(&mut self, name: &str, value: f64) {
        self.metrics.set_callback_metric(name, value);
    }

    /// The loggers.
    pub fn loggers(&mut self) -> &mut [Box<dyn Logger>] {
        &mut self.fabric.loggers
    }

    /// Whether what is logged per step is written now: at every `log_every_n_steps`-th optimizer step of training, or
    /// batch of an evaluation.
    pub fn should_update_logs(&self) -> bool {
        let n = self.config.log_every_n_steps;
        let count = match self.stage {
            Stage::Train => self.run.progress.batches_that_stepped + 1,
            Stage::Predict => self.batch_idx.map_or(0, |batch_idx| batch_idx as u64 + 1),
            Stage::SanityCheck | Stage::Validate | Stage::Test => self.run.progress.val_batch.current.ready,
        };
        n > 0 && (count.is_multiple_of(n) || self.should_stop())
    }

    /// Samples in the batch in hand, as [`Batch::size`](fulgurite_data::Batch::size) counts them.
    pub fn batch_size(&self) -> Option<u64> {
        let store = if self.metrics.evaluating { &self.metrics.eval } else { &self.metrics.train };
        store.batch_size.and_then(|size| u64::try_from(size).ok())
    }

    /// Writes values to the loggers at `x`, for callbacks; `epoch` goes with them if given.
    pub(crate) fn write_row<'a>(
        &mut self,
        row: impl Iterator<Item = (&'a str, f64)>,
        x: u64,
        epoch: Option<u64>,
    ) -> Result<(), Error> {
        self.metrics.write_row(&mut self.fabric.loggers, row.collect(), x as i64, epoch)
    }
}
