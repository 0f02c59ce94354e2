//! [`ResultStore`]: the values logged during one loop, kept on the device until they are read.

use fulgurite_metrics::{LogValue, Metric};
use fulgurite_torch::tch::{Device, Kind, Tensor};
use fulgurite_torch::{Dict, Value, ValueError, storage_id, to_host_f64};

use super::options::optional;
use super::{LogOptions, Reduce};
use crate::error::Error;
use crate::hook::{Hook, Logging};

/// A logged number, on the device until it is read.
#[derive(Debug)]
pub enum LoggedValue {
    /// A number on the host.
    Number(f64),
    /// A one-element tensor, not read yet.
    Tensor(Tensor),
}

impl LoggedValue {
    /// The number; waits for the device if needed.
    pub fn to_f64(&self) -> f64 {
        match self {
            LoggedValue::Number(x) => *x,
            LoggedValue::Tensor(t) => to_host_f64(t).unwrap_or(f64::NAN),
        }
    }

    pub(super) fn to_value(&self) -> Value {
        match self {
            LoggedValue::Number(x) => Value::Float(*x),
            LoggedValue::Tensor(t) => Value::from(t),
        }
    }

    pub(super) fn from_value(value: &Value) -> Option<LoggedValue> {
        match value {
            Value::Tensor(t) => Some(LoggedValue::Tensor(t.shallow_clone())),
            value => value.as_float().map(LoggedValue::Number),
        }
    }
}

impl Clone for LoggedValue {
    fn clone(&self) -> LoggedValue {
        match self {
            LoggedValue::Number(x) => LoggedValue::Number(*x),
            LoggedValue::Tensor(t) => LoggedValue::Tensor(t.shallow_clone()),
        }
    }
}

/// The values logged during one loop.
///
/// An entry belongs to the hook and the name it was logged with, so the same name of two hooks gives two entries.
#[derive(Default)]
pub(crate) struct ResultStore {
    pub(super) entries: Vec<Entry>,
    /// The index where the next `record` looks first: a step logs the same names in the same order every time.
    cursor: usize,
    /// The current loader, when there are several.
    pub dataloader_idx: Option<usize>,
    /// Size of the current batch.
    pub batch_size: Option<i64>,
}

/// One entry as callbacks, loggers and progress bar see it.
pub(crate) struct Item<'a> {
    pub name: &'a str,
    pub forked_name: &'a str,
    pub value: LoggedValue,
    pub logger: bool,
    pub prog_bar: bool,
}

pub(super) struct Entry {
    pub(super) hook: Hook,
    pub(super) logged_as: String,
    pub(super) dataloader_idx: Option<usize>,
    pub(super) options: LogOptions,
    pub(super) on_step: bool,
    pub(super) on_epoch: bool,
    /// Keys with the loader's suffix: plain, of the step, of the epoch.
    pub(super) names: [String; 3],
    pub(super) latest: Option<LoggedValue>,
    /// Whether the value is reduced over all ranks.
    pub(super) latest_is_reduced: bool,
    pub(super) accumulated: Accumulated,
    /// The value of the epoch over all ranks, until something is recorded again.
    pub(super) over_ranks: Option<LoggedValue>,
    /// Whether nothing was recorded since the last reset.
    pub(super) is_reset: bool,
}

pub(super) enum Accumulated {
    Values(Sums),
    Metric(Box<dyn Metric>),
    /// A metric of a checkpoint, whose handle was not logged again yet.
    Restored {
        value: Tensor,
        state: Dict,
    },
}

#[derive(Default)]
pub(super) struct Sums {
    host: Option<f64>,
    device: Option<Tensor>,
    pub(super) weight: f64,
}

impl ResultStore {
    /// Records `value` under `name` as logged in `hook`.
    pub(crate) fn record(
        &mut self,
        hook: Hook,
        name: &str,
        value: &LogValue<'_>,
        options: &LogOptions,
    ) -> Result<(), Error> {
        let index = match self.find(hook, name) {
            Some(index) => {
                if !self.entries[index].options.agree_with(options) {
                    return Err(problem(
                        hook,
                        name,
                        "it was logged before in this hook with other options; use the same options, or another name",
                    ));
                }
                index
            }
            None => self.insert(hook, name, value, options)?,
        };
        self.cursor = index + 1;
        let batch_size = options.batch_size.or(self.batch_size.map(|n| n as f64));
        self.entries[index].update(value, batch_size)
    }

