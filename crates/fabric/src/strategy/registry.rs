//! [`Strategies`]: strategies by name.

use std::sync::{Arc, Mutex, PoisonError};

use fulgurite_torch::distributed::ProcessGroup;
use fulgurite_torch::tch::Device;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::options::{Options, parse};
use super::{DdpOptions, DdpStrategy, Ranks, SingleDeviceStrategy, Strategy};
use crate::FabricError;
use crate::removed::{self, Place};

/// What a strategy is created from.
pub struct StrategyContext {
    /// The requested name.
    pub name: String,
    /// The device of this process.
    pub device: Device,
    /// The ranks of this process.
    pub ranks: Ranks,
    /// The groups of all ranks; `None` for a run of one process.
    pub groups: Option<Groups>,
    /// The options that were given; see [`StrategyContext::parse_options`].
    pub options: Options,
    /// Whether batch norms are synchronized over all ranks.
    pub sync_batchnorm: bool,
}

impl StrategyContext {
    /// The options, with defaults for those that were not given. A strategy without options takes [`NoOptions`].
    ///
    /// # Errors
    ///
    /// Fails if there is no such option, or if its value has another type.
    pub fn parse_options<O: DeserializeOwned>(&self) -> Result<O, FabricError> {
        parse(&self.name, &self.options)
    }
}

/// No options.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoOptions {}

/// The groups of all ranks of a run.
#[derive(Debug, Clone)]
pub struct Groups {
    /// For tensors on the device.
    pub device: ProcessGroup,
    /// For tensors on the CPU.
    pub control: ProcessGroup,
}

/// Creates a strategy.
pub type StrategyFactory = Arc<dyn Fn(StrategyContext) -> Result<Box<dyn Strategy>, FabricError> + Send + Sync>;

/// A registered strategy.
#[derive(Clone)]
struct Entry {
    name: String,
    /// The JSON schema of its options, each with its default.
    schema: Value,
    /// Checks options without creating a strategy.
    check: fn(&str, &Options) -> Result<(), FabricError>,
    factory: StrategyFactory,
}

/// Strategies of other crates, by name.
static REGISTERED: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

pub(crate) const SINGLE_DEVICE: &str = "single_device";
pub(super) const DDP: &str = "ddp";

/// The built-in strategies.
const BUILT_IN: [&str; 5] = ["auto", SINGLE_DEVICE, DDP, ALIASES[0].name, ALIASES[1].name];

/// An alias of a strategy with an option.
struct Alias {
    name: &'static str,
    strategy: &'static str,
    option: (&'static str, bool),
}

const ALIASES: [Alias; 2] = [
    Alias { name: "ddp_find_unused_parameters_false", strategy: DDP, option: ("find_unused_parameters", false) },
    Alias { name: "ddp_find_unused_parameters_true", strategy: DDP, option: ("find_unused_parameters", true) },
];

impl Alias {
    fn options(&self) -> Options {
        let (option, value) = self.option;
        Options::from_iter([(option.to_owned(), value.into())])
    }

    /// Whether the option has its default value.
    fn is_default(&self) -> bool {
        parse::<DdpOptions>(self.strategy, &self.options()).is_ok_and(|options| options == DdpOptions::default())
    }
}

/// Strategies of Lightning that a compiled program cannot support.
const SPAWNED: [&str; 3] = ["ddp_spawn", "ddp_fork", "ddp_notebook"];

/// Strategies of Lightning that are not implemented.
const NOT_IMPLEMENTED: [&str; 7] =
    ["deepspeed", "fsdp", "fsdp_cpu_offload", "model_parallel", "single_xla", "xla", "xla_debug"];

/// The registry of strategies by name.
///
/// ```
/// use fulgurite_fabric::strategy::Strategies;
///
/// assert!(Strategies::names().contains(&"ddp".to_owned()));
/// let error = Strategies::check("single_devise").unwrap_err().to_string();
/// assert!(error.contains("did you mean `single_device`?"), "{error}");
/// ```
#[derive(Debug)]
pub struct Strategies;

impl Strategies {
    /// The names of all strategies.
    pub fn names() -> Vec<String> {
        let registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        BUILT_IN.map(str::to_owned).into_iter().chain(registered.iter().map(|entry| entry.name.clone())).collect()
    }

