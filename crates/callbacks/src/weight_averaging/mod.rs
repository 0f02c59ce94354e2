//! [`WeightAveraging`]: averages the weights during training, and validates and ends with the average.

mod ema;

use std::any::Any;
use std::sync::Arc;

use derive_setters::Setters;
use fulgurite_engine::config::Configurable;
use fulgurite_engine::{Callback, Error, Loss, ModuleView, Result, TrainerFn, TrainerState};
use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, Value, to_host_f64};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::averaged_model::{AveragedModel, Averaging, Buffers, device};

pub use ema::{EMAWeightAveraging, EMAWeightAveragingOptions};

/// A point at which [`WeightAveraging`] may update the average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AveragingMoment {
    /// After this optimizer step, counted from 0.
    Step(u64),
    /// At the end of this epoch, counted from 0.
    Epoch(u64),
}

/// Keeps an average of the weights, like Lightning's callback of the same name: after every optimizer step, or whenever
/// [`should_update`](Self::should_update) returns `true`. All weights count equally unless [`avg_fn`](Self::avg_fn) is
/// set; [`EMAWeightAveraging`] keeps an exponential average.
///
/// Validation within fit sees the averaged weights, and when training ends they become the module's. A checkpoint has
/// them as `state_dict`, and the weights to continue training with as `current_model_state`; one with weights alone
/// (`save_weights_only`) has the averages.
///
/// Differences from Lightning: a checkpoint of weights alone has the weights in training there, whose score is not the
/// one that `monitor` saw. And before the first update there is no average, so validation, checkpoints and the end
/// of training see the weights in training. (Lightning then takes those that the run began with.)
///
/// ```
/// use fulgurite::callbacks::AveragingMoment;
/// use fulgurite::prelude::*;
///
/// let late = WeightAveraging::new().should_update(|at| matches!(at, AveragingMoment::Step(step) if step >= 100));
/// let trainer = Trainer::builder().callback(late);
/// ```
#[must_use]
pub struct WeightAveraging {
    options: WeightAveragingOptions,
    averaging: Averaging,
    should_update: Arc<dyn Fn(AveragingMoment) -> bool + Send + Sync>,
    average: Option<AveragedModel>,
    latest_update_step: u64,
    /// The averages are swapped into the module.
    swapped: bool,
    /// Averages restored from a checkpoint and their count, until fit starts.
    restored: Option<(Dict, u64)>,
}

/// Options of [`WeightAveraging`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(generate_delegates(ty = "WeightAveraging", field = "options"))]
#[non_exhaustive]
pub struct WeightAveragingOptions {
    /// The device of the averages, such as `cpu` or `cuda:0`; by default the device of the module.
    #[setters(skip)]
    pub device: Option<String>,
    /// Whether buffers, such as batch norm statistics, are averaged too, instead of copied at each update.
    pub use_buffers: bool,
}

impl Default for WeightAveragingOptions {
    fn default() -> WeightAveragingOptions {
        WeightAveragingOptions { device: None, use_buffers: true }
    }
}

impl Configurable for WeightAveraging {
    type Options = WeightAveragingOptions;

    fn from_options(options: WeightAveragingOptions) -> Result<WeightAveraging, Error> {
        options.device.as_deref().map(|name| device("WeightAveraging", name)).transpose()?;
        let every_step = |at| matches!(at, AveragingMoment::Step(_));
        Ok(WeightAveraging::of(options, Averaging::Equal, every_step))
    }
}

impl Default for WeightAveraging {
    fn default() -> WeightAveraging {
        WeightAveraging::new()
    }
}

impl WeightAveraging {
    /// The plain average of the weights after every optimizer step.
    pub fn new() -> WeightAveraging {
        let every_step = |at| matches!(at, AveragingMoment::Step(_));
        WeightAveraging::of(WeightAveragingOptions::default(), Averaging::Equal, every_step)
    }

    fn of(
        options: WeightAveragingOptions,
        averaging: Averaging,
        should_update: impl Fn(AveragingMoment) -> bool + Send + Sync + 'static,
    ) -> WeightAveraging {
        WeightAveraging {
            options,
            averaging,
            should_update: Arc::new(should_update),
            average: None,
            latest_update_step: 0,
            swapped: false,
            restored: None,
        }
    }