    fn find(&self, hook: Hook, name: &str) -> Option<usize> {
        let is_it = |entry: &Entry| {
            entry.hook == hook && entry.dataloader_idx == self.dataloader_idx && entry.logged_as == name
        };
        match self.entries.get(self.cursor) {
            Some(entry) if is_it(entry) => Some(self.cursor),
            _ => self.entries.iter().position(is_it),
        }
    }

    fn insert(&mut self, hook: Hook, name: &str, value: &LogValue<'_>, options: &LogOptions) -> Result<usize, Error> {
        let is_of_another_loader = |entry: &Entry| {
            entry.hook == hook && entry.logged_as == name && entry.dataloader_idx != self.dataloader_idx
        };
        if !options.add_dataloader_idx && self.entries.iter().any(is_of_another_loader) {
            return Err(problem(
                hook,
                name,
                "several loaders log it, and add_dataloader_idx(false) gives all of them one name; put the loader into the name, or leave that out",
            ));
        }
        let mut entry = Entry::new(hook, name, self.dataloader_idx, options)?;
        if let LogValue::Metric(metric) = value {
            entry.accumulated = Accumulated::Metric(metric.share());
        }
        self.entries.push(entry);
        Ok(self.entries.len() - 1)
    }

    /// The name that this very value was logged under last.
    pub(crate) fn name_of(&self, value: &Tensor) -> Option<String> {
        let is_it = |entry: &&Entry| match &entry.latest {
            Some(LoggedValue::Tensor(latest)) => storage_id(latest).ok() == storage_id(value).ok(),
            _ => false,
        };
        self.entries.iter().find(is_it).map(|entry| entry.logged_as.clone())
    }

    /// Lends every entry that has a value: the latest of the step, or the reduced one of the epoch so far. With several
    /// loaders, those of the current loader.
    pub(crate) fn visit<'s>(
        &'s self,
        on_step: bool,
        each: &mut dyn FnMut(Item<'s>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for entry in &self.entries {
            if entry.is_reset || entry.dataloader_idx != self.dataloader_idx {
                continue;
            }
            let value = match (on_step, entry.on_step, entry.on_epoch) {
                (true, true, _) => entry.latest.clone(),
                (false, _, true) => entry.compute()?,
                _ => None,
            };
            if let Some(value) = value {
                each(Item {
                    name: &entry.names[0],
                    forked_name: &entry.names[if on_step { 1 } else { 2 }],
                    value,
                    logger: entry.options.logger,
                    prog_bar: entry.options.prog_bar,
                })?;
            }
        }
        Ok(())
    }

    /// Clears all values and resets the metric objects; the names stay. All are reset, and the first error is returned.
    pub(crate) fn reset(&mut self) -> Result<(), Error> {
        self.entries.retain(|entry| !matches!(entry.accumulated, Accumulated::Restored { .. }));
        let mut outcome = Ok(());
        for entry in &mut self.entries {
            outcome = outcome.and(entry.reset());
        }
        self.dataloader_idx = None;
        self.batch_size = None;
        self.start_batch();
        outcome
    }

    /// A new batch begins: names come in their order again.
    pub(crate) fn start_batch(&mut self) {
        self.cursor = 0;
    }

    /// The accumulated values, for a checkpoint in the middle of an epoch.
    ///
    /// # Errors
    ///
    /// Fails if a metric fails to give its state.
    pub(crate) fn state_dict(&self) -> Result<Value, Error> {
        let entries = self.entries.iter().filter(|entry| !entry.is_reset);
        Ok(Value::List(entries.map(|entry| entry.state_dict().map(Value::Dict)).collect::<Result<_, _>>()?))
    }

    /// Restores the state returned by [`state_dict`](ResultStore::state_dict) into an empty store.
    ///
    /// # Errors
    ///
    /// Fails if an entry is not a logged value; the error names the entry.
    pub(crate) fn restore(&mut self, saved: &[Value]) -> Result<(), (usize, String)> {
        for (at, value) in saved.iter().enumerate() {
            let state = value.as_dict().ok_or_else(|| (at, format!("it is {}, expected dict", value.type_name())))?;
            self.entries.extend(Entry::from_state_dict(state).map_err(|error| (at, error))?);
        }
        Ok(())
    }
}

