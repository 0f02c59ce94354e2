//! Whole runs: what Lightning logs, writes and learns in each case of `training_cases.json`, we do too.

use std::path::Path;
use std::sync::{LazyLock, Mutex};

use fulgurite::callbacks::Mode;
use fulgurite::config::TrainerConfig;
use fulgurite::loggers::{Logged, MemoryLogger};
use fulgurite::metrics::MulticlassAccuracy;
use fulgurite::optim::{CosineAnnealingLR, LBFGS, ReduceLROnPlateau, StepLR};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::{params, serialization};
use fulgurite::{Console, EvalResults};
use fulgurite_parity::python;
use serde_json::{Map, Value as Json, json};

const TOLERANCE: f64 = 1e-5;

static CASES: LazyLock<Vec<Json>> = LazyLock::new(|| {
    let cases: Vec<Json> = serde_json::from_str(include_str!("../../python/training_cases.json")).unwrap();
    let defaults = json!({ "optimizer": { "name": "SGD", "lr": 0.1 }, "log": "plain", "val_loaders": 1 });
    cases.into_iter().map(|case| merged(&defaults, &case)).collect()
});

/// The tensors of every run: data, and the weights it begins with.
static DATA: LazyLock<Mutex<Dict>> = LazyLock::new(|| {
    tch::manual_seed(7);
    let float = (Kind::Float, Device::Cpu);
    let direction = Tensor::randn([4, 3], float);
    let mut data = Dict::new().with("weights", params::state_dict(&Net::new(&json!({})).vars).unwrap());
    for (name, n) in [("train", 24), ("val", 10), ("test", 7)] {
        let x = Tensor::randn([n, 4], float);
        let y = (x.matmul(&direction) + Tensor::randn([n, 3], float) * 0.5).argmax(1, false);
        data.set(format!("{name}_x"), x);
        data.set(format!("{name}_y"), y);
    }
    Mutex::new(data)
});

fn data() -> Dict {
    DATA.lock().unwrap().clone()
}

static LIGHTNING: LazyLock<Json> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.pt");
    serialization::save(&path, &Value::Dict(data())).unwrap();
    python("training.py", &[path.to_str().unwrap()])
});

fn merged(defaults: &Json, given: &Json) -> Json {
    let mut all = defaults.as_object().unwrap().clone();
    all.extend(given.as_object().cloned().unwrap_or_default());
    Json::Object(all)
}

struct Net {
    vars: nn::VarStore,
    fc1: nn::Linear,
    fc2: nn::Linear,
    acc: MulticlassAccuracy,
    case: Json,
}

type Pair = (Tensor, Tensor);

impl Net {
    fn new(case: &Json) -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let fc1 = nn::linear(vars.root() / "fc1", 4, 8, Default::default());
        let fc2 = nn::linear(vars.root() / "fc2", 8, 3, Default::default());
        Net { vars, fc1, fc2, acc: MulticlassAccuracy::new(3), case: case.clone() }
    }

    fn logs(&self, what: &str) -> bool {
        self.case["log"] == what
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        x.apply(&self.fc1).tanh().apply(&self.fc2)
    }

    fn evaluation_step(&mut self, stage: &str, (x, y): Pair, step: &mut Step) -> Result<()> {
        let logits = self.logits(&x);
        let loss = logits.cross_entropy_for_logits(&y);
        let right = logits.argmax(1, false).eq_tensor(&y).to_kind(Kind::Float).mean(Kind::Float);
        step.log(&format!("{stage}_loss"), &loss);
        step.log(&format!("{stage}_acc"), &right);
        if self.logs("rich") {
            let (batch_idx, dataloader_idx) = (step.batch_idx(), step.dataloader_idx());
            step.log(&format!("{stage}_both"), &loss).on_step().on_epoch();
            step.log(&format!("{stage}_highest"), &loss).reduce(Reduce::Max).prog_bar();
            step.log(&format!("{stage}_number"), batch_idx as f64).on_step();
            step.log(&format!("{stage}_{dataloader_idx}"), &loss).add_dataloader_idx(false);
            if self.case["val_loaders"] == 1 {
                let _ = self.acc.forward(&logits, &y)?;
                step.log(&format!("{stage}_metric"), &self.acc);
            }
        } else if self.logs("step") {
            step.log("step", 200.0 + step.current_epoch() as f64);
            step.log(&format!("{stage}_both"), &loss).on_step().on_epoch();
        }
        Ok(())
    }
}

