//! [`DeviceStatsMonitor`]: logs CPU and GPU statistics.

use std::any::Any;

use derive_setters::Setters;
use fulgurite_engine::config::Configurable;
use fulgurite_engine::{Callback, Error, Loss, ModuleView, Result, TrainerFn, TrainerState};
use fulgurite_fabric::DeviceStats;
use fulgurite_torch::Value;
use fulgurite_torch::tch::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Logs CPU usage and memory statistics at the start and end of training, validation and test batches, at the logging
/// interval.
///
/// Names are Lightning's: `DeviceStatsMonitor.on_train_batch_start/` and the statistic, those of
/// [`DeviceStats`]: `cpu_vm_percent`, `cpu_percent` and `cpu_swap_percent`, and on a GPU `allocated_bytes.all.current`
/// and the other statistics of the CUDA allocator.
///
/// ```
/// use fulgurite::callbacks::DeviceStatsMonitor;
/// use fulgurite::prelude::*;
///
/// let monitor = DeviceStatsMonitor::new().cpu_stats(true);
/// let trainer = Trainer::builder().callback(monitor);
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct DeviceStatsMonitor {
    options: DeviceStatsMonitorOptions,
    stats: Option<DeviceStats>,
}

/// Options of [`DeviceStatsMonitor`].
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, generate_delegates(ty = "DeviceStatsMonitor", field = "options"))]
#[non_exhaustive]
pub struct DeviceStatsMonitorOptions {
    /// Whether to log CPU statistics; by default if the run is on the CPU.
    pub cpu_stats: Option<bool>,
    /// Logs only these statistics, named without the prefix.
    #[setters(skip)]
    pub filter_keys: Option<Vec<String>>,
}

impl Configurable for DeviceStatsMonitor {
    type Options = DeviceStatsMonitorOptions;

    fn from_options(options: DeviceStatsMonitorOptions) -> Result<DeviceStatsMonitor, Error> {
        Ok(DeviceStatsMonitor { options, stats: None })
    }
}

impl DeviceStatsMonitor {
    /// A monitor of all statistics of the run's device.
    pub fn new() -> DeviceStatsMonitor {
        DeviceStatsMonitor::default()
    }

    /// Logs only these statistics, such as `allocated_bytes.all.current`.
    pub fn filter_keys(mut self, keys: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.options.filter_keys = Some(keys.into_iter().map(Into::into).collect());
        self
    }

    fn write(&mut self, trainer: &mut TrainerState, hook: &str) -> Result<()> {
        let Some(stats) = self.stats.as_mut().filter(|_| trainer.should_update_logs()) else { return Ok(()) };
        let mut stats: Vec<(&str, f64)> = stats.read()?.collect();
        if let Some(keys) = &self.options.filter_keys {
            if let Some(unknown) = keys.iter().find(|key| !stats.iter().any(|(name, _)| name == key)) {
                let there: Vec<&str> = stats.iter().map(|(name, _)| *name).collect();
                trainer.warn(&format!(
                    "DeviceStatsMonitor::filter_keys names `{unknown}`, which is not a statistic here; there are: {}",
                    there.join(", ")
                ));
            }
            stats.retain(|(name, _)| keys.iter().any(|key| key == name));
        }
        if stats.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = stats.iter().map(|(name, _)| format!("DeviceStatsMonitor.{hook}/{name}")).collect();
        let row: Vec<(&str, f64)> =
            names.iter().zip(&stats).map(|(name, (_, value))| (name.as_str(), *value)).collect();
        let x = trainer.progress().batches_that_stepped as i64;
        for logger in trainer.loggers() {
            logger.log_system(&row, x)?;
        }
        Ok(())
    }
}

macro_rules! eval_hooks {
    ($($name:ident($($outputs:ty)?))*) => {
        $(fn $name(
            &mut self,
            trainer: &mut TrainerState,
            _: &mut dyn ModuleView,
            $(_: $outputs,)?
            _: &dyn Any,
            _: usize,
            _: usize,
        ) -> Result<()> {
            self.write(trainer, stringify!($name))
        })*
    };
}

impl Callback for DeviceStatsMonitor {
    fn setup(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        if stage == TrainerFn::Fit && trainer.loggers().is_empty() {
            return Err(Error::Config(
                "DeviceStatsMonitor writes to loggers, and the trainer has none; add one with `Trainer::builder().logger(..)`, or leave the monitor out".into(),
            )
            .into());
        }
        let device = trainer.device();
        let cpu = self.options.cpu_stats.unwrap_or(device == Device::Cpu);
        self.stats = (!trainer.loggers().is_empty()).then(|| DeviceStats::new(device, cpu));
        Ok(())
    }

    fn on_train_batch_start(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &dyn Any,
        _: usize,
    ) -> Result<()> {
        self.write(trainer, "on_train_batch_start")
    }

    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &Loss,
        _: &dyn Any,
        _: usize,
    ) -> Result<()> {
        self.write(trainer, "on_train_batch_end")
    }

    eval_hooks! {
        on_validation_batch_start()
        on_validation_batch_end(&Value)
        on_test_batch_start()
        on_test_batch_end(&Value)
    }
}
