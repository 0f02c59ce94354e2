//! One configuration run here, as `traced_run.py` does with Lightning.

use std::path::Path;

use fulgurite::callbacks::{Mode, SaveLast};
use fulgurite::config::TrainerConfig;
use fulgurite::prelude::*;
use fulgurite::torch::params;
use fulgurite::{Console, Outcome, TrainerBuilder};
use fulgurite_data::{BatchIter, BoxLoader, DataError, Loader};
use serde_json::{Map, Value as Json, json};

use super::model::{Net, Pair, Recorder, Script};
use super::trace::{Events, Recording, callback_metrics, number};

const BATCHES: usize = 24;

/// The tensors of every run: weights to begin with, and batches of sizes that differ.
pub fn data() -> Dict {
    tch::manual_seed(11);
    let float = (Kind::Float, Device::Cpu);
    let net = Net::new(Script::new(&json!({}), &Events::default()));
    let mut data = Dict::new().with("weights", params::state_dict(net.vars()).unwrap());
    for index in 0..BATCHES {
        let size = [3, 2, 4, 1][index % 4];
        data.set(format!("x{index}"), Tensor::randn([size, 3], float));
        data.set(format!("y{index}"), Tensor::randn([size, 1], float));
    }
    data
}

/// The events of a configuration, and what it was refused with.
pub struct Trace {
    pub events: Vec<Json>,
    pub refused: Option<String>,
}

/// Runs it, and goes on from the checkpoint `resume_from`, which the other run went on from.
pub fn run(config: &Json, data: &Dict, root: &Path, resume_from: Option<&str>) -> Trace {
    let events = Events::default();
    let refused = run_all(config, data, root, resume_from, &events).err();
    Trace { events: events.take(), refused: refused.map(|error| error.to_string()) }
}

fn run_all(
    config: &Json,
    data: &Dict,
    root: &Path,
    resume_from: Option<&str>,
    events: &Events,
) -> Result<(), fulgurite::Error> {
    let script = Script::new(config, events);
    let mut net = Net::new(script.clone());
    params::load_state_dict(net.vars(), data.dict("weights").unwrap(), true).unwrap();
    let mut trainer = trainer(config, &json!({}), root, &script)?;
    for entry in config["entries"].as_array().unwrap() {
        enter((entry.as_str().unwrap(), None), &mut trainer, &mut net, config, data, events)?;
    }
    note_end(&mut trainer, &net, events);

    if let Some(file) = resume_from {
        let path = root.join(file);
        events.push(json!(["-- resume", file]));
        let script = Script::new(config, events);
        let mut net = Net::new(script.clone());
        params::load_state_dict(net.vars(), data.dict("weights").unwrap(), true).unwrap();
        let mut trainer = self::trainer(config, &config["resume"]["trainer"], root, &script)?;
        enter(("fit", Some(&path)), &mut trainer, &mut net, config, data, events)?;
        note_end(&mut trainer, &net, events);
    }
    Ok(())
}

// Trainer -------------------------------------------------------------------------------------------------------------

fn trainer(config: &Json, overrides: &Json, root: &Path, script: &Script) -> Result<Trainer, fulgurite::Error> {
    let mut arguments = json!({
        "accelerator": "cpu", "enable_progress_bar": false, "enable_model_summary": false, "default_root_dir": root,
    });
    let all = arguments.as_object_mut().unwrap();
    for given in [&config["trainer"], overrides] {
        all.extend(given.as_object().cloned().unwrap_or_default());
    }
    if all.get("fast_dev_run") == Some(&json!(true)) {
        all.insert("fast_dev_run".into(), json!(1));
    }
    let refused = |error: serde_json::Error| fulgurite::Error::Config(error.to_string());
    let arguments: TrainerConfig = serde_json::from_value(arguments).map_err(refused)?;
    let mut builder =
        Trainer::builder().config(arguments).console(Console::memory()).callback(Recorder(script.clone()));
    builder = match config["logger"] == true {
        true => builder.logger(Recording(script.events.clone())),
        false => builder.no_logger(),
    };
    for (index, options) in config["callbacks"].as_array().unwrap().iter().enumerate() {
        builder = with_callback(builder, options, &root.join(index.to_string()));
    }
    builder.build()
}

