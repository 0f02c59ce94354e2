//! [`Registry`]: the classes that a file or a command line can name.

use fulgurite_engine::config::Configurable;
use fulgurite_engine::profilers::{AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler};
use fulgurite_engine::{Error, SlurmRequeue};
use fulgurite_fabric::FabricError;
use fulgurite_fabric::loggers::{CsvLogger, Logger, TensorBoardLogger};
use fulgurite_fabric::strategy::{DdpOptions, Strategies, StrategyChoice};
use fulgurite_optim::{
    BuildLrScheduler, BuildOptimizer, LrScheduler, OptimError, Optimizer, OptimizerOptions, OptimizerVisitor,
    ParamGroupConfig, SchedulerOptions, SchedulerVisitor,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::kind::Kind;
use super::schema::{Schema, options_schema};
use crate::callbacks::*;
use crate::plugin::Plugin;

/// An error in a class's options, and its path.
pub(super) struct Misfit {
    pub path: Vec<String>,
    pub message: String,
}

/// The constructor of a class.
pub(super) enum Made {
    Callback(Box<dyn Callback>),
    Logger(Box<dyn Logger>),
    Optimizer(MakeOptimizer),
    Scheduler(MakeScheduler),
    Plugin(Plugin),
    Profiler(Box<dyn Profiler>),
    Strategy(StrategyChoice),
}

/// Creates the optimizer for parameters.
pub(super) type MakeOptimizer = Box<dyn Fn(Vec<ParamGroupConfig>) -> Result<Box<dyn Optimizer>, OptimError> + Send>;

type BuiltScheduler = Result<Box<dyn LrScheduler>, OptimError>;

/// The length of the run, in the units of the scheduler's interval.
type RunLength<'a> = dyn FnMut() -> Option<u32> + 'a;

/// Creates a scheduler, which may request the length of the run.
pub(super) struct MakeScheduler {
    pub make: Box<dyn Fn(&mut RunLength) -> BuiltScheduler + Send>,
    pub needs_metric: bool,
}

type Make = Box<dyn Fn(Value) -> Result<Made, Failure>>;
type Check = Box<dyn Fn(Value) -> Result<(), Misfit>>;

/// An error of creating a class.
pub(super) enum Failure {
    /// An option has the wrong type.
    Misfit(Misfit),
    /// The options are invalid.
    Refused(Error),
}

/// A class, its options, and its constructor.
pub(super) struct Class {
    pub kind: Kind,
    pub name: String,
    /// The Rust type that a program registered.
    own: Option<&'static str>,
    /// Other names, such as Lightning's.
    aliases: &'static [&'static str],
    pub schema: Value,
    /// Whether options have the right types.
    pub check: Check,
    pub make: Make,
}

impl Class {
    pub(super) fn schema(&self) -> Schema<'_> {
        Schema(&self.schema)
    }
}

/// All classes.
pub(super) struct Registry(Vec<Class>);

impl Registry {
    /// No classes.
    pub(super) fn empty() -> Registry {
        Registry(Vec::new())
    }

    /// The built-in classes.
    pub(super) fn new() -> Registry {
        let mut registry = Registry::empty();
        macro_rules! callbacks {
            ($($callback:ident)*) => {
                $(registry.add_callback::<$callback>();)*
            };
        }
        callbacks! {
            BackboneFinetuning
            BatchSizeFinder
            DeviceStatsMonitor
            EMAWeightAveraging
            EarlyStopping
            GradientAccumulationScheduler
            GradientNorm
            LearningRateFinder
            LearningRateMonitor
            ModelCheckpoint
            ModelPruning
            ModelSummary
            OnExceptionCheckpoint
            ProgressBar
            SpikeDetection
            StochasticWeightAveraging
            TerminateOnNaN
            ThroughputMonitor
            Timer
            WeightAveraging
        }
        registry.add_configurable(Kind::Plugin, |environment: SlurmRequeue| Made::Plugin(Plugin::slurm(environment)));
        registry.add(Kind::Strategy, "DdpStrategy", &["DDPStrategy"], |options: DdpOptions| {
            Ok(Made::Strategy(options.into()))
        });
        Strategies::registered_schemas().into_iter().for_each(|(name, schema)| registry.add_strategy(name, schema));
        registry.add_logger::<CsvLogger>();
        registry.add_logger::<TensorBoardLogger>();
        #[cfg(feature = "trackers")]
        registry.add_logger::<fulgurite_fabric::loggers::CometLogger>();
        #[cfg(feature = "trackers")]
        registry.add_logger::<fulgurite_fabric::loggers::MLFlowLogger>();
        #[cfg(feature = "trackers")]
        registry.add_logger::<fulgurite_fabric::loggers::TrackioLogger>();
        #[cfg(feature = "trackers")]
        registry.add_logger::<fulgurite_fabric::loggers::WandbLogger>();
        registry.add_profiler::<SimpleProfiler>();
        registry.add_profiler::<AdvancedProfiler>();
        registry.add_profiler::<PyTorchProfiler>();
        OptimizerOptions::visit_all(&mut registry);
        SchedulerOptions::visit_all(&mut registry);
        registry
    }