    /// The device of the averages, such as `"cpu"` or `"cuda:0"`; `None` for the device of the module.
    pub fn device<'a>(mut self, device: impl Into<Option<&'a str>>) -> Self {
        self.options.device = device.into().map(str::to_owned);
        self
    }

    /// The averaging function: computes the new average from the current average, the tensor, and the number of
    /// averaged values.
    pub fn avg_fn(mut self, avg_fn: impl Fn(&Tensor, &Tensor, u64) -> Result<Tensor> + Send + Sync + 'static) -> Self {
        self.averaging = Averaging::With(Arc::new(avg_fn));
        self
    }

    /// Decides when the average is updated. Called after each optimizer step and at the end of each epoch.
    pub fn should_update(mut self, should_update: impl Fn(AveragingMoment) -> bool + Send + Sync + 'static) -> Self {
        self.should_update = Arc::new(should_update);
        self
    }

    /// The number of averaged values.
    pub fn n_averaged(&self) -> u64 {
        self.average.as_ref().map_or(0, AveragedModel::n_averaged)
    }

    /// The average; `None` before the first update.
    fn started(&mut self) -> Option<&mut AveragedModel> {
        self.average.as_mut().filter(|average| average.n_averaged() > 0)
    }

    fn swap(&mut self) -> Result<()> {
        if let Some(average) = self.started() {
            average.swap()?;
            self.swapped = !self.swapped;
        }
        Ok(())
    }
}

impl Callback for WeightAveraging {
    fn state_dict(&self) -> Result<Dict> {
        Ok(Dict::new().with("latest_update_step", self.latest_update_step))
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        self.latest_update_step = u64::try_from(state.int("latest_update_step")?).unwrap_or(0);
        Ok(())
    }

    fn setup(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        if stage == TrainerFn::Fit {
            (self.average, self.restored, self.latest_update_step) = (None, None, 0);
        }
        Ok(())
    }

    fn on_fit_start(&mut self, _: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        let device = self.options.device.as_deref().map(|name| device("WeightAveraging", name)).transpose()?;
        let buffers = if self.options.use_buffers { Buffers::Average } else { Buffers::Follow };
        let mut average = AveragedModel::new(module.vars(), device, buffers, self.averaging.clone())?;
        if let Some((saved, n_averaged)) = self.restored.take() {
            average.load_state_dict(&saved)?;
            average.set_n_averaged(n_averaged);
        }
        self.average = Some(average);
        Ok(())
    }

    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &Loss,
        _: &dyn Any,
        _: usize,
    ) -> Result<()> {
        let steps = trainer.global_step();
        if steps > self.latest_update_step
            && (self.should_update)(AveragingMoment::Step(steps - 1))
            && let Some(average) = &mut self.average
        {
            average.update()?;
            self.latest_update_step = steps;
        }
        Ok(())
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if (self.should_update)(AveragingMoment::Epoch(trainer.current_epoch()))
            && let Some(average) = &mut self.average
        {
            average.update()?;
        }
        Ok(())
    }

    fn on_train_end(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if let Some(average) = self.started() {
            average.copy_to_model(true)?;
        }
        Ok(())
    }

    fn on_validation_epoch_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        // A validation that a signal cut short may begin again.
        if trainer.entry_point() == TrainerFn::Fit && !self.swapped { self.swap() } else { Ok(()) }
    }

    fn on_validation_epoch_end(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if self.swapped { self.swap() } else { Ok(()) }
    }

    /// A validation that failed or was interrupted leaves the averages in the module.
    fn teardown(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView, _: TrainerFn) -> Result<()> {
        if self.swapped { self.swap() } else { Ok(()) }
    }

    fn on_save_checkpoint(
        &mut self,
        _: &mut TrainerState,
        _: &mut dyn ModuleView,
        checkpoint: &mut Dict,
    ) -> Result<()> {
        let swapped = self.swapped;
        let Some(average) = &self.average else { return Ok(()) };
        let n_averaged = average.n_averaged();
        let Some(state_dict) = checkpoint.get_mut("state_dict") else { return Ok(()) };
        let current = match n_averaged {
            0 => state_dict.clone(),
            _ if swapped => Value::Dict(average.state_dict()),
            _ => std::mem::replace(state_dict, Value::Dict(average.state_dict())),
        };
        // A weights-only file has the weights that were validated.
        if checkpoint.get("optimizer_states").is_none() {
            return Ok(());
        }
        checkpoint.set("current_model_state", current);
        checkpoint.set("averaging_state", Dict::new().with("n_averaged", Tensor::from(n_averaged as i64)));
        Ok(())
    }

    fn on_load_checkpoint(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        checkpoint: &mut Dict,
    ) -> Result<()> {
        if trainer.entry_point() != TrainerFn::Fit {
            return Ok(());
        }
        let (Ok(current), Ok(averaging)) = (checkpoint.dict("current_model_state"), checkpoint.dict("averaging_state"))
        else {
            trainer.warn(
                "the checkpoint was written without averaged weights; its weights are those to train, and the average begins anew",
            );
            return Ok(());
        };
        let n_averaged = match averaging.require("n_averaged")? {
            Value::Tensor(tensor) => to_host_f64(tensor)? as u64,
            _ => u64::try_from(averaging.int("n_averaged")?)?,
        };
        trainer.load_module_state_dict(module.vars(), current, true)?;
        self.restored = Some((checkpoint.dict("state_dict")?.clone(), n_averaged));
        Ok(())
    }
}
