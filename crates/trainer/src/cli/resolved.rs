//! [`Resolved`]: a complete configuration, and the objects created from it.

use fulgurite_engine::Error;
use fulgurite_engine::config::TrainerConfig;
use fulgurite_engine::profilers::Profiler;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use fulgurite_fabric::loggers::Logger;
use fulgurite_optim::Interval;

use super::check::{misfit, wrong};
use super::kind::Kind;
use super::layout::{Layout, stepped_by};
use super::registry::{Failure, Made, MakeOptimizer, MakeScheduler, parse};
use super::schema::Schema;
use super::tree::{Content, Node};
use super::yaml;
use crate::callbacks::Callback;
use crate::plugin::Plugin;

/// A complete configuration.
pub(super) struct Resolved {
    pub root: Node,
    /// What ranks need to resolve the same configuration.
    pub passed: Option<String>,
}

/// The requested loggers.
pub(super) enum Loggers {
    /// The default: TensorBoard and CSV.
    Default,
    Given(Vec<Box<dyn Logger>>),
}

/// The optimization settings of the command line.
pub(super) struct Optimization {
    pub optimizer: MakeOptimizer,
    pub scheduler: Option<Schedule>,
}

/// A scheduler, and when it is stepped.
pub(super) struct Schedule {
    pub scheduler: MakeScheduler,
    pub step: SteppedBy,
}

#[derive(Debug, Clone, serde::Deserialize)]
#[serde(default)]
pub(super) struct SteppedBy {
    pub interval: Interval,
    pub frequency: u64,
    pub monitor: Option<String>,
    pub strict: bool,
    pub name: Option<String>,
}

impl Default for SteppedBy {
    fn default() -> SteppedBy {
        SteppedBy { interval: Interval::Epoch, frequency: 1, monitor: None, strict: true, name: None }
    }
}

impl Resolved {
    /// The options of a group.
    pub(super) fn group<T: DeserializeOwned>(&self, layout: &Layout, name: &str) -> Result<T, Error> {
        let node = self.root.nearest([name]);
        let schema = layout.schema().field(name).unwrap_or(Schema(&Value::Null));
        parse(node.to_json()).map_err(|problem| misfit(node, schema, name, &problem))
    }

    pub(super) fn trainer(&self, layout: &Layout) -> Result<TrainerConfig, Error> {
        let mut node = self.root.nearest(["trainer"]).clone();
        if let Some(entries) = node.as_map_mut() {
            entries.retain(|name, _| {
                !["callbacks", "logger", "plugins"].contains(&name.as_str()) && !layout.is_elsewhere(&["trainer", name])
            });
        }
        let mut take_class = |name: &str| {
            let entries =
                node.as_map_mut().filter(|entries| entries.get(name).is_some_and(|node| node.as_map().is_some()));
            entries.and_then(|entries| entries.shift_remove(name))
        };
        let strategy = take_class("strategy");
        // A name is passed as the argument, a class is created by `profiler`.
        take_class("profiler");
        let schema = layout.schema().field("trainer").unwrap_or(Schema(&Value::Null));
        let config = parse(node.to_json()).map_err(|problem| misfit(&node, schema, "trainer", &problem));
        let mut config: TrainerConfig = config?;
        let strategy = strategy.map(|node| make(layout, &node, Kind::Strategy)).transpose()?.flatten();
        if let Some(Made::Strategy(choice)) = strategy {
            config.strategy = choice;
        }
        Ok(config)
    }