    /// A strategy that the program registered, under its name.
    fn add_strategy(&mut self, name: String, schema: Value) {
        let choice = {
            let name = name.clone();
            move |options: Value| {
                let options = options.as_object().cloned().unwrap_or_default();
                let choice = StrategyChoice::new(name.as_str(), options);
                Strategies::check_options(choice.name(), choice.options()).map(|()| choice)
            }
        };
        let check = choice.clone();
        let misfit = |error: FabricError| Misfit { path: Vec::new(), message: error.to_string() };
        self.insert(Class {
            kind: Kind::Strategy,
            name,
            own: None,
            aliases: &[],
            schema,
            check: Box::new(move |options| check(options).map(drop).map_err(misfit)),
            make: Box::new(move |options| {
                choice(options).map(Made::Strategy).map_err(|error| Failure::Refused(Error::Config(error.to_string())))
            }),
        });
    }

    pub(super) fn add_callback<C: Callback + Configurable>(&mut self) {
        self.add_configurable(Kind::Callback, |callback: C| Made::Callback(Box::new(callback)));
    }

    pub(super) fn add_logger<L: Logger + Configurable>(&mut self) {
        self.add_configurable(Kind::Logger, |logger: L| Made::Logger(Box::new(logger)));
    }

    pub(super) fn add_profiler<P: Profiler + Configurable>(&mut self) {
        self.add_configurable(Kind::Profiler, |profiler: P| Made::Profiler(Box::new(profiler)));
    }

    pub(super) fn add_optimizer<O: BuildOptimizer>(&mut self) {
        self.add(Kind::Optimizer, O::class_name(), &[], |options: O| {
            Ok(Made::Optimizer(Box::new(move |groups| options.clone().build_optimizer(groups))))
        });
    }

    pub(super) fn add_lr_scheduler<S: BuildLrScheduler>(&mut self) {
        self.add(Kind::Scheduler, S::class_name(), &[], |options: S| {
            Ok(Made::Scheduler(MakeScheduler {
                make: Box::new(move |run_length| options.clone().build_lr_scheduler(run_length)),
                needs_metric: S::NEEDS_METRIC,
            }))
        });
    }

    fn add_configurable<C: Configurable>(&mut self, kind: Kind, made: impl Fn(C) -> Made + 'static) {
        self.add(kind, C::class_name(), C::ALIASES, move |options| C::from_options(options).map(&made));
    }

    /// A class of these options.
    fn add<O: Serialize + DeserializeOwned + JsonSchema + Default>(
        &mut self,
        kind: Kind,
        name: &str,
        aliases: &'static [&'static str],
        made: impl Fn(O) -> Result<Made, Error> + 'static,
    ) {
        self.insert(Class {
            kind,
            name: name.to_owned(),
            own: None,
            aliases,
            schema: options_schema::<O>(),
            check: Box::new(|options| parse::<O>(options).map(drop)),
            make: Box::new(move |options| made(parse(options).map_err(Failure::Misfit)?).map_err(Failure::Refused)),
        });
    }

    /// Adds a class, replacing an earlier one with its name.
    fn insert(&mut self, class: Class) {
        self.0.retain(|held| held.kind != class.kind || held.name != class.name);
        self.0.push(class);
    }

    /// Adds a class of the program, which is the type `T`. It replaces one of the trainer; another one of the program, such as
    /// the same generic type with another parameter, would be lost.
    ///
    /// # Errors
    ///
    /// Fails if the program has another class of this kind and name.
    pub(super) fn claim<T>(&mut self, add: impl FnOnce(&mut Registry), kind: Kind, name: &str) -> Result<(), Error> {
        let own = std::any::type_name::<T>();
        let held = self.of(kind).find(|class| class.name == name).and_then(|class| class.own);
        if let Some(held) = held.filter(|held| *held != own) {
            return Err(Error::Config(format!(
                "two classes are registered as `{name}`: {held} and {own}; give each a name of its own with `class_name`"
            )));
        }
        add(self);
        self.0
            .iter_mut()
            .filter(|class| class.kind == kind && class.name == name)
            .for_each(|class| class.own = Some(own));
        Ok(())
    }

    pub(super) fn find(&self, kind: Kind, class_path: &str) -> Option<&Class> {
        let name = super::tree::short_name(class_path);
        let mut of_kind = self.of(kind);
        of_kind.find(|class| class.name == name || class.aliases.contains(&name.as_str()))
    }

    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &Class> {
        self.0.iter().filter(move |class| class.kind == kind)
    }

    pub(super) fn names(&self, kind: Kind) -> Vec<&str> {
        self.of(kind).map(|class| class.name.as_str()).collect()
    }

    /// Whether Lightning has the class, and this version does not.
    pub(super) fn is_elsewhere(&self, kind: Kind, class_path: &str) -> bool {
        let name = super::tree::short_name(class_path);
        self.find(kind, class_path).is_none() && kind.elsewhere().contains(&name.as_str())
    }
}

impl OptimizerVisitor for Registry {
    fn visit<O: BuildOptimizer>(&mut self) {
        self.add_optimizer::<O>();
    }
}

impl SchedulerVisitor for Registry {
    fn visit<O: BuildLrScheduler>(&mut self) {
        self.add_lr_scheduler::<O>();
    }
}

/// Options of a value; what is wrong, and where in it.
pub(super) fn parse<T: DeserializeOwned>(value: Value) -> Result<T, Misfit> {
    serde_path_to_error::deserialize(value).map_err(|error| Misfit {
        path: error.path().iter().map(|part| part.to_string().trim_matches(['[', ']']).to_owned()).collect(),
        message: error.inner().to_string(),
    })
}
