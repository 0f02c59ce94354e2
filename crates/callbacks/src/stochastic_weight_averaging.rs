//! [`StochasticWeightAveraging`]: averages the weights of the last epochs, trained at a constant learning rate.

use std::any::Any;
use std::sync::Arc;

use derive_setters::Setters;
use fulgurite_engine::config::{Configurable, Maximum};
use fulgurite_engine::{Callback, Error, ModuleView, Result, TrainerFn, TrainerState, batch_norms};
use fulgurite_optim::{AnnealStrategy, Interval, LrScheduler, LrSchedulerConfig, PerGroup, SWALR};
use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::averaged_model::{AveragedModel, Averaging, Buffers, device};

const NAME: &str = "StochasticWeightAveraging";

/// Trains the last epochs at a separate learning rate, and averages the weights at the start of each of them:
/// [stochastic weight averaging](https://arxiv.org/abs/1803.05407), like Lightning's callback of the same name.
///
/// From `swa_epoch_start` on, the module's scheduler is replaced by one that anneals to `swa_lrs` and stays there. At
/// the end of training the averages become the module's weights. If the module has batch norms (variables named
/// `running_mean` and `running_var`), fit takes one epoch more: with the averaged weights the training data passes
/// through `training_step` once, without backward passes and updates, and the batch norms' statistics are computed
/// anew. (The first batch passes twice, the first time to find out the layers' momentum.)
///
/// Differences from Lightning: the extra epoch changes no weight, where Lightning's ends in one more step with the last
/// gradients unless validation dropped them; loaders need not know their length; batch norms that `training_step`
/// does not use keep their statistics; and a run can be resumed within any epoch.
///
/// ```
/// use fulgurite::prelude::*;
///
/// let swa = StochasticWeightAveraging::new(0.01).swa_epoch_start(0.75).annealing_epochs(3);
/// let trainer = Trainer::builder().max_epochs(20).callback(swa);
/// ```
#[must_use]
pub struct StochasticWeightAveraging {
    options: StochasticWeightAveragingOptions,
    averaging: Averaging,
    average: Option<AveragedModel>,
    /// Whether the SWA scheduler has replaced the module's.
    initialized: bool,
    /// The first epoch, counted from 0, whose weights are averaged.
    swa_start: u64,
    /// `max_epochs` without the extra epoch.
    max_epochs: Maximum,
    refreshes_batch_norm: bool,
    latest_update_epoch: Option<u64>,
    /// State restored from a checkpoint, until fit starts.
    restored: Option<Restored>,
}

struct Restored {
    n_averaged: u64,
    average: Option<Dict>,
    has_scheduler: bool,
}

/// Options of [`StochasticWeightAveraging`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(generate_delegates(ty = "StochasticWeightAveraging", field = "options"))]
#[non_exhaustive]
pub struct StochasticWeightAveragingOptions {
    /// The learning rate to anneal to: one for all parameter groups, or one per group.
    #[setters(skip)]
    pub swa_lrs: SwaLrs,
    /// The epoch at which averaging starts, counted from 1; or, as a float such as 0.8, the fraction of `max_epochs`
    /// before it.
    #[setters(into)]
    pub swa_epoch_start: EpochStart,
    /// The number of epochs in which the learning rate anneals to `swa_lrs`.
    pub annealing_epochs: u32,
    /// The annealing strategy of the learning rate.
    pub annealing_strategy: AnnealingStrategy,
    /// The device of the averages, such as `cpu` or `cuda:0`; by default the device of the module.
    #[setters(skip)]
    pub device: Option<String>,
}

/// The learning rates of [`StochasticWeightAveraging`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SwaLrs {
    /// One learning rate for all parameter groups.
    Same(f64),
    /// One learning rate per parameter group.
    Each(Vec<f64>),
}

/// When [`StochasticWeightAveraging`] starts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum EpochStart {
    /// At this epoch, counted from 1.
    Epoch(u64),
    /// After this fraction of `max_epochs`, from 0.0 to 1.0.
    Fraction(f64),
}

/// The annealing curve from one learning rate to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnnealingStrategy {
    /// Cosine annealing.
    Cos,
    /// Linear annealing.
    Linear,
}

impl From<f64> for SwaLrs {
    fn from(lr: f64) -> SwaLrs {
        SwaLrs::Same(lr)
    }
}

impl From<Vec<f64>> for SwaLrs {
    fn from(lrs: Vec<f64>) -> SwaLrs {
        SwaLrs::Each(lrs)
    }
}

impl From<u64> for EpochStart {
    fn from(epoch: u64) -> EpochStart {
        EpochStart::Epoch(epoch)
    }
}

