//! [`Layout`]: the schema of all options, and their defaults.

use serde_json::{Value, json};

use super::kind::Kind;
use super::registry::Registry;
use super::schema::{Schema, class_slot, options_schema};
use super::sweep::SweepOptions;
use super::tree::{Node, Origin};
use super::tune::TuneOptions;
use fulgurite_engine::config::TrainerConfig;
use fulgurite_fabric::strategy::Strategies;

/// Scheduler options outside of its class.
pub(super) const SCHEDULER_KEYS: [&str; 5] = ["interval", "frequency", "monitor", "strict", "name"];

/// Arguments of Lightning's trainer that this version does not have.
const UNSUPPORTED_ARGUMENTS: [&str; 2] = ["model_registry", "suggest_integrations"];

/// Options of Lightning and PyTorch that are not supported, and have no effect if they are null or false.
pub(super) const INERT: [&str; 6] =
    ["capturable", "differentiable", "foreach", "fused", "log_rank_zero_only", "weights_only"];

/// Options of Lightning's `DDPStrategy` that are not supported, with the value that corresponds to the behaviour here;
/// null is accepted too.
pub(super) const INERT_OF_STRATEGIES: [(&str, &str); 5] = [
    ("check_reduction", "false"),
    ("dim", "0"),
    ("init_sync", "true"),
    ("skip_all_reduce_unused_params", "false"),
    ("start_method", "\"popen\""),
];

/// The subcommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subcommand {
    Fit,
    Validate,
    Test,
    Predict,
    Tune,
    Sweep,
}

impl Subcommand {
    pub(super) const ALL: [Subcommand; 6] = [
        Subcommand::Fit,
        Subcommand::Validate,
        Subcommand::Test,
        Subcommand::Predict,
        Subcommand::Tune,
        Subcommand::Sweep,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Subcommand::Fit => "fit",
            Subcommand::Validate => "validate",
            Subcommand::Test => "test",
            Subcommand::Predict => "predict",
            Subcommand::Tune => "tune",
            Subcommand::Sweep => "sweep",
        }
    }

    pub(super) fn about(self) -> &'static str {
        match self {
            Subcommand::Fit => "Train the model",
            Subcommand::Validate => "Evaluate the model on the validation data",
            Subcommand::Test => "Evaluate the model on the test data",
            Subcommand::Predict => "Predict with the model",
            Subcommand::Tune => "Find a learning rate and a batch size",
            Subcommand::Sweep => "Search for the best options by training many times",
        }
    }

    /// Whether a group of options applies to it.
    pub(super) fn takes(self, group: &str) -> bool {
        match group {
            "verbose" => matches!(self, Subcommand::Validate | Subcommand::Test),
            "tune" => self == Subcommand::Tune,
            "sweep" => self == Subcommand::Sweep,
            _ => true,
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Subcommand> {
        Subcommand::ALL.into_iter().find(|subcommand| subcommand.name() == name)
    }
}

/// All options, their documentation, and the classes they can name.
pub(super) struct Layout {
    pub registry: Registry,
    schema: Value,
}

impl Layout {
    pub(super) fn new(registry: Registry, model: Value, data: Value) -> Layout {
        let mut trainer = options_schema::<TrainerConfig>();
        let callbacks = class_slot(Kind::Callback, true, json!([]), "Callbacks, by class; `+=` adds one.");
        let logger = "Loggers, by class; true for TensorBoard and CSV files, false for none.";
        let logger = class_slot(Kind::Logger, true, json!(true), logger);
        let plugins = class_slot(Kind::Plugin, true, json!([]), "Plugins, by class.");
        let strategies: Vec<String> = Strategies::built_in().iter().map(|name| format!("`{name}`")).collect();
        let strategy = format!("How processes work together: {}, or a class.", strategies.join(", "));
        let strategy = class_slot(Kind::Strategy, false, json!("auto"), &strategy);
        let profiler = "Measure how the time is spent: `simple`, `advanced`, `pytorch`, or a class.";
        let profiler = class_slot(Kind::Profiler, false, Value::Null, profiler);
        if let Some(fields) = trainer["properties"].as_object_mut() {
            fields.insert("strategy".into(), strategy);
            fields.insert("profiler".into(), profiler);
            fields.insert("callbacks".into(), callbacks);
            fields.insert("logger".into(), logger);
            fields.insert("plugins".into(), plugins);
        }
        trainer["description"] = "The trainer.".into();
        let optimizer = "The optimizer, by class; replaces the model's.";
        let scheduler = "The learning-rate scheduler of `optimizer`, by class.";
        let schema = json!({ "properties": {
            "seed_everything": {
                "anyOf": [{ "type": "boolean" }, { "type": "integer", "minimum": 0 }],
                "default": true,
                "description": "The seed of all random number generators; true is 0, false does not seed.",
            },
            "trainer": trainer,
            "model": model,
            "data": data,
            "optimizer": class_slot(Kind::Optimizer, false, Value::Null, optimizer),
            "lr_scheduler": class_slot(Kind::Scheduler, false, Value::Null, scheduler),
            "ckpt_path": {
                "type": ["string", "null"],
                "default": null,
                "description": "The checkpoint to start from: a file, a run folder, `best`, `last`, `hpc` or `auto`. Fit resumes from it; the others load its weights.",
            },
            "verbose": {
                "type": "boolean",
                "default": true,
                "description": "Whether validate and test print their results.",
            },
            "tune": options_schema::<TuneOptions>(),
            "sweep": options_schema::<SweepOptions>(),
        } });
        Layout { registry, schema }
    }

    pub(super) fn schema(&self) -> Schema<'_> {
        Schema(&self.schema)
    }

    /// The top-level options in their order.
    pub(super) fn groups(&self) -> impl Iterator<Item = (&str, Schema<'_>)> {
        self.schema().fields()
    }

    pub(super) fn defaults(&self) -> Node {
        defaults(self.schema())
    }

    /// Whether Lightning's trainer has the argument, and this version's does not.
    pub(super) fn is_elsewhere(&self, path: &[&str]) -> bool {
        matches!(path, ["trainer", name] if UNSUPPORTED_ARGUMENTS.contains(name))
    }
}

fn defaults(schema: Schema<'_>) -> Node {
    match schema.default() {
        Some(default) => Node::from_json(default, &Origin::Default),
        None => Node::map(schema.fields().map(|(name, field)| (name.to_owned(), defaults(field))), &Origin::Default),
    }
}

/// The schema of the options beside a scheduler's class.
pub(super) fn stepped_by() -> Schema<'static> {
    static SCHEMA: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| {
        serde_json::json!({ "properties": {
            "interval": { "enum": ["epoch", "step"] },
            "frequency": { "type": "integer", "minimum": 1 },
            "monitor": { "type": ["string", "null"] },
            "strict": { "type": "boolean" },
            "name": { "type": ["string", "null"] },
        } })
    });
    Schema(&SCHEMA)
}
