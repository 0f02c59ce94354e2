//! [`TrainerState`]: the trainer as hooks see it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fulgurite_fabric::Fabric;
use fulgurite_optim::{LrSchedulerConfig, Optimizer};
use fulgurite_torch::Dict;
use fulgurite_torch::rng::RngState;
use fulgurite_torch::tch::{Device, Tensor};

use crate::batch_norm::BatchNormRefresh;
use crate::callbacks::TuneRequest;
use crate::ckpt_path::Configuration;
use crate::config::TrainerConfig;
use crate::console::Console;
use crate::hook::Hook;
use crate::logging::Metrics;
use crate::loops::{Leaving, Length};
use crate::mistakes::Mistakes;
use crate::optimizers::OptimizerFactory;
use crate::profilers::Profiler;
use crate::progress::Progress;
use crate::ranks::Agreement;
use crate::saving::{SaveRequest, Tolerated};

mod logged;
mod optimization;
mod position;

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
    /// The least that it has in any process, and whether all are sure of theirs.
    pub len: Length,
    /// What the run that is resumed had.
    pub saved: Option<SavedData>,
}

/// What a checkpoint remembers of the training loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SavedData {
    /// The epoch in which it was asked for.
    pub epoch: u64,
    /// How many batches it said it had.
    pub len: Option<usize>,
    /// How many of them made an epoch.
    pub batches: Option<usize>,
}

impl TrainData {
    /// What there is now, `batches` of which make an epoch.
    pub(crate) fn to_save(&self, batches: Option<usize>) -> SavedData {
        SavedData { epoch: self.epoch, len: self.len.said, batches }
    }
}

impl SavedData {
    /// For a checkpoint.
    pub(crate) fn to_dict(self) -> Dict {
        Dict::new().with("epoch", self.epoch).with("len", self.len).with("batches", self.batches)
    }

    /// In a sentence.
    pub(crate) fn describe(self) -> String {
        let number = |count: Option<usize>| count.map_or("an unknown number of".to_owned(), |count| count.to_string());
        match self.len == self.batches {
            true => format!("{} batches", number(self.len)),
            false => format!("{} batches of {}", number(self.batches), number(self.len)),
        }
    }
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
    pub(crate) agreement: Agreement,
    pub(crate) max_epochs: i64,
    pub(crate) num_training_batches: Option<usize>,
    /// Whether the training loader was asked for yet, and whether somebody wants to know its length before that.
    pub(crate) train_data: TrainData,
    /// Batches per validation loader within fit, or per loader of the evaluation in hand.
    pub(crate) num_eval_batches: Vec<Option<usize>>,
    pub(crate) has_validation: bool,
    pub(crate) validation_ran: bool,
    pub(crate) last_validation: Instant,
    pub(crate) resumed_from: Option<PathBuf>,
    /// The checkpoint that was read last.
    pub(crate) loaded_from: Option<PathBuf>,
    /// What tells the files of this run, and of those it goes on with, from others; none before the first checkpoint.
    pub(crate) run_id: Option<String>,
    /// What this entry point was called with.
    pub(crate) configuration: Configuration,
    /// The module has no step for the loaders it was given.
    pub(crate) step_missing: bool,
    /// The module's callbacks were seen: a further entry point replaces its own by their like.
    pub(crate) module_callbacks_merged: bool,
}

impl TrainerState {
    pub(crate) fn new(config: TrainerConfig, fabric: Fabric, console: Console) -> TrainerState {
        TrainerState {
            metrics: Metrics::new(config.barebones, !fabric.is_global_zero()),
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
            agreement: Agreement::default(),
            num_training_batches: None,
            train_data: TrainData::default(),
            num_eval_batches: Vec::new(),
            has_validation: false,
            validation_ran: false,
            last_validation: Instant::now(),
            resumed_from: None,
            loaded_from: None,
            run_id: None,
            configuration: Configuration::default(),
            step_missing: false,
            module_callbacks_merged: false,
        }
    }

    /// The trainer's arguments, with `fast_dev_run` and the like spelled out.
    pub fn config(&self) -> &TrainerConfig {
        &self.config
    }

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

    /// The folder of this run: the first logger's, or `default_root_dir` without one.
    pub fn log_dir(&self) -> PathBuf {
        let first = self.fabric.loggers.first().and_then(|logger| logger.log_dir());
        first.map_or_else(|| self.default_root_dir(), Path::to_path_buf)
    }

    /// `default_root_dir`, or the current folder.
    pub fn default_root_dir(&self) -> PathBuf {
        self.config.default_root_dir.clone().unwrap_or_else(|| ".".into())
    }

    /// Asks the run to stop after the batch in hand, once `min_epochs` and `min_steps` are met. With several processes, any
    /// may ask, and all stop after the batch in which they learn of it, which is the next.
    pub fn request_stop(&mut self, reason: impl Into<String>) {
        self.wish_to_stop(reason.into());
    }

    /// Whether the run is to stop.
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
}
