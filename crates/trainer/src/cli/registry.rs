//! [`Registry`]: the classes that a file or a command line can name.

use fulgurite_fabric::FabricError;
use fulgurite_fabric::ended::{self, Place};
use fulgurite_fabric::loggers::{CsvLogger, CsvLoggerOptions, Logger, TensorBoardLogger, TensorBoardLoggerOptions};
use fulgurite_fabric::strategy::{DdpOptions, Strategies, StrategyChoice, options_schema};
use fulgurite_optim::{OptimizerOptions, SchedulerOptions};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::schema::Schema;
use crate::callbacks::*;
use crate::config::Configurable;
use crate::error::Error;
use crate::plugin::Plugin;
use crate::slurm::SlurmEnvironment;

/// What a class is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Callback,
    Logger,
    Optimizer,
    Scheduler,
    Plugin,
    Strategy,
}

impl Kind {
    pub(super) const ALL: [Kind; 6] =
        [Kind::Callback, Kind::Logger, Kind::Optimizer, Kind::Scheduler, Kind::Plugin, Kind::Strategy];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Callback => "callback",
            Kind::Logger => "logger",
            Kind::Optimizer => "optimizer",
            Kind::Scheduler => "lr_scheduler",
            Kind::Plugin => "plugin",
            Kind::Strategy => "strategy",
        }
    }

    pub(super) fn plural(self) -> &'static str {
        match self {
            Kind::Callback => "callbacks",
            Kind::Logger => "loggers",
            Kind::Optimizer => "optimizers",
            Kind::Scheduler => "lr_schedulers",
            Kind::Plugin => "plugins",
            Kind::Strategy => "strategies",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What became of a class of Lightning's that ended.
    pub(super) fn fate(self, class_path: &str) -> Option<&'static str> {
        let place = match self {
            Kind::Callback => Place::Callback,
            Kind::Logger => Place::Logger,
            Kind::Plugin => Place::Plugin,
            Kind::Strategy => Place::Strategy,
            Kind::Optimizer | Kind::Scheduler => return None,
        };
        ended::fate(place, class_path)
    }

    /// What Lightning has under names of its own, and this version does not have.
    fn elsewhere(self) -> &'static [&'static str] {
        match self {
            Kind::Callback => &["LambdaCallback"],
            Kind::Logger => &["CometLogger", "LitLogger", "MLFlowLogger", "WandbLogger"],
            Kind::Plugin => &[
                "AsyncCheckpointIO",
                "KubeflowEnvironment",
                "LSFEnvironment",
                "LightningEnvironment",
                "MPIEnvironment",
                "MixedPrecision",
                "TorchCheckpointIO",
                "TorchElasticEnvironment",
                "TorchSyncBatchNorm",
            ],
            Kind::Strategy => &[
                "DeepSpeedStrategy",
                "FSDPStrategy",
                "ModelParallelStrategy",
                "SingleDeviceXLAStrategy",
                "XLAStrategy",
            ],
            Kind::Optimizer | Kind::Scheduler => &[],
        }
    }
}

/// Where in its options something is wrong, and what.
pub(super) struct Misfit {
    pub path: Vec<String>,
    pub message: String,
}

/// What a class makes of its options.
pub(super) enum Made {
    Callback(Box<dyn Callback>),
    Logger(Box<dyn Logger>),
    Optimizer(OptimizerOptions),
    Scheduler(SchedulerOptions),
    Plugin(Plugin),
    Strategy(StrategyChoice),
}

type Make = Box<dyn Fn(Value) -> Result<Made, Failure>>;
type Check = Box<dyn Fn(Value) -> Result<(), Misfit>>;

/// Why a class could not be made.
pub(super) enum Failure {
    /// An option has the wrong type.
    Misfit(Misfit),
    /// The options cannot be.
    Refused(Error),
}

/// A class, its options, and how it is made of them.
pub(super) struct Class {
    pub kind: Kind,
    pub name: String,
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
    /// No class at all.
    pub(super) fn empty() -> Registry {
        Registry(Vec::new())
    }

