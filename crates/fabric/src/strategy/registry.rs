//! [`Strategies`]: strategies by name.

use std::sync::{Arc, Mutex, PoisonError};

use fulgurite_torch::distributed::ProcessGroup;
use fulgurite_torch::tch::Device;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DdpOptions, DdpStrategy, Options, Ranks, SingleDeviceStrategy, Strategy, StrategyChoice};
use crate::FabricError;
use crate::ended::{self, Place};

/// What a strategy is made of.
pub struct StrategyContext {
    /// The name that was asked for.
    pub name: String,
    /// The device of this process.
    pub device: Device,
    /// Where this process is among those of the run.
    pub ranks: Ranks,
    /// The groups of all ranks; none where the run has one process.
    pub groups: Option<Groups>,
    /// The options that were given; see [`StrategyContext::parse_options`].
    pub options: Options,
    /// Whether batch norms are to see the batches of all ranks as one.
    pub sync_batchnorm: bool,
}

impl StrategyContext {
    /// The options, those that were not given as by default. A strategy without options takes [`NoOptions`].
    ///
    /// # Errors
    ///
    /// An option that there is not, or of another type.
    pub fn parse_options<O: DeserializeOwned>(&self) -> Result<O, FabricError> {
        Strategies::parse(&self.name, &self.options)
    }
}

/// No options at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoOptions {}

/// The groups of all ranks of a run.
#[derive(Debug, Clone)]
pub struct Groups {
    /// Of the backend that sends tensors of the device.
    pub device: ProcessGroup,
    /// On the CPU.
    pub control: ProcessGroup,
}

/// Makes a strategy.
pub type StrategyFactory = Arc<dyn Fn(StrategyContext) -> Result<Box<dyn Strategy>, FabricError> + Send + Sync>;

/// A registered strategy.
#[derive(Clone)]
struct Entry {
    name: String,
    /// The JSON schema of its options, each with its default.
    schema: Value,
    /// Whether options can be.
    check: fn(&str, &Options) -> Result<(), FabricError>,
    factory: StrategyFactory,
}

/// Strategies of others, by name.
static REGISTERED: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

pub(crate) const SINGLE_DEVICE: &str = "single_device";
const FIND_UNUSED: &str = "_find_unused_parameters_true";
const ALL_USED: &str = "_find_unused_parameters_false";

/// The strategies that are always there.
const BUILT_IN: [&str; 5] =
    ["auto", SINGLE_DEVICE, "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true"];

/// Lightning's that mean something else in a compiled program, and what to write.
const SPAWNED: [&str; 3] = ["ddp_spawn", "ddp_fork", "ddp_notebook"];

/// Lightning's that are not here.
const ELSEWHERE: [&str; 7] =
    ["deepspeed", "fsdp", "fsdp_cpu_offload", "model_parallel", "single_xla", "xla", "xla_debug"];