impl LightningModule for Net {
    type Batch = Pair;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, (x, y): Pair, step: &mut Step) -> Result<Loss> {
        let logits = self.logits(&x);
        let loss = logits.cross_entropy_for_logits(&y);
        let (batch_idx, epoch) = (step.batch_idx(), step.current_epoch());
        step.log("loss", &loss);
        if self.logs("rich") {
            step.log("both", &loss).on_step().on_epoch().prog_bar();
            step.log("of_epoch", &loss).epoch_only();
            step.log("hidden", &loss).on_epoch().logger(false);
            step.log("lowest", &loss).epoch_only().reduce(Reduce::Min);
            step.log("highest", &loss).on_epoch().reduce(Reduce::Max);
            step.log("total", &loss).on_epoch().reduce(Reduce::Sum);
            step.log("weighted", &loss).on_epoch().batch_size(batch_idx + 1);
            step.log("number", 2.0 * batch_idx as f64).on_epoch();
            step.log_many([("one", &loss + 1), ("two", &loss + 2)]).on_epoch();
            let _ = self.acc.forward(&logits, &y)?;
            step.log("acc", &self.acc).on_step().on_epoch();
        } else if self.logs("step") {
            step.log("step", 100.0 + epoch as f64).epoch_only();
            step.log("both", &loss).on_step().on_epoch();
        }
        Ok(loss.into())
    }

    fn on_train_epoch_start(&mut self, trainer: &mut TrainerState) -> Result<()> {
        if self.logs("rich") {
            let epoch = trainer.current_epoch() as f64;
            trainer.log("at_start", 1.0 + epoch);
        }
        Ok(())
    }

    fn on_train_batch_end(&mut self, trainer: &mut TrainerState, outputs: &Loss, _: &Pair, _: usize) -> Result<()> {
        if let (true, Some(loss)) = (self.logs("rich"), outputs.loss()) {
            trainer.log("at_batch_end", loss).on_epoch();
        }
        Ok(())
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        if self.logs("rich") {
            let step = trainer.global_step() as f64;
            trainer.log("at_end", 3.0 + step);
        }
        Ok(())
    }

    fn validation_step(&mut self, batch: Pair, step: &mut Step) -> Result<()> {
        self.evaluation_step("val", batch, step)
    }

    fn test_step(&mut self, batch: Pair, step: &mut Step) -> Result<()> {
        self.evaluation_step("test", batch, step)
    }

    fn on_validation_epoch_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        if self.logs("rich") {
            let epoch = trainer.current_epoch() as f64;
            trainer.log("val_at_end", 5.0 + epoch);
        }
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let options = &self.case["optimizer"];
        let number = |key: &str, default: f64| options[key].as_f64().unwrap_or(default);
        let (lr, weight_decay) = (number("lr", 0.0), options["weight_decay"].as_f64());
        let optimizers: Optimizers = match options["name"].as_str().unwrap() {
            "SGD" => {
                let sgd = SGD::new(&self.vars).lr(lr).momentum(number("momentum", 0.0));
                sgd.weight_decay(weight_decay.unwrap_or(0.0)).into()
            }
            "Adam" => Adam::new(&self.vars).lr(lr).into(),
            "AdamW" => AdamW::new(&self.vars).lr(lr).weight_decay(weight_decay.unwrap_or(0.01)).into(),
            _ => LBFGS::new(&self.vars).lr(lr).max_iter(number("max_iter", 20.0) as u32).into(),
        };
        let Some(options) = self.case.get("scheduler") else { return Ok(optimizers) };
        let count = |key: &str| options[key].as_u64().unwrap_or(1) as u32;
        let number = |key: &str| options[key].as_f64().unwrap();
        let mut scheduler: LrSchedulerConfig = match options["name"].as_str().unwrap() {
            "StepLR" => StepLR::new(count("step_size")).gamma(number("gamma")).into(),
            "CosineAnnealingLR" => CosineAnnealingLR::new(count("T_max")).into(),
            _ => ReduceLROnPlateau::new().patience(count("patience")).factor(number("factor")).into(),
        };
        scheduler = scheduler.frequency(count("frequency").into());
        if options["interval"] == "step" {
            scheduler = scheduler.interval(Interval::Step);
        }
        if let Some(monitor) = options["monitor"].as_str() {
            scheduler = scheduler.monitor(monitor);
        }
        Ok(optimizers.scheduler(scheduler))
    }
}

