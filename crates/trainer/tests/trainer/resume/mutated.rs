//! A checkpoint of which one entry is missing, or of another type. The run that goes on from it ends with an error, or says
//! that it does not resume exactly; both name the entry. What may change without a word is listed.

use std::path::Path;
use std::time::Duration;

use fulgurite::callbacks::{GradientNorm, SpikeDetection, Timer};
use fulgurite::fabric::{GradScaler, GradScalerOptions, MixedPrecision};
use fulgurite::metrics::MulticlassAccuracy;
use fulgurite::optim::{CosineAnnealingLR, ReduceLROnPlateau};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::serialization;
use fulgurite::{Console, Plugin, SaveRequest};

struct Small {
    vars: nn::VarStore,
    layers: [nn::Linear; 2],
    accuracy: MulticlassAccuracy,
}

impl Small {
    fn new() -> Small {
        let vars = nn::VarStore::new(Device::Cpu);
        let layer = |name: &str| nn::linear(vars.root() / name, 2, 2, Default::default());
        let layers = [layer("one"), layer("two")];
        Small { vars, layers, accuracy: MulticlassAccuracy::new(2) }
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        x.apply(&self.layers[0]).tanh().apply(&self.layers[1]).to_kind(Kind::Float)
    }
}

impl LightningModule for Small {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        let (logits, classes) = (self.logits(&x), Tensor::from_slice(&[0i64, 1]));
        let loss = logits.cross_entropy_for_logits(&classes);
        self.accuracy.update(&logits, &classes)?;
        step.log("loss", &loss).on_step().on_epoch();
        step.log("number", 3.0).epoch_only();
        step.log("acc", &self.accuracy).epoch_only();
        Ok(loss.into())
    }

    fn validation_step(&mut self, x: Tensor, step: &mut Step) -> Result<()> {
        step.log("val_loss", self.logits(&x).square().mean(Kind::Float));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let halves = LrSchedulerConfig::new(CosineAnnealingLR::new(20)).interval(Interval::Step);
        let plateau = LrSchedulerConfig::new(ReduceLROnPlateau::new()).monitor("val_loss");
        Ok(Optimizers::from(AdamW::new(&self.vars).lr(0.02)).scheduler(halves).scheduler(plateau))
    }
}

/// A data module that remembers something.
struct Remembering(i64);

impl LightningDataModule for Remembering {
    type Batch = Tensor;

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        let batch = |i| Tensor::from_slice(&[i as f32, 1.0, -1.0, 0.5]).view([2, 2]);
        Ok((0..5).map(batch).collect::<Vec<_>>().into())
    }

    fn val_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        Ok(vec![Tensor::ones([2, 2], (Kind::Float, Device::Cpu))].into())
    }

    fn state_dict(&self) -> Result<Dict> {
        Ok(Dict::new().with("position", self.0))
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        self.0 = state.int("position")?;
        Ok(())
    }
}

/// Runs two epochs, or the rest of them. What it said, and how it ended.
fn run(from: Option<&Path>, to: Option<&Path>) -> (String, std::result::Result<(), String>) {
    seed_everything(3).unwrap();
    let console = Console::memory();
    let scaler = GradScaler::new(GradScalerOptions::default().init_scale(4.0)).unwrap();
    let to = to.map(Path::to_path_buf);
    let save = fulgurite::callbacks::LambdaCallback::new().on_train_batch_end(move |trainer, _, _, _, _| {
        // In the middle of a window, in the second epoch.
        if let Some(to) = to.as_ref().filter(|_| trainer.progress().batch.total.ready == 8) {
            trainer.request_checkpoint(SaveRequest::new(to));
        }
        Ok(())
    });
    let mut trainer = Trainer::builder()
        .max_epochs(2)
        .accelerator("cpu")
        .accumulate_grad_batches(2)
        .num_sanity_val_steps(0)
        .plugin(Plugin::precision(MixedPrecision::fp16(scaler)))
        .no_logger()
        .enable_checkpointing(true)
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .default_root_dir(std::env::temp_dir())
        .callback(EarlyStopping::monitor("val_loss"))
        .callback(ModelCheckpoint::monitor("val_loss").save_top_k(0))
        .callback(Timer::new(Duration::from_secs(3600)))
        .callback(SpikeDetection::new())
        .callback(GradientNorm::new())
        .callback(save)
        .console(console.clone())
        .build()
        .unwrap();
    let outcome = trainer.ckpt_path(from).fit(&mut Small::new(), &mut Remembering(7));
    (console.contents(), outcome.map(drop).map_err(|error| error.to_string()))
}

/// A step from an entry to one in it.
#[derive(Clone, PartialEq)]
enum Place {
    Key(Value),
    Index(usize),
}

fn every_entry(value: &Value, path: &mut Vec<Place>, each: &mut dyn FnMut(&[Place])) {
    let mut enter = |place: Place, value: &Value, path: &mut Vec<Place>| {
        path.push(place);
        each(path);
        every_entry(value, path, each);
        path.pop();
    };
    match value {
        Value::Dict(dict) => dict.iter().for_each(|(key, value)| enter(Place::Key(key.clone()), value, path)),
        Value::List(list) | Value::Tuple(list) => {
            list.iter().enumerate().for_each(|(at, value)| enter(Place::Index(at), value, path));
        }
        _ => {}
    }
}

