//! [`ReduceLROnPlateau`].

use fulgurite_torch::{Dict, Value};

use super::per_group::PerGroup;
use super::scheduler::floats;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ensure;
use crate::settings::{self, Setting, setting_enum};
use crate::{LrScheduler, OptimError, Optimizer};

/// Multiplies the learning rate by `factor` when a value has not become better for `patience` epochs.
///
/// In a training run it watches a logged value, named by
/// [`LrSchedulerConfig::monitor`](crate::LrSchedulerConfig::monitor). NaN is never better.
#[derive(Debug)]
pub struct ReduceLROnPlateau {
    mode: PlateauMode,
    factor: f64,
    patience: i64,
    threshold: f64,
    threshold_mode: ThresholdMode,
    cooldown: i64,
    min_lr: PerGroup,
    eps: f64,
    min_lrs: Vec<f64>,
    last_lr: Vec<f64>,
    last_epoch: i64,
    best: f64,
    cooldown_counter: i64,
    num_bad_epochs: i64,
}

/// Whether [`ReduceLROnPlateau`] wants its value low or high.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlateauMode {
    /// Low.
    Min,
    /// High.
    Max,
}

setting_enum! {
    PlateauMode, "`min` or `max`",
    "min" => PlateauMode::Min,
    "max" => PlateauMode::Max,
}

/// What the threshold of [`ReduceLROnPlateau`] is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdMode {
    /// Parts of the best value.
    Rel,
    /// The value's own unit.
    Abs,
}

setting_enum! {
    ThresholdMode, "`rel` or `abs`",
    "rel" => ThresholdMode::Rel,
    "abs" => ThresholdMode::Abs,
}

const NAME: &str = "ReduceLROnPlateau";

impl ReduceLROnPlateau {
    /// With PyTorch's defaults: a tenth after 10 epochs in which the value did not fall by a ten-thousandth.
    #[expect(clippy::new_without_default, reason = "no other scheduler has a default")]
    pub fn new() -> ReduceLROnPlateau {
        ReduceLROnPlateau {
            mode: PlateauMode::Min,
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            threshold_mode: ThresholdMode::Rel,
            cooldown: 0,
            min_lr: 0.0.into(),
            eps: 1e-8,
            min_lrs: Vec::new(),
            last_lr: Vec::new(),
            last_epoch: 0,
            best: f64::INFINITY,
            cooldown_counter: 0,
            num_bad_epochs: 0,
        }
    }

    /// Whether low or high is better.
    #[must_use]
    pub fn mode(mut self, mode: PlateauMode) -> Self {
        self.mode = mode;
        self.best = mode_worse(mode);
        self
    }

    /// The factor.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// How many epochs without improvement are tolerated.
    #[must_use]
    pub fn patience(mut self, patience: u32) -> Self {
        self.patience = patience.into();
        self
    }

    /// By how much a value must be better than the best one.
    #[must_use]
    pub fn threshold(mut self, threshold: f64) -> Self {
        self.threshold = threshold;
        self
    }

    /// What the threshold is measured in.
    #[must_use]
    pub fn threshold_mode(mut self, threshold_mode: ThresholdMode) -> Self {
        self.threshold_mode = threshold_mode;
        self
    }

    /// How many epochs after a change do not count.
    #[must_use]
    pub fn cooldown(mut self, cooldown: u32) -> Self {
        self.cooldown = cooldown.into();
        self
    }

    /// The lowest learning rate.
    #[must_use]
    pub fn min_lr(mut self, min_lr: impl Into<PerGroup>) -> Self {
        self.min_lr = min_lr.into();
        self
    }

    /// Changes smaller than this are not made.
    #[must_use]
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    fn is_better(&self, value: f64) -> bool {
        match (self.mode, self.threshold_mode) {
            (PlateauMode::Min, ThresholdMode::Rel) => value < self.best * (1.0 - self.threshold),
            (PlateauMode::Min, ThresholdMode::Abs) => value < self.best - self.threshold,
            (PlateauMode::Max, ThresholdMode::Rel) => value > self.best * (self.threshold + 1.0),
            (PlateauMode::Max, ThresholdMode::Abs) => value > self.best + self.threshold,
        }
    }
}