fn batches(which: &str) -> Vec<Pair> {
    fulgurite_test_support::pairs(&data(), which, 4)
}

fn val_loaders(case: &Json) -> Loaders<Pair> {
    let mut loaders = Loaders::none();
    for _ in 0..case["val_loaders"].as_u64().unwrap() {
        loaders.0.extend(Loaders::from(batches("val")).0);
    }
    loaders
}

fn mode(options: &Json) -> Mode {
    if options["mode"] == "max" { Mode::Max } else { Mode::Min }
}

fn checkpoint(options: &Json, folder: &Path) -> ModelCheckpoint {
    let mut checkpoint = match options["monitor"].as_str() {
        Some(monitor) => ModelCheckpoint::monitor(monitor).mode(mode(options)),
        None => ModelCheckpoint::new(),
    };
    checkpoint = checkpoint.dirpath(folder);
    for (key, value) in options.as_object().unwrap() {
        let (flag, count) = (value.as_bool(), value.as_u64());
        checkpoint = match key.as_str() {
            "monitor" | "mode" => checkpoint,
            "filename" => checkpoint.filename(value.as_str().unwrap()),
            "save_top_k" => checkpoint.save_top_k(count.map_or(Maximum::Unlimited, Maximum::Of)),
            "save_last" => checkpoint.save_last(flag.unwrap().then_some(fulgurite::callbacks::SaveLast::Copy)),
            "auto_insert_metric_name" => checkpoint.auto_insert_metric_name(flag.unwrap()),
            "every_n_train_steps" => checkpoint.every_n_train_steps(count.unwrap()),
            "every_n_epochs" => checkpoint.every_n_epochs(count.unwrap()),
            "save_on_train_epoch_end" => checkpoint.save_on_train_epoch_end(flag),
            other => panic!("ModelCheckpoint has no `{other}` here"),
        };
    }
    checkpoint
}

fn early_stopping(options: &Json) -> EarlyStopping {
    let mut stopping = EarlyStopping::monitor(options["monitor"].as_str().unwrap()).mode(mode(options));
    if let Some(patience) = options["patience"].as_u64() {
        stopping = stopping.patience(patience);
    }
    if let Some(threshold) = options["stopping_threshold"].as_f64() {
        stopping = stopping.stopping_threshold(threshold);
    }
    if let Some(threshold) = options["divergence_threshold"].as_f64() {
        stopping = stopping.divergence_threshold(threshold);
    }
    stopping
}

fn lr_monitor(options: &Json) -> LearningRateMonitor {
    let monitor = LearningRateMonitor::new().log_momentum(options["log_momentum"] == true);
    if options["logging_interval"] == "step" { monitor.logging_interval(Interval::Step) } else { monitor }
}

fn config(case: &Json) -> TrainerConfig {
    let defaults = json!({
        "max_epochs": 3, "log_every_n_steps": 1, "num_sanity_val_steps": 0, "accelerator": "cpu",
        "enable_progress_bar": false, "enable_model_summary": false,
    });
    let checkpoints = json!({ "enable_checkpointing": case.get("checkpoints").is_some() });
    serde_json::from_value(merged(&merged(&defaults, &checkpoints), &case["trainer"])).unwrap()
}

