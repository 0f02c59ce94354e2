//! [`TrainerBuilder`]: the trainer's arguments, one setter each.

use std::path::PathBuf;
use std::time::Duration;

use fulgurite_fabric::loggers::{CsvLogger, DummyLogger, Logger, TensorBoardLogger};
use fulgurite_fabric::{Devices, Fabric};

use crate::callbacks::{Callback, ModelCheckpoint, ModelSummary, ProgressBar, Role, Timer};
use crate::config::{Deterministic, GradientClipAlgorithm, Limit, TrainerConfig, ValCheckInterval};
use crate::console::Console;
use crate::error::Error;
use crate::state::TrainerState;
use crate::trainer::Trainer;

/// The trainer's arguments. Each setter is one argument of Lightning's `Trainer`; [`TrainerConfig`] documents them.
#[derive(Default)]
#[must_use]
pub struct TrainerBuilder {
    config: TrainerConfig,
    callbacks: Vec<Box<dyn Callback>>,
    loggers: Loggers,
    console: Option<Console>,
}

#[derive(Default)]
enum Loggers {
    /// TensorBoard and CSV.
    #[default]
    Default,
    Given(Vec<Box<dyn Logger>>),
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty => |$value:ident| $into:expr;)*) => {
        impl TrainerBuilder {
            $($(#[$doc])* pub fn $name(mut self, $value: $type) -> TrainerBuilder {
                self.config.$name = $into;
                self
            })*
        }
    };
}

setters! {
    /// Epochs to train at most; -1 for no limit.
    max_epochs: i64 => |n| Some(n);
    /// Epochs to train before anything may stop the run.
    min_epochs: u64 => |n| Some(n);
    /// Optimizer steps to train at most; -1 for no limit.
    max_steps: i64 => |n| n;
    /// Optimizer steps to train before anything may stop the run.
    min_steps: u64 => |n| Some(n);
    /// Time to train at most.
    max_time: Duration => |time| Some(time);
    /// Training batches per epoch: a count, or a fraction.
    limit_train_batches: impl Into<Limit> => |limit| limit.into();
    /// Validation batches per loader.
    limit_val_batches: impl Into<Limit> => |limit| limit.into();
    /// Test batches per loader.
    limit_test_batches: impl Into<Limit> => |limit| limit.into();
    /// Prediction batches per loader.
    limit_predict_batches: impl Into<Limit> => |limit| limit.into();
    /// Run this many batches of everything once, to find mistakes.
    fast_dev_run: u64 => |n| n;
    /// Train and validate on this few batches.
    overfit_batches: impl Into<Limit> => |limit| limit.into();
    /// When validation runs within an epoch: a fraction of it, a number of batches, or a time.
    val_check_interval: impl Into<ValCheckInterval> => |interval| interval.into();
    /// Validate only after every n-th epoch; `None` to count batches across epochs.
    check_val_every_n_epoch: impl Into<Option<u64>> => |n| n.into();
    /// Validation batches per loader to run before training; -1 for all.
    num_sanity_val_steps: i64 => |n| n;
    /// Write step metrics every n optimizer steps.
    log_every_n_steps: u64 => |n| n;
    /// Batches per optimizer step.
    accumulate_grad_batches: u64 => |n| n;
    /// Where to clip gradients.
    gradient_clip_val: f64 => |value| Some(value);
    /// How to clip gradients.
    gradient_clip_algorithm: GradientClipAlgorithm => |algorithm| algorithm;
    /// Whether operations without a deterministic implementation are allowed.
    deterministic: Deterministic => |mode| mode;
    /// Look for the operation that made the first NaN, forward or backward, or an infinite loss.
    detect_anomaly: bool => |on| on;
    /// Show a progress bar.
    enable_progress_bar: bool => |on| Some(on);
    /// Show a summary of the model.
    enable_model_summary: bool => |on| Some(on);
    /// Write checkpoints.
    enable_checkpointing: bool => |on| Some(on);
    /// Where logs and checkpoints go.
    default_root_dir: impl Into<PathBuf> => |path| Some(path.into());
    /// `cpu`, `cuda`, `mps`, `gpu` or `auto`.
    accelerator: impl Into<String> => |name| name.into();
    /// Which devices.
    devices: impl Into<Devices> => |devices| devices.into();
    /// `32-true` or `64-true`.
    precision: impl Into<String> => |name| name.into();
    /// Evaluate under inference mode.
    inference_mode: bool => |on| on;
    /// Nothing but the loop, to measure its overhead.
    barebones: bool => |on| on;
}

impl TrainerBuilder {
    /// All arguments at once, as a file or a command line gave them.
    pub fn config(mut self, config: TrainerConfig) -> TrainerBuilder {
        self.config = config;
        self
    }

    /// Adds a callback.
    pub fn callback(mut self, callback: impl Callback) -> TrainerBuilder {
        self.callbacks.push(Box::new(callback));
        self
    }