fn mode_worse(mode: PlateauMode) -> f64 {
    if mode == PlateauMode::Min { f64::INFINITY } else { f64::NEG_INFINITY }
}

impl LrScheduler for ReduceLROnPlateau {
    fn name(&self) -> &'static str {
        NAME
    }

    fn attach(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        ensure(self.factor < 1.0, NAME, "factor", self.factor, "less than 1")?;
        self.last_lr = optimizer.param_groups().iter().map(|group| group.lr).collect();
        self.min_lrs = self.min_lr.spread(NAME, "min_lr", self.last_lr.len())?;
        Ok(())
    }

    fn step(&mut self, optimizer: &mut dyn Optimizer, metric: Option<f64>) -> Result<(), OptimError> {
        let value = metric.ok_or(OptimError::MetricNeeded { scheduler: NAME })?;
        if self.last_lr.is_empty() {
            return Err(OptimError::NotAttached { scheduler: NAME });
        }
        let groups = optimizer.param_groups().len();
        self.min_lr.extend(NAME, "min_lr", &mut self.min_lrs, groups)?;
        self.last_lr.resize(groups, 0.0);
        self.last_epoch += 1;
        if self.is_better(value) {
            self.best = value;
            self.num_bad_epochs = 0;
        } else {
            self.num_bad_epochs += 1;
        }
        if self.cooldown_counter > 0 {
            self.cooldown_counter -= 1;
            self.num_bad_epochs = 0;
        }
        let reduce = self.num_bad_epochs > self.patience;
        if reduce {
            self.cooldown_counter = self.cooldown;
            self.num_bad_epochs = 0;
        }
        let bounds = self.min_lrs.iter().zip(&mut self.last_lr);
        for (group, (&min_lr, last_lr)) in optimizer.param_groups_mut().iter_mut().zip(bounds) {
            let lr = (group.lr * self.factor).max(min_lr);
            if reduce && group.lr - lr > self.eps {
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

    fn state_dict(&self) -> Dict {
        let default_min_lr = match &self.min_lr {
            PerGroup::Same(min_lr) => Value::Float(*min_lr),
            PerGroup::Each(_) => Value::None,
        };
        Dict::new()
            .with("factor", self.factor)
            .with("default_min_lr", default_min_lr)
            .with("min_lrs", self.min_lrs.to_value())
            .with("patience", self.patience)
            .with("cooldown", self.cooldown)
            .with("eps", self.eps)
            .with("last_epoch", self.last_epoch)
            .with("_last_lr", self.last_lr.to_value())
            .with("mode_worse", mode_worse(self.mode))
            .with("mode", self.mode.to_value())
            .with("threshold", self.threshold)
            .with("threshold_mode", self.threshold_mode.to_value())
            .with("best", self.best)
            .with("cooldown_counter", self.cooldown_counter)
            .with("num_bad_epochs", self.num_bad_epochs)
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<(), OptimError> {
        let groups = self.last_lr.len();
        self.min_lrs = floats(NAME, state, "min_lrs", groups)?;
        self.last_lr = floats(NAME, state, "_last_lr", groups)?;
        let mut load = || {
            settings::load(state, "factor", &mut self.factor)?;
            settings::load(state, "patience", &mut self.patience)?;
            settings::load(state, "cooldown", &mut self.cooldown)?;
            settings::load(state, "eps", &mut self.eps)?;
            settings::load(state, "last_epoch", &mut self.last_epoch)?;
            settings::load(state, "mode", &mut self.mode)?;
            settings::load(state, "threshold", &mut self.threshold)?;
            settings::load(state, "threshold_mode", &mut self.threshold_mode)?;
            settings::load(state, "best", &mut self.best)?;
            settings::load(state, "cooldown_counter", &mut self.cooldown_counter)?;
            settings::load(state, "num_bad_epochs", &mut self.num_bad_epochs)
        };
        load().map_err(|error: String| OptimError::state_dict(NAME, error))
    }
}