fn file_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What `run` of the script returns.
fn run(case: &Json) -> Json {
    let root = tempfile::tempdir().unwrap();
    let logger = MemoryLogger::new();
    let mut builder = Trainer::builder().config(config(case)).logger(logger.clone()).console(Console::memory());
    let checkpoints: Vec<Json> = case["checkpoints"].as_array().cloned().unwrap_or_default();
    let folders: Vec<_> = (0..checkpoints.len()).map(|index| root.path().join(index.to_string())).collect();
    for (options, folder) in checkpoints.iter().zip(&folders) {
        builder = builder.callback(checkpoint(options, folder));
    }
    if let Some(options) = case.get("early_stopping") {
        builder = builder.callback(early_stopping(options));
    }
    if let Some(options) = case.get("lr_monitor") {
        builder = builder.callback(lr_monitor(options));
    }
    let mut trainer = builder.build().unwrap();
    let mut net = Net::new(case);
    params::load_state_dict(&net.vars, data().dict("weights").unwrap(), true).unwrap();
    _ = trainer.fit(&mut net, (batches("train"), val_loaders(case))).unwrap();

    let callback_metrics: Map<String, Json> = {
        let metrics = trainer.state_mut().callback_metrics().unwrap();
        metrics.iter().map(|(name, value)| (name.clone(), json!(value.to_f64()))).collect()
    };
    let weights = params::state_dict(&net.vars).unwrap();
    let weights: Map<String, Json> = weights
        .iter()
        .map(|(name, value)| {
            let flat = value.as_tensor().unwrap().flatten(0, -1).to_kind(Kind::Double);
            (name.as_str().unwrap().to_owned(), json!(Vec::<f64>::try_from(flat).unwrap()))
        })
        .collect();
    let best: Vec<String> = trainer
        .callbacks::<ModelCheckpoint>()
        .map(|c| c.best_model_path().map_or(String::new(), |p| p.file_name().unwrap().to_str().unwrap().to_owned()))
        .collect();
    let results = |results: Vec<EvalResults>| json!(results);
    let mut outcome = json!({
        "global_step": trainer.state().global_step(),
        "current_epoch": trainer.state().current_epoch(),
        "callback_metrics": callback_metrics,
        "weights": weights,
        "files": folders.iter().map(|folder| file_names(folder)).collect::<Vec<_>>(),
        "best": best,
        "stopped_epoch": trainer.callback::<EarlyStopping>().map(EarlyStopping::stopped_epoch),
        "validate": results(trainer.verbose(false).validate(&mut net, val_loaders(case)).unwrap()),
        "test": results(trainer.verbose(false).test(&mut net, Loaders::from(batches("test"))).unwrap()),
    });
    let rows: Vec<Json> = logger
        .take()
        .into_iter()
        .filter_map(|call| match call {
            Logged::Metrics { metrics, step } => {
                Some(json!([step, metrics.into_iter().map(|(name, x)| (name, json!(x))).collect::<Map<_, _>>()]))
            }
            _ => None,
        })
        .collect();
    outcome["rows"] = json!(rows);
    outcome
}

/// What differs, as `path: theirs, ours`.
fn differences(path: &str, theirs: &Json, ours: &Json, found: &mut Vec<String>) {
    match (theirs, ours) {
        (Json::Object(a), Json::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                differences(&format!("{path}.{name}"), &theirs[name], &ours[name], found);
            }
        }
        (Json::Array(a), Json::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{index}]"), a, b, found);
            }
        }
        (Json::Number(a), Json::Number(b)) if (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() <= TOLERANCE => {}
        (a, b) if a == b => {}
        (a, b) => found.push(format!("{path}: {a}, ours {b}")),
    }
}

#[track_caller]
fn check(names: &[&str]) {
    let (lightning, mut found) = (&*LIGHTNING, Vec::new());
    for name in names {
        let case = CASES.iter().find(|case| case["name"] == *name).unwrap();
        differences(name, &lightning[name], &run(case), &mut found);
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn optimizers() {
    check(&["sgd", "momentum", "adam", "adamw", "lbfgs", "double"]);
}

#[test]
fn accumulation_and_clipping() {
    check(&["windows of 2", "windows of 3", "clip norm", "clip value", "clip windows"]);
}

#[test]
fn schedulers() {
    check(&["step lr", "step lr every 2", "cosine", "cosine windows", "plateau", "plateau on a step"]);
}

#[test]
fn validation_and_limits() {
    check(&["validate every 2", "validate every half", "validate every 2 epochs", "validate across epochs"]);
    check(&["limits", "fractions", "no validation", "max steps", "min epochs", "fast dev run", "overfit"]);
}

#[test]
fn logging() {
    check(&["flags", "flags every 5", "two loaders", "two loaders, two windows", "own x-axis"]);
}

#[test]
fn checkpoints() {
    check(&["best: one", "best: two", "best: worst", "best: all"]);
    check(&["trigger: default", "trigger: steps", "trigger: epochs", "trigger: last alone", "trigger: same name"]);
    check(&["trigger: steps with a monitor", "trigger: validation end"]);
    check(&["within: default", "within: monitor", "within: steps", "within: epoch end"]);
}

#[test]
fn early_stopping_ends_runs() {
    check(&["stops early", "stops early within an epoch", "stops at a threshold"]);
}
