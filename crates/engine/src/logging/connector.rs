//! [`Metrics`]: passes recorded values to loggers, progress bar and callbacks.

use std::collections::BTreeMap;

use fulgurite_fabric::loggers::Logger;
use fulgurite_metrics::LogValue;
use fulgurite_torch::Dict;
use indexmap::IndexMap;
use smallvec::SmallVec;

use super::{LogOptions, LoggedValue, ResultStore};
use crate::error::Error;
use crate::hook::Hook;

/// Everything logged in a run.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Values logged by the training loop in this epoch.
    pub train: ResultStore,
    /// Values logged by the current evaluation.
    pub eval: ResultStore,
    /// Which of the two is active.
    evaluating: bool,
    /// Whether a batch is in progress: per-step values are then current, not per-epoch values.
    in_batch: bool,
    /// The same for the training that an evaluation interrupts.
    interrupted_in_batch: bool,
    /// `log` does nothing (barebones).
    disabled: bool,
    /// Whether rank-zero-only values are skipped on this process.
    is_other_rank: bool,
    callback: BTreeMap<String, LoggedValue>,
    /// In the order first logged, which is the display order.
    bar: IndexMap<String, LoggedValue>,
    logged: BTreeMap<String, f64>,
    /// Names that were already sent to the loggers: see [`Metrics::write_early`].
    early: Vec<String>,
    error: Option<Error>,
}

/// The values of a logger call; inline, so that a step's few values need no allocation.
pub(crate) type Row<'a> = SmallVec<[(&'a str, f64); 16]>;

impl Metrics {
    /// Creates an empty store, which records nothing if `disabled`.
    pub(crate) fn new(disabled: bool, is_other_rank: bool) -> Metrics {
        Metrics { disabled, is_other_rank, ..Metrics::default() }
    }

    /// Start of a batch: values logged from now on belong to it.
    pub(crate) fn start_batch(&mut self, size: Option<i64>, dataloader_idx: Option<usize>) {
        self.in_batch = true;
        let store = self.store();
        store.start_batch();
        store.batch_size = size;
        store.dataloader_idx = dataloader_idx;
    }

    /// Switches to per-epoch values.
    pub(crate) fn end_batches(&mut self) {
        self.in_batch = false;
    }

    /// The run resumes within an epoch, whose values are needed at its end.
    pub(crate) fn resume_in_batch(&mut self) {
        self.in_batch = true;
    }

    /// Start of an evaluation, possibly between two training batches. Its callbacks see the values that training logged
    /// before.
    pub(crate) fn begin_evaluation(&mut self) -> Result<(), Error> {
        self.refresh()?;
        self.evaluating = true;
        self.interrupted_in_batch = std::mem::take(&mut self.in_batch);
        Ok(())
    }

    /// All loaders of the evaluation were evaluated.
    pub(crate) fn end_loaders(&mut self) {
        self.eval.dataloader_idx = None;
    }

    /// End of the evaluation: values are recorded for training again.
    pub(crate) fn end_evaluation(&mut self) -> Result<(), Error> {
        let reset = self.eval.reset();
        self.evaluating = false;
        self.in_batch = std::mem::take(&mut self.interrupted_in_batch);
        reset
    }

    /// The number of samples in this batch.
    pub(crate) fn batch_size(&self) -> Option<u64> {
        let store = if self.evaluating { &self.eval } else { &self.train };
        store.batch_size.and_then(|size| u64::try_from(size).ok())
    }

    /// The active store.
    fn store(&mut self) -> &mut ResultStore {
        if self.evaluating { &mut self.eval } else { &mut self.train }
    }

    /// The active store, mutably; `None` if `log` does nothing.
    pub(super) fn recording_store(&mut self) -> Option<&mut ResultStore> {
        (!self.disabled).then(|| self.store())
    }

    /// Whether logged values belong to training.
    pub(super) fn records_training(&self) -> bool {
        !self.disabled && !self.evaluating
    }

    /// Enables or disables `log`. Returns whether it was disabled before.
    pub(crate) fn set_disabled(&mut self, disabled: bool) -> bool {
        std::mem::replace(&mut self.disabled, disabled)
    }

