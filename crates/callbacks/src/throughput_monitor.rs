//! [`ThroughputMonitor`]: logs throughput.

use std::any::Any;
use std::fmt;
use std::time::Instant;

use derive_setters::Setters;
use fulgurite_engine::config::Configurable;
use fulgurite_engine::{Callback, Error, Loss, ModuleView, Result, Stage, TrainerFn, TrainerState};
use fulgurite_fabric::peak_flops::{compute_kind, peak_flops};
use fulgurite_fabric::{Throughput, Work};
use fulgurite_torch::Value;
use fulgurite_torch::tch::{Cuda, Device};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Logs samples, items (tokens) and floating-point operations per second, and the model FLOPs utilization (MFU).
///
/// Names are those of [`Throughput`] after the stage: `train/device/samples_per_sec`, `validate/time`. Totals are
/// written at every logging interval, rates once `window_size` batches were seen. The clock of training stands still
/// during validation. To measure what was computed and not what was requested, it waits for a GPU after every batch.
///
/// Samples are counted as `Batch::size` does, which each process takes to be the same for
/// all. FLOPs are counted if [`flops_per_batch`](ThroughputMonitorOptions::flops_per_batch) is set here, or the
/// module returns them from [`flops_per_batch`](fulgurite_engine::LightningModule::flops_per_batch).
///
/// ```
/// use fulgurite::callbacks::ThroughputMonitor;
/// use fulgurite::prelude::*;
///
/// let tokens = |(x, _): &(Tensor, Tensor)| x.numel();
/// let monitor = ThroughputMonitor::new().window_size(20).length_fn(tokens).flops_per_batch(6e9);
/// let trainer = Trainer::builder().callback(monitor);
/// ```
#[derive(Debug)]
#[must_use]
pub struct ThroughputMonitor {
    options: ThroughputMonitorOptions,
    batch_size: Option<Count>,
    length: Option<Count>,
    clock: Clock,
    /// Measurements by stage; the sanity check is not measured.
    meters: [Option<Meter>; 5],
    /// Whether it has warned that the FLOPs are unknown.
    warned: bool,
}

/// Options of [`ThroughputMonitor`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, generate_delegates(ty = "ThroughputMonitor", field = "options"))]
#[non_exhaustive]
pub struct ThroughputMonitorOptions {
    /// The number of batches that rates are computed over: 2 or more.
    pub window_size: usize,
    /// The separator between the parts of a name.
    #[setters(into)]
    pub separator: String,
    /// Peak floating-point operations per second of the device; by default the vendor's specification.
    pub available_flops: Option<f64>,
    /// Floating-point operations of one batch, forward and backward; by default those that the module reports.
    pub flops_per_batch: Option<f64>,
}

impl Default for ThroughputMonitorOptions {
    fn default() -> ThroughputMonitorOptions {
        ThroughputMonitorOptions {
            window_size: 100,
            separator: "/".into(),
            available_flops: None,
            flops_per_batch: None,
        }
    }
}

type CountFn = dyn Fn(&dyn Any) -> Option<usize> + Send;

/// A counting function for batches; returns `None` for a batch of another type.
struct Count {
    count: Box<CountFn>,
    /// The batch type it accepts.
    of: &'static str,
}

/// Seconds since an arbitrary start.
struct Clock(Box<dyn Fn() -> f64 + Send>);

/// The measurements of a stage since it began.
#[derive(Debug)]
struct Meter {
    throughput: Throughput,
    /// The start time, advanced by time that is not counted.
    start: f64,
    work: Work,
}

impl Configurable for ThroughputMonitor {
    type Options = ThroughputMonitorOptions;

    fn from_options(options: ThroughputMonitorOptions) -> Result<ThroughputMonitor, Error> {
        let monitor = ThroughputMonitor { options, ..ThroughputMonitor::new() };
        let _valid = monitor.throughput().map_err(config)?;
        Ok(monitor)
    }
}

impl Default for ThroughputMonitor {
    fn default() -> ThroughputMonitor {
        ThroughputMonitor::new()
    }
}

