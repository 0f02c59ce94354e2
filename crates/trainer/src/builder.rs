//! [`TrainerBuilder`]: the trainer's arguments, one setter each.

use fulgurite_fabric::Fabric;
use fulgurite_fabric::loggers::{CsvLogger, DummyLogger, Logger, TensorBoardLogger};
use fulgurite_optim::Optimizers;
use fulgurite_torch::tch::nn;

use crate::callbacks::{Callback, ModelCheckpoint, ModelSummary, ProgressBar, Role, Timer};
use crate::config::TrainerConfig;
use crate::console::Console;
use crate::error::Error;
use crate::optimizers::OptimizerFactory;
use crate::requirements;
use crate::state::TrainerState;
use crate::trainer::Trainer;

/// The trainer's arguments. Each setter is one argument of Lightning's `Trainer`; [`TrainerConfig`] documents them.
#[derive(Default)]
#[must_use]
pub struct TrainerBuilder {
    pub(crate) config: TrainerConfig,
    callbacks: Vec<Box<dyn Callback>>,
    loggers: Loggers,
    console: Option<Console>,
    optimizers: Option<OptimizerFactory>,
    /// What was asked for and is not in this version.
    missing: Vec<String>,
}

#[derive(Default)]
enum Loggers {
    /// TensorBoard and CSV.
    #[default]
    Default,
    Given(Vec<Box<dyn Logger>>),
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

    pub(crate) fn boxed_callback(mut self, callback: Box<dyn Callback>) -> TrainerBuilder {
        self.callbacks.push(callback);
        self
    }

    /// Adds a logger. The first decides where logs and checkpoints go. Without any, TensorBoard and CSV files are
    /// written to `lightning_logs/version_N` (Lightning writes one of the two).
    pub fn logger(self, logger: impl Logger) -> TrainerBuilder {
        self.boxed_logger(Box::new(logger))
    }

    pub(crate) fn boxed_logger(mut self, logger: Box<dyn Logger>) -> TrainerBuilder {
        match &mut self.loggers {
            Loggers::Given(loggers) => loggers.push(logger),
            Loggers::Default => self.loggers = Loggers::Given(vec![logger]),
        }
        self
    }

    /// No logger (`logger=False`).
    pub fn no_logger(mut self) -> TrainerBuilder {
        self.loggers = Loggers::Given(Vec::new());
        self
    }

    /// Makes the optimizers, in place of the module's `configure_optimizers`: as a command line does that names one.
    ///
    /// The factory gets the module's parameters. It may be called twice, when it asks for
    /// [`estimated_stepping_batches`](TrainerState::estimated_stepping_batches) and hands its error on.
    pub fn optimizers(
        mut self,
        factory: impl FnMut(&nn::VarStore, &TrainerState) -> Result<Optimizers, Error> + 'static,
    ) -> TrainerBuilder {
        self.optimizers = Some(Box::new(factory));
        self
    }

    /// What was asked for and is not in this version, to be named beside what else is missing.
    pub(crate) fn missing(mut self, missing: Vec<String>) -> TrainerBuilder {
        self.missing = missing;
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
        let TrainerBuilder { config, mut callbacks, loggers, console, optimizers, missing } = self;
        config.validate()?;
        requirements::check(&config, &missing)?;
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
        let mut state = TrainerState::new(config, fabric, console);
        state.optimizer_factory = optimizers;
        Ok(Trainer::new(state, callbacks))
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