    /// Records a `log` call. Its error is kept until the hook is over: [`Metrics::take_error`].
    pub(crate) fn record(&mut self, hook: Hook, name: &str, value: &LogValue<'_>, options: &LogOptions) {
        if self.disabled || options.rank_zero_only && self.is_other_rank {
            return;
        }
        let store = if self.evaluating { &mut self.eval } else { &mut self.train };
        if let Err(error) = store.record(hook, name, value, options) {
            self.error.get_or_insert(error);
        }
    }

    /// The error of a `log` call since the last time this was called.
    pub(crate) fn take_error(&mut self) -> Result<(), Error> {
        match self.error.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Updates `callback_metrics` and `progress_bar_metrics`, without reading anything from the device.
    pub(crate) fn refresh(&mut self) -> Result<(), Error> {
        let Metrics { train, eval, callback, bar, evaluating, in_batch, .. } = self;
        let store = if *evaluating { eval } else { train };
        store.visit(*in_batch, &mut |item| {
            // Per-step values of an evaluation go to loggers only.
            if !(*evaluating && *in_batch) {
                put(callback, item.name, &item.value);
                put(callback, item.forked_name, &item.value);
            }
            if item.prog_bar {
                match bar.get_mut(item.forked_name) {
                    Some(held) => *held = item.value,
                    None => drop(bar.insert(item.forked_name.to_owned(), item.value)),
                }
            }
            Ok(())
        })
    }

    /// The latest value of everything logged, under every name it has.
    pub(crate) fn callback_metrics(&mut self) -> Result<&BTreeMap<String, LoggedValue>, Error> {
        self.refresh()?;
        Ok(&self.callback)
    }

    /// The latest value of everything logged for the progress bar.
    pub(crate) fn progress_bar_metrics(&mut self) -> Result<&IndexMap<String, LoggedValue>, Error> {
        self.refresh()?;
        Ok(&self.bar)
    }

    /// What was last sent to the loggers.
    pub(crate) fn logged_metrics(&self) -> &BTreeMap<String, f64> {
        &self.logged
    }

    /// Sets a callback metric directly (learning-rate monitor).
    pub(crate) fn set_callback_metric(&mut self, name: &str, value: f64) {
        put(&mut self.callback, name, &LoggedValue::Number(value));
    }

    /// The state of [`callback_metrics`](Self::callback_metrics), for a checkpoint.
    pub(crate) fn callback_state(&mut self) -> Result<Dict, Error> {
        let metrics = self.callback_metrics()?.iter();
        Ok(metrics.map(|(name, value)| (name.as_str().into(), value.to_value())).collect())
    }

    /// Restores the state returned by [`callback_state`](Self::callback_state).
    ///
    /// # Errors
    ///
    /// Fails if a value is not a number; the error names it.
    pub(crate) fn restore_callback_state<'s>(&mut self, saved: &'s Dict) -> Result<(), &'s str> {
        for (name, value) in saved.iter() {
            let name = name.as_str().unwrap_or_default();
            put(&mut self.callback, name, &LoggedValue::from_value(value).ok_or(name)?);
        }
        Ok(())
    }

    /// Clears everything at the start of an entry point.
    pub(crate) fn clear(&mut self) {
        *self = Metrics::new(self.disabled, self.is_other_rank);
    }

    /// Writes the current values to every logger. This is where the host waits for the device.
    ///
    /// `x` is the default position on the x-axis; a logged value named `step` replaces it, and otherwise `epoch`
    /// is added.
    pub(crate) fn write(
        &mut self,
        loggers: &mut [Box<dyn Logger>],
        on_step: bool,
        x: i64,
        epoch: Option<u64>,
    ) -> Result<(), Error> {
        let store = if self.evaluating { &self.eval } else { &self.train };
        let mut row = Row::new();
        store.visit(on_step, &mut |item| {
            if item.logger && !self.early.iter().any(|name| name == item.forked_name) {
                let value = item.value.to_f64();
                match row.iter_mut().find(|(name, _)| *name == item.forked_name) {
                    Some(held) => held.1 = value,
                    None => row.push((item.forked_name, value)),
                }
            }
            Ok(())
        })?;
        write_row(&mut self.logged, loggers, row, x, epoch)?;
        self.early.clear();
        Ok(())
    }

    /// As [`write`](Metrics::write), before the regular call, which then omits the values written here.
    pub(crate) fn write_early(
        &mut self,
        loggers: &mut [Box<dyn Logger>],
        on_step: bool,
        x: i64,
        epoch: Option<u64>,
    ) -> Result<(), Error> {
        let mut early = std::mem::take(&mut self.early);
        self.early.clone_from(&early);
        self.write(loggers, on_step, x, epoch)?;
        self.train.visit(on_step, &mut |item| {
            if item.logger && !early.iter().any(|name| name == item.forked_name) {
                early.push(item.forked_name.to_owned());
            }
            Ok(())
        })?;
        self.early = early;
        Ok(())
    }

    /// Writes values that are not in a store to every logger.
    pub(crate) fn write_row(
        &mut self,
        loggers: &mut [Box<dyn Logger>],
        row: Row<'_>,
        x: i64,
        epoch: Option<u64>,
    ) -> Result<(), Error> {
        write_row(&mut self.logged, loggers, row, x, epoch)
    }

    /// Adds the epoch values of the current evaluation loader to callback and progress-bar metrics, and returns those
    /// for the loggers.
    pub(crate) fn take_eval_epoch(&mut self) -> Result<BTreeMap<String, f64>, Error> {
        // The bar keeps the last per-step values.
        self.refresh()?;
        self.in_batch = false;
        self.refresh()?;
        let mut written = BTreeMap::new();
        self.eval.visit(false, &mut |item| {
            if item.logger {
                written.insert(item.forked_name.to_owned(), item.value.to_f64());
            }
            Ok(())
        })?;
        Ok(written)
    }

    /// Sends the epoch values of an evaluation to every logger, in one call.
    pub(crate) fn write_eval_epoch(
        &mut self,
        loggers: &mut [Box<dyn Logger>],
        values: &BTreeMap<String, f64>,
        x: i64,
        epoch: Option<u64>,
    ) -> Result<(), Error> {
        self.logged.extend(values.iter().map(|(name, value)| (name.clone(), *value)));
        if values.is_empty() {
            return Ok(());
        }
        send(loggers, values.iter().map(|(name, value)| (name.as_str(), *value)).collect(), x, epoch)
    }
}