fn with_callback(builder: TrainerBuilder, options: &Json, folder: &Path) -> TrainerBuilder {
    match options["name"].as_str().unwrap() {
        "ModelCheckpoint" => builder.callback(model_checkpoint(options).dirpath(folder)),
        "EarlyStopping" => builder.callback(early_stopping(options)),
        _ => {
            let interval = options["logging_interval"].as_str();
            let interval = interval.map(|name| if name == "step" { Interval::Step } else { Interval::Epoch });
            let monitor = LearningRateMonitor::new().logging_interval(interval);
            let (momentum, decay) = (options["log_momentum"] == true, options["log_weight_decay"] == true);
            builder.callback(monitor.log_momentum(momentum).log_weight_decay(decay))
        }
    }
}

fn mode(options: &Json) -> Mode {
    if options["mode"] == "max" { Mode::Max } else { Mode::Min }
}

fn model_checkpoint(options: &Json) -> ModelCheckpoint {
    let mut checkpoint = match options["monitor"].as_str() {
        Some(monitor) => ModelCheckpoint::monitor(monitor),
        None => ModelCheckpoint::new(),
    };
    checkpoint = checkpoint.mode(mode(options));
    for (key, value) in options.as_object().unwrap() {
        let (flag, count) = (value.as_bool(), value.as_u64());
        checkpoint = match key.as_str() {
            "name" | "monitor" | "mode" => checkpoint,
            "filename" => checkpoint.filename(value.as_str().unwrap()),
            "save_top_k" => checkpoint.save_top_k(count.map_or(Maximum::Unlimited, Maximum::Of)),
            "save_last" => checkpoint.save_last(match flag {
                None => Some(SaveLast::Link),
                Some(on) => on.then_some(SaveLast::Copy),
            }),
            "auto_insert_metric_name" => checkpoint.auto_insert_metric_name(flag.unwrap()),
            "every_n_train_steps" => checkpoint.every_n_train_steps(count.unwrap()),
            "every_n_epochs" => checkpoint.every_n_epochs(count.unwrap()),
            "save_on_train_epoch_end" => checkpoint.save_on_train_epoch_end(flag),
            "save_weights_only" => checkpoint.save_weights_only(flag.unwrap()),
            other => panic!("ModelCheckpoint has no `{other}` here"),
        };
    }
    checkpoint
}

fn early_stopping(options: &Json) -> EarlyStopping {
    let mut stopping = EarlyStopping::monitor(options["monitor"].as_str().unwrap()).mode(mode(options));
    for (key, value) in options.as_object().unwrap() {
        stopping = match key.as_str() {
            "name" | "monitor" | "mode" => stopping,
            "patience" => stopping.patience(value.as_u64().unwrap()),
            "min_delta" => stopping.min_delta(value.as_f64().unwrap()),
            "strict" => stopping.strict(value.as_bool().unwrap()),
            "stopping_threshold" => stopping.stopping_threshold(value.as_f64().unwrap()),
            "divergence_threshold" => stopping.divergence_threshold(value.as_f64().unwrap()),
            "check_on_train_epoch_end" => stopping.check_on_train_epoch_end(value.as_bool()),
            other => panic!("EarlyStopping has no `{other}` here"),
        };
    }
    stopping
}

// Data ----------------------------------------------------------------------------------------------------------------

/// Batches whose number is not known before the end.
struct Unsized(BoxLoader<Pair>);

impl Loader for Unsized {
    type Batch = Pair;

    fn len(&self) -> Option<usize> {
        None
    }

    fn iter(&self, epoch: u64, skip: usize) -> Result<BatchIter<Pair>, DataError> {
        self.0.iter(epoch, skip)
    }
}