impl ThroughputMonitor {
    /// Rates over 100 batches.
    pub fn new() -> ThroughputMonitor {
        let began = Instant::now();
        ThroughputMonitor {
            options: ThroughputMonitorOptions::default(),
            batch_size: None,
            length: None,
            clock: Clock(Box::new(move || began.elapsed().as_secs_f64())),
            meters: [const { None }; 5],
            warned: false,
        }
    }

    /// Sets the function that counts the samples of a batch, instead of `Batch::size`.
    pub fn batch_size_fn<B: 'static>(mut self, count: impl Fn(&B) -> usize + Send + 'static) -> Self {
        self.batch_size = Some(Count::new(count));
        self
    }

    /// Sets the function that counts the items, such as tokens, of all samples of a batch.
    pub fn length_fn<B: 'static>(mut self, count: impl Fn(&B) -> usize + Send + 'static) -> Self {
        self.length = Some(Count::new(count));
        self
    }

    /// Sets the clock, in seconds, instead of the system's; for tests.
    pub fn clock(mut self, seconds: impl Fn() -> f64 + Send + 'static) -> Self {
        self.clock = Clock(Box::new(seconds));
        self
    }

    fn throughput(&self) -> Result<Throughput, fulgurite_fabric::ThroughputError> {
        Ok(Throughput::new(self.options.window_size)?.separator(self.options.separator.as_str()))
    }

    /// A stage begins.
    fn start(&mut self, trainer: &TrainerState) {
        if let Some(meter) = &mut self.meters[trainer.stage() as usize] {
            meter.throughput.reset();
            meter.work = Work::default();
            meter.start = (self.clock.0)();
        }
    }

    /// A batch is done.
    fn update(&mut self, trainer: &mut TrainerState, module: &dyn ModuleView, batch: &dyn Any) -> Result<()> {
        let flops = self.options.flops_per_batch.or_else(|| module.flops_per_batch());
        let Some(meter) = self.meters[trainer.stage() as usize].as_mut() else {
            return Ok(());
        };
        if flops.is_none() && !std::mem::replace(&mut self.warned, true) {
            trainer.warn(&format!(
                "ThroughputMonitor computes no FLOPs, because `{}` does not say what a batch takes; implement `flops_per_batch`, or set `ThroughputMonitor::flops_per_batch`",
                module.name()
            ));
        }
        if let Device::Cuda(index) = trainer.device() {
            Cuda::synchronize(index as i64);
        }
        let time = (self.clock.0)() - meter.start;
        let samples = match &self.batch_size {
            Some(count) => count.of("batch_size_fn", batch)?,
            None => trainer.batch_size().ok_or_else(|| {
                Error::Config(
                    "ThroughputMonitor counts samples by the first tensor of a batch, and these batches have none; count them with `ThroughputMonitor::batch_size_fn`".into(),
                )
            })?,
        };
        let items = self.length.as_ref().map(|count| count.of("length_fn", batch)).transpose()?;
        meter.work = Work {
            time,
            batches: meter.work.batches + 1,
            samples: meter.work.samples + samples,
            lengths: items.map(|items| meter.work.lengths.unwrap_or(0) + items),
            flops,
        };
        Ok(meter.throughput.update(meter.work)?)
    }

    /// Writes the values to the loggers, at `x` if given.
    fn write(&self, trainer: &mut TrainerState, x: Option<u64>) -> Result<()> {
        let stage = trainer.stage();
        let Some(meter) = self.meters[stage as usize].as_ref().filter(|_| trainer.should_update_logs()) else {
            return Ok(());
        };
        let prefix = match stage {
            Stage::Train => "train",
            Stage::SanityCheck => return Ok(()),
            Stage::Validate => "validate",
            Stage::Test => "test",
            Stage::Predict => "predict",
        };
        let separator = &self.options.separator;
        let metrics: Vec<(String, f64)> = meter
            .throughput
            .compute()
            .into_iter()
            .map(|(name, value)| (format!("{prefix}{separator}{name}"), value))
            .collect();
        let row = metrics.iter().map(|(name, value)| (name.as_str(), *value));
        let epoch = x.is_none().then(|| trainer.current_epoch());
        let x = x.unwrap_or(trainer.progress().batches_that_stepped);
        Ok(trainer.write_row(row, x, epoch)?)
    }

    /// A batch of an evaluation or a prediction is done. Within fit, batches are counted over the whole epoch.
    fn evaluated(&mut self, trainer: &mut TrainerState, module: &dyn ModuleView, batch: &dyn Any) -> Result<()> {
        self.update(trainer, module, batch)?;
        let here = self.meters[trainer.stage() as usize].as_ref().map_or(0, |meter| meter.work.batches);
        let in_fit = trainer.entry_point() == TrainerFn::Fit;
        let x = if in_fit { trainer.progress().val_batch.total.ready } else { here };
        self.write(trainer, Some(x))
    }
}

