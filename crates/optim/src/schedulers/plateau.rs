//! [`ReduceLROnPlateau`].

use fulgurite_torch::{Dict, Value};

use super::per_group::PerGroup;
use super::scheduler::floats;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::build::BuildLrScheduler;
use crate::error::ensure;
use crate::options::options;
use crate::{LrScheduler, Mode, OptimError, Optimizer, typed};

/// Reduces the learning rate by `factor` when a monitored value has stopped improving for `patience` epochs.
///
/// In a training run it monitors a logged value, named by
/// [`LrSchedulerConfig::monitor`](crate::LrSchedulerConfig::monitor). NaN is never better.
#[derive(Debug)]
pub struct ReduceLROnPlateau {
    options: ReduceLROnPlateauOptions,
    min_lrs: Vec<f64>,
    last_lr: Vec<f64>,
    last_epoch: i64,
    /// `None` before the first value.
    best: Option<f64>,
    cooldown_counter: i64,
    num_bad_epochs: i64,
}

/// How the threshold of [`ReduceLROnPlateau`] is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdMode {
    /// Relative to the best value.
    Rel,
    /// In the unit of the value.
    Abs,
}

options! {
    /// Options of [`ReduceLROnPlateau`].
    ReduceLROnPlateauOptions of ReduceLROnPlateau {
        /// Whether the monitored value should be low or high.
        mode: Mode = Mode::Min,
        /// Multiplicative factor of the learning rate.
        factor: f64 = 0.1,
        /// Number of epochs without improvement before the learning rate is reduced.
        patience: u32 = 10,
        /// Minimum change of the best value that counts as an improvement.
        threshold: f64 = 1e-4,
        /// How the threshold is measured.
        threshold_mode: ThresholdMode = ThresholdMode::Rel,
        /// Number of epochs after a reduction in which nothing is counted.
        cooldown: u32 = 0,
        /// Minimum learning rate.
        min_lr(min_lr: impl Into<PerGroup> => min_lr.into()): PerGroup = PerGroup::Same(0.0),
        /// Minimum reduction: smaller ones are not made.
        eps: f64 = 1e-8,
    }
}

const NAME: &str = "ReduceLROnPlateau";

impl ReduceLROnPlateau {
    /// With default options: a tenth after 10 epochs in which the value did not fall by a ten-thousandth.
    #[expect(clippy::new_without_default, reason = "no other scheduler has a default")]
    pub fn new() -> ReduceLROnPlateau {
        ReduceLROnPlateau::from_options(ReduceLROnPlateauOptions::default())
    }

    /// With these options.
    pub fn from_options(options: ReduceLROnPlateauOptions) -> ReduceLROnPlateau {
        ReduceLROnPlateau {
            options,
            min_lrs: Vec::new(),
            last_lr: Vec::new(),
            last_epoch: 0,
            best: None,
            cooldown_counter: 0,
            num_bad_epochs: 0,
        }
    }

    fn best(&self) -> f64 {
        self.best.unwrap_or(self.options.mode.worst())
    }

    fn is_better(&self, value: f64) -> bool {
        let (best, threshold) = (self.best(), self.options.threshold);
        match (self.options.mode, self.options.threshold_mode) {
            (Mode::Min, ThresholdMode::Rel) => value < best * (1.0 - threshold),
            (Mode::Min, ThresholdMode::Abs) => value < best - threshold,
            (Mode::Max, ThresholdMode::Rel) => value > best * (threshold + 1.0),
            (Mode::Max, ThresholdMode::Abs) => value > best + threshold,
        }
    }
}

impl BuildLrScheduler for ReduceLROnPlateauOptions {
    const NEEDS_METRIC: bool = true;

    fn class_name() -> &'static str {
        NAME
    }

    fn build_lr_scheduler(
        self,
        _run_length: &mut dyn FnMut() -> Option<u32>,
    ) -> Result<Box<dyn LrScheduler>, OptimError> {
        Ok(Box::new(ReduceLROnPlateau::from_options(self)))
    }
}

