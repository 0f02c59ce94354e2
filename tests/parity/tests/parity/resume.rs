//! A run begun here and ended by Lightning, or the other way round, is the run that either would have made alone.

use std::collections::BTreeSet;
use std::path::Path;

use fulgurite::Console;
use fulgurite::loggers::{Logged, MemoryLogger};
use fulgurite::optim::StepLR;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::{params, serialization};
use fulgurite_parity::python;
use fulgurite_test_support::pairs;
use serde_json::{Map, Value as Json, json};

struct Net {
    vars: nn::VarStore,
    fc1: nn::Linear,
    fc2: nn::Linear,
    optimizer: &'static str,
}

impl Net {
    fn new(optimizer: &'static str) -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let fc1 = nn::linear(vars.root() / "fc1", 4, 8, Default::default());
        let fc2 = nn::linear(vars.root() / "fc2", 8, 3, Default::default());
        Net { vars, fc1, fc2, optimizer }
    }

    fn loss(&self, (x, y): &(Tensor, Tensor)) -> Tensor {
        x.apply(&self.fc1).tanh().apply(&self.fc2).cross_entropy_for_logits(y)
    }
}

impl LightningModule for Net {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::new().with("optimizer", self.optimizer))
    }

    fn training_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<Loss> {
        let loss = self.loss(&batch);
        step.log("loss", &loss).on_step().on_epoch();
        Ok(loss.into())
    }

    fn validation_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<()> {
        step.log("val_loss", self.loss(&batch));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let optimizers: Optimizers = match self.optimizer {
            "Adam" => Adam::new(&self.vars).lr(0.01).into(),
            _ => SGD::new(&self.vars).lr(0.05).momentum(0.9).into(),
        };
        Ok(optimizers.scheduler(StepLR::new(1).gamma(0.5)))
    }
}

fn data(optimizer: &'static str) -> Dict {
    let float = (Kind::Float, Device::Cpu);
    let mut data = Dict::new().with("weights", params::state_dict(&Net::new(optimizer).vars).unwrap());
    for (name, n) in [("train", 20), ("val", 8)] {
        data.set(format!("{name}_x"), Tensor::randn([n, 4], float));
        data.set(format!("{name}_y"), Tensor::randint(3, [n], (Kind::Int64, Device::Cpu)));
    }
    data
}

/// The keys of a tree of dicts and lists, as the script's.
fn keys(value: &Value) -> Json {
    match value {
        Value::Dict(dict) => {
            let key = |key: &Value| key.as_str().map_or_else(|| key.as_int().unwrap().to_string(), str::to_owned);
            Json::Object(dict.iter().map(|(k, v)| (key(k), keys(v))).collect())
        }
        Value::List(items) => items.iter().map(keys).collect(),
        _ => Json::Null,
    }
}

/// What the script does, here.
fn run(data: &Dict, optimizer: &'static str, epochs: u64, folder: &Path, ckpt_path: Option<&Path>) -> Json {
    let logger = MemoryLogger::new();
    let checkpoint = ModelCheckpoint::monitor("val_loss").dirpath(folder).filename("ours");
    let mut trainer = Trainer::builder()
        .max_epochs(epochs)
        .log_every_n_steps(1)
        .num_sanity_val_steps(0)
        .accelerator("cpu")
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .logger(logger.clone())
        .callback(checkpoint)
        .callback(EarlyStopping::monitor("val_loss"))
        .console(Console::memory())
        .build()
        .unwrap();
    let mut net = Net::new(optimizer);
    params::load_state_dict(&net.vars, data.dict("weights").unwrap(), true).unwrap();
    _ = trainer.ckpt_path(ckpt_path).fit(&mut net, (pairs(data, "train", 4), pairs(data, "val", 4))).unwrap();
    let rows = logger.take().into_iter().filter_map(|call| match call {
        Logged::Metrics { metrics, step } => {
            Some(json!([step, metrics.into_iter().map(|(name, x)| (name, json!(x))).collect::<Map<_, _>>()]))
        }
        _ => None,
    });
    let weights = params::state_dict(&net.vars).unwrap();
    let weights = weights.iter().map(|(name, value)| {
        let flat = value.as_tensor().unwrap().flatten(0, -1).to_kind(Kind::Double);
        (name.as_str().unwrap().to_owned(), json!(Vec::<f64>::try_from(flat).unwrap()))
    });
    let mut saved = serialization::load(trainer.best_model_path().unwrap()).unwrap();
    if let Value::Dict(dict) = &mut saved {
        // What exact resume needs here, which Lightning keeps and ignores.
        dict.remove("fulgurite");
    }
    json!({
        "rows": rows.collect::<Vec<_>>(),
        "weights": weights.collect::<Map<_, _>>(),
        "keys": keys(&saved),
        "best": trainer.callback::<ModelCheckpoint>().unwrap().best_model_score(),
        "lr": trainer.state_mut().optimizers().next().unwrap().param_groups().iter().map(|g| g.lr).collect::<Vec<_>>(),
    })
}

