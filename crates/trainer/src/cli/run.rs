//! Creates a run from the arguments.

use std::path::Path;
use std::process::ExitCode;

use fulgurite_engine::config::TrainerConfig;
use fulgurite_engine::profilers::ProfilerChoice;
use fulgurite_engine::{Error, LightningDataModule, LightningModule, Outcome, Result, Signal, TrainerState};
use fulgurite_fabric::{CheckpointIo, DefaultCheckpointIo};
use fulgurite_optim::{Interval, IntoParamGroups, LrSchedulerConfig, Optimizers};
use fulgurite_torch::params::Parameters;
use fulgurite_torch::{Value, rng};

use super::args::{self, Request, RunRequest};
use super::files::{self, Files};
use super::help::{self, Program};
use super::layers::{self, Sources};
use super::layout::{Layout, Subcommand};
use super::registry::Registry;
use super::resolved::{Loggers, Optimization, Resolved, Schedule};
use super::save_config::ConfigSaver;
use super::schema::options_schema;
use super::search::Planned;
use super::tree::{Node, Origin};
use super::tune::TuneOptions;
use super::{Cli, FromConfig};
use crate::requirements;
use crate::trainer::Trainer;

/// The outcome of the arguments.
enum Plan<M, D> {
    Print(String),
    Run(Box<Settings<M, D>>),
    Sweep(Box<Planned>),
}

/// The parts of a run.
pub(super) struct Settings<M, D> {
    subcommand: Subcommand,
    seed: Option<u64>,
    trainer: TrainerConfig,
    model: M,
    data: D,
    resolved: Resolved,
}

impl<M, D> Settings<M, D> {
    /// Whether a run could begin: nothing is missing here, and callbacks, the optimizer and what else can be created without a run
    /// take their options.
    pub(super) fn check_objects(&self, layout: &Layout) -> Result<(), Error> {
        requirements::check(&self.trainer, &self.resolved.elsewhere(layout))?;
        self.resolved.callbacks(layout)?;
        self.resolved.optimization(layout).map(drop)
    }
}

type PlanOf<M, D> = Plan<<M as FromConfig>::Config, <D as FromConfig>::Config>;