/// The same tree with another value in one place; `None`: without it.
fn replaced(value: &Value, path: &[Place], with: &Option<Value>) -> Option<Value> {
    let Some((place, rest)) = path.split_first() else { return with.clone() };
    Some(match (value, place) {
        (Value::Dict(dict), Place::Key(key)) => {
            let entries = dict.iter().filter_map(|(k, v)| {
                let value = if k == key { replaced(v, rest, with)? } else { v.clone() };
                Some((k.clone(), value))
            });
            Value::Dict(entries.collect())
        }
        (Value::List(list) | Value::Tuple(list), Place::Index(index)) => {
            let items = list.iter().enumerate();
            let items =
                items.filter_map(|(at, v)| if at == *index { replaced(v, rest, with) } else { Some(v.clone()) });
            Value::List(items.collect())
        }
        _ => value.clone(),
    })
}

fn name(path: &[Place]) -> String {
    path.iter().fold(String::new(), |name, place| match place {
        Place::Index(at) => format!("{name}[{at}]"),
        Place::Key(key) => {
            let key = key.as_str().map_or_else(|| format!("{:?}", key.as_int().unwrap()), str::to_owned);
            if name.is_empty() { key } else { format!("{name}.{key}") }
        }
    })
}

/// What the rest of a run does not depend on: Lightning's own fields, loops that are not running, what `auto` chooses by, and
/// settings that are written for others to read.
fn is_free(name: &str) -> bool {
    const WHOLE: [&str; 5] = ["epoch", "global_step", "pytorch-lightning_version", "hparams_name", "hyper_parameters"];
    const IDLE: [&str; 3] = ["loops.validate_loop", "loops.test_loop", "loops.predict_loop"];
    const CONSTANT: [&str; 16] = [
        "loop.state_dict",
        "optimization.state_dict",
        "val_loop.batch_progress.is_last_batch",
        "._is_initial",
        "._get_lr_called_within_step",
        ".mode_worse",
        ".default_min_lr",
        ".amsgrad",
        ".foreach",
        ".maximize",
        ".capturable",
        ".differentiable",
        ".fused",
        "}.current_score",
        "SpikeDetection.atol",
        "SpikeDetection.bad_batches_path",
    ];
    WHOLE.contains(&name)
        || name.starts_with("fulgurite.configuration")
        || IDLE.iter().any(|idle| name.starts_with(idle))
        || CONSTANT.iter().any(|end| name.ends_with(end)) && !name.ends_with("epoch_loop.state_dict")
}

#[test]
fn no_entry_that_matters_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, changed) = (folder.path().join("whole.ckpt"), folder.path().join("changed.ckpt"));
    assert_eq!(run(None, Some(&whole)).1, Ok(()));
    let (said, outcome) = run(Some(&whole), None);
    assert_eq!(outcome, Ok(()));
    assert!(!said.contains("not resume exactly"), "{said}");

    let checkpoint = serialization::load(&whole).unwrap();
    let mut places = Vec::new();
    every_entry(&checkpoint, &mut Vec::new(), &mut |path| places.push(path.to_vec()));
    assert!(places.len() > 250, "{}", places.len());
    let mut passed_over = Vec::new();
    for path in &places {
        let name = name(path);
        let is_of_list = matches!(path.last(), Some(Place::Index(_)));
        for with in [None, Some(Value::Bytes(vec![1]))] {
            if is_of_list && with.is_none() || is_free(&name) {
                continue;
            }
            let tree = replaced(&checkpoint, path, &with).unwrap();
            serialization::save(&changed, &tree).unwrap();
            let (said, outcome) = run(Some(&changed), None);
            let said = outcome.err().unwrap_or(said);
            let key = path.iter().rev().find_map(|place| match place {
                Place::Key(key) => Some(key.as_str().map_or_else(|| key.as_int().unwrap().to_string(), str::to_owned)),
                Place::Index(_) => None,
            });
            let others = ["parameter group 0", "a score in the state of ModelCheckpoint", "random number generators"];
            let is_named = said.contains(&key.unwrap()) || others.iter().any(|other| said.contains(other));
            if !is_named || !["expected", "lacks", "no entry", "not"].iter().any(|word| said.contains(word)) {
                passed_over.push(format!("{name} {}: {said}", if with.is_none() { "missing" } else { "mistyped" }));
            }
        }
    }
    assert!(passed_over.is_empty(), "{} of {}:\n{}", passed_over.len(), places.len(), passed_over.join("\n"));
}

/// It is said once, and for all that such a file lacks.
#[test]
fn a_checkpoint_of_lightning_itself_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theirs.ckpt");
    run(None, Some(&path)).1.unwrap();
    let Value::Dict(mut theirs) = serialization::load(&path).unwrap() else { unreachable!() };
    theirs.remove("fulgurite");
    serialization::save(&path, &Value::Dict(theirs)).unwrap();
    let (said, outcome) = run(Some(&path), None);
    assert_eq!(outcome, Ok(()));
    assert_eq!(said.matches("the checkpoint has no entry `fulgurite`").count(), 1, "{said}");
    assert!(!said.contains("lacks"), "{said}");
}