fn theirs(data: &Path, optimizer: &str, epochs: u64, folder: &Path, ckpt_path: Option<&Path>) -> Json {
    let epochs = epochs.to_string();
    let mut arguments = vec![data.to_str().unwrap(), optimizer, &epochs, folder.to_str().unwrap()];
    arguments.extend(ckpt_path.map(|path| path.to_str().unwrap()));
    python("resume.py", &arguments)
}

#[track_caller]
fn assert_close(path: &str, a: &Json, b: &Json) {
    match (a, b) {
        (Json::Object(a), Json::Object(b)) => {
            assert_eq!(a.keys().collect::<BTreeSet<_>>(), b.keys().collect::<BTreeSet<_>>(), "{path}");
            a.iter().for_each(|(key, a)| assert_close(&format!("{path}.{key}"), a, &b[key]));
        }
        (Json::Array(a), Json::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{path}");
            a.iter().zip(b).enumerate().for_each(|(index, (a, b))| assert_close(&format!("{path}[{index}]"), a, b));
        }
        (Json::Number(x), Json::Number(y)) => {
            assert!((x.as_f64().unwrap() - y.as_f64().unwrap()).abs() < 1e-5, "{path}: {x}, {y}");
        }
        _ => assert_eq!(a, b, "{path}"),
    }
}

/// Epochs 2 and 3 of a run, which rows and end must equal.
#[track_caller]
fn assert_goes_on(whole: &Json, resumed: &Json) {
    let rows = |run: &Json| run["rows"].as_array().unwrap().clone();
    let (all, rest) = (rows(whole), rows(resumed));
    assert!(!rest.is_empty());
    assert_close("rows", &json!(all[all.len() - rest.len()..]), &json!(rest));
    for key in ["weights", "best", "lr"] {
        assert_close(key, &whole[key], &resumed[key]);
    }
}

fn check(optimizer: &'static str) {
    let folder = tempfile::tempdir().unwrap();
    let [data_path, ours, theirs_at] = ["data.pt", "ours.ckpt", "theirs.ckpt"].map(|name| folder.path().join(name));
    let data = data(optimizer);
    serialization::save(&data_path, &Value::Dict(data.clone())).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();

    let half = run(&data, optimizer, 2, folder.path(), None);
    let their_half = theirs(&data_path, optimizer, 2, folder.path(), None);
    assert_close("half", &their_half["rows"], &half["rows"]);
    let whole = run(&data, optimizer, 4, elsewhere.path(), None);

    // What Lightning saves of the callbacks that both have, and everything else, has the same keys.
    assert_close("keys", &sorted(&half["keys"]), &sorted(&their_half["keys"]));

    assert_goes_on(&whole, &theirs(&data_path, optimizer, 4, folder.path(), Some(&ours)));
    assert_goes_on(&whole, &run(&data, optimizer, 4, folder.path(), Some(&theirs_at)));
}

/// Without what depends on the folder, the file name and the version of a library.
fn sorted(keys: &Json) -> Json {
    let mut keys = keys.clone();
    for (name, state) in keys["callbacks"].as_object_mut().unwrap() {
        if name.starts_with("ModelCheckpoint") {
            state["best_k_models"] = Json::Null;
        }
    }
    keys
}

#[test]
fn adam_goes_on() {
    check("Adam");
}

#[test]
fn sgd_with_momentum_goes_on() {
    check("SGD");
}