fn loaders(config: &Json, stage: &str, data: &Dict) -> Loaders<Pair> {
    let mut made = Loaders::none();
    for loader in config["loaders"][stage].as_array().unwrap() {
        let (first, count) = (loader["first"].as_u64().unwrap(), loader["count"].as_u64().unwrap());
        let tensor = |name: &str, index: u64| data.tensor(&format!("{name}{index}")).unwrap().shallow_clone();
        let batches: Vec<Pair> = (first..first + count).map(|index| (tensor("x", index), tensor("y", index))).collect();
        let [batches]: [BoxLoader<Pair>; 1] = Loaders::from(batches).0.try_into().ok().unwrap();
        made.0.push(if loader["sized"] == true { batches } else { Box::new(Unsized(batches)) });
    }
    made
}

// Events --------------------------------------------------------------------------------------------------------------

fn enter(
    (entry, ckpt_path): (&str, Option<&Path>),
    trainer: &mut Trainer,
    net: &mut Net,
    config: &Json,
    data: &Dict,
    events: &Events,
) -> Result<(), fulgurite::Error> {
    events.push(json!(["--", entry]));
    let of = |stage: &str| loaders(config, stage, data);
    match entry {
        "fit" => {
            let outcome = if config["loaders"]["val"] == json!([]) {
                trainer.ckpt_path(ckpt_path).fit(net, of("train"))?
            } else {
                trainer.ckpt_path(ckpt_path).fit(net, (of("train"), of("val")))?
            };
            events.push(json!(["stopped", matches!(outcome, Outcome::Stopped(_))]));
        }
        "predict" => {
            let predictions = trainer.predict(net, of("predict"))?;
            let numbers =
                predictions.iter().flatten().map(|value| number(value.as_tensor().unwrap().double_value(&[])));
            events.push(json!(["predicted", numbers.collect::<Vec<_>>()]));
        }
        _ => {
            let results = match entry {
                "test" => trainer.verbose(false).test(net, of("test"))?,
                _ => trainer.verbose(false).validate(net, of("val"))?,
            };
            let results: Vec<Json> = results.into_iter().map(floats).collect();
            events.push(json!(["evaluated", results]));
        }
    }
    events.push(json!(["metrics", callback_metrics(trainer.state_mut())]));
    let bar = trainer.state_mut().progress_bar_metrics().unwrap();
    let bar: Map<_, _> = bar.iter().map(|(name, value)| (name.clone(), number(value.to_f64()))).collect();
    events.push(json!(["bar", bar]));
    Ok(())
}

fn floats(values: impl IntoIterator<Item = (String, f64)>) -> Json {
    Json::Object(values.into_iter().map(|(name, value)| (name, number(value))).collect())
}

fn note_end(trainer: &mut Trainer, net: &Net, events: &Events) {
    let state = trainer.state();
    let stepped = state.progress().batches_that_stepped;
    events.push(json!(["progress", state.current_epoch(), state.global_step(), stepped]));
    let weights = params::state_dict(net.vars()).unwrap();
    let weights: Vec<f64> = weights
        .iter()
        .flat_map(|(_, value)| {
            let flat = value.as_tensor().unwrap().flatten(0, -1).to_kind(Kind::Double);
            Vec::<f64>::try_from(flat).unwrap()
        })
        .collect();
    events.push(json!(["weights", weights.into_iter().map(number).collect::<Vec<_>>()]));

    let file = |path: Option<&Path>| path.map_or("", |path| path.file_name().unwrap().to_str().unwrap()).to_owned();
    for callback in trainer.callbacks::<EarlyStopping>() {
        let reason = callback.stopping_reason() as i64;
        events.push(json!(["early stopping", callback.stopped_epoch(), callback.wait_count(), reason]));
    }
    for callback in trainer.callbacks::<ModelCheckpoint>() {
        let files = callback.checkpoint_dir().map(file_names).unwrap_or_default();
        events.push(json!(["files", files, file(callback.best_model_path()), file(callback.last_model_path())]));
        let kept = callback.best_k_models().iter().map(|(path, score)| (file(Some(path)), number(*score)));
        events.push(json!(["kept", Json::Object(kept.collect())]));
    }
}

fn file_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