/// A negative epoch becomes 0, which is rejected.
impl From<i32> for EpochStart {
    fn from(epoch: i32) -> EpochStart {
        EpochStart::Epoch(u64::try_from(epoch).unwrap_or(0))
    }
}

impl From<f64> for EpochStart {
    fn from(fraction: f64) -> EpochStart {
        EpochStart::Fraction(fraction)
    }
}

impl Default for StochasticWeightAveragingOptions {
    fn default() -> StochasticWeightAveragingOptions {
        StochasticWeightAveragingOptions {
            swa_lrs: SwaLrs::Each(Vec::new()),
            swa_epoch_start: EpochStart::Fraction(0.8),
            annealing_epochs: 10,
            annealing_strategy: AnnealingStrategy::Cos,
            device: Some("cpu".into()),
        }
    }
}

impl Configurable for StochasticWeightAveraging {
    type Options = StochasticWeightAveragingOptions;

    fn from_options(options: StochasticWeightAveragingOptions) -> Result<StochasticWeightAveraging, Error> {
        options.check()?;
        Ok(StochasticWeightAveraging::of(options))
    }
}

impl StochasticWeightAveragingOptions {
    fn check(&self) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::Config(format!("{NAME}: {message}")));
        let lrs = match &self.swa_lrs {
            SwaLrs::Same(lr) => std::slice::from_ref(lr),
            SwaLrs::Each(lrs) => lrs,
        };
        if lrs.is_empty() || lrs.iter().any(|lr| lr.is_nan() || *lr <= 0.0) {
            return wrong(format!(
                "swa_lrs is {lrs:?}; write a learning rate above 0, or one for each parameter group"
            ));
        }
        let start = match self.swa_epoch_start {
            EpochStart::Epoch(0) => Some("0".to_owned()),
            EpochStart::Fraction(fraction) if !(0.0..=1.0).contains(&fraction) => Some(fraction.to_string()),
            _ => None,
        };
        if let Some(start) = start {
            return wrong(format!(
                "swa_epoch_start is {start}; write an epoch counted from 1, or a part of max_epochs from 0.0 to 1.0"
            ));
        }
        self.device.as_deref().map(|name| device(NAME, name)).transpose().map(drop)
    }

    /// The first epoch to average, counted from 0.
    fn start(&self, max_epochs: Maximum) -> Result<u64, Error> {
        let start = match (self.swa_epoch_start, max_epochs) {
            (EpochStart::Epoch(epoch), _) => epoch,
            (EpochStart::Fraction(fraction), Maximum::Of(epochs)) => (epochs as f64 * fraction) as u64,
            (EpochStart::Fraction(fraction), Maximum::Unlimited) => {
                return Err(Error::Config(format!(
                    "{NAME}: swa_epoch_start is {fraction}, a part of max_epochs, and without a limit (`Maximum::Unlimited`, -1 in files) max_epochs has no parts; write a number of epochs"
                )));
            }
        };
        Ok(start.saturating_sub(1))
    }

    /// The learning rates that are given for each of `groups` parameter groups.
    fn lrs(&self, groups: usize) -> Result<Vec<f64>, Error> {
        match &self.swa_lrs {
            SwaLrs::Same(lr) => Ok(vec![*lr; groups]),
            SwaLrs::Each(lrs) if lrs.len() == groups => Ok(lrs.clone()),
            SwaLrs::Each(lrs) => Err(Error::Config(format!(
                "{NAME}: swa_lrs has {} values, and the optimizer has {groups} parameter groups; write one for each, or one number for all",
                lrs.len()
            ))),
        }
    }

    fn scheduler(&self, groups: usize, max_epochs: Maximum) -> Result<(Vec<f64>, SWALR), Error> {
        let lrs = self.lrs(groups)?;
        let swa_lr = match &self.swa_lrs {
            SwaLrs::Same(lr) => PerGroup::Same(*lr),
            SwaLrs::Each(lrs) => PerGroup::Each(lrs.clone()),
        };
        // PyTorch's initial count; visible only in checkpoints.
        let scheduler = SWALR::new(swa_lr).anneal_epochs(self.annealing_epochs);
        let epochs = max_epochs.finite().and_then(|epochs| u32::try_from(epochs).ok());
        let scheduler = match (self.annealing_strategy, epochs) {
            (AnnealingStrategy::Linear, _) => scheduler.anneal_strategy(AnnealStrategy::Linear),
            (AnnealingStrategy::Cos, Some(epochs)) => scheduler.last_epoch(epochs),
            (AnnealingStrategy::Cos, None) => scheduler,
        };
        Ok((lrs, scheduler))
    }
}