macro_rules! stage_starts {
    ($($name:ident)*) => {
        $(fn $name(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
            self.start(trainer);
            Ok(())
        })*
    };
}

impl Callback for ThroughputMonitor {
    fn setup(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        self.meters = [const { None }; 5];
        if !trainer.is_global_zero() {
            return Ok(());
        }
        let kind = compute_kind(trainer.fabric().precision().name());
        let available = self.options.available_flops.or_else(|| peak_flops(trainer.device(), kind));
        if available.is_none() && trainer.device() != Device::Cpu {
            trainer.warn(&format!(
                "ThroughputMonitor knows no peak of this device for {kind:?}, so MFU is not written; set `ThroughputMonitor::available_flops`"
            ));
        }
        let throughput = self.throughput().map_err(config)?;
        let throughput = throughput.available_flops(available).world_size(trainer.fabric().world_size());
        let stages: &[Stage] = match stage {
            TrainerFn::Fit => &[Stage::Train, Stage::Validate],
            TrainerFn::Validate => &[Stage::Validate],
            TrainerFn::Test => &[Stage::Test],
            TrainerFn::Predict => &[Stage::Predict],
        };
        for &stage in stages {
            let meter = Meter { throughput: throughput.clone(), start: 0.0, work: Work::default() };
            self.meters[stage as usize] = Some(meter);
        }
        Ok(())
    }

    stage_starts! {
        on_train_start
        on_validation_start
        on_test_start
        on_predict_start
    }

    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        _: &Loss,
        batch: &dyn Any,
        _: usize,
    ) -> Result<()> {
        self.update(trainer, module, batch)?;
        // Within a window the optimizer's time would be missing.
        if trainer.is_accumulating() { Ok(()) } else { self.write(trainer, None) }
    }

    fn on_validation_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        _: &Value,
        batch: &dyn Any,
        _: usize,
        _: usize,
    ) -> Result<()> {
        self.evaluated(trainer, module, batch)
    }

    fn on_validation_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if trainer.entry_point() != TrainerFn::Fit || trainer.is_sanity_checking() {
            return Ok(());
        }
        let [train, _, validate, ..] = &mut self.meters;
        if let (Some(train), Some(validate)) = (train, validate) {
            // As if the last training batch had ended when the last validation batch did.
            train.start = validate.start + validate.throughput.time() - train.throughput.time();
        }
        Ok(())
    }

    fn on_test_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        _: &Value,
        batch: &dyn Any,
        _: usize,
        _: usize,
    ) -> Result<()> {
        self.evaluated(trainer, module, batch)
    }

    fn on_predict_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        _: &Value,
        batch: &dyn Any,
        _: usize,
        _: usize,
    ) -> Result<()> {
        self.evaluated(trainer, module, batch)
    }
}

impl Count {
    fn new<B: 'static>(count: impl Fn(&B) -> usize + Send + 'static) -> Count {
        let count = Box::new(move |batch: &dyn Any| batch.downcast_ref().map(&count));
        Count { count, of: std::any::type_name::<B>() }
    }

    fn of(&self, setter: &str, batch: &dyn Any) -> Result<u64, Error> {
        let counted = (self.count)(batch).ok_or_else(|| {
            Error::Config(format!(
                "ThroughputMonitor::{setter} takes a `{}`, and the batches of this run are of another type; give it a closure that takes the module's `Batch`",
                self.of
            ))
        })?;
        Ok(counted as u64)
    }
}

fn config(error: fulgurite_fabric::ThroughputError) -> Error {
    Error::Config(format!("ThroughputMonitor: {error}"))
}

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Count(&{})", self.of)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
