//! [`TrainerBuilder`]: the trainer's arguments, one setter each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use fulgurite_engine::config::{Deterministic, GradientClipAlgorithm, Limit, Maximum, TrainerConfig, ValCheckInterval};
use fulgurite_engine::environment::{self, Environment};
use fulgurite_engine::profilers::{self, Profiler, ProfilerChoice};
use fulgurite_engine::{Console, Engine, EngineParts, Error, OptimizerFactory, SlurmRequeue, TrainerState};
use fulgurite_fabric::environments::SlurmJob;
use fulgurite_fabric::loggers::{CsvLogger, DummyLogger, Logger, TensorBoardLogger};
use fulgurite_fabric::strategy::StrategyChoice;
use fulgurite_fabric::{Devices, Fabric};
use fulgurite_optim::Optimizers;
use fulgurite_torch::params::Parameters;
use fulgurite_torch::rng;

use crate::callbacks::{Callback, DefaultCallback, ModelCheckpoint, ModelSummary, ProgressBar, Timer};
use crate::outside::{self, ReportLines, Reporter};
use crate::plugin::{Kind, Plugin};
use crate::requirements;
use crate::trainer::Trainer;

/// The trainer's arguments. Each setter is one argument of Lightning's `Trainer`; [`TrainerConfig`] documents them.
#[derive(Default)]
#[must_use]
pub struct TrainerBuilder {
    pub(crate) config: TrainerConfig,
    callbacks: Vec<Box<dyn Callback>>,
    loggers: Loggers,
    plugins: Vec<Plugin>,
    console: Option<Console>,
    /// The error in the environment's defaults.
    error: Option<Error>,
    /// Environment variables that match no argument.
    unknown_variables: Vec<String>,
    profiler: Option<Box<dyn Profiler>>,
    optimizers: Option<OptimizerFactory>,
    /// Requested features that this version does not have.
    missing: Vec<String>,
    /// Environment variables for the processes that this one starts.
    rank_variables: BTreeMap<String, String>,
}

fulgurite_engine::trainer_config_setters!(TrainerBuilder, config);

#[derive(Default)]
enum Loggers {
    /// The default: TensorBoard and CSV.
    #[default]
    Default,
    Given(Vec<Box<dyn Logger>>),
}

impl Trainer {
    /// A builder with Lightning's defaults, or those of the environment: `PL_TRAINER_MAX_EPOCHS=3` sets `max_epochs`
    /// where the program does not.
    pub fn builder() -> TrainerBuilder {
        TrainerBuilder::new()
    }
}

impl TrainerBuilder {
    /// A builder with Lightning's defaults and those of the environment.
    pub(crate) fn new() -> TrainerBuilder {
        match Environment::of(environment::variables()) {
            Ok(Environment { config, unknown }) => {
                TrainerBuilder { config, unknown_variables: unknown, ..TrainerBuilder::default() }
            }
            Err(error) => TrainerBuilder { error: Some(error), ..TrainerBuilder::default() },
        }
    }

    /// Sets all arguments at once, as from a file or command line. [`TrainerConfig::from_env`] has those of the
    /// environment.
    pub fn config(mut self, config: TrainerConfig) -> TrainerBuilder {
        self.config = config;
        self
    }

    /// Adds a callback.
    pub fn callback(mut self, callback: impl Callback) -> TrainerBuilder {
        self.callbacks.push(Box::new(callback));
        self
    }

    /// Adds a boxed callback, such as one chosen at run time.
    pub fn boxed_callback(mut self, callback: Box<dyn Callback>) -> TrainerBuilder {
        self.callbacks.push(callback);
        self
    }

    /// Adds a logger. The first decides where logs and checkpoints go. Without any, TensorBoard and CSV files are
    /// written to `lightning_logs/version_N` (Lightning writes one of the two).
    pub fn logger(self, logger: impl Logger) -> TrainerBuilder {
        self.boxed_logger(Box::new(logger))
    }

    /// Adds a boxed logger, such as one chosen at run time.
    pub fn boxed_logger(mut self, logger: Box<dyn Logger>) -> TrainerBuilder {
        match &mut self.loggers {
            Loggers::Given(loggers) => loggers.push(logger),
            Loggers::Default => self.loggers = Loggers::Given(vec![logger]),
        }
        self
    }

    /// Disables logging (`logger=False`).
    pub fn no_logger(mut self) -> TrainerBuilder {
        self.loggers = Loggers::Given(Vec::new());
        self
    }

    /// Adds a plugin, which replaces a part of the trainer.
    pub fn plugin(mut self, plugin: Plugin) -> TrainerBuilder {
        self.plugins.push(plugin);
        self
    }

    /// Sets the profiler, or its name (`simple`, `advanced`, `pytorch`).
    pub fn profiler(mut self, profiler: impl Into<ProfilerChoice>) -> TrainerBuilder {
        (self.config.profiler, self.profiler) = match profiler.into() {
            ProfilerChoice::Name(name) => (Some(name), None),
            ProfilerChoice::Given(profiler) => (None, Some(profiler)),
        };
        self
    }

