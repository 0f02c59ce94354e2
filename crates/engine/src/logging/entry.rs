//! [`LogEntry`]: one `log` call and its options.

use fulgurite_metrics::LogValue;

use super::connector::Metrics;
use super::options::{LogOptions, Reduce};
use crate::hook::Hook;

macro_rules! options {
    ($type:ident) => {
        impl $type<'_> {
            /// Also records the per-step value.
            pub fn on_step(mut self) -> Self {
                self.options.on_step = Some(true);
                self
            }

            /// Also records the value reduced over the epoch.
            pub fn on_epoch(mut self) -> Self {
                self.options.on_epoch = Some(true);
                self
            }

            /// Records only the per-step value.
            pub fn step_only(mut self) -> Self {
                self.options.on_step = Some(true);
                self.options.on_epoch = Some(false);
                self
            }

            /// Records only the value reduced over the epoch.
            pub fn epoch_only(mut self) -> Self {
                self.options.on_step = Some(false);
                self.options.on_epoch = Some(true);
                self
            }

            /// Records neither (`on_step=False, on_epoch=False` in Lightning), which is an error: for callers that
            /// compute the two flags.
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

            /// The reduction over an epoch: the mean, weighted by batch size, by default.
            pub fn reduce(mut self, reduce: Reduce) -> Self {
                self.options.reduce = reduce;
                self
            }

            /// The weight of the value in the epoch's mean; by default the size of the batch.
            pub fn batch_size(mut self, size: usize) -> Self {
                self.options.batch_size = Some(size as f64);
                self
            }

            /// Whether the per-step value is reduced over all processes; the processes then wait for each other
            /// whenever it is written. Values of an epoch are always reduced.
            pub fn sync_dist(mut self, sync: bool) -> Self {
                self.options.sync_dist = Some(sync);
                self
            }

            /// Whether `/dataloader_idx_N` is appended when there are several loaders (it is by default).
            pub fn add_dataloader_idx(mut self, add: bool) -> Self {
                self.options.add_dataloader_idx = add;
                self
            }

            /// Records it on rank zero only.
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
