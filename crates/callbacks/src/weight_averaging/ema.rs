//! [`EMAWeightAveraging`]: an exponential moving average of the weights.

use std::any::Any;

use derive_setters::Setters;
use fulgurite_engine::config::Configurable;
use fulgurite_engine::{Callback, Error, Loss, ModuleView, Result, TrainerFn, TrainerState};
use fulgurite_torch::Dict;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AveragingMoment, WeightAveraging, WeightAveragingOptions};
use crate::averaged_model::{Averaging, device};

/// Keeps an exponential moving average of the weights, validates and ends with it, as Lightning's callback of this
/// name: a [`WeightAveraging`] in which each update is `average = decay * average + (1 - decay) * weights`.
///
/// ```
/// use fulgurite::prelude::*;
///
/// let trainer = Trainer::builder().callback(EMAWeightAveraging::new().decay(0.9999).update_starting_at_step(100));
/// ```
#[must_use]
pub struct EMAWeightAveraging {
    options: EMAWeightAveragingOptions,
    weights: WeightAveraging,
}

/// Options of [`EMAWeightAveraging`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, generate_delegates(ty = "EMAWeightAveraging", field = "options"))]
#[non_exhaustive]
pub struct EMAWeightAveragingOptions {
    /// The device of the averages, such as `cpu` or `cuda:0`; by default the device of the module.
    #[setters(skip)]
    pub device: Option<String>,
    /// Whether buffers, such as batch norm statistics, are averaged too, instead of copied at each update.
    pub use_buffers: bool,
    /// The decay of the average, from 0.0 to 1.0.
    pub decay: f64,
    /// The number of optimizer steps between updates; 0 for none.
    pub update_every_n_steps: u64,
    /// The first optimizer step, counted from 0, after which to update.
    pub update_starting_at_step: Option<u64>,
    /// The first epoch, counted from 0, at whose end to update, and at that of each after it; without a value, none.
    pub update_starting_at_epoch: Option<u64>,
}

impl Default for EMAWeightAveragingOptions {
    fn default() -> EMAWeightAveragingOptions {
        EMAWeightAveragingOptions {
            device: None,
            use_buffers: true,
            decay: 0.999,
            update_every_n_steps: 1,
            update_starting_at_step: None,
            update_starting_at_epoch: None,
        }
    }
}

impl EMAWeightAveragingOptions {
    fn check(&self) -> Result<(), Error> {
        if !(0.0..=1.0).contains(&self.decay) {
            return Err(Error::Config(format!(
                "EMAWeightAveraging: decay is {}, the part of the average that an update keeps; write 0.0 to 1.0",
                self.decay
            )));
        }
        self.device.as_deref().map(|name| device("EMAWeightAveraging", name)).transpose().map(drop)
    }

    fn should_update(&self, at: AveragingMoment) -> bool {
        match at {
            AveragingMoment::Step(step) => {
                let begun = self.update_starting_at_step.is_none_or(|start| step >= start);
                begun && self.update_every_n_steps > 0 && step.is_multiple_of(self.update_every_n_steps)
            }
            AveragingMoment::Epoch(epoch) => self.update_starting_at_epoch.is_some_and(|start| epoch >= start),
        }
    }

    fn averaging(&self) -> WeightAveraging {
        let options = WeightAveragingOptions { device: self.device.clone(), use_buffers: self.use_buffers };
        let rule = self.clone();
        WeightAveraging::of(options, Averaging::Exponential(self.decay), move |at| rule.should_update(at))
    }
}

impl Configurable for EMAWeightAveraging {
    type Options = EMAWeightAveragingOptions;

    fn from_options(options: EMAWeightAveragingOptions) -> Result<EMAWeightAveraging, Error> {
        options.check()?;
        Ok(EMAWeightAveraging { weights: options.averaging(), options })
    }
}

impl Default for EMAWeightAveraging {
    fn default() -> EMAWeightAveraging {
        EMAWeightAveraging::new()
    }
}

impl EMAWeightAveraging {
    /// Updates after every optimizer step, and keeps 0.999 of the average.
    pub fn new() -> EMAWeightAveraging {
        let options = EMAWeightAveragingOptions::default();
        EMAWeightAveraging { weights: options.averaging(), options }
    }

    /// The device of the averages, such as `"cpu"` or `"cuda:0"`; `None` for the device of the module.
    pub fn device<'a>(mut self, device: impl Into<Option<&'a str>>) -> Self {
        self.options.device = device.into().map(str::to_owned);
        self
    }

    /// The number of averaged values.
    pub fn n_averaged(&self) -> u64 {
        self.weights.n_averaged()
    }
}

impl Callback for EMAWeightAveraging {
    fn state_dict(&self) -> Result<Dict> {
        self.weights.state_dict()
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        self.weights.load_state_dict(state)
    }

    fn setup(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        if stage == TrainerFn::Fit {
            self.options.check()?;
            self.weights = self.options.averaging();
        }
        Ok(())
    }

    fn on_fit_start(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        self.weights.on_fit_start(trainer, module)
    }

    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        outputs: &Loss,
        batch: &dyn Any,
        batch_idx: usize,
    ) -> Result<()> {
        self.weights.on_train_batch_end(trainer, module, outputs, batch, batch_idx)
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        self.weights.on_train_epoch_end(trainer, module)
    }

    fn on_train_end(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        self.weights.on_train_end(trainer, module)
    }

    fn on_validation_epoch_start(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        self.weights.on_validation_epoch_start(trainer, module)
    }

    fn on_validation_epoch_end(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        self.weights.on_validation_epoch_end(trainer, module)
    }

    fn teardown(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        self.weights.teardown(trainer, module, stage)
    }

    fn on_save_checkpoint(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        checkpoint: &mut Dict,
    ) -> Result<()> {
        self.weights.on_save_checkpoint(trainer, module, checkpoint)
    }

    fn on_load_checkpoint(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        checkpoint: &mut Dict,
    ) -> Result<()> {
        self.weights.on_load_checkpoint(trainer, module, checkpoint)
    }
}