impl StochasticWeightAveraging {
    /// Anneals to `swa_lrs`, one learning rate or one for each parameter group.
    pub fn new(swa_lrs: impl Into<SwaLrs>) -> StochasticWeightAveraging {
        StochasticWeightAveraging::of(StochasticWeightAveragingOptions {
            swa_lrs: swa_lrs.into(),
            ..Default::default()
        })
    }

    fn of(options: StochasticWeightAveragingOptions) -> StochasticWeightAveraging {
        StochasticWeightAveraging {
            options,
            averaging: Averaging::Equal,
            average: None,
            initialized: false,
            swa_start: 0,
            max_epochs: Maximum::Unlimited,
            refreshes_batch_norm: false,
            latest_update_epoch: None,
            restored: None,
        }
    }

    /// The device of the averages, such as `"cpu"` or `"cuda:0"`; `None` for the device of the module.
    pub fn device<'a>(mut self, device: impl Into<Option<&'a str>>) -> Self {
        self.options.device = device.into().map(str::to_owned);
        self
    }

    /// The averaging function: computes the new average from the current average, the parameter, and the number of
    /// averaged values. The default is the equally weighted mean.
    pub fn avg_fn(mut self, avg_fn: impl Fn(&Tensor, &Tensor, u64) -> Result<Tensor> + Send + Sync + 'static) -> Self {
        self.averaging = Averaging::With(Arc::new(avg_fn));
        self
    }

    /// The number of epochs averaged so far.
    pub fn n_averaged(&self) -> u64 {
        self.average.as_ref().map_or(0, AveragedModel::n_averaged)
    }

    fn is_active(&self, epoch: u64) -> bool {
        epoch >= self.swa_start && !self.max_epochs.is_reached_by(epoch)
    }

    /// Whether `epoch` is the extra one.
    fn is_refresh(&self, epoch: u64) -> bool {
        self.refreshes_batch_norm && self.max_epochs == Maximum::Of(epoch)
    }

    /// Replaces the module's scheduler with the SWA scheduler.
    fn install_scheduler(&mut self, trainer: &mut TrainerState) -> Result<()> {
        let max_epochs = trainer.max_epochs();
        let options = &self.options;
        let installed = trainer.with_optimizer(0, |trainer, optimizer| -> Result<()> {
            let (lrs, mut scheduler) = options.scheduler(optimizer.param_groups().len(), max_epochs)?;
            for (group, lr) in optimizer.param_groups_mut().iter_mut().zip(lrs) {
                group.initial_lr = Some(lr);
            }
            scheduler.attach(optimizer)?;
            if let Some(old) = trainer.lr_schedulers().first() {
                if old.interval != Interval::Epoch || old.frequency != 1 {
                    trainer.warn(&format!("{NAME} anneals once per epoch, unlike the scheduler it replaces: {old:?}"));
                }
                trainer.print(&format!("swapping scheduler `{}` for `{}`", old.scheduler.name(), scheduler.name()));
            }
            trainer.set_lr_schedulers(vec![LrSchedulerConfig::new(scheduler)]);
            Ok(())
        });
        self.initialized = true;
        installed?
    }

    fn check(&self, trainer: &TrainerState, module: &dyn ModuleView) -> Result<(), Error> {
        let (optimizers, schedulers) = (trainer.num_optimizers(), trainer.lr_schedulers().len());
        let wrong = |message: String| Err(Error::Config(format!("{NAME}: {message}")));
        if optimizers != 1 {
            return wrong(format!(
                "it averages the weights of one optimizer, and configure_optimizers returned {optimizers}"
            ));
        }
        if schedulers > 1 {
            return wrong(format!("it replaces one scheduler, and configure_optimizers returned {schedulers}"));
        }
        if self.refreshes_batch_norm && !module.automatic_optimization() {
            return wrong(format!(
                "the statistics of batch norms are computed without updates, and {} steps its optimizer itself; turn automatic_optimization on, or use WeightAveraging",
                module.name()
            ));
        }
        Ok(())
    }
}

impl Callback for StochasticWeightAveraging {
    fn state_dict(&self) -> Result<Dict> {
        let average = self.average.as_ref().map(AveragedModel::state_dict);
        Ok(Dict::new()
            .with("n_averaged", self.n_averaged())
            .with("latest_update_epoch", self.latest_update_epoch.map_or(-1, |epoch| epoch as i64))
            .with("scheduler_state", ())
            .with("average_model_state", average.map_or(Value::None, Value::Dict)))
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        self.latest_update_epoch = u64::try_from(state.int("latest_update_epoch")?).ok();
        self.restored = Some(Restored {
            n_averaged: u64::try_from(state.int("n_averaged")?).unwrap_or(0),
            average: dict_or_none(state, "average_model_state")?.cloned(),
            has_scheduler: dict_or_none(state, "scheduler_state")?.is_some(),
        });
        Ok(())
    }

