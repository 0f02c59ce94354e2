//! A command line for any training program: subcommands, configuration files, environment, help and completion.
//!
//! A program defines how its model and data are created from a configuration ([`FromConfig`]), and delegates `main`:
//!
//! ```no_run,standalone_crate
//! use fulgurite::cli::{Cli, FromConfig};
//! # use fulgurite::prelude::*;
//! # struct Classifier { vars: nn::VarStore }
//! # impl LightningModule for Classifier {
//! #     type Batch = (Tensor, Tensor);
//! #     fn vars(&self) -> &dyn Parameters { &self.vars }
//! #     fn training_step(&mut self, _: Self::Batch, _: &mut Step) -> Result<Loss> { Ok(Loss::skip()) }
//! # }
//! # struct Points;
//! # impl LightningDataModule for Points { type Batch = (Tensor, Tensor); }
//! # impl FromConfig for Points {
//! #     type Config = ClassifierConfig;
//! #     fn from_config(_: ClassifierConfig) -> Result<Points> { Ok(Points) }
//! # }
//!
//! /// What can be set of the model.
//! #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
//! #[serde(default)]
//! struct ClassifierConfig {
//!     /// Numbers between the layers.
//!     hidden: i64,
//! }
//!
//! impl FromConfig for Classifier {
//!     type Config = ClassifierConfig;
//!
//!     fn from_config(config: ClassifierConfig) -> Result<Classifier> {
//!         let vars = nn::VarStore::new(Device::Cpu);
//!         let _layer = nn::linear(2, config.hidden).at(vars.root())?;
//!         Ok(Classifier { vars })
//!     }
//! }
//!
//! fn cli() -> Cli<Classifier, Points> {
//!     Cli::new("classifier")
//! }
//!
//! fulgurite::cli_main!(cli);
//! ```
//!
//! It now accepts
//!
//! ```sh
//! classifier fit --config laptop.yaml --trainer.max_epochs 3 --model.hidden 64
//! classifier fit --optimizer AdamW --optimizer.lr 3e-4 --lr_scheduler CosineAnnealingLR --lr_scheduler.T_max 10
//! classifier fit --trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor val_loss
//! classifier fit --config laptop.yaml --print_config=comments
//! classifier test --ckpt_path lightning_logs/version_0/checkpoints/epoch=2-step=69.ckpt
//! classifier sweep --sweep.space '{model.hidden: {int: [8, 128], log: true}}' --sweep.n_jobs 2
//! classifier completions bash
//! ```
//!
//! Later sources override earlier ones: the defaults of the options, [`Cli::defaults`], the hyper-parameters of a
//! checkpoint (for validate, test and predict), the file `PL_CONFIG`, variables such as `PL_FIT__TRAINER__MAX_EPOCHS`,
//! and the arguments from left to right, including files. Structs and the options of a class are merged, lists
//! replaced; `+=` appends to a list. A file may `include` others. Callbacks, loggers, optimizers and schedulers are
//! named by class, with `class_path` and `init_args` in files; options on the command line apply to the last named
//! callback or logger, or to one by name (`--trainer.callbacks.EarlyStopping.patience 5`).
//!
//! The configuration is written to `config.yaml` beside the logs, and can be read again. Unlike Lightning's, a run
//! without a logger writes none.

mod args;
mod check;
mod early;
pub(crate) mod files;
mod help;
mod kind;
mod layers;
mod layout;
mod plain;
mod registry;
mod resolved;
mod run;
mod save_config;
mod schema;
mod search;
mod short_names;
mod sweep;
mod tree;
mod tune;
mod yaml;

use std::process::ExitCode;

use fulgurite_engine::config::Configurable;
use fulgurite_engine::profilers::Profiler;
use fulgurite_engine::{Console, Error, EvalResults, LightningDataModule, LightningModule, Result};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use fulgurite_fabric::FabricError;
use fulgurite_fabric::strategy::{Strategies, Strategy, StrategyContext};
use fulgurite_optim::{BuildLrScheduler, BuildOptimizer};
use fulgurite_torch::Value;

#[doc(hidden)]
pub use self::args::is_answered_early;
use self::kind::Kind;
use self::registry::Registry;
use crate::builder::TrainerBuilder;
use crate::callbacks::Callback;
use crate::loggers::Logger;
use crate::trainer::Trainer;

