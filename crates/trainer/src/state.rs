//! [`TrainerState`]: the trainer as hooks see it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use fulgurite_fabric::loggers::Logger;
use fulgurite_fabric::{Clip, Fabric};
use fulgurite_metrics::LogValue;
use fulgurite_optim::{LrSchedulerConfig, Optimizer};
use fulgurite_torch::rng::RngState;
use fulgurite_torch::tch::{Device, Tensor};
use indexmap::IndexMap;

use crate::batch_norm::BatchNormRefresh;
use crate::callbacks::TuneRequest;
use crate::config::{GradientClipAlgorithm, TrainerConfig};
use crate::console::Console;
use crate::error::{Error, Result};
use crate::hook::Hook;
use crate::logging::{LogEntries, LogEntry, LogOptions, LoggedValue, Metrics};
use crate::loops::Leaving;
use crate::mistakes::Mistakes;
use crate::optimizers::OptimizerFactory;
use crate::profilers::Profiler;
use crate::progress::Progress;
use crate::saving::{SaveRequest, Tolerated};

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Training.
    Train,
    /// A few validation batches before training.
    SanityCheck,
    /// Validation.
    Validate,
    /// Test.
    Test,
    /// Prediction.
    Predict,
}

/// The entry point of a run: what `setup` and `teardown` are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrainerFn {
    /// `fit`.
    Fit,
    /// `validate`.
    Validate,
    /// `test`.
    Test,
    /// `predict`.
    Predict,
}

/// Everything of a run that must survive a crash, apart from the module and the callbacks, which keep their own.
#[derive(Default)]
pub(crate) struct RunState {
    pub progress: Progress,
    /// Each is absent while a step has it.
    pub optimizers: Vec<Option<Box<dyn Optimizer>>>,
    pub schedulers: Vec<LrSchedulerConfig>,
    /// The step of the batch in hand was skipped for an infinite gradient: it does not count, and moves no scheduler.
    pub step_skipped: bool,
    /// For how many steps each optimizer has its turn; empty when there is but one, or the module steps them itself.
    pub frequencies: Vec<u64>,
    /// Whether the module steps the optimizers itself.
    pub manual: bool,
    /// Parameters that get no gradient while another optimizer has its turn.
    pub toggled: Vec<Tensor>,
    /// Batches in the open accumulation window, and the sum of their weights.
    pub window: Window,
    /// From which epochs on `accumulate_grad_batches` has which values, where it changes during the run.
    pub accumulation: BTreeMap<u64, u64>,
    /// Batches evaluated per loader over the whole run: the x-axis of their step metrics.
    pub eval_batches: Vec<i64>,
    /// There while a validation within fit runs.
    pub before_validation: Option<BeforeValidation>,
    /// While this is there, batches are passed through `training_step` for the statistics of batch norms, and nothing
    /// is updated.
    pub batch_norm: Option<BatchNormRefresh>,
}

/// What a validation changes, as it was before: a checkpoint written in the middle is resumed from its beginning.
pub(crate) struct BeforeValidation {
    pub rng: RngState,
    pub eval_batches: Vec<i64>,
}

/// The open accumulation window.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Window {
    pub batches: u64,
    pub weight: f64,
}

/// The training loader, before and after it was asked for.
#[derive(Debug, Default)]
pub(crate) struct TrainData {
    pub ready: bool,
    pub wanted: Cell<bool>,
    /// The epoch in which the loader was asked for.
    pub epoch: u64,
}

/// Who is being called, for error messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Trainer,
    Module,
    DataModule,
    Callback(usize),
}