/// Whether a value is recorded per step and per epoch, by its options and its hook's rule.
fn cadence(hook: Hook, name: &str, options: &LogOptions) -> Result<(bool, bool), Error> {
    let (step_default, epoch_default) = match hook.logging() {
        Logging::Step => (true, false),
        Logging::Epoch => (false, true),
        Logging::EpochOnly => (false, true),
        Logging::Forbidden => {
            return Err(problem(
                hook,
                name,
                "nothing can be logged here; write to the loggers directly, with `trainer.loggers()`",
            ));
        }
    };
    let on_step = options.on_step.unwrap_or(step_default);
    let on_epoch = options.on_epoch.unwrap_or(epoch_default);
    if hook.logging() == Logging::EpochOnly && on_step {
        return Err(problem(hook, name, "there is no step here; leave on_step out"));
    }
    if !on_step && !on_epoch {
        return Err(problem(hook, name, "it is recorded neither on step nor on epoch; turn one of them on"));
    }
    Ok((on_step, on_epoch))
}

fn problem(hook: Hook, name: &str, problem: impl Into<String>) -> Error {
    Error::Log { name: name.to_owned(), hook, problem: problem.into() }
}

impl Entry {
    pub(super) fn new(
        hook: Hook,
        name: &str,
        dataloader_idx: Option<usize>,
        options: &LogOptions,
    ) -> Result<Entry, Error> {
        let (on_step, on_epoch) = cadence(hook, name, options)?;
        if options.add_dataloader_idx && name.contains("/dataloader_idx_") {
            return Err(problem(
                hook,
                name,
                "`/dataloader_idx_` is appended to names when there are several loaders; choose another name, or set add_dataloader_idx(false)",
            ));
        }
        let suffix = match dataloader_idx {
            Some(index) if options.add_dataloader_idx => format!("/dataloader_idx_{index}"),
            _ => String::new(),
        };
        let fork =
            |fork: &str| if on_step && on_epoch { format!("{name}{fork}{suffix}") } else { format!("{name}{suffix}") };
        Ok(Entry {
            hook,
            logged_as: name.to_owned(),
            dataloader_idx,
            options: *options,
            on_step,
            on_epoch,
            names: [format!("{name}{suffix}"), fork("_step"), fork("_epoch")],
            latest: None,
            latest_is_reduced: false,
            accumulated: Accumulated::Values(Sums::default()),
            over_ranks: None,
            is_reset: true,
        })
    }

    fn update(&mut self, value: &LogValue<'_>, batch_size: Option<f64>) -> Result<(), Error> {
        self.over_ranks = None;
        self.latest_is_reduced = false;
        match (&mut self.accumulated, value) {
            (Accumulated::Values(sums), LogValue::Number(x)) => {
                if self.on_epoch {
                    let weight = weight(self.hook, &self.logged_as, &self.options, batch_size)?;
                    sums.add_number(self.options.reduce, *x, weight);
                }
                self.latest = Some(LoggedValue::Number(*x));
            }
            (Accumulated::Values(_), LogValue::Tensor(t)) => self.update_tensor(t, batch_size)?,
            (Accumulated::Values(_), LogValue::Owned(t)) => self.update_tensor(t, batch_size)?,
            (Accumulated::Restored { state, .. }, LogValue::Metric(metric)) => {
                // The step may have added its batch already.
                metric.merge_state(state).map_err(|error| {
                    let does_not_fit = format!("the state of this metric in the checkpoint does not fit it: {error}");
                    problem(self.hook, &self.logged_as, does_not_fit)
                })?;
                self.accumulated = Accumulated::Metric(metric.share());
                self.latest = metric.batch_value().map(LoggedValue::Tensor);
            }
            (Accumulated::Metric(held), LogValue::Metric(metric)) => {
                if !held.same_state(*metric) {
                    *held = metric.share();
                }
                self.latest = metric.batch_value().map(LoggedValue::Tensor);
            }
            _ => {
                return Err(problem(
                    self.hook,
                    &self.logged_as,
                    "a metric object and a plain value share this name; give one of them another",
                ));
            }
        }
        self.is_reset = false;
        Ok(())
    }