    /// `null` and `false` disable seeding.
    pub(super) fn seed(&self, layout: &Layout) -> Result<Option<u64>, Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Seed {
            Switch(bool),
            Seed(u64),
        }
        Ok(match self.group(layout, "seed_everything")? {
            Seed::Switch(on) => on.then_some(0),
            Seed::Seed(seed) => Some(seed),
        })
    }

    /// Whether the options of all classes have the right types.
    pub(super) fn check_classes(&self, layout: &Layout) -> Result<(), Error> {
        for (place, kind) in Kind::PLACES {
            let node = self.root.nearest(place.iter().copied());
            for node in node.as_list().unwrap_or(std::slice::from_ref(node)) {
                let class = node.get("class_path").and_then(Node::as_str);
                let class = class.and_then(|name| layout.registry.find(kind, name));
                if let (Some(class), Some(options)) = (class, node.get("init_args")) {
                    let check = (class.check)(options.to_json());
                    check.map_err(|problem| misfit(options, class.schema(), &class.name, &problem))?;
                }
            }
        }
        Ok(())
    }

    /// Requested features of Lightning that this version does not have: classes and arguments of the trainer.
    pub(super) fn elsewhere(&self, layout: &Layout) -> Vec<String> {
        let mut missing = Vec::new();
        let trainer = self.root.nearest(["trainer"]);
        for (place, kind) in Kind::PLACES {
            let node = self.root.nearest(place.iter().copied());
            for class in node.as_list().unwrap_or(std::slice::from_ref(node)) {
                let name = class.get("class_path").and_then(Node::as_str).unwrap_or_default();
                if layout.registry.is_elsewhere(kind, name) {
                    let (kind, name) = (kind.name(), super::tree::short_name(name));
                    // Another build has it.
                    let without =
                        if ["CometLogger", "MLFlowLogger", "TrackioLogger", "WandbLogger"].contains(&name.as_str()) {
                            " without the cargo feature `trackers`"
                        } else {
                            ""
                        };
                    missing.push(format!("{kind} `{name}`{without}"));
                }
            }
        }
        for (name, value) in trainer.as_map().into_iter().flatten() {
            // Lightning's own defaults request nothing.
            let on_by_default = ["enable_autolog_hparams", "suggest_integrations", "use_distributed_sampler"];
            let default = Value::Bool(on_by_default.contains(&name.as_str()));
            let is_default = value.is_null() || [default, 0.into()].contains(&value.to_json());
            if layout.is_elsewhere(&["trainer", name]) && !is_default {
                missing.push(format!("argument `{name}`"));
            }
        }
        missing
    }

    pub(super) fn callbacks(&self, layout: &Layout) -> Result<Vec<Box<dyn Callback>>, Error> {
        let nodes = self.root.nearest(["trainer", "callbacks"]).as_list().unwrap_or_default();
        let mut callbacks = Vec::new();
        for node in nodes {
            if let Some(Made::Callback(callback)) = make(layout, node, Kind::Callback)? {
                callbacks.push(callback);
            }
        }
        Ok(callbacks)
    }

    pub(super) fn profiler(&self, layout: &Layout) -> Result<Option<Box<dyn Profiler>>, Error> {
        Ok(match make(layout, self.root.nearest(["trainer", "profiler"]), Kind::Profiler)? {
            Some(Made::Profiler(profiler)) => Some(profiler),
            _ => None,
        })
    }

    pub(super) fn plugins(&self, layout: &Layout) -> Result<Vec<Plugin>, Error> {
        let nodes = self.root.nearest(["trainer", "plugins"]).as_list().unwrap_or_default();
        let mut plugins = Vec::new();
        for node in nodes {
            if let Some(Made::Plugin(plugin)) = make(layout, node, Kind::Plugin)? {
                plugins.push(plugin);
            }
        }
        Ok(plugins)
    }

    pub(super) fn loggers(&self, layout: &Layout, config: &TrainerConfig) -> Result<Loggers, Error> {
        let node = self.root.nearest(["trainer", "logger"]);
        let nodes = match &node.content {
            Content::Scalar(Value::Bool(false)) => &[],
            Content::List(nodes) => nodes.as_slice(),
            _ => return Ok(Loggers::Default),
        };
        let root = config.default_root_dir.clone().unwrap_or_else(|| ".".into());
        let mut loggers: Vec<Box<dyn Logger>> = Vec::new();
        for node in nodes {
            let mut node = node.clone();
            let origin = node.origin.clone();
            let class = node.get("class_path").and_then(Node::as_str);
            let class = class.and_then(|name| layout.registry.find(Kind::Logger, name));
            let has_save_dir = class.is_some_and(|class| class.schema().field("save_dir").is_some());
            if has_save_dir
                && let Some(options) = node.as_map_mut().and_then(|node| node.get_mut("init_args")?.as_map_mut())
                && options.get("save_dir").is_none_or(Node::is_null)
            {
                let root = Node::scalar(root.display().to_string(), &origin);
                options.insert("save_dir".into(), root);
            }
            if let Some(Made::Logger(mut logger)) = make(layout, &node, Kind::Logger)? {
                // All loggers of a run share its version.
                let first = loggers.first().filter(|first| config.fast_dev_run == 0 && !first.version().is_empty());
                if let Some(first) = first {
                    logger.suggest_version(first.version());
                }
                loggers.push(logger);
            }
        }
        Ok(Loggers::Given(loggers))
    }

    /// The optimizer and its scheduler, if an optimizer was named.
    pub(super) fn optimization(&self, layout: &Layout) -> Result<Option<Optimization>, Error> {
        let (optimizer, scheduler) = (self.root.nearest(["optimizer"]), self.root.nearest(["lr_scheduler"]));
        let made = make(layout, optimizer, Kind::Optimizer)?;
        let Some(Made::Optimizer(optimizer)) = made else {
            if !scheduler.is_null() {
                return wrong(format!(
                    "{}: `lr_scheduler` schedules the optimizer that is named beside it; name one with --optimizer",
                    scheduler.origin
                ));
            }
            return Ok(None);
        };
        let scheduler = match make(layout, scheduler, Kind::Scheduler)? {
            Some(Made::Scheduler(made)) => {
                let mut node = scheduler.clone();
                if let Some(entries) = node.as_map_mut() {
                    entries.retain(|key, _| !["class_path", "init_args"].contains(&key.as_str()));
                }
                let step: SteppedBy =
                    parse(node.to_json()).map_err(|problem| misfit(&node, stepped_by(), "lr_scheduler", &problem))?;
                if made.needs_metric && step.monitor.is_none() {
                    let class = scheduler.get("class_path").and_then(Node::as_str).unwrap_or_default();
                    return wrong(format!(
                        "{}: {class} needs `lr_scheduler.monitor`, the name of a logged value",
                        scheduler.origin
                    ));
                }
                Some(Schedule { scheduler: made, step })
            }
            _ => None,
        };
        Ok(Some(Optimization { optimizer, scheduler }))
    }

    /// `None`, a path, or `best` and the like.
    pub(super) fn ckpt_path(&self) -> Option<&str> {
        self.root.nearest(["ckpt_path"]).as_str()
    }

    /// Everything as YAML, classes with all their options.
    pub(super) fn to_yaml(&self, layout: &Layout, flags: &[String]) -> String {
        let has = |flag: &str| flags.iter().any(|held| held == flag);
        let mut value = expand(layout, &self.root, layout.schema());
        if has("skip_default") {
            skip_defaults(layout, &mut value, layout.schema());
        }
        if has("skip_null") {
            skip_nulls(&mut value);
        }
        let text = yaml::write(&value, has("comments").then(|| layout.schema()));
        if text.is_empty() { "{}\n".into() } else { text }
    }
}