/// The trainer as hooks and callbacks see it: where the run is, what was logged, and a few things they may ask for.
pub struct TrainerState {
    pub(crate) config: TrainerConfig,
    pub(crate) fabric: Fabric,
    pub(crate) console: Console,
    pub(crate) profiler: Option<Box<dyn Profiler>>,
    /// Makes the optimizers in place of the module.
    pub(crate) optimizer_factory: Option<OptimizerFactory>,
    pub(crate) metrics: Metrics,
    pub(crate) mistakes: Mistakes,
    pub(crate) run: RunState,
    pub(crate) entry: TrainerFn,
    pub(crate) stage: Stage,
    pub(crate) hook: Hook,
    pub(crate) owner: Owner,
    pub(crate) batch_idx: Option<usize>,
    pub(crate) dataloader_idx: usize,
    /// The items of the prediction batch in hand.
    pub(crate) batch_indices: Option<Vec<usize>>,
    pub(crate) requests: Vec<SaveRequest>,
    pub(crate) tolerated: Tolerated,
    pub(crate) tune_requests: Vec<TuneRequest>,
    /// A trial of the tuner: why its training ends is nobody's business.
    pub(crate) quiet: bool,
    pub(crate) stop: Option<String>,
    pub(crate) leaving: Leaving,
    pub(crate) max_epochs: i64,
    pub(crate) num_training_batches: Option<usize>,
    pub(crate) train_length_is_known: bool,
    /// Whether the training loader was asked for yet, and whether somebody wants to know its length before that.
    pub(crate) train_data: TrainData,
    /// Batches per validation loader within fit, or per loader of the evaluation in hand.
    pub(crate) num_eval_batches: Vec<Option<usize>>,
    pub(crate) has_validation: bool,
    pub(crate) validation_ran: bool,
    pub(crate) last_validation: Instant,
    pub(crate) resumed_from: Option<PathBuf>,
    /// The module has no step for the loaders it was given.
    pub(crate) step_missing: bool,
    /// The module's callbacks were seen: a further entry point replaces its own by their like.
    pub(crate) module_callbacks_merged: bool,
}

impl TrainerState {
    pub(crate) fn new(config: TrainerConfig, fabric: Fabric, console: Console) -> TrainerState {
        TrainerState {
            metrics: Metrics::new(config.barebones),
            mistakes: Mistakes::default(),
            max_epochs: config.max_epochs.unwrap_or(-1),
            config,
            fabric,
            console,
            profiler: None,
            optimizer_factory: None,
            run: RunState::default(),
            entry: TrainerFn::Fit,
            stage: Stage::Train,
            hook: Hook::Setup,
            owner: Owner::Trainer,
            batch_idx: None,
            dataloader_idx: 0,
            batch_indices: None,
            requests: Vec::new(),
            tolerated: Tolerated::default(),
            tune_requests: Vec::new(),
            quiet: false,
            stop: None,
            leaving: Leaving::default(),
            num_training_batches: None,
            train_length_is_known: true,
            train_data: TrainData::default(),
            num_eval_batches: Vec::new(),
            has_validation: false,
            validation_ran: false,
            last_validation: Instant::now(),
            resumed_from: None,
            step_missing: false,
            module_callbacks_merged: false,
        }
    }

    // Where the run is ------------------------------------------------------------------------------------------------

    /// Epochs completed: the epoch in hand, 0-based.
    pub fn current_epoch(&self) -> u64 {
        self.run.progress.epoch.current.completed
    }

    /// Optimizer steps taken, over restarts.
    pub fn global_step(&self) -> u64 {
        self.run.progress.optimizer_step.total.completed + self.run.progress.manual_step.total.completed
    }

    /// How far the run has come, in every unit.
    pub fn progress(&self) -> &Progress {
        &self.run.progress
    }

    /// What the run is doing.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The entry point it began with.
    pub fn entry_point(&self) -> TrainerFn {
        self.entry
    }

    /// Whether this is the validation before training.
    pub fn is_sanity_checking(&self) -> bool {
        self.stage == Stage::SanityCheck
    }

    /// Whether the training batch in hand is the epoch's last.
    pub fn is_last_batch(&self) -> bool {
        self.run.progress.is_last_batch
    }

    /// Training batches per epoch after limits; `None` when the loader does not know.
    pub fn num_training_batches(&self) -> Option<usize> {
        self.num_training_batches
    }

    /// Batches per loader after limits: of validation within fit, of the evaluation or prediction in hand outside it.
    /// `None` for a loader that does not know.
    pub fn num_eval_batches(&self) -> &[Option<usize>] {
        &self.num_eval_batches
    }