/// The strategies there are, by name.
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
    /// Every name that can be asked for.
    pub fn names() -> Vec<String> {
        let registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        BUILT_IN.map(str::to_owned).into_iter().chain(registered.iter().map(|entry| entry.name.clone())).collect()
    }

    /// Makes a strategy without options known by a name, in place of one that was registered under it before.
    ///
    /// # Errors
    ///
    /// The name of a strategy that is always there.
    pub fn register(
        name: impl Into<String>,
        factory: impl Fn(StrategyContext) -> Result<Box<dyn Strategy>, FabricError> + Send + Sync + 'static,
    ) -> Result<(), FabricError> {
        Strategies::register_with::<NoOptions>(name, move |context, NoOptions {}| factory(context))
    }

    /// Makes a strategy known by a name, with options that files and the command line can give.
    ///
    /// # Errors
    ///
    /// The name of a strategy that is always there.
    pub fn register_with<O: Serialize + DeserializeOwned + JsonSchema + Default>(
        name: impl Into<String>,
        factory: impl Fn(StrategyContext, O) -> Result<Box<dyn Strategy>, FabricError> + Send + Sync + 'static,
    ) -> Result<(), FabricError> {
        let name = name.into();
        if BUILT_IN.contains(&name.as_str()) {
            return Err(FabricError::Setting(format!("the strategy `{name}` is always there; choose another name")));
        }
        let factory = Arc::new(move |context: StrategyContext| {
            let options = context.parse_options()?;
            factory(context, options)
        });
        let check = |name: &str, options: &Options| Strategies::parse::<O>(name, options).map(drop);
        let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        registered.retain(|entry| entry.name != name);
        registered.push(Entry { name, schema: options_schema::<O>(), check, factory });
        Ok(())
    }

    /// The strategies that others registered, each with the JSON schema of its options.
    pub fn registered_schemas() -> Vec<(String, Value)> {
        let registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        registered.iter().map(|entry| (entry.name.clone(), entry.schema.clone())).collect()
    }

    /// Whether a registered strategy takes these options.
    ///
    /// # Errors
    ///
    /// An option that there is not, or of another type.
    pub fn check_options(choice: &StrategyChoice) -> Result<(), FabricError> {
        Strategies::registered(choice.name()).map_or(Ok(()), |entry| (entry.check)(choice.name(), choice.options()))
    }

    pub(super) fn parse<O: DeserializeOwned>(name: &str, options: &Options) -> Result<O, FabricError> {
        serde_json::from_value(Value::Object(options.clone()))
            .map_err(|error| FabricError::Setting(format!("options of strategy `{name}`: {error}")))
    }

    /// Whether there is a strategy of this name.
    ///
    /// # Errors
    ///
    /// There is none; the message says what to write instead.
    pub fn check(name: &str) -> Result<(), FabricError> {
        let names = Strategies::names();
        if names.iter().any(|known| known == name) {
            return Ok(());
        }
        let base = name.split("_find_unused").next().and_then(|name| name.split("_stage_").next()).unwrap_or(name);
        if SPAWNED.contains(&base) {
            let instead = name.replacen(base, "ddp", 1);
            return Err(FabricError::Setting(format!(
                "strategy `{name}` starts processes out of a running interpreter, which a compiled program has none of; write `{instead}`: the program starts itself once per device"
            )));
        }
        if ELSEWHERE.contains(&base) {
            return Err(FabricError::NotInThisVersion { what: format!("strategy `{name}`") });
        }
        Err(match ended::fate(Place::Strategy, name) {
            Some(fate) => FabricError::Ended { what: "strategy", given: name.to_owned(), fate },
            None => FabricError::unknown("strategy", name, &names),
        })
    }

    /// The strategy of a name. `auto` is `ddp` where there are several processes.
    ///
    /// # Errors
    ///
    /// A name that is not known; what the strategy says of what it is given.
    pub fn make(context: StrategyContext) -> Result<Box<dyn Strategy>, FabricError> {
        Strategies::check(&context.name)?;
        let world_size = context.ranks.world_size;
        if let Some(entry) = Strategies::registered(&context.name) {
            return (entry.factory)(context);
        }
        if context.name == SINGLE_DEVICE {
            context.parse_options::<NoOptions>()?;
        }
        let mut ddp: DdpOptions = context.parse_options()?;
        let StrategyContext { name, device, ranks, groups, sync_batchnorm, .. } = context;
        match groups {
            None => Ok(Box::new(SingleDeviceStrategy::new(device))),
            Some(_) if name == SINGLE_DEVICE => Err(Strategies::refuse_single_device(world_size)),
            Some(Groups { device: group, control }) => {
                ddp.find_unused_parameters |= name.ends_with(FIND_UNUSED);
                ddp.find_unused_parameters &= !name.ends_with(ALL_USED);
                let name = if name == "auto" { "ddp".to_owned() } else { name };
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
            "strategy `single_device` was asked for with {world_size} processes; write `ddp`, or set devices and num_nodes to 1"
        ))
    }

    fn registered(name: &str) -> Option<Entry> {
        REGISTERED.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|entry| entry.name == name).cloned()
    }
}

/// The JSON schema of a struct of options, without references, each option with its default.
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
    use super::*;

    fn refused(name: &str) -> String {
        Strategies::check(name).unwrap_err().to_string()
    }

    #[test]
    fn names_that_are_not_strategies_say_what_to_write() {
        assert!(refused("ddp_spawn_find_unused_parameters_true").contains("write `ddp_find_unused_parameters_true`"));
        assert_eq!(refused("dp").split(':').next(), Some("strategy `dp` is no more"));
        assert_eq!(refused("bagua"), "strategy `bagua` was removed: Lightning 2.3 removed Bagua; write `ddp`");
        assert_eq!(refused("fsdp"), "this version does not support strategy `fsdp` yet");
        assert!(refused("single").contains("did you mean `single_device`?"));
        assert!(refused("zzz").starts_with("unknown strategy `zzz`; choose one of auto, single_device, ddp"));
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
        let context = StrategyContext {
            name: "mine".into(),
            device: Device::Cpu,
            ranks: Ranks::ALONE,
            groups: None,
            options: Options::new(),
            sync_batchnorm: false,
        };
        assert_eq!(Strategies::make(context).unwrap().name(), "mine");
        let error = Strategies::register("ddp", |_| Ok(Box::new(Mine))).unwrap_err().to_string();
        assert_eq!(error, "the strategy `ddp` is always there; choose another name");
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
