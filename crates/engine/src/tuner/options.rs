//! Options of the learning-rate range test and of the batch-size finder.

use derive_setters::Setters;
use fulgurite_macros::ExportSetters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How the learning rate is increased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LrFindMode {
    /// By a constant factor per step.
    #[default]
    Exponential,
    /// By a constant amount per step.
    Linear,
}

/// Options of the learning-rate range test: of `Tuner::lr_find` and of the callback
/// `LearningRateFinder`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters, ExportSetters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option)]
#[non_exhaustive]
pub struct LearningRateFinderOptions {
    /// The initial learning rate.
    pub min_lr: f64,
    /// The final learning rate.
    pub max_lr: f64,
    /// The number of optimizer steps between the two.
    pub num_training: u64,
    /// Whether the learning rate increases exponentially or linearly.
    pub mode: LrFindMode,
    /// The test ends early when the smoothed loss is above this many times its best; none for never. Where the loss goes below
    /// zero, times means nothing: the test ends when the loss is above its best by this many times, less one, the larger of
    /// its best and its first, without their signs.
    #[setters(strip_option = false, into)]
    pub early_stop_threshold: Option<f64>,
    /// Whether the module's hyper-parameter is set to the suggestion.
    pub update_attr: bool,
    /// The hyper-parameter; empty for `lr` or `learning_rate`, whichever the module has.
    #[setters(into)]
    pub attr_name: String,
}

impl Default for LearningRateFinderOptions {
    fn default() -> LearningRateFinderOptions {
        LearningRateFinderOptions {
            min_lr: 1e-8,
            max_lr: 1.0,
            num_training: 100,
            mode: LrFindMode::Exponential,
            early_stop_threshold: Some(4.0),
            update_attr: true,
            attr_name: String::new(),
        }
    }
}

impl LearningRateFinderOptions {
    /// Validates the options.
    ///
    /// # Errors
    ///
    /// Fails if an option is invalid; the message says what to write instead.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::Config(message));
        let (min, max) = (self.min_lr, self.max_lr);
        if !(min > 0.0 && max > min && max.is_finite()) {
            return wrong(format!(
                "lr_find from min_lr={min} to max_lr={max} cannot rise; write 0 < min_lr < max_lr, such as 1e-8 and 1"
            ));
        }
        if self.num_training < 3 {
            return wrong(format!(
                "lr_find with num_training={} has too few points for a slope; write 3 or more, better 100",
                self.num_training
            ));
        }
        Ok(())
    }

    /// The rate of a step, counted from 0, as Lightning's schedulers count it.
    pub(super) fn lr(&self, step: u64) -> f64 {
        if step == 0 {
            return self.min_lr;
        }
        let share = (step + 1) as f64 / self.num_training as f64;
        match self.mode {
            LrFindMode::Exponential => self.min_lr * (self.max_lr / self.min_lr).powf(share),
            LrFindMode::Linear => self.min_lr + share * (self.max_lr - self.min_lr),
        }
    }
}

/// How the batch size is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScaleMode {
    /// Double the size until memory runs out.
    #[default]
    Power,
    /// Double the size until memory runs out, then do a binary search.
    BinSearch,
}

/// Options of the batch-size finder: of `Tuner::scale_batch_size` and of the callback
/// `BatchSizeFinder`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters, ExportSetters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option)]
#[non_exhaustive]
pub struct BatchSizeFinderOptions {
    /// Whether to double the size only, or to refine it by binary search.
    pub mode: ScaleMode,
    /// The number of steps per trial.
    pub steps_per_trial: u64,
    /// The initial batch size.
    pub init_val: u64,
    /// The maximum number of trials.
    pub max_trials: u64,
    /// The hyper-parameter of data module or module that is the batch size.
    #[setters(into)]
    pub batch_arg_name: String,
    /// The fraction by which the size found by `binsearch` is reduced, as a safety margin.
    pub margin: f64,
    /// The largest size to try.
    pub max_val: u64,
}

impl Default for BatchSizeFinderOptions {
    fn default() -> BatchSizeFinderOptions {
        BatchSizeFinderOptions {
            mode: ScaleMode::Power,
            steps_per_trial: 3,
            init_val: 2,
            max_trials: 25,
            batch_arg_name: "batch_size".into(),
            margin: 0.05,
            max_val: 8192,
        }
    }
}

impl BatchSizeFinderOptions {
    /// Validates the options.
    ///
    /// # Errors
    ///
    /// Fails if an option is invalid; the message says what to write instead.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::Config(message));
        if !(0.0..1.0).contains(&self.margin) {
            return wrong(format!(
                "the batch-size finder's margin={} is not a part of the size; write 0.0 or more and less than 1.0",
                self.margin
            ));
        }
        for (name, value) in [
            ("steps_per_trial", self.steps_per_trial),
            ("init_val", self.init_val),
            ("max_trials", self.max_trials),
            ("max_val", self.max_val),
        ] {
            if value == 0 {
                return wrong(format!("the batch-size finder with {name}=0 tries nothing; write 1 or more"));
            }
        }
        Ok(())
    }
}