    /// The classes that come with the crate.
    pub(super) fn new() -> Registry {
        let mut registry = Registry::empty();
        macro_rules! callbacks {
            ($($callback:ident $aliases:expr;)*) => {
                $(registry.add_callback::<$callback>(stringify!($callback), &$aliases);)*
            };
        }
        callbacks! {
            BackboneFinetuning [];
            BatchSizeFinder [];
            DeviceStatsMonitor [];
            EMAWeightAveraging [];
            EarlyStopping [];
            GradientAccumulationScheduler [];
            GradientNorm [];
            LearningRateFinder [];
            LearningRateMonitor [];
            ModelCheckpoint [];
            ModelPruning [];
            ModelSummary ["RichModelSummary"];
            OnExceptionCheckpoint [];
            ProgressBar ["RichProgressBar", "TQDMProgressBar"];
            SpikeDetection [];
            StochasticWeightAveraging [];
            TerminateOnNaN [];
            ThroughputMonitor [];
            Timer [];
            WeightAveraging [];
        }
        let slurm = |environment| Made::Plugin(Plugin::slurm(environment));
        registry.add::<SlurmEnvironment>(Kind::Plugin, "SlurmEnvironment", &["SLURMEnvironment"], slurm);
        registry.insert(Class {
            kind: Kind::Strategy,
            name: "DdpStrategy".to_owned(),
            aliases: &["DDPStrategy"],
            schema: options_schema::<DdpOptions>(),
            check: Box::new(|options| parse::<DdpOptions>(options).map(drop)),
            make: Box::new(|options| {
                let options = parse::<DdpOptions>(options).map_err(Failure::Misfit)?;
                Ok(Made::Strategy(options.into()))
            }),
        });
        Strategies::registered_schemas().into_iter().for_each(|(name, schema)| registry.add_strategy(name, schema));
        registry.add_logger::<CsvLogger>("CsvLogger", &["CSVLogger"]);
        registry.add_logger::<TensorBoardLogger>("TensorBoardLogger", &[]);
        for &name in OptimizerOptions::NAMES {
            registry.add_tagged::<OptimizerOptions>(Kind::Optimizer, name, OptimizerOptions::schema, Made::Optimizer);
        }
        for &name in SchedulerOptions::NAMES {
            registry.add_tagged::<SchedulerOptions>(Kind::Scheduler, name, SchedulerOptions::schema, Made::Scheduler);
        }
        registry
    }

    pub(super) fn add_callback<C: Callback + Configurable>(&mut self, name: &str, aliases: &'static [&'static str]) {
        self.add::<C>(Kind::Callback, name, aliases, |callback| Made::Callback(Box::new(callback)));
    }

    pub(super) fn add_logger<L: Logger + Configurable>(&mut self, name: &str, aliases: &'static [&'static str]) {
        self.add::<L>(Kind::Logger, name, aliases, |logger| Made::Logger(Box::new(logger)));
    }

    fn add<C: Configurable>(
        &mut self,
        kind: Kind,
        name: &str,
        aliases: &'static [&'static str],
        made: impl Fn(C) -> Made + 'static,
    ) {
        let make = move |options: Value| {
            let options = parse::<C::Options>(options).map_err(Failure::Misfit)?;
            C::from_options(options).map(&made).map_err(Failure::Refused)
        };
        self.insert(Class {
            kind,
            name: name.to_owned(),
            aliases,
            schema: options_schema::<C::Options>(),
            check: Box::new(|options| parse::<C::Options>(options).map(drop)),
            make: Box::new(make),
        });
    }

    /// A strategy that the program registered, under its name.
    fn add_strategy(&mut self, name: String, schema: Value) {
        let choice = {
            let name = name.clone();
            move |options: Value| {
                let options = options.as_object().cloned().unwrap_or_default();
                let choice = StrategyChoice::new(name.as_str(), options);
                Strategies::check_options(&choice).map(|()| choice)
            }
        };
        let check = choice.clone();
        let misfit = |error: FabricError| Misfit { path: Vec::new(), message: error.to_string() };
        self.insert(Class {
            kind: Kind::Strategy,
            name,
            aliases: &[],
            schema,
            check: Box::new(move |options| check(options).map(drop).map_err(misfit)),
            make: Box::new(move |options| {
                choice(options).map(Made::Strategy).map_err(|error| Failure::Refused(Error::Config(error.to_string())))
            }),
        });
    }

    /// A variant of an enum that is tagged by its class.
    fn add_tagged<T: DeserializeOwned + 'static>(
        &mut self,
        kind: Kind,
        name: &'static str,
        schema: fn(&str) -> Option<schemars::Schema>,
        made: fn(T) -> Made,
    ) {
        let read = move |options: Value| {
            let tagged = serde_json::json!({ "class_path": name, "init_args": options });
            parse::<T>(tagged).map_err(|misfit| Misfit { path: misfit.path.into_iter().skip(1).collect(), ..misfit })
        };
        let make = move |options: Value| read(options).map(made).map_err(Failure::Misfit);
        let schema = schema(name).map(schemars::Schema::to_value).unwrap_or_default();
        let check = Box::new(move |options| read(options).map(drop));
        self.insert(Class { kind, name: name.to_owned(), aliases: &[], schema, check, make: Box::new(make) });
    }

    /// A class takes the place of an earlier one of its name.
    fn insert(&mut self, class: Class) {
        self.0.retain(|held| held.kind != class.kind || held.name != class.name);
        self.0.push(class);
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

/// Options of a value; what is wrong, and where in it.
pub(super) fn parse<T: DeserializeOwned>(value: Value) -> Result<T, Misfit> {
    serde_path_to_error::deserialize(value).map_err(|error| Misfit {
        path: error.path().iter().map(|part| part.to_string().trim_matches(['[', ']']).to_owned()).collect(),
        message: error.inner().to_string(),
    })
}

impl Configurable for CsvLogger {
    type Options = CsvLoggerOptions;

    fn from_options(options: CsvLoggerOptions) -> Result<CsvLogger, Error> {
        Ok(options.into())
    }
}

impl Configurable for TensorBoardLogger {
    type Options = TensorBoardLoggerOptions;

    fn from_options(options: TensorBoardLoggerOptions) -> Result<TensorBoardLogger, Error> {
        Ok(options.into())
    }
}