/// Records the logged values, and sends them to every logger.
fn write_row(
    logged: &mut BTreeMap<String, f64>,
    loggers: &mut [Box<dyn Logger>],
    row: Row<'_>,
    x: i64,
    epoch: Option<u64>,
) -> Result<(), Error> {
    if row.is_empty() || loggers.is_empty() {
        return Ok(());
    }
    for (name, value) in &row {
        match logged.get_mut(*name) {
            Some(held) => *held = *value,
            None => drop(logged.insert((*name).to_owned(), *value)),
        }
    }
    send(loggers, row, x, epoch)
}

/// Sends one row to every logger.
pub(crate) fn send(loggers: &mut [Box<dyn Logger>], mut row: Row<'_>, x: i64, epoch: Option<u64>) -> Result<(), Error> {
    let mut x = x;
    if let Some(at) = row.iter().position(|(name, _)| *name == "step") {
        // Lightning's rule: a value named `step` is the x-axis. Counters are far below 2^53.
        x = row.remove(at).1 as i64;
    } else if let Some(epoch) = epoch
        && !row.iter().any(|(name, _)| *name == "epoch")
    {
        row.push(("epoch", epoch as f64));
    }
    for logger in loggers {
        logger.log_metrics(&row, x)?;
    }
    Ok(())
}

fn put(map: &mut BTreeMap<String, LoggedValue>, name: &str, value: &LoggedValue) {
    match map.get_mut(name) {
        Some(held) => *held = value.clone(),
        None => drop(map.insert(name.to_owned(), value.clone())),
    }
}