    fn setup(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        if stage == TrainerFn::Fit {
            self.options.check()?;
            (self.initialized, self.latest_update_epoch, self.restored) = (false, None, None);
        }
        Ok(())
    }

    fn on_fit_start(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        self.max_epochs = trainer.max_epochs();
        self.swa_start = self.options.start(self.max_epochs)?;
        self.refreshes_batch_norm = self.max_epochs != Maximum::Unlimited && !batch_norms(module.vars()).is_empty();
        self.check(trainer, module)?;
        if self.refreshes_batch_norm
            && let Maximum::Of(epochs) = self.max_epochs
        {
            trainer.set_max_epochs(epochs.saturating_add(1));
        }
        let device = self.options.device.as_deref().map(|name| device(NAME, name)).transpose()?;
        let mut average = AveragedModel::new(module.vars(), device, Buffers::Leave, self.averaging.clone())?;
        if let Some(restored) = self.restored.take() {
            if let Some(saved) = &restored.average {
                average.load_state_dict(saved)?;
            }
            average.set_n_averaged(restored.n_averaged);
            if restored.has_scheduler {
                // Its state is restored with the optimizer's.
                self.install_scheduler(trainer)?;
            }
        }
        self.average = Some(average);
        Ok(())
    }

    /// When resuming within the extra epoch, its start hook is not called again.
    fn on_train_start(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        let epoch = trainer.progress().epoch.current;
        if self.is_refresh(trainer.current_epoch()) && epoch.started > epoch.completed {
            let passed = trainer.progress().batch.current.processed;
            trainer.begin_batch_norm_refresh(module.vars(), passed)?;
        }
        Ok(())
    }

    fn on_train_epoch_start(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        let epoch = trainer.current_epoch();
        if self.is_active(epoch) {
            if !self.initialized {
                if epoch != self.swa_start {
                    trainer.warn(&format!(
                        "{NAME} begins in epoch {epoch}, after its start in epoch {}, because the checkpoint holds none of its state",
                        self.swa_start
                    ));
                }
                self.install_scheduler(trainer)?;
            }
            if self.latest_update_epoch.is_none_or(|latest| epoch > latest) {
                if let Some(average) = &mut self.average {
                    average.update()?;
                }
                self.latest_update_epoch = Some(epoch);
            }
        }
        if self.is_refresh(epoch) {
            if let Some(average) = &mut self.average {
                average.copy_to_model(false)?;
            }
            trainer.begin_batch_norm_refresh(module.vars(), 0)?;
        }
        Ok(())
    }

    /// Other callbacks add parameter groups at the start of an epoch.
    fn on_train_batch_start(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &dyn Any,
        batch_idx: usize,
    ) -> Result<()> {
        if self.initialized && batch_idx == 0 {
            let groups = trainer.with_optimizer(0, |_, optimizer| optimizer.param_groups().len())?;
            self.options.lrs(groups)?;
        }
        Ok(())
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        trainer.end_batch_norm_refresh();
        Ok(())
    }

    fn on_train_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if self.refreshes_batch_norm {
            trainer.set_max_epochs(self.max_epochs);
        }
        let epochs = trainer.current_epoch();
        let extra = u64::from(self.refreshes_batch_norm);
        let done = self.max_epochs.finite().is_none_or(|max| epochs == max.saturating_add(extra));
        match &mut self.average {
            Some(average) if done && !self.refreshes_batch_norm && average.n_averaged() > 0 => {
                average.copy_to_model(false)?;
            }
            Some(average) if !done && average.n_averaged() > 0 => trainer
                .warn(&format!("training ended before its last epoch, so the weights are not the averages of {NAME}")),
            _ => {}
        }
        Ok(())
    }

    /// The scheduler is not accessible in [`state_dict`](Callback::state_dict).
    fn on_save_checkpoint(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        checkpoint: &mut Dict,
    ) -> Result<()> {
        let scheduler = trainer.lr_schedulers().first().filter(|_| self.initialized);
        if let Some(scheduler) = scheduler
            && let Some(Value::Dict(callbacks)) = checkpoint.get_mut("callbacks")
            && let Some(Value::Dict(own)) = callbacks.get_mut(NAME)
        {
            own.set("scheduler_state", scheduler.scheduler.state_dict()?);
        }
        Ok(())
    }
}

fn dict_or_none<'s>(state: &'s Dict, key: &str) -> Result<Option<&'s Dict>> {
    match state.require(key)? {
        Value::None => Ok(None),
        _ => Ok(Some(state.dict(key)?)),
    }
}