    /// Validation batches per loader of the check before training.
    pub fn num_sanity_val_batches(&self) -> Vec<Option<usize>> {
        let steps = usize::try_from(self.config.num_sanity_val_steps).unwrap_or(usize::MAX);
        let limit = |batches: &Option<usize>| match batches {
            None if steps == usize::MAX => None,
            batches => Some(batches.map_or(steps, |batches| batches.min(steps))),
        };
        self.num_eval_batches.iter().map(limit).collect()
    }

    /// Which items of the dataset the prediction batch in hand holds; `None` outside prediction, and where the loader
    /// cannot know.
    pub fn batch_indices(&self) -> Option<&[usize]> {
        self.batch_indices.as_deref()
    }

    /// The epoch limit in force; -1 for none.
    pub fn max_epochs(&self) -> i64 {
        self.max_epochs
    }

    /// How many batches make an optimizer step in the epoch in hand.
    pub fn accumulate_grad_batches(&self) -> u64 {
        let scheduled = self.run.accumulation.range(..=self.current_epoch()).next_back();
        scheduled.map_or(self.config.accumulate_grad_batches, |(_, factor)| *factor)
    }

    /// Optimizer steps that fit will take, with the changes of a
    /// [`GradientAccumulationScheduler`](crate::callbacks::GradientAccumulationScheduler); `None` when nobody can know.
    /// Lightning returns -1 or infinity then.
    ///
    /// # Errors
    ///
    /// In `configure_optimizers`, that the training loader was not asked for yet. Return the error: the trainer asks for
    /// the loader, and calls `configure_optimizers` again. Elsewhere it is known from `on_train_start` on.
    pub fn estimated_stepping_batches(&self) -> Result<Option<u64>, Error> {
        if !self.train_data.ready && self.max_epochs >= 0 {
            self.train_data.wanted.set(true);
            return Err(Error::TrainDataNeeded);
        }
        Ok(self.stepping_batches())
    }

    fn stepping_batches(&self) -> Option<u64> {
        let max_steps = u64::try_from(self.config.max_steps).ok();
        let by_epochs = u64::try_from(self.max_epochs)
            .ok()
            .and_then(|epochs| Some(self.steps_of_epochs(epochs.max(1), self.num_training_batches? as u64)));
        match (by_epochs, max_steps) {
            (Some(steps), Some(max)) => Some(steps.min(max)),
            (steps, max) => steps.or(max),
        }
    }

    /// The optimizer steps of so many epochs. Each value of `accumulate_grad_batches` holds until the next begins.
    fn steps_of_epochs(&self, epochs: u64, batches: u64) -> u64 {
        let scheduled = self.run.accumulation.iter().map(|(epoch, factor)| (*epoch, *factor));
        let mut steps = 0;
        let (mut since, mut factor) = (0, self.config.accumulate_grad_batches);
        for (next, next_factor) in scheduled.chain([(epochs, 1)]) {
            let next = next.min(epochs);
            steps += (next - since) * batches.div_ceil(factor);
            (since, factor) = (next, next_factor);
        }
        steps
    }

    /// The trainer's arguments, with `fast_dev_run` and the like spelled out.
    pub fn config(&self) -> &TrainerConfig {
        &self.config
    }

    /// Whether fit validates at all.
    pub fn enable_validation(&self) -> bool {
        self.has_validation
    }

    // What was logged -------------------------------------------------------------------------------------------------