    /// Sets the optimizer factory, which replaces the module's `configure_optimizers`; used by the command line if an
    /// optimizer is configured there.
    ///
    /// The factory gets the module's parameters. It may be called twice, when it calls
    /// [`estimated_stepping_batches`](TrainerState::estimated_stepping_batches) and returns its error.
    pub fn optimizers(
        mut self,
        factory: impl FnMut(&dyn Parameters, &TrainerState) -> Result<Optimizers, Error> + Send + 'static,
    ) -> TrainerBuilder {
        self.optimizers = Some(Box::new(factory));
        self
    }

    /// Adds a requested feature that this version does not have, to be reported together with others.
    pub(crate) fn missing(mut self, missing: Vec<String>) -> TrainerBuilder {
        self.missing = missing;
        self
    }

    /// Sets an environment variable for the processes that this one starts.
    pub(crate) fn rank_variable(mut self, name: &str, value: &str) -> TrainerBuilder {
        self.rank_variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets the output of messages and bars; standard error by default.
    pub fn console(mut self, console: Console) -> TrainerBuilder {
        self.console = Some(console);
        self
    }

    /// Builds the trainer. If the arguments specify several processes, the first entry point starts them; see
    /// [`Trainer::launch`].
    ///
    /// # Errors
    ///
    /// Fails if an argument or combination of arguments or an environment variable is invalid, the accelerator is not
    /// available, or the log folder cannot be written to.
    pub fn build(self) -> Result<Trainer, Error> {
        let TrainerBuilder {
            config,
            mut callbacks,
            loggers,
            plugins,
            console,
            error,
            unknown_variables,
            profiler,
            optimizers,
            missing,
            rank_variables,
        } = self;
        if let Some(error) = error {
            return Err(error);
        }
        // A later reader could not report the error.
        rng::env_seed().map_err(|error| Error::Config(error.to_string()))?;
        config.validate()?;
        requirements::check(&config, &missing)?;
        let profiler = build_profiler(&config, profiler)?;
        check_callbacks(&config, &callbacks, &loggers)?;
        let console = console.unwrap_or_else(Console::stderr);
        let given = config.clone();
        let config = config.resolved();
        let fabric = Fabric::builder()
            .accelerator(&config.accelerator)
            .devices(config.devices.clone())
            .num_nodes(usize::try_from(config.num_nodes).unwrap_or(usize::MAX))
            .strategy(config.strategy.clone())
            .sync_batchnorm(config.sync_batchnorm)
            .precision(&config.precision)
            .configuration(in_common(&config))
            .rank_variables(rank_variables);
        let mut fabric = fabric.configure()?;
        outside::watch_parent()?;
        let report = ReportLines::from_env(fabric.is_global_zero())?;
        let warnings = fabric.take_warnings();
        if fabric.is_global_zero() {
            explain(&given, &console);
            let unknown = |variable: String| match environment::removed_hint(&variable) {
                Some(hint) => {
                    format!("the environment variable {variable} is about an argument that no longer exists: {hint}")
                }
                None => format!("the environment variable {variable} is about no argument of the trainer"),
            };
            unknown_variables.into_iter().map(unknown).chain(warnings).for_each(|warning| console.warn(&warning));
        }
        let job = SlurmJob::current().filter(|_| config.fast_dev_run == 0);
        let slurm = install(plugins, &config, &mut fabric)?;
        // Those of rank zero are known when a run begins.
        if fabric.is_global_zero() {
            fabric.loggers = build_loggers(&config, loggers, job.as_ref())?;
        }
        add_default_callbacks(&config, &fabric, &console, &mut callbacks);
        callbacks.extend(report.clone().map(|lines| Box::new(Reporter::new(lines)) as Box<dyn Callback>));
        let requeue_signal = slurm.listens_for();
        let saves_on_signal = !outside::is_pruned_by_signals()?;
        let parts = EngineParts {
            config,
            fabric,
            console,
            profiler,
            callbacks,
            optimizers,
            job,
            requeue_signal,
            saves_on_signal,
        };
        Ok(Trainer::new(Engine::new(parts), report))
    }
}

/// The settings that must be the same in all processes of a run; the folder is rank zero's.
fn in_common(config: &TrainerConfig) -> BTreeMap<String, String> {
    let arguments =
        serde_json::to_value(config).ok().and_then(|config| config.as_object().cloned()).unwrap_or_default();
    let common = arguments.into_iter().filter(|(name, _)| name != "default_root_dir");
    common.map(|(name, value)| (name, value.to_string())).collect()
}

/// Explains arguments that are easily misunderstood.
fn explain(config: &TrainerConfig, console: &Console) {
    if config.fast_dev_run > 0 {
        console.print(&format!(
            "Running in `fast_dev_run` mode: {} batch(es) of each stage, once; loggers and checkpoints are off",
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

/// Installs the plugins.
fn install(plugins: Vec<Plugin>, config: &TrainerConfig, fabric: &mut Fabric) -> Result<SlurmRequeue, Error> {
    let (mut has_precision, mut has_io) = (false, false);
    let mut slurm = None;
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
            Kind::Slurm(_) if slurm.is_some() => return Err(twice("SLURM")),
            Kind::Precision(precision) => fabric.set_precision(precision),
            Kind::CheckpointIo(io) => fabric.set_checkpoint_io(io),
            Kind::Slurm(environment) => slurm = Some(environment),
        }
    }
    Ok(slurm.unwrap_or_default())
}

fn check_callbacks(config: &TrainerConfig, callbacks: &[Box<dyn Callback>], loggers: &Loggers) -> Result<(), Error> {
    let standing_for = |default| callbacks.iter().filter(|callback| callback.stands_for() == default).count();
    let checkpointers = callbacks.iter().filter(|callback| callback.checkpointer().is_some()).count();
    let (bars, summaries) =
        (standing_for(Some(DefaultCallback::ProgressBar)), standing_for(Some(DefaultCallback::ModelSummary)));
    for (argument, off, there, what) in [
        ("enable_checkpointing", config.enable_checkpointing == Some(false), checkpointers, "checkpoint callback"),
        ("enable_progress_bar", config.enable_progress_bar == Some(false), bars, "progress bar"),
        ("enable_model_summary", config.enable_model_summary == Some(false), summaries, "model summary"),
    ] {
        if there > 0 && (off || config.barebones) {
            let argument = if off { format!("{argument}=false") } else { "barebones=true".to_owned() };
            return Err(Error::Config(format!(
                "{argument}, and a {what} is among the callbacks; leave one of the two out"
            )));
        }
        if there > 1 && argument != "enable_checkpointing" {
            return Err(Error::Config(format!("there are {there} callbacks that are a {what}; leave one")));
        }
    }
    if config.barebones && matches!(loggers, Loggers::Given(given) if !given.is_empty()) {
        return Err(Error::Config("barebones=true, and a logger was given; leave one of the two out".into()));
    }
    Ok(())
}

fn build_profiler(
    config: &TrainerConfig,
    given: Option<Box<dyn Profiler>>,
) -> Result<Option<Box<dyn Profiler>>, Error> {
    if config.barebones && given.is_some() {
        return Err(Error::Config("barebones=true, and a profiler was given; leave one of the two out".into()));
    }
    match (given, &config.profiler) {
        (Some(profiler), _) => Ok(Some(profiler)),
        (None, name) => name.as_deref().map(profilers::profiler).transpose(),
    }
}

fn build_loggers(
    config: &TrainerConfig,
    loggers: Loggers,
    job: Option<&SlurmJob>,
) -> Result<Vec<Box<dyn Logger>>, Error> {
    Ok(match loggers {
        _ if config.barebones => Vec::new(),
        Loggers::Given(given) if config.fast_dev_run > 0 => {
            given.into_iter().map(|_| Box::new(DummyLogger) as Box<dyn Logger>).collect()
        }
        Loggers::Default if config.fast_dev_run > 0 => vec![Box::new(DummyLogger)],
        Loggers::Given(given) => given,
        Loggers::Default => {
            let root = config.default_root_dir.clone().unwrap_or_else(|| ".".into());
            let mut tensorboard = TensorBoardLogger::new(&root);
            // Every run of a job logs to the same place.
            if let Some(job) = job {
                tensorboard.suggest_version(&format!("version_{}", job.id()));
            }
            let mut csv = CsvLogger::new(&root);
            csv.suggest_version(Logger::version(&tensorboard));
            vec![Box::new(tensorboard), Box::new(csv)]
        }
    })
}

fn add_default_callbacks(
    config: &TrainerConfig,
    fabric: &Fabric,
    console: &Console,
    callbacks: &mut Vec<Box<dyn Callback>>,
) {
    let has = |callbacks: &[Box<dyn Callback>], default| callbacks.iter().any(|c| c.stands_for() == Some(default));
    if config.enable_model_summary != Some(false) && !has(callbacks, DefaultCallback::ModelSummary) {
        callbacks.push(Box::new(ModelSummary::new()));
    }
    if config.enable_progress_bar != Some(false) && !has(callbacks, DefaultCallback::ProgressBar) {
        callbacks.push(Box::new(ProgressBar::new()));
    }
    if let Some(max_time) = config.max_time {
        if has(callbacks, DefaultCallback::Timer) {
            if fabric.is_global_zero() {
                console.warn("max_time is ignored, because a `Timer` is among the callbacks");
            }
        } else {
            callbacks.push(Box::new(Timer::new(max_time)));
        }
    }
    if config.enable_checkpointing != Some(false) && !callbacks.iter().any(|callback| callback.checkpointer().is_some())
    {
        callbacks.push(Box::new(ModelCheckpoint::new()));
    }
}