/// Creates the object of a node; `None` for null.
fn make(layout: &Layout, node: &Node, kind: Kind) -> Result<Option<Made>, Error> {
    let Some(name) = node.get("class_path").and_then(Node::as_str) else { return Ok(None) };
    let Some(class) = layout.registry.find(kind, name) else { return Ok(None) };
    let options = node.get("init_args").cloned().unwrap_or_else(|| Node::map([], &node.origin));
    (class.make)(options.to_json()).map(Some).map_err(|failure| match failure {
        Failure::Misfit(problem) => misfit(&options, class.schema(), &class.name, &problem),
        Failure::Refused(error) => Error::Config(format!("{}: {error}", node.origin)),
    })
}

// As text -------------------------------------------------------------------------------------------------------------

/// The value with all options of its classes.
fn expand(layout: &Layout, node: &Node, schema: Schema<'_>) -> Value {
    match &node.content {
        Content::List(items) if schema.classes().is_some() => {
            Value::Array(items.iter().map(|item| expand(layout, item, schema)).collect())
        }
        Content::Map(entries) if schema.classes().is_some() => {
            let mut value = node.to_json();
            let class = entries.get("class_path").and_then(Node::as_str);
            let class = class.zip(schema.classes()).and_then(|(name, kind)| layout.registry.find(kind, name));
            if let (Some(class), Value::Object(options)) = (class, value["init_args"].take()) {
                value["init_args"] = Value::Object(with_defaults(class.schema(), options));
            }
            value
        }
        Content::Map(entries) => {
            let expanded = |(key, node): (&String, &Node)| {
                let field = schema.field(key);
                (key.clone(), field.map_or_else(|| node.to_json(), |field| expand(layout, node, field)))
            };
            Value::Object(entries.iter().map(expanded).collect())
        }
        _ => node.to_json(),
    }
}

fn with_defaults(schema: Schema<'_>, mut given: Map<String, Value>) -> Map<String, Value> {
    let fields = schema.fields().map(|(name, field)| {
        let default = || field.default().cloned().unwrap_or_default();
        (name.to_owned(), given.remove(name).unwrap_or_else(default))
    });
    fields.collect()
}

fn skip_defaults(layout: &Layout, value: &mut Value, schema: Schema<'_>) {
    let Value::Object(entries) = value else { return };
    if let Some(kind) = schema.classes() {
        let class = entries.get("class_path").and_then(Value::as_str);
        let class = class.and_then(|name| layout.registry.find(kind, name));
        if let (Some(class), Some(Value::Object(options))) = (class, entries.get_mut("init_args")) {
            options.retain(|name, value| class.schema().field(name).and_then(Schema::default) != Some(value));
        }
        return;
    }
    entries.retain(|name, value| {
        let Some(field) = schema.field(name) else { return true };
        if field.default() == Some(value) {
            return false;
        }
        match value {
            Value::Array(items) if field.classes().is_some() => {
                items.iter_mut().for_each(|item| skip_defaults(layout, item, field));
            }
            _ => skip_defaults(layout, value, field),
        }
        value.as_object().is_none_or(|entries| !entries.is_empty())
    });
}

fn skip_nulls(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            entries.retain(|_, value| !value.is_null());
            entries.values_mut().for_each(skip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(skip_nulls),
        _ => {}
    }
}