    /// Adds a logger. The first decides where logs and checkpoints go. Without any, TensorBoard and CSV files are
    /// written to `lightning_logs/version_N` (Lightning writes one of the two).
    pub fn logger(mut self, logger: impl Logger) -> TrainerBuilder {
        match &mut self.loggers {
            Loggers::Given(loggers) => loggers.push(Box::new(logger)),
            Loggers::Default => self.loggers = Loggers::Given(vec![Box::new(logger)]),
        }
        self
    }

    /// No logger (`logger=False`).
    pub fn no_logger(mut self) -> TrainerBuilder {
        self.loggers = Loggers::Given(Vec::new());
        self
    }

    /// Where lines and bars go: standard error by default.
    pub fn console(mut self, console: Console) -> TrainerBuilder {
        self.console = Some(console);
        self
    }

    /// The trainer.
    ///
    /// # Errors
    ///
    /// An argument, or a pair of arguments, that cannot be; an accelerator that is not there; a log folder that cannot
    /// be written.
    pub fn build(self) -> Result<Trainer, Error> {
        let TrainerBuilder { config, mut callbacks, loggers, console } = self;
        config.validate()?;
        check_callbacks(&config, &callbacks, &loggers)?;
        let config = config.resolved();
        let console = console.unwrap_or_else(Console::stderr);
        let mut fabric = Fabric::new(&config.accelerator, &config.devices, &config.precision)?;
        fabric.loggers = build_loggers(&config, loggers)?;
        add_default_callbacks(&config, &mut callbacks, &console);
        if config.fast_dev_run > 0 {
            console.print(&format!(
                "Running in `fast_dev_run` mode: {} batch(es) of everything, once; loggers and checkpoints are off",
                config.fast_dev_run
            ));
        }
        if config.detect_anomaly {
            console.print("`detect_anomaly` is on: training is much slower");
        }
        if config.barebones {
            console.print(
                "`barebones` is on: no checkpoints, loggers, progress bar, summary, sanity check or logged values",
            );
        }
        Ok(Trainer::new(TrainerState::new(config, fabric, console), callbacks))
    }
}

fn check_callbacks(config: &TrainerConfig, callbacks: &[Box<dyn Callback>], loggers: &Loggers) -> Result<(), Error> {
    let with_role = |role| callbacks.iter().filter(|callback| callback.role() == role).count();
    for (argument, off, role, what) in [
        ("enable_checkpointing", config.enable_checkpointing == Some(false), Role::Checkpoint, "checkpoint callback"),
        ("enable_progress_bar", config.enable_progress_bar == Some(false), Role::ProgressBar, "progress bar"),
        ("enable_model_summary", config.enable_model_summary == Some(false), Role::ModelSummary, "model summary"),
    ] {
        let there = with_role(role);
        if there > 0 && (off || config.barebones) {
            let argument = if off { format!("{argument}=false") } else { "barebones=true".to_owned() };
            return Err(Error::Config(format!(
                "{argument}, and a {what} is among the callbacks; leave one of the two out"
            )));
        }
        if there > 1 && role != Role::Checkpoint {
            return Err(Error::Config(format!("there are {there} callbacks that are a {what}; leave one")));
        }
    }
    if config.barebones && matches!(loggers, Loggers::Given(given) if !given.is_empty()) {
        return Err(Error::Config("barebones=true, and a logger was given; leave one of the two out".into()));
    }
    Ok(())
}

fn build_loggers(config: &TrainerConfig, loggers: Loggers) -> Result<Vec<Box<dyn Logger>>, Error> {
    Ok(match loggers {
        _ if config.barebones => Vec::new(),
        Loggers::Given(given) if config.fast_dev_run > 0 => {
            given.into_iter().map(|_| Box::new(DummyLogger) as Box<dyn Logger>).collect()
        }
        Loggers::Default if config.fast_dev_run > 0 => vec![Box::new(DummyLogger)],
        Loggers::Given(given) => given,
        Loggers::Default => {
            let root = config.default_root_dir.clone().unwrap_or_else(|| ".".into());
            let tensorboard = TensorBoardLogger::new(&root);
            let csv = CsvLogger::new(&root).version(Logger::version(&tensorboard));
            vec![Box::new(tensorboard), Box::new(csv)]
        }
    })
}

fn add_default_callbacks(config: &TrainerConfig, callbacks: &mut Vec<Box<dyn Callback>>, console: &Console) {
    let has = |callbacks: &[Box<dyn Callback>], role| callbacks.iter().any(|callback| callback.role() == role);
    if config.enable_model_summary != Some(false) && !has(callbacks, Role::ModelSummary) {
        callbacks.push(Box::new(ModelSummary::new()));
    }
    if config.enable_progress_bar != Some(false) && !has(callbacks, Role::ProgressBar) {
        callbacks.push(Box::new(ProgressBar::new()));
    }
    if let Some(max_time) = config.max_time {
        if has(callbacks, Role::Timer) {
            console.warn("max_time is ignored, because a `Timer` is among the callbacks");
        } else {
            callbacks.push(Box::new(Timer::new(max_time)));
        }
    }
    if config.enable_checkpointing != Some(false) && !has(callbacks, Role::Checkpoint) {
        callbacks.push(Box::new(ModelCheckpoint::new()));
    }
}