/// Types that the command line can create: a model or data.
pub trait FromConfig: Sized {
    /// The configuration. The documentation of its fields is the help text; its default provides the defaults.
    type Config: Serialize + DeserializeOwned + JsonSchema + Default;

    /// Creates it from its configuration.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be created, for example because of an invalid option.
    fn from_config(config: Self::Config) -> Result<Self>;
}

/// Defines `main` for the [`Cli`] that a function creates.
///
/// `fulgurite::cli_main!(cli)` is `fn main() -> ExitCode { cli().run() }`, and answers `--help` and `completions`
/// before libtorch is initialised, which takes ten times as long as printing the help. `cli` creates the [`Cli`] and
/// does nothing else.
#[macro_export]
macro_rules! cli_main {
    ($cli:path) => {
        // The arguments of a test program are those of its harness.
        #[cfg(not(test))]
        $crate::torch::before_libtorch!($crate::cli::is_answered_early, |args| $cli().args(args).answer());

        fn main() -> ::std::process::ExitCode {
            $cli().run()
        }
    };
}

/// What to do if a `config.yaml` exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SaveConfig {
    /// Return an error.
    #[default]
    New,
    /// Overwrite it.
    Overwrite,
    /// Do not save the configuration.
    Off,
}

type BeforeFit<M, D> = Box<dyn FnMut(&mut Trainer, &mut M, &mut D) -> Result<()>>;
type AfterFit<M, D> = BeforeFit<M, D>;
type AfterEvaluation = Box<dyn FnMut(&mut Trainer, &[EvalResults]) -> Result<()>>;
type AfterPredict<D> = Box<dyn FnMut(&mut Trainer, &mut D, &[Vec<Value>]) -> Result<()>>;

/// The command line of a program that trains the model `M` on the data `D`. See the [module documentation](self) for
/// the accepted arguments.
#[must_use]
pub struct Cli<M, D> {
    name: String,
    about: String,
    defaults: Option<String>,
    registry: Registry,
    /// The first registration that failed.
    refused: Option<Error>,
    links: Vec<(String, String)>,
    save_config: SaveConfig,
    args: Option<Vec<String>>,
    env: Option<Vec<(String, String)>>,
    console: Console,
    trainer: Option<Box<dyn FnOnce(TrainerBuilder) -> TrainerBuilder>>,
    before_fit: Option<BeforeFit<M, D>>,
    after_fit: Option<AfterFit<M, D>>,
    after_evaluation: Option<AfterEvaluation>,
    after_predict: Option<AfterPredict<D>>,
}

