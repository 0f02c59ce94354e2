//! [`LogEntry`]: one `log` call and its options.

use fulgurite_metrics::LogValue;
use fulgurite_torch::{Dict, Value, ValueError};

use super::Metrics;
use crate::hook::Hook;

/// How the values logged under one name during an epoch become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reduce {
    /// Mean, weighted by batch size.
    #[default]
    Mean,
    /// Sum.
    Sum,
    /// The smallest.
    Min,
    /// The greatest.
    Max,
}

/// Options of a `log` call, as given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LogOptions {
    pub on_step: Option<bool>,
    pub on_epoch: Option<bool>,
    pub prog_bar: bool,
    pub logger: bool,
    pub reduce: Reduce,
    pub sync_dist: Option<bool>,
    pub add_dataloader_idx: bool,
    pub batch_size: Option<f64>,
    pub rank_zero_only: bool,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            on_step: None,
            on_epoch: None,
            prog_bar: false,
            logger: true,
            reduce: Reduce::Mean,
            sync_dist: None,
            add_dataloader_idx: true,
            batch_size: None,
            rank_zero_only: false,
        }
    }
}

impl LogOptions {
    /// Whether one entry can take both; the size of a batch is each batch's own.
    pub(super) fn agree_with(&self, other: &LogOptions) -> bool {
        LogOptions { batch_size: other.batch_size, ..*self } == *other
    }

    /// For a checkpoint.
    pub(super) fn to_dict(self) -> Dict {
        Dict::new()
            .with("on_step", self.on_step)
            .with("on_epoch", self.on_epoch)
            .with("prog_bar", self.prog_bar)
            .with("logger", self.logger)
            .with("reduce", self.reduce.name())
            .with("sync_dist", self.sync_dist)
            .with("add_dataloader_idx", self.add_dataloader_idx)
            .with("rank_zero_only", self.rank_zero_only)
    }

    /// What [`to_dict`](Self::to_dict) returned.
    pub(super) fn from_dict(saved: &Dict) -> Result<LogOptions, ValueError> {
        let choice = |name: &str| optional(saved, name, "bool", Value::as_bool);
        Ok(LogOptions {
            on_step: choice("on_step")?,
            on_epoch: choice("on_epoch")?,
            prog_bar: saved.bool("prog_bar")?,
            logger: saved.bool("logger")?,
            reduce: Reduce::from_name(saved.str("reduce")?),
            sync_dist: choice("sync_dist")?,
            add_dataloader_idx: saved.bool("add_dataloader_idx")?,
            batch_size: None,
            rank_zero_only: saved.bool("rank_zero_only")?,
        })
    }
}

/// An entry that may be `None`, and must be there.
pub(super) fn optional<'s, T>(
    saved: &'s Dict,
    key: &str,
    expected: &'static str,
    read: impl Fn(&'s Value) -> Option<T>,
) -> Result<Option<T>, ValueError> {
    match saved.require(key)? {
        Value::None => Ok(None),
        value => {
            let wrong = || ValueError::WrongType { key: key.to_owned(), found: value.type_name(), expected };
            read(value).map(Some).ok_or_else(wrong)
        }
    }
}

impl Reduce {
    fn name(self) -> &'static str {
        match self {
            Reduce::Mean => "mean",
            Reduce::Sum => "sum",
            Reduce::Min => "min",
            Reduce::Max => "max",
        }
    }

    fn from_name(name: &str) -> Reduce {
        let all = [Reduce::Mean, Reduce::Sum, Reduce::Min, Reduce::Max];
        all.into_iter().find(|reduce| reduce.name() == name).unwrap_or_default()
    }
}

macro_rules! options {
    ($type:ident) => {
        impl $type<'_> {
            /// Also records the value of the step.
            pub fn on_step(mut self) -> Self {
                self.options.on_step = Some(true);
                self
            }

            /// Also reduces the values of the epoch to one.
            pub fn on_epoch(mut self) -> Self {
                self.options.on_epoch = Some(true);
                self
            }

            /// Records the value of the step, and none of the epoch.
            pub fn step_only(mut self) -> Self {
                self.options.on_step = Some(true);
                self.options.on_epoch = Some(false);
                self
            }

            /// Reduces the values of the epoch to one, and records none of the step.
            pub fn epoch_only(mut self) -> Self {
                self.options.on_step = Some(false);
                self.options.on_epoch = Some(true);
                self
            }

            /// Records neither (`on_step=False, on_epoch=False` of the original), which is an error: here for
            /// callers that compute the two flags.
            pub fn when(mut self, on_step: bool, on_epoch: bool) -> Self {
                self.options.on_step = Some(on_step);
                self.options.on_epoch = Some(on_epoch);
                self
            }

            /// Shows it in the progress bar.
            pub fn prog_bar(mut self) -> Self {
                self.options.prog_bar = true;
                self
            }

            /// Whether loggers write it (they do by default).
            pub fn logger(mut self, write: bool) -> Self {
                self.options.logger = write;
                self
            }

            /// How the values of an epoch become one: the mean, weighted by batch size, by default.
            pub fn reduce(mut self, reduce: Reduce) -> Self {
                self.options.reduce = reduce;
                self
            }

            /// The weight of the value in the epoch's mean; by default the size of the batch.
            pub fn batch_size(mut self, size: usize) -> Self {
                self.options.batch_size = Some(size as f64);
                self
            }

            /// Whether it is reduced over all processes of a run. Without this, the value of the epoch is, and that of the
            /// step is not: reducing it makes the processes wait for each other whenever it is written.
            pub fn sync_dist(mut self, sync: bool) -> Self {
                self.options.sync_dist = Some(sync);
                self
            }

            /// Whether `/dataloader_idx_N` is appended when there are several loaders (it is by default).
            pub fn add_dataloader_idx(mut self, add: bool) -> Self {
                self.options.add_dataloader_idx = add;
                self
            }

            /// Records it on rank zero alone.
            pub fn rank_zero_only(mut self) -> Self {
                self.options.rank_zero_only = true;
                self
            }
        }
    };
}

/// One logged value. It is recorded when this is dropped, at the end of the statement:
///
/// ```
/// # use fulgurite::prelude::*;
/// # fn demo(loss: Tensor, step: &mut Step) {
/// step.log("train_loss", &loss).on_epoch().prog_bar();
/// # }
/// ```
pub struct LogEntry<'a> {
    pub(crate) metrics: &'a mut Metrics,
    pub(crate) hook: Hook,
    pub(crate) name: &'a str,
    pub(crate) value: LogValue<'a>,
    pub(crate) options: LogOptions,
}

options!(LogEntry);

impl Drop for LogEntry<'_> {
    fn drop(&mut self) {
        self.metrics.record(self.hook, self.name, &self.value, &self.options);
    }
}

/// Several values logged with the same options. They are recorded when this is dropped.
pub struct LogEntries<'a> {
    pub(crate) metrics: &'a mut Metrics,
    pub(crate) hook: Hook,
    pub(crate) values: Vec<(&'a str, LogValue<'a>)>,
    pub(crate) options: LogOptions,
}

options!(LogEntries);

impl Drop for LogEntries<'_> {
    fn drop(&mut self) {
        for (name, value) in &self.values {
            self.metrics.record(self.hook, name, value, &self.options);
        }
    }
}
