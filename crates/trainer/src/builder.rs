//! [`TrainerBuilder`]: the trainer's arguments, one setter each.

use std::path::PathBuf;
use std::time::Duration;

use fulgurite_fabric::loggers::{CsvLogger, DummyLogger, Logger, TensorBoardLogger};
use fulgurite_fabric::{Devices, Fabric};

use crate::callbacks::{Callback, ModelCheckpoint, ModelSummary, ProgressBar, Role, Timer};
use crate::config::{Deterministic, GradientClipAlgorithm, Limit, TrainerConfig, ValCheckInterval};
use crate::console::Console;
use crate::environment::{self, Environment};
use crate::error::Error;
use crate::plugin::{Kind, Plugin};
use crate::state::TrainerState;
use crate::trainer::Trainer;

/// The trainer's arguments. Each setter is one argument of Lightning's `Trainer`; [`TrainerConfig`] documents them.
#[derive(Default)]
#[must_use]
pub struct TrainerBuilder {
    config: TrainerConfig,
    callbacks: Vec<Box<dyn Callback>>,
    loggers: Loggers,
    plugins: Vec<Plugin>,
    console: Option<Console>,
    /// What was wrong with the environment's defaults.
    error: Option<Error>,
    /// Variables of the environment that are about no argument.
    unknown_variables: Vec<String>,
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
    /// Ask for the training and validation loaders again every n epochs; 0 for once.
    reload_dataloaders_every_n_epochs: u64 => |n| n;
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
    /// Let cuDNN try out its convolution algorithms.
    benchmark: bool => |on| Some(on);
    /// Look for the operation that made a NaN in the backward pass.
    detect_anomaly: bool => |on| on;
    /// Show a progress bar.
    enable_progress_bar: bool => |on| Some(on);
    /// Show a summary of the model.
    enable_model_summary: bool => |on| Some(on);
    /// Write checkpoints.
    enable_checkpointing: bool => |on| Some(on);
    /// Send hyper-parameters to the loggers when a run begins.
    enable_autolog_hparams: bool => |on| on;
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
    /// A builder with the defaults of the environment, and Lightning's.
    pub(crate) fn new() -> TrainerBuilder {
        match Environment::of(environment::variables()) {
            Ok(Environment { config, unknown }) => {
                TrainerBuilder { config, unknown_variables: unknown, ..TrainerBuilder::default() }
            }
            Err(error) => TrainerBuilder { error: Some(error), ..TrainerBuilder::default() },
        }
    }

    /// All arguments at once, as a file or a command line gave them. [`TrainerConfig::from_env`] has the environment's.
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

    /// Adds a part of the trainer's foundation that takes the place of its own.
    pub fn plugin(mut self, plugin: Plugin) -> TrainerBuilder {
        self.plugins.push(plugin);
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
    /// An argument, or a pair of arguments, that cannot be; an environment variable that is none of its argument's
    /// values; an accelerator that is not there; a log folder that cannot be written.
    pub fn build(self) -> Result<Trainer, Error> {
        let TrainerBuilder { config, mut callbacks, loggers, plugins, console, error, unknown_variables } = self;
        if let Some(error) = error {
            return Err(error);
        }
        config.validate()?;
        check_callbacks(&config, &callbacks, &loggers)?;
        let console = console.unwrap_or_else(Console::stderr);
        for variable in unknown_variables {
            console.warn(&format!("the environment variable {variable} is about no argument of the trainer"));
        }
        explain(&config, &console);
        let config = config.resolved();
        let mut fabric = Fabric::new(&config.accelerator, &config.devices, &config.precision)?;
        install(plugins, &config, &mut fabric)?;
        fabric.loggers = build_loggers(&config, loggers)?;
        add_default_callbacks(&config, &mut callbacks, &console);
        Ok(Trainer::new(TrainerState::new(config, fabric, console), callbacks))
    }
}

/// Says what arguments mean that are easily mistaken.
fn explain(config: &TrainerConfig, console: &Console) {
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
        console
            .print("`barebones` is on: no checkpoints, loggers, progress bar, summary, sanity check or logged values");
    }
    if config.benchmark == Some(true) && config.deterministic != Deterministic::False {
        console.warn("benchmark=true lets cuDNN choose its algorithms anew, so runs may differ although `deterministic` is on; leave one of the two out");
    }
    // It overrides what follows.
    if config.fast_dev_run > 0 {
        return;
    }
    for (name, limit, what) in [
        ("limit_train_batches", config.limit_train_batches, "one batch per epoch is used"),
        ("limit_val_batches", config.limit_val_batches, "one batch is used"),
        ("limit_test_batches", config.limit_test_batches, "one batch is used"),
        ("limit_predict_batches", config.limit_predict_batches, "one batch is used"),
    ] {
        if limit == Limit::Batches(1) {
            console.print(&format!("`{name}=1`: {what} (1.0 would be all of them)"));
        }
    }
    if config.val_check_interval == ValCheckInterval::Batches(1) {
        console.print("`val_check_interval=1`: validation runs after every batch (1.0 would be after every epoch)");
    }
}

/// Puts the user's parts in the place of the trainer's.
fn install(plugins: Vec<Plugin>, config: &TrainerConfig, fabric: &mut Fabric) -> Result<(), Error> {
    let (mut has_precision, mut has_io) = (false, false);
    let twice = |what: &str| Error::Config(format!("there are two plugins for {what}; leave one"));
    for plugin in plugins {
        match plugin.0 {
            Kind::Precision(_) if std::mem::replace(&mut has_precision, true) => return Err(twice("the precision")),
            Kind::CheckpointIo(_) if std::mem::replace(&mut has_io, true) => return Err(twice("checkpoint I/O")),
            Kind::Precision(_) if config.precision != TrainerConfig::default().precision => {
                return Err(Error::Config(format!(
                    "precision={:?}, and a precision is among the plugins; leave one of the two out",
                    config.precision
                )));
            }
            Kind::Precision(precision) => fabric.set_precision(precision),
            Kind::CheckpointIo(io) => fabric.set_checkpoint_io(io),
        }
    }
    Ok(())
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