impl<M, D> Cli<M, D>
where
    M: LightningModule + FromConfig,
    D: LightningDataModule<Batch = M::Batch> + FromConfig,
{
    /// Creates the command line of a program with this name.
    pub fn new(name: impl Into<String>) -> Cli<M, D> {
        Cli {
            name: name.into(),
            about: String::new(),
            defaults: None,
            registry: Registry::new(),
            refused: None,
            links: Vec::new(),
            save_config: SaveConfig::New,
            args: None,
            env: None,
            console: Console::stderr(),
            trainer: None,
            before_fit: None,
            after_fit: None,
            after_evaluation: None,
            after_predict: None,
        }
    }

    /// Sets the description of the program in its help.
    pub fn about(mut self, about: impl Into<String>) -> Self {
        self.about = about.into();
        self
    }

    /// Sets the program's defaults, as the text of a configuration file: `include_str!("defaults.yaml")`. Files,
    /// environment and arguments override them.
    pub fn defaults(mut self, yaml: impl Into<String>) -> Self {
        self.defaults = Some(yaml.into());
        self
    }

    /// Registers a callback for files and arguments, by its [`class_name`](Configurable::class_name).
    pub fn callback<C: Callback + Configurable>(mut self) -> Self {
        self.claim::<C>(Registry::add_callback::<C>, Kind::Callback, C::class_name());
        self
    }

    /// Registers a logger for files and arguments, by its [`class_name`](Configurable::class_name).
    pub fn logger<L: Logger + Configurable>(mut self) -> Self {
        self.claim::<L>(Registry::add_logger::<L>, Kind::Logger, L::class_name());
        self
    }

    /// Registers a profiler for files and arguments, by its [`class_name`](Configurable::class_name).
    pub fn profiler<P: Profiler + Configurable>(mut self) -> Self {
        self.claim::<P>(Registry::add_profiler::<P>, Kind::Profiler, P::class_name());
        self
    }

    /// Registers an optimizer for files and arguments: a [`Rule`](crate::optim::Rule), or other options that an
    /// optimizer is built from.
    pub fn optimizer<O: BuildOptimizer>(mut self) -> Self {
        self.claim::<O>(Registry::add_optimizer::<O>, Kind::Optimizer, O::class_name());
        self
    }

    /// Registers a learning-rate scheduler for files and arguments: a [`Schedule`](crate::optim::Schedule), or other
    /// options that a scheduler is built from.
    pub fn lr_scheduler<S: BuildLrScheduler>(mut self) -> Self {
        self.claim::<S>(Registry::add_lr_scheduler::<S>, Kind::Scheduler, S::class_name());
        self
    }

    /// The first class that cannot be registered is the error that the program exits with.
    fn claim<T>(&mut self, add: impl FnOnce(&mut Registry), kind: Kind, name: &str) {
        if let Err(error) = self.registry.claim::<T>(add, kind, name) {
            self.refused.get_or_insert(error);
        }
    }

    /// Registers a strategy for files and arguments, as [`Strategies::register`]. If that fails, the program exits with
    /// the error.
    pub fn strategy(
        mut self,
        name: &str,
        factory: impl Fn(StrategyContext) -> Result<Box<dyn Strategy>, FabricError> + Send + Sync + 'static,
    ) -> Self {
        if let Err(error) = Strategies::register(name, factory) {
            self.refused.get_or_insert(Error::Config(error.to_string()));
        }
        self
    }

    /// Sets the option `target` to the value of `source`, such as `data.context` and `model.context`. The target cannot
    /// be set by itself.
    pub fn link(mut self, source: &str, target: &str) -> Self {
        self.links.push((source.to_owned(), target.to_owned()));
        self
    }

    /// Modifies the trainer after it is configured, for example to add a callback.
    pub fn trainer(mut self, change: impl FnOnce(TrainerBuilder) -> TrainerBuilder + 'static) -> Self {
        self.trainer = Some(Box::new(change));
        self
    }

    /// Whether the configuration is saved beside the logs, and over an older one.
    pub fn save_config(mut self, save_config: SaveConfig) -> Self {
        self.save_config = save_config;
        self
    }

    /// Runs before `fit` trains.
    pub fn before_fit(mut self, hook: impl FnMut(&mut Trainer, &mut M, &mut D) -> Result<()> + 'static) -> Self {
        self.before_fit = Some(Box::new(hook));
        self
    }

    /// Runs after `fit` trained, unless a signal such as Ctrl-C ended it.
    pub fn after_fit(mut self, hook: impl FnMut(&mut Trainer, &mut M, &mut D) -> Result<()> + 'static) -> Self {
        self.after_fit = Some(Box::new(hook));
        self
    }

    /// Runs after `validate` or `test`, with the logged values of each loader.
    pub fn after_evaluation(mut self, hook: impl FnMut(&mut Trainer, &[EvalResults]) -> Result<()> + 'static) -> Self {
        self.after_evaluation = Some(Box::new(hook));
        self
    }

    /// Runs after `predict`, with the predictions of each loader and batch.
    pub fn after_predict(
        mut self,
        hook: impl FnMut(&mut Trainer, &mut D, &[Vec<Value>]) -> Result<()> + 'static,
    ) -> Self {
        self.after_predict = Some(Box::new(hook));
        self
    }

    /// Sets the arguments, without the program's name, instead of those of the process.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args = Some(args.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the environment variables, instead of those of the process.
    pub fn env<S: Into<String>>(mut self, variables: impl IntoIterator<Item = (S, S)>) -> Self {
        self.env = Some(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect());
        self
    }

    /// Sets the output; standard output and error by default.
    pub fn console(mut self, console: Console) -> Self {
        self.console = console;
        self
    }

    /// Runs the program. The exit code is 0, 1 if the run failed, 2 if the configuration is invalid, or 128 plus the
    /// number of the signal that terminated it: 130 for Ctrl-C, 143 for SIGTERM.
    pub fn run(self) -> ExitCode {
        self.start()
    }
}