    fn update_tensor(&mut self, t: &Tensor, batch_size: Option<f64>) -> Result<(), Error> {
        if t.dim() > 0 && t.numel() != 1 {
            let shape = t.size();
            return Err(problem(
                self.hook,
                &self.logged_as,
                format!(
                    "a tensor of shape {shape:?} is not one number; reduce it first, for example with `.mean(Kind::Float)`"
                ),
            ));
        }
        let t = t.f_detach().map_err(fulgurite_torch::TorchError::from)?;
        if let (true, Accumulated::Values(sums)) = (self.on_epoch, &mut self.accumulated) {
            let weight = weight(self.hook, &self.logged_as, &self.options, batch_size)?;
            sums.add_tensor(self.options.reduce, &t, weight).map_err(fulgurite_torch::TorchError::from)?;
        }
        self.latest = Some(LoggedValue::Tensor(t));
        Ok(())
    }

    fn compute(&self) -> Result<Option<LoggedValue>, Error> {
        if self.over_ranks.is_some() {
            return Ok(self.over_ranks.clone());
        }
        match &self.accumulated {
            Accumulated::Values(sums) => Ok(sums.compute(self.options.reduce)),
            Accumulated::Restored { value, .. } => Ok(Some(LoggedValue::Tensor(value.shallow_clone()))),
            Accumulated::Metric(metric) => Ok(Some(LoggedValue::Tensor(self.one_number(metric.compute()?)?))),
        }
    }

    /// The value of a metric, if it can be logged.
    pub(super) fn one_number(&self, value: Tensor) -> Result<Tensor, Error> {
        if value.numel() == 1 {
            return Ok(value);
        }
        let shape = value.size();
        Err(problem(
            self.hook,
            &self.logged_as,
            format!("the metric computes a tensor of shape {shape:?}, not one number; choose an average"),
        ))
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.latest = None;
        self.latest_is_reduced = false;
        self.over_ranks = None;
        self.is_reset = true;
        match &mut self.accumulated {
            Accumulated::Values(sums) => *sums = Sums::default(),
            Accumulated::Metric(metric) => metric.reset()?,
            Accumulated::Restored { .. } => {}
        }
        Ok(())
    }

    fn state_dict(&self) -> Result<Dict, Error> {
        let state = Dict::new()
            .with("hook", self.hook.name())
            .with("name", self.logged_as.as_str())
            .with("options", self.options.to_dict())
            .with("latest", self.latest.as_ref().map(LoggedValue::to_value));
        Ok(match &self.accumulated {
            Accumulated::Metric(metric) => {
                state.with("value", metric.compute().ok()).with("metric", metric.state_dict()?)
            }
            Accumulated::Restored { value, state: metric } => state.with("value", value).with("metric", metric.clone()),
            Accumulated::Values(sums) => state
                .with("host", sums.host)
                .with("device", sums.device.as_ref().map(Tensor::shallow_clone))
                .with("weight", sums.weight),
        })
    }

    /// The entry again; `None` of a metric that could not be computed.
    pub(super) fn from_state_dict(state: &Dict) -> Result<Option<Entry>, String> {
        let wrong = |error: ValueError| error.to_string();
        let options = LogOptions::from_dict(state.dict("options").map_err(wrong)?).map_err(wrong)?;
        let hook = state.str("hook").map_err(wrong)?;
        let hook = Hook::from_name(hook).ok_or_else(|| format!("there is no hook `{hook}`"))?;
        let name = state.str("name").map_err(wrong)?;
        let mut entry = Entry::new(hook, name, None, &options).map_err(|error| error.to_string())?;
        entry.latest = optional(state, "latest", "a number", LoggedValue::from_value).map_err(wrong)?;
        entry.accumulated = if state.get("metric").is_some() {
            let metric = state.dict("metric").map_err(wrong)?.clone();
            let Some(value) = optional(state, "value", "tensor", Value::as_tensor).map_err(wrong)? else {
                return Ok(None);
            };
            Accumulated::Restored { value: value.shallow_clone(), state: metric }
        } else {
            Accumulated::Values(Sums {
                host: optional(state, "host", "float", Value::as_float).map_err(wrong)?,
                device: optional(state, "device", "tensor", Value::as_tensor)
                    .map_err(wrong)?
                    .map(Tensor::shallow_clone),
                weight: state.float("weight").map_err(wrong)?,
            })
        };
        entry.is_reset = false;
        Ok(Some(entry))
    }
}

