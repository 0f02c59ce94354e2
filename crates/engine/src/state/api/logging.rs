//! Logging in hooks, and access to logged metrics.

use std::collections::BTreeMap;

use fulgurite_fabric::loggers::Logger;
use fulgurite_metrics::LogValue;
use indexmap::IndexMap;

use crate::error::Error;
use crate::logging::{LogEntries, LogEntry, LogOptions, LogValues, LoggedValue};
use crate::profilers::Profiler;
use crate::scope::Scope;
use crate::stage::Stage;
use crate::state::TrainerState;

impl TrainerState {
    /// Records a value under `name`, as [`Step::log`](crate::Step::log) does.
    pub fn log<'b>(&'b mut self, name: &'b str, value: impl Into<LogValue<'b>>) -> LogEntry<'b> {
        LogEntry {
            hook: self.caller.hook(),
            metrics: &mut self.metrics,
            name,
            value: value.into(),
            options: LogOptions::default(),
        }
    }

    /// Records several values with the same options, as [`Step::log_many`](crate::Step::log_many) does.
    pub fn log_many<'b, K>(&'b mut self, values: impl LogValues<'b, K>) -> LogEntries<'b> {
        LogEntries {
            hook: self.caller.hook(),
            metrics: &mut self.metrics,
            values: values.into_log_values(),
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

    /// The values last sent to loggers.
    pub fn logged_metrics(&self) -> &BTreeMap<String, f64> {
        self.metrics.logged_metrics()
    }

    /// Sets a value for callbacks that monitor it, without logging it.
    pub fn set_callback_metric(&mut self, name: &str, value: f64) {
        self.metrics.set_callback_metric(name, value);
    }

    /// The loggers.
    pub fn loggers(&mut self) -> &mut [Box<dyn Logger>] {
        &mut self.fabric.loggers
    }

    /// Writes values to the loggers at once, at `x` of the x-axis; `epoch` goes with them if given.
    ///
    /// # Errors
    ///
    /// Fails if a logger cannot write.
    pub fn write_row<'a>(
        &mut self,
        row: impl Iterator<Item = (&'a str, f64)>,
        x: u64,
        epoch: Option<u64>,
    ) -> Result<(), Error> {
        self.metrics.write_row(&mut self.fabric.loggers, row.collect(), x as i64, epoch)
    }

    /// Whether per-step metrics are written now: at every `log_every_n_steps`-th optimizer step of training, or batch
    /// of an evaluation.
    pub fn should_update_logs(&self) -> bool {
        let n = self.config.log_every_n_steps;
        let count = match self.position.stage() {
            Stage::Train => self.fit.epoch.batches_that_stepped() + 1,
            Stage::Predict => self.position.batch_idx().map_or(0, |batch_idx| batch_idx as u64 + 1),
            Stage::SanityCheck | Stage::Validate | Stage::Test => self.evaluation().batches().current.ready,
        };
        n > 0 && (count.is_multiple_of(n) || self.should_stop())
    }

    /// The number of samples in this batch, as counted by [`Batch::size`](fulgurite_data::Batch::size).
    pub fn batch_size(&self) -> Option<u64> {
        self.metrics.batch_size()
    }

    /// Runs `work` as an action of this name, which the profiler measures. Without a profiler it just runs.
    ///
    /// ```
    /// # use fulgurite::prelude::*;
    /// # fn demo(trainer: &mut TrainerState) -> Result<()> {
    /// let lines = trainer.profile("read labels", |_| std::fs::read_to_string("labels.txt"))?;
    /// # Ok(()) }
    /// ```
    pub fn profile<T>(&mut self, name: &str, work: impl FnOnce(&mut TrainerState) -> T) -> T {
        self.profiled(|_| name.to_owned(), work)
    }

    /// The profiler, if it is of this type.
    pub fn profiler<P: Profiler>(&self) -> Option<&P> {
        self.profiling.profiler()
    }
}