    /// Records a value under `name`, as [`Step::log`](crate::Step::log) does.
    pub fn log<'b>(&'b mut self, name: &'b str, value: impl Into<LogValue<'b>>) -> LogEntry<'b> {
        LogEntry {
            hook: self.hook,
            metrics: &mut self.metrics,
            name,
            value: value.into(),
            options: LogOptions::default(),
        }
    }

    /// Records several values with the same options.
    pub fn log_many<'b, V: Into<LogValue<'b>>>(
        &'b mut self,
        values: impl IntoIterator<Item = (&'b str, V)>,
    ) -> LogEntries<'b> {
        LogEntries {
            hook: self.hook,
            metrics: &mut self.metrics,
            values: values.into_iter().map(|(name, value)| (name, value.into())).collect(),
            options: LogOptions::default(),
        }
    }

    /// The latest value of everything logged: `name`, and `name_step` or `name_epoch` where both are recorded.
    pub fn callback_metrics(&mut self) -> Result<&BTreeMap<String, LoggedValue>, Error> {
        self.metrics.callback_metrics()
    }

    /// The latest value of everything logged with `prog_bar`, in the order first logged.
    pub fn progress_bar_metrics(&mut self) -> Result<&IndexMap<String, LoggedValue>, Error> {
        self.metrics.progress_bar_metrics()
    }

    /// What was last sent to loggers.
    pub fn logged_metrics(&self) -> &BTreeMap<String, f64> {
        self.metrics.logged_metrics()
    }

    /// Makes a value known to monitoring callbacks without logging it.
    pub fn set_callback_metric(&mut self, name: &str, value: f64) {
        self.metrics.set_callback_metric(name, value);
    }

    /// The loggers.
    pub fn loggers(&mut self) -> &mut [Box<dyn Logger>] {
        &mut self.fabric.loggers
    }

    /// Whether what is logged per step is written now: at every `log_every_n_steps`-th optimizer step of training, or
    /// batch of an evaluation.
    pub fn should_update_logs(&self) -> bool {
        let n = self.config.log_every_n_steps;
        let count = match self.stage {
            Stage::Train => self.run.progress.batches_that_stepped + 1,
            Stage::Predict => self.batch_idx.map_or(0, |batch_idx| batch_idx as u64 + 1),
            Stage::SanityCheck | Stage::Validate | Stage::Test => self.run.progress.val_batch.current.ready,
        };
        n > 0 && (count.is_multiple_of(n) || self.should_stop())
    }

    /// Samples in the batch in hand, as [`Batch::size`](fulgurite_data::Batch::size) counts them.
    pub fn batch_size(&self) -> Option<u64> {
        let store = if self.metrics.evaluating { &self.metrics.eval } else { &self.metrics.train };
        store.batch_size.and_then(|size| u64::try_from(size).ok())
    }

    /// Writes values to the loggers at `x`, for callbacks; `epoch` goes with them if given.
    pub(crate) fn write_row<'a>(
        &mut self,
        row: impl Iterator<Item = (&'a str, f64)>,
        x: u64,
        epoch: Option<u64>,
    ) -> Result<(), Error> {
        self.metrics.write_row(&mut self.fabric.loggers, row.collect(), x as i64, epoch)
    }

    /// The folder of this run: the first logger's, or `default_root_dir` without one.
    pub fn log_dir(&self) -> PathBuf {
        let first = self.fabric.loggers.first().and_then(|logger| logger.log_dir());
        first.map_or_else(|| self.default_root_dir(), Path::to_path_buf)
    }

    /// `default_root_dir`, or the current folder.
    pub fn default_root_dir(&self) -> PathBuf {
        self.config.default_root_dir.clone().unwrap_or_else(|| ".".into())
    }

    // What it stands on -----------------------------------------------------------------------------------------------

    /// The fabric.
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// The device of this process.
    pub fn device(&self) -> Device {
        self.fabric.device()
    }

    /// Whether this process writes logs and checkpoints.
    pub fn is_global_zero(&self) -> bool {
        self.fabric.is_global_zero()
    }

    /// The optimizers that no step is using right now.
    pub fn optimizers(&mut self) -> impl Iterator<Item = &mut (dyn Optimizer + 'static)> {
        self.run.optimizers.iter_mut().filter_map(|slot| slot.as_deref_mut())
    }

    /// One of them; `None` when there are fewer, or it is in the middle of a step.
    pub fn optimizer(&mut self, index: usize) -> Option<&mut (dyn Optimizer + 'static)> {
        self.run.optimizers.get_mut(index)?.as_deref_mut()
    }

    /// The optimizer whose turn it is: 0, unless several take turns.
    pub fn optimizer_idx(&self) -> usize {
        self.optimizer_at(self.global_step())
    }

    /// The optimizer that takes the step after `step` others.
    fn optimizer_at(&self, step: u64) -> usize {
        let cycle: u64 = self.run.frequencies.iter().sum();
        let mut place = step % cycle.max(1);
        self.run
            .frequencies
            .iter()
            .position(|&turn| {
                let its_turn = place < turn;
                place = place.saturating_sub(turn);
                its_turn
            })
            .unwrap_or(0)
    }

    /// How many steps an optimizer has taken, and whether the last step was its own.
    pub(crate) fn steps_of_optimizer(&self, index: usize) -> (u64, bool) {
        let steps = self.global_step();
        if self.run.frequencies.is_empty() {
            return (steps, true);
        }
        let cycle: u64 = self.run.frequencies.iter().sum();
        let turn = self.run.frequencies.get(index).copied().unwrap_or(0);
        let before: u64 = self.run.frequencies.iter().take(index).sum();
        let of_this_cycle = (steps % cycle).saturating_sub(before).min(turn);
        (steps / cycle * turn + of_this_cycle, steps > 0 && self.optimizer_at(steps - 1) == index)
    }

    /// The schedulers.
    pub fn lr_schedulers(&self) -> &[LrSchedulerConfig] {
        &self.run.schedulers
    }

    /// Takes an optimizer out of its slot for as long as `f` needs it. `None` when there is no such optimizer, or it is
    /// in the middle of a step.
    pub(crate) fn lend_optimizer<T>(
        &mut self,
        index: usize,
        f: impl FnOnce(&mut TrainerState, &mut dyn Optimizer) -> T,
    ) -> Option<T> {
        let mut optimizer = self.run.optimizers.get_mut(index)?.take()?;
        // Even a panic must not lose it: a checkpoint may still be written on the way out.
        let returned = catch_unwind(AssertUnwindSafe(|| f(self, optimizer.as_mut())));
        if let Some(slot) = self.run.optimizers.get_mut(index) {
            *slot = Some(optimizer);
        }
        Some(returned.unwrap_or_else(|panic| resume_unwind(panic)))
    }

    // What may be asked for -------------------------------------------------------------------------------------------

    /// Asks the run to stop after the batch in hand, once `min_epochs` and `min_steps` are met.
    pub fn request_stop(&mut self, reason: impl Into<String>) {
        self.stop.get_or_insert_with(|| reason.into());
    }

    /// Whether someone asked the run to stop.
    pub fn should_stop(&self) -> bool {
        self.stop.is_some()
    }

    /// Whether a signal (Ctrl-C, SIGTERM) asks the run to end.
    pub fn is_interrupted(&self) -> bool {
        self.leaving.signals.wish().is_some()
    }

    /// Asks for a checkpoint, written as soon as the hook in hand returns.
    pub fn request_checkpoint(&mut self, request: SaveRequest) {
        self.requests.push(request);
    }

    /// The checkpoint this run was resumed from.
    pub fn resumed_from(&self) -> Option<&Path> {
        self.resumed_from.as_deref()
    }

    /// Prints a line above the progress bar, on rank zero.
    pub fn print(&self, line: &str) {
        if self.is_global_zero() {
            self.console.print(line);
        }
    }

    /// Warns, once per run and text, on rank zero.
    pub fn warn(&self, message: &str) {
        if self.is_global_zero() {
            self.console.warn(message);
        }
    }

    /// The console that lines and bars share.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// The backward pass of a loss, as the precision wants it. The loss that hooks are given has its scale already.
    pub fn backward(&mut self, loss: &Tensor) -> Result<()> {
        Ok(self.fabric.backward_scaled(loss)?)
    }

    /// Drops all gradients.
    pub fn zero_grad(&mut self) {
        self.optimizers().for_each(|optimizer| optimizer.zero_grad());
    }

    /// Clips the gradients of an optimizer's parameters, without their scale; nothing without a positive value.
    pub fn clip_gradients(
        &mut self,
        optimizer: &mut dyn Optimizer,
        gradient_clip_val: Option<f64>,
        gradient_clip_algorithm: GradientClipAlgorithm,
    ) -> Result<()> {
        let Some(value) = gradient_clip_val.filter(|value| *value > 0.0) else { return Ok(()) };
        let clip = match gradient_clip_algorithm {
            GradientClipAlgorithm::Norm => Clip::norm(value),
            GradientClipAlgorithm::Value => Clip::value(value),
        };
        self.fabric.clip_gradients(optimizer, clip)?;
        Ok(())
    }
}