/// The kind in which values are accumulated: f64, where the device has it.
fn accumulator(device: Device) -> Kind {
    if device == Device::Mps { Kind::Float } else { Kind::Double }
}

/// The value in the kind in which it is accumulated.
pub(super) fn widened(t: &Tensor) -> Result<Tensor, fulgurite_torch::tch::TchError> {
    t.f_to_kind(accumulator(t.device()))
}

/// The weight of a value in its epoch's mean.
fn weight(hook: Hook, name: &str, options: &LogOptions, batch_size: Option<f64>) -> Result<f64, Error> {
    if options.reduce != Reduce::Mean || hook.logging() == Logging::EpochOnly {
        return Ok(options.batch_size.unwrap_or(1.0));
    }
    batch_size.ok_or_else(|| {
        problem(hook, name, "the batch contains no tensor to take its size from; set it with `.batch_size(n)`")
    })
}

impl Sums {
    fn add_number(&mut self, reduce: Reduce, x: f64, weight: f64) {
        self.weight += weight;
        self.host = Some(match (self.host, reduce) {
            (held, Reduce::Mean) => held.unwrap_or(0.0) + x * weight,
            (held, Reduce::Sum) => held.unwrap_or(0.0) + x,
            // NaN propagates, as in libtorch.
            (Some(held), Reduce::Min) => {
                if x.is_nan() || x < held {
                    x
                } else {
                    held
                }
            }
            (Some(held), Reduce::Max) => {
                if x.is_nan() || x > held {
                    x
                } else {
                    held
                }
            }
            (None, _) => x,
        });
    }

    /// Accumulates without reading: in f64, where the device has it. A product in the value's own kind could be beyond
    /// its range.
    fn add_tensor(&mut self, reduce: Reduce, t: &Tensor, weight: f64) -> Result<(), fulgurite_torch::tch::TchError> {
        self.weight += weight;
        let weighted = reduce == Reduce::Mean && weight != 1.0;
        let term = if weighted { widened(t)?.f_mul_scalar(weight)? } else { t.shallow_clone() };
        match (&mut self.device, reduce) {
            (Some(held), Reduce::Mean | Reduce::Sum) => {
                let _ = held.f_add_(&term)?;
            }
            (Some(held), Reduce::Min) => *held = held.f_minimum(&term)?,
            (Some(held), Reduce::Max) => *held = held.f_maximum(&term)?,
            (held @ None, _) => {
                // A copy: `term` may be the user's own tensor.
                *held = Some(term.f_reshape([0i64; 0])?.f_to_dtype(accumulator(t.device()), false, true)?);
            }
        }
        Ok(())
    }

    /// Adds what a rank has in all.
    pub(super) fn add_total(&mut self, reduce: Reduce, total: f64, weight: f64) {
        let reduce = if reduce == Reduce::Mean { Reduce::Sum } else { reduce };
        self.add_number(reduce, total, weight);
    }

    /// The values so far, not divided yet.
    pub(super) fn total(&self, reduce: Reduce) -> Option<LoggedValue> {
        Some(match (&self.device, self.host) {
            (None, None) => return None,
            (None, Some(host)) => LoggedValue::Number(host),
            (Some(device), None) => LoggedValue::Tensor(device.shallow_clone()),
            (Some(device), Some(host)) => LoggedValue::Tensor(match reduce {
                Reduce::Mean | Reduce::Sum => device + host,
                Reduce::Min => device.minimum(&device.full_like(host)),
                Reduce::Max => device.maximum(&device.full_like(host)),
            }),
        })
    }

    pub(super) fn compute(&self, reduce: Reduce) -> Option<LoggedValue> {
        Some(match (reduce, self.total(reduce)?) {
            (Reduce::Mean, LoggedValue::Number(sum)) => LoggedValue::Number(sum / self.weight),
            (Reduce::Mean, LoggedValue::Tensor(sum)) => LoggedValue::Tensor(sum / self.weight),
            (_, total) => total,
        })
    }
}

#[cfg(test)]
#[path = "results_tests.rs"]
mod tests;