impl<M, D> Cli<M, D>
where
    M: LightningModule + FromConfig,
    D: LightningDataModule<Batch = M::Batch> + FromConfig,
{
    pub(super) fn start(mut self) -> ExitCode {
        let console = self.console.clone();
        let registry = std::mem::replace(&mut self.registry, Registry::empty());
        let layout = Layout::new(registry, options_schema::<M::Config>(), options_schema::<D::Config>());
        let settings = match self.plan(&layout) {
            Ok(Plan::Print(text)) => {
                console.print_out(&text);
                return ExitCode::SUCCESS;
            }
            Ok(Plan::Run(settings)) => settings,
            Ok(Plan::Sweep(planned)) => {
                return self.sweep(&layout, &planned).unwrap_or_else(|error| {
                    console.print(&format!("error: {error}"));
                    ExitCode::from(1 + u8::from(matches!(error, Error::Config(_))))
                });
            }
            Err(error) => {
                console.print(&format!("error: {error}"));
                return ExitCode::from(2);
            }
        };
        match self.execute(&layout, *settings) {
            Ok(outcome) => outcome.map_or(ExitCode::SUCCESS, |outcome| outcome.exit_code()),
            Err(error) => {
                console.print(&format!("error: {error}"));
                let error: Option<&Error> = error.downcast_ref();
                let is_config = matches!(error, Some(Error::Config(_)));
                let of_failure = ExitCode::from(1 + u8::from(is_config));
                error.and_then(Error::signal).map_or(of_failure, Signal::exit_code)
            }
        }
    }

    /// Text that is printed instead of running anything.
    pub(super) fn printed(&mut self, layout: &Layout) -> Option<String> {
        match self.plan(layout) {
            Ok(Plan::Print(text)) => Some(text),
            _ => None,
        }
    }

    fn plan(&mut self, layout: &Layout) -> Result<PlanOf<M, D>, Error> {
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        let from_process = || std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
        let arguments: Vec<String> = self.args.take().unwrap_or_else(from_process);
        let program = Program { name: &self.name, about: &self.about };
        match args::parse(&arguments)? {
            Request::Help(subcommand) => Ok(Plan::Print(program.help(layout, subcommand))),
            Request::ClassHelp { option, class } => {
                help::class_help(layout, &option, class.as_deref()).map(Plan::Print)
            }
            Request::Completions(shell) => program.completions(layout, &shell).map(Plan::Print),
            Request::Run(request) => {
                let resolved = self.resolve(layout, &request)?;
                let settings = self.settings(layout, request.subcommand, resolved)?;
                Ok(match &request.print_config {
                    Some(flags) => Plan::Print(settings.resolved.to_yaml(layout, flags)),
                    None if request.subcommand == Subcommand::Sweep => {
                        settings.check_objects(layout)?;
                        Plan::Sweep(Box::new(self.plan_sweep(layout, request, &settings.resolved)?))
                    }
                    None => Plan::Run(Box::new(settings)),
                })
            }
        }
    }

    /// The parts of a run, as far as they can be checked without creating any.
    pub(super) fn settings(
        &self,
        layout: &Layout,
        subcommand: Subcommand,
        resolved: Resolved,
    ) -> Result<Settings<M::Config, D::Config>, Error> {
        let trainer = resolved.trainer(layout)?;
        trainer.validate()?;
        resolved.check_classes(layout)?;
        Ok(Settings {
            subcommand,
            seed: resolved.seed(layout)?,
            trainer,
            model: resolved.group(layout, "model")?,
            data: resolved.group(layout, "data")?,
            resolved,
        })
    }

    pub(super) fn resolve(&self, layout: &Layout, request: &RunRequest) -> Result<Resolved, Error> {
        let mut resolved = self.merged(layout, request)?;
        layers::follow_links(&mut resolved.root, &self.links)?;
        if let Some(groups) = resolved.root.as_map_mut() {
            groups.retain(|group, _| !["tune", "sweep"].contains(&group.as_str()) || request.subcommand.takes(group));
        }
        Ok(resolved)
    }

    /// The configuration before links are followed.
    pub(super) fn merged(&self, layout: &Layout, request: &RunRequest) -> Result<Resolved, Error> {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let from_process = || std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        let env = self.env.clone().unwrap_or_else(from_process);
        let files = Files::new();
        let sources =
            |checkpoint| Sources { program: self.defaults.as_deref(), checkpoint, env: &env, request, files: &files };
        let mut root = layers::resolve(layout, sources(None))?;
        if !matches!(request.subcommand, Subcommand::Fit | Subcommand::Sweep)
            && let Some(path) = root.nearest(["ckpt_path"]).as_str().filter(|path| Path::new(path).is_file())
            && let Some(hparams) = saved_hparams(layout, path)?
        {
            root = layers::resolve(layout, sources(Some(hparams)))?;
        }
        Ok(Resolved { root, passed: files.passed() })
    }

    /// `None` after an evaluation or prediction.
    fn execute(mut self, layout: &Layout, settings: Settings<M::Config, D::Config>) -> Result<Option<Outcome>> {
        let Settings { subcommand, seed, trainer: config, model, data, resolved } = settings;
        let mut trainer = self.build_trainer(layout, &resolved, config)?;
        // Only ranks create the model and the data.
        trainer.launch()?;
        if let Some(seed) = seed {
            rng::seed_everything(seed)?;
        }
        let mut model = M::from_config(model)?;
        let mut data = D::from_config(data)?;
        let ckpt_path = resolved.ckpt_path();
        if ckpt_path.is_none() && !matches!(subcommand, Subcommand::Fit | Subcommand::Tune) {
            trainer.state().warn("without --ckpt_path the model has its random initial weights");
        }
        let verbose: bool = resolved.group(layout, "verbose")?;
        match subcommand {
            Subcommand::Fit => {
                if let Some(hook) = &mut self.before_fit {
                    hook(&mut trainer, &mut model, &mut data)?;
                }
                let outcome = trainer.ckpt_path(ckpt_path).fit(&mut model, &mut data)?;
                if let Outcome::Stopped(reason) = &outcome {
                    trainer.state().print(&format!("stopped: {reason}"));
                }
                if let Some(hook) = self.after_fit.as_mut().filter(|_| outcome.signal().is_none()) {
                    hook(&mut trainer, &mut model, &mut data)?;
                }
                return Ok(Some(outcome));
            }
            Subcommand::Validate | Subcommand::Test => {
                let results = match subcommand {
                    Subcommand::Test => trainer.ckpt_path(ckpt_path).verbose(verbose).test(&mut model, &mut data)?,
                    _ => trainer.ckpt_path(ckpt_path).verbose(verbose).validate(&mut model, &mut data)?,
                };
                if let Some(hook) = &mut self.after_evaluation {
                    hook(&mut trainer, &results)?;
                }
            }
            Subcommand::Predict => {
                let predictions = trainer.ckpt_path(ckpt_path).predict(&mut model, &mut data)?;
                if let Some(hook) = &mut self.after_predict {
                    hook(&mut trainer, &mut data, &predictions)?;
                }
            }
            Subcommand::Tune => {
                let options: TuneOptions = resolved.group(layout, "tune")?;
                let found = options.run(&mut trainer, &mut model, &mut data, ckpt_path)?;
                self.console.print_out(&found);
            }
            // It creates no model.
            Subcommand::Sweep => {}
        }
        Ok(None)
    }

    fn build_trainer(&mut self, layout: &Layout, resolved: &Resolved, config: TrainerConfig) -> Result<Trainer, Error> {
        let mut builder = Trainer::builder().console(self.console.clone()).missing(resolved.elsewhere(layout));
        let loggers = resolved.loggers(layout, &config)?;
        builder = builder.config(config);
        if let Some(passed) = &resolved.passed {
            builder = builder.rank_variable(files::PASSED, passed);
        }
        for callback in resolved.callbacks(layout)? {
            builder = builder.boxed_callback(callback);
        }
        for plugin in resolved.plugins(layout)? {
            builder = builder.plugin(plugin);
        }
        if let Some(profiler) = resolved.profiler(layout)? {
            builder = builder.profiler(ProfilerChoice::Given(profiler));
        }
        if let Loggers::Given(loggers) = loggers {
            builder = loggers.into_iter().fold(builder.no_logger(), |builder, logger| builder.boxed_logger(logger));
        }
        if let Some(optimization) = resolved.optimization(layout)? {
            builder = builder.optimizers(move |vars, trainer| configure(&optimization, vars, trainer));
        }
        if let Some(change) = self.trainer.take() {
            builder = change(builder);
        }
        let header = concat!("# fulgurite==", env!("CARGO_PKG_VERSION"), "\n");
        let text = header.to_owned() + &resolved.to_yaml(layout, &[]);
        builder.callback(ConfigSaver { text, mode: self.save_config, done: false }).build()
    }
}