impl LrScheduler for ReduceLROnPlateau {
    fn name(&self) -> &str {
        NAME
    }

    fn attach(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        ensure(self.options.factor < 1.0, NAME, "factor", self.options.factor, "less than 1")?;
        self.last_lr = optimizer.param_groups().iter().map(|group| group.lr).collect();
        self.min_lrs = self.options.min_lr.spread(NAME, "min_lr", self.last_lr.len())?;
        Ok(())
    }

    fn step(&mut self, optimizer: &mut dyn Optimizer, metric: Option<f64>) -> Result<(), OptimError> {
        let value = metric.ok_or(OptimError::MetricNeeded { scheduler: NAME })?;
        if self.last_lr.is_empty() {
            return Err(OptimError::NotAttached { scheduler: NAME });
        }
        let groups = optimizer.param_groups().len();
        self.options.min_lr.extend(NAME, "min_lr", &mut self.min_lrs, groups)?;
        self.last_lr.resize(groups, 0.0);
        self.last_epoch += 1;
        if self.is_better(value) {
            self.best = Some(value);
            self.num_bad_epochs = 0;
        } else {
            self.num_bad_epochs += 1;
        }
        if self.cooldown_counter > 0 {
            self.cooldown_counter -= 1;
            self.num_bad_epochs = 0;
        }
        let reduce = self.num_bad_epochs > i64::from(self.options.patience);
        if reduce {
            self.cooldown_counter = self.options.cooldown.into();
            self.num_bad_epochs = 0;
        }
        let bounds = self.min_lrs.iter().zip(&mut self.last_lr);
        for (group, (&min_lr, last_lr)) in optimizer.param_groups_mut().iter_mut().zip(bounds) {
            let lr = (group.lr * self.options.factor).max(min_lr);
            if reduce && group.lr - lr > self.options.eps {
                group.lr = lr;
            }
            *last_lr = group.lr;
        }
        Ok(())
    }

    fn needs_metric(&self) -> bool {
        true
    }

    fn last_lr(&self) -> &[f64] {
        &self.last_lr
    }

    fn state_dict(&self) -> Result<Dict, OptimError> {
        let options = &self.options;
        let default_min_lr = match &options.min_lr {
            PerGroup::Same(min_lr) => Value::Float(*min_lr),
            PerGroup::Each(_) => Value::None,
        };
        Ok(Dict::new()
            .with("factor", options.factor)
            .with("default_min_lr", default_min_lr)
            .with("min_lrs", self.min_lrs.clone())
            .with("patience", options.patience)
            .with("cooldown", options.cooldown)
            .with("eps", options.eps)
            .with("last_epoch", self.last_epoch)
            .with("_last_lr", self.last_lr.clone())
            .with("mode_worse", options.mode.worst())
            .with("mode", typed::to_value(&options.mode))
            .with("threshold", options.threshold)
            .with("threshold_mode", typed::to_value(&options.threshold_mode))
            .with("best", self.best())
            .with("cooldown_counter", self.cooldown_counter)
            .with("num_bad_epochs", self.num_bad_epochs))
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<(), OptimError> {
        let groups = self.last_lr.len();
        self.min_lrs = floats(NAME, state, "min_lrs", groups)?;
        self.last_lr = floats(NAME, state, "_last_lr", groups)?;
        let mut load = || {
            let mut best = self.best();
            typed::update(&mut self.options, state)?;
            typed::load(state, "last_epoch", &mut self.last_epoch)?;
            typed::load(state, "best", &mut best)?;
            self.best = Some(best);
            typed::load(state, "cooldown_counter", &mut self.cooldown_counter)?;
            typed::load(state, "num_bad_epochs", &mut self.num_bad_epochs)
        };
        load().map_err(|error: String| OptimError::state_dict(NAME, error))
    }
}