    /// The names of the built-in strategies, without aliases that change nothing.
    pub fn built_in() -> Vec<&'static str> {
        let is_distinct = |name: &&str| !ALIASES.iter().any(|alias| alias.name == *name && alias.is_default());
        BUILT_IN.into_iter().filter(is_distinct).collect()
    }

    /// The strategy and the options that an alias stands for; `None` if the name is not an alias.
    pub(super) fn alias(name: &str) -> Option<(&'static str, Options)> {
        ALIASES.iter().find(|alias| alias.name == name).map(|alias| (alias.strategy, alias.options()))
    }

    /// Registers a strategy without options. Replaces a strategy that was registered under the same name before.
    ///
    /// # Errors
    ///
    /// Fails if the name is empty, or that of a built-in strategy.
    pub fn register(
        name: impl Into<String>,
        factory: impl Fn(StrategyContext) -> Result<Box<dyn Strategy>, FabricError> + Send + Sync + 'static,
    ) -> Result<(), FabricError> {
        Strategies::register_with::<NoOptions>(name, move |context, NoOptions {}| factory(context))
    }

    /// Registers a strategy with options, which files and the command line can set.
    ///
    /// # Errors
    ///
    /// Fails if the name is empty, or that of a built-in strategy.
    pub fn register_with<O: Serialize + DeserializeOwned + JsonSchema + Default>(
        name: impl Into<String>,
        factory: impl Fn(StrategyContext, O) -> Result<Box<dyn Strategy>, FabricError> + Send + Sync + 'static,
    ) -> Result<(), FabricError> {
        let name = name.into();
        if name.is_empty() {
            return Err(FabricError::Setting("the name of a strategy is empty; choose one".into()));
        }
        if BUILT_IN.contains(&name.as_str()) {
            return Err(FabricError::Setting(format!("the strategy `{name}` is built in; choose another name")));
        }
        let factory = Arc::new(move |context: StrategyContext| {
            let options = context.parse_options()?;
            factory(context, options)
        });
        let check = |name: &str, options: &Options| parse::<O>(name, options).map(drop);
        let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        registered.retain(|entry| entry.name != name);
        registered.push(Entry { name, schema: options_schema::<O>(), check, factory });
        Ok(())
    }

    /// The registered strategies, each with the JSON schema of its options.
    pub fn registered_schemas() -> Vec<(String, Value)> {
        let registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        registered.iter().map(|entry| (entry.name.clone(), entry.schema.clone())).collect()
    }

    /// Whether the registered strategy `name` takes these options.
    ///
    /// # Errors
    ///
    /// Fails if there is no such option, or if its value has another type.
    pub fn check_options(name: &str, options: &Options) -> Result<(), FabricError> {
        Strategies::registered(name).map_or(Ok(()), |entry| (entry.check)(name, options))
    }

    /// Whether there is a strategy of this name.
    ///
    /// # Errors
    ///
    /// Fails if there is no strategy of this name; the message says what to write instead.
    pub fn check(name: &str) -> Result<(), FabricError> {
        let names = Strategies::names();
        if names.iter().any(|known| known == name) {
            return Ok(());
        }
        let base = name.split("_find_unused").next().and_then(|name| name.split("_stage_").next()).unwrap_or(name);
        if SPAWNED.contains(&base) {
            let instead = name.replacen(base, "ddp", 1);
            return Err(FabricError::Setting(format!(
                "strategy `{name}` starts processes from a running interpreter, which a compiled program does not have; write `{instead}`: the program starts itself once per device"
            )));
        }
        if NOT_IMPLEMENTED.contains(&base) {
            return Err(FabricError::NotInThisVersion { what: format!("strategy `{name}`") });
        }
        Err(match removed::hint(Place::Strategy, name) {
            Some(hint) => FabricError::Removed { what: "strategy", given: name.to_owned(), hint },
            None => FabricError::unknown("strategy", name, &names),
        })
    }