/// The optimizer and scheduler of the command line.
fn configure(optimization: &Optimization, vars: &dyn Parameters, trainer: &TrainerState) -> Result<Optimizers, Error> {
    let optimizers = Optimizers::from_result((optimization.optimizer)(vars.into_param_groups()));
    let Some(Schedule { scheduler, step }) = &optimization.scheduler else { return Ok(optimizers) };
    let mut unknown = None;
    let mut run_length = || {
        let length = match step.interval {
            Interval::Step => trainer.estimated_stepping_batches().unwrap_or_else(|error| {
                unknown = Some(Error::Config(error.to_string()));
                None
            }),
            Interval::Epoch => trainer.max_epochs().finite(),
        };
        length.and_then(|length| u32::try_from(length).ok())
    };
    let scheduler = (scheduler.make)(&mut run_length);
    if let Some(error) = unknown {
        return Err(error);
    }
    let scheduler = scheduler?;
    let mut scheduler =
        LrSchedulerConfig::from(scheduler).interval(step.interval).frequency(step.frequency).strict(step.strict);
    scheduler.monitor.clone_from(&step.monitor);
    scheduler.name.clone_from(&step.name);
    Ok(optimizers.scheduler(scheduler))
}

/// The model's options that a checkpoint has among its hyper-parameters.
fn saved_hparams(layout: &Layout, path: &str) -> Result<Option<Node>, Error> {
    let Value::Dict(checkpoint) = DefaultCheckpointIo::new().load(Path::new(path))? else { return Ok(None) };
    let (Ok(hparams), Some(schema)) = (checkpoint.dict("hyper_parameters"), layout.schema().field("model")) else {
        return Ok(None);
    };
    let origin = Origin::Checkpoint(path.into());
    let known = hparams.iter().filter_map(|(name, value)| Some((name.as_str()?, value)));
    let known = known.filter(|(name, _)| schema.field(name).is_some());
    let known = known.filter_map(|(name, value)| Some((name.to_owned(), Node::from_json(&value.to_json()?, &origin))));
    Ok(Some(Node::map(known, &origin)))
}