    /// Creates the strategy of a name. `auto` is `ddp` if there are several processes.
    ///
    /// # Errors
    ///
    /// Fails if the name is unknown, or if the strategy does not accept the context.
    pub fn make(mut context: StrategyContext) -> Result<Box<dyn Strategy>, FabricError> {
        Strategies::check(&context.name)?;
        let world_size = context.ranks.world_size;
        if let Some(entry) = Strategies::registered(&context.name) {
            let strategy = (entry.factory)(context)?;
            return match strategy.ranks().world_size {
                told if told == world_size && (told == 1 || strategy.control_group().is_some()) => Ok(strategy),
                told if told == world_size => Err(FabricError::Setting(format!(
                    "strategy `{}` runs {told} processes and has no `control_group`, in which they take decisions and save checkpoints; return `groups.control` of its `StrategyContext`",
                    entry.name
                ))),
                told => Err(FabricError::Setting(format!(
                    "strategy `{}` was asked for with {world_size} processes, and by its `ranks` there are {told}; set devices and num_nodes to 1, or write the strategy for several: it returns the `ranks` of its `StrategyContext`, and exchanges with its `groups`",
                    entry.name
                ))),
            };
        }
        if context.name == SINGLE_DEVICE {
            context.parse_options::<NoOptions>()?;
        }
        if let Some((_, options)) = Strategies::alias(&context.name) {
            context.options.extend(options);
        }
        let ddp: DdpOptions = context.parse_options()?;
        let StrategyContext { name, device, ranks, groups, sync_batchnorm, .. } = context;
        match groups {
            None => Ok(Box::new(SingleDeviceStrategy::new(device))),
            Some(_) if name == SINGLE_DEVICE => Err(Strategies::refuse_single_device(world_size)),
            Some(Groups { device: group, control }) => {
                let name = if name == "auto" { DDP.to_owned() } else { name };
                let mut strategy = DdpStrategy::new(name, ddp, device, ranks, group, control);
                if sync_batchnorm {
                    strategy.synchronize_batch_norms()?;
                }
                Ok(Box::new(strategy))
            }
        }
    }

    pub(crate) fn refuse_single_device(world_size: usize) -> FabricError {
        FabricError::Setting(format!(
            "strategy `single_device` was requested with {world_size} processes; write `ddp`, or set devices and num_nodes to 1"
        ))
    }

    fn registered(name: &str) -> Option<Entry> {
        REGISTERED.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|entry| entry.name == name).cloned()
    }
}

/// The JSON schema of a struct of options, with its defaults and without references.
pub fn options_schema<T: JsonSchema + Serialize + Default>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    let defaults = serde_json::to_value(T::default()).unwrap_or_default();
    if let (Some(fields), Value::Object(defaults)) = (schema["properties"].as_object_mut(), defaults) {
        for (name, default) in defaults {
            if let Some(Value::Object(field)) = fields.get_mut(&name) {
                field.insert("default".into(), default);
            }
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::super::StrategyChoice;
    use super::*;

    /// Of a run on the CPU, without groups and options.
    fn context(name: &str, ranks: Ranks) -> StrategyContext {
        StrategyContext {
            name: name.into(),
            device: Device::Cpu,
            ranks,
            groups: None,
            options: Options::new(),
            sync_batchnorm: false,
        }
    }

    fn refused(name: &str) -> String {
        Strategies::check(name).unwrap_err().to_string()
    }

    #[test]
    fn names_that_are_not_strategies_say_what_to_write() {
        assert!(refused("ddp_spawn_find_unused_parameters_true").contains("write `ddp_find_unused_parameters_true`"));
        assert_eq!(refused("dp").split(':').next(), Some("strategy `dp` no longer exists"));
        assert_eq!(refused("bagua"), "strategy `bagua` no longer exists: Lightning 2.3 removed Bagua; write `ddp`");
        assert_eq!(refused("fsdp"), "this version does not support strategy `fsdp` yet");
        assert!(refused("single").contains("did you mean `single_device`?"));
        assert!(refused("zzz").starts_with("unknown strategy `zzz`; choose one of auto, single_device, ddp"));
    }

    #[test]
    fn built_in_names_that_differ() {
        let different = ["auto", "single_device", "ddp", "ddp_find_unused_parameters_true"];
        assert_eq!(Strategies::built_in(), different);
    }

    #[test]
    fn a_strategy_of_ones_own() {
        struct Mine;
        impl Strategy for Mine {
            fn name(&self) -> &str {
                "mine"
            }
            fn device(&self) -> Device {
                Device::Cpu
            }
        }
        Strategies::register("mine", |_| Ok(Box::new(Mine))).unwrap();
        let of_two = Ranks { world_size: 2, ..Ranks::SINGLE_PROCESS };
        let mine = Strategies::make(context("mine", Ranks::SINGLE_PROCESS)).unwrap();
        let error = Strategies::make(context("mine", of_two)).err().unwrap().to_string();
        assert!(error.starts_with("strategy `mine` was asked for with 2 processes, and by its `ranks` there are 1; "));
        assert_eq!((mine.name(), mine.class_name().as_str()), ("mine", "MineStrategy"));
        assert_eq!(SingleDeviceStrategy::new(Device::Cpu).class_name(), "SingleDeviceStrategy");
        let error = Strategies::register("", |_| Ok(Box::new(Mine))).unwrap_err().to_string();
        assert_eq!(error, "the name of a strategy is empty; choose one");
        let error = Strategies::register("ddp", |_| Ok(Box::new(Mine))).unwrap_err().to_string();
        assert_eq!(error, "the strategy `ddp` is built in; choose another name");
    }

    #[test]
    fn a_strategy_of_several_processes_implements_the_collectives() {
        struct Lonely;
        impl Strategy for Lonely {
            fn name(&self) -> &str {
                "lonely"
            }
            fn device(&self) -> Device {
                Device::Cpu
            }
            fn ranks(&self) -> Ranks {
                Ranks { world_size: 2, ..Ranks::SINGLE_PROCESS }
            }
        }
        let tensor = fulgurite_torch::tch::Tensor::from(1.0);
        let vars = fulgurite_torch::params::NamedTensors::new();
        let refused = [
            Lonely.setup_module(&vars).map(drop),
            Lonely.setup_training(&vars).map(drop),
            Lonely.barrier("here").map(drop),
            Lonely.broadcast(1.into(), 0).map(drop),
            Lonely.all_gather_values(1.into()).map(drop),
            Lonely.all_gather(&tensor).map(drop),
            Lonely.reduce(&tensor, super::super::ReduceOp::Sum).map(drop),
            Lonely.reduce_boolean_decision(true, true).map(drop),
        ];
        let methods = [
            "setup_module",
            "setup_training",
            "barrier",
            "broadcast",
            "all_gather_values",
            "all_gather",
            "reduce",
            "reduce_boolean_decision",
        ];
        for (refused, method) in refused.into_iter().zip(methods) {
            let error = refused.unwrap_err().to_string();
            let start = format!("strategy `lonely` runs 2 processes, and does not implement `Strategy::{method}`, ");
            assert!(error.starts_with(&start), "{error}");
        }
        Strategies::register("lonely", |_| Ok(Box::new(Lonely))).unwrap();
        let error = Strategies::make(context("lonely", Lonely.ranks())).err().unwrap().to_string();
        assert!(error.starts_with("strategy `lonely` runs 2 processes and has no `control_group`, "), "{error}");
    }

    #[test]
    fn a_strategy_of_ones_own_has_options() {
        #[derive(Default, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        struct Shards {
            /// How many.
            count: u64,
        }
        struct Sharded(String);
        impl Strategy for Sharded {
            fn name(&self) -> &str {
                &self.0
            }
            fn device(&self) -> Device {
                Device::Cpu
            }
        }
        let make = |_, shards: Shards| Ok(Box::new(Sharded(format!("sharded_{}", shards.count))) as Box<dyn Strategy>);
        Strategies::register_with("sharded", make).unwrap();
        let choice: StrategyChoice = serde_json::from_str(r#"{"name": "sharded", "count": 3}"#).unwrap();
        let build = |choice| crate::Fabric::builder().accelerator("cpu").devices(1).strategy(choice).build();
        assert_eq!(build(choice).unwrap().strategy().name(), "sharded_3");
        let error = build(StrategyChoice::from("sharded").option("cout", 3)).unwrap_err().to_string();
        assert!(error.contains("options of strategy `sharded`: unknown field `cout`"), "{error}");
        let (_, schema) = Strategies::registered_schemas().into_iter().find(|(name, _)| name == "sharded").unwrap();
        assert_eq!(schema["properties"]["count"]["description"], "How many.");
    }
}
