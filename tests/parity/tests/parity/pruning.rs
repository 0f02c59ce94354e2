//! Pruning chooses and keeps what Lightning's does: the masks after every epoch, and the weights, to rounding.

use std::sync::{Arc, Mutex};

use fulgurite::callbacks::{LambdaCallback, ModelPruning, ModelPruningOptions};
use fulgurite::config::Configurable;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::{params, serialization};
use fulgurite::{Console, ModuleView};
use fulgurite_parity::python;
use fulgurite_test_support::pairs;
use serde_json::{Value as Json, json};

struct Net {
    vars: nn::VarStore,
    fc1: nn::Linear,
    fc2: nn::Linear,
    optimizer: String,
}

impl Net {
    fn new(optimizer: &str) -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let fc1 = nn::linear(vars.root() / "fc1", 4, 8, Default::default());
        let fc2 = nn::linear(vars.root() / "fc2", 8, 3, Default::default());
        Net { vars, fc1, fc2, optimizer: optimizer.into() }
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

    fn training_step(&mut self, batch: Self::Batch, _: &mut Step) -> Result<Loss> {
        Ok(self.loss(&batch).into())
    }

    fn validation_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<()> {
        step.log("val_loss", self.loss(&batch));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(match self.optimizer.as_str() {
            "Adam" => Adam::new(&self.vars).lr(0.01).weight_decay(0.1).into(),
            _ => SGD::new(&self.vars).lr(0.05).momentum(0.9).weight_decay(0.1).into(),
        })
    }
}

fn data() -> Dict {
    let float = (Kind::Float, Device::Cpu);
    let mut data = Dict::new().with("weights", params::state_dict(&Net::new("").vars).unwrap());
    for (name, n) in [("train", 20), ("val", 8)] {
        data.set(format!("{name}_x"), Tensor::randn([n, 4], float));
        data.set(format!("{name}_y"), Tensor::randint(3, [n], (Kind::Int64, Device::Cpu)));
    }
    data
}

/// The callback of a case. Lists of four are by epoch.
fn pruning(options: &Json) -> ModelPruning {
    let mut plain = options.clone();
    plain.as_object_mut().unwrap().retain(|name, value| name == "parameters_to_prune" || !value.is_array());
    if let Some(names) = options.get("parameter_names") {
        plain["parameter_names"] = names.clone();
    }
    let plain: ModelPruningOptions = serde_json::from_value(plain).unwrap();
    let mut pruning = ModelPruning::from_options(plain).unwrap();
    let list = |name: &str| options[name].as_array().cloned();
    if let Some(amounts) = list("amount") {
        pruning = pruning.amount_by_epoch(move |epoch| amounts[epoch as usize].as_f64().unwrap());
    }
    if let Some(apply) = list("apply_pruning") {
        pruning = pruning.apply_pruning_by_epoch(move |epoch| apply[epoch as usize].as_bool().unwrap());
    }
    if let Some(lottery) = list("use_lottery_ticket_hypothesis") {
        let lottery = move |epoch: u64| lottery[epoch as usize].as_bool().unwrap();
        pruning = pruning.use_lottery_ticket_hypothesis_by_epoch(lottery);
    }
    pruning
}

fn flat(tensor: &Tensor) -> Json {
    json!(Vec::<f64>::try_from(tensor.detach().flatten(0, -1).to_kind(Kind::Double)).unwrap())
}

fn values(module: &dyn ModuleView) -> Vec<(String, Json)> {
    params::named_parameters(module.vars()).iter().map(|(name, tensor)| (name.clone(), flat(tensor))).collect()
}

/// What the script does, here.
fn run(data: &Dict, case: &Json) -> Json {
    let folder = tempfile::tempdir().unwrap();
    let mut net = Net::new(case["optimizer"].as_str().unwrap());
    params::load_state_dict(&net.vars, data.dict("weights").unwrap(), true).unwrap();
    let epochs: Arc<Mutex<Vec<Json>>> = Arc::default();
    let watched = epochs.clone();
    let seed = LambdaCallback::new().on_train_epoch_end(|trainer, _| {
        seed_everything(100 + trainer.current_epoch())?;
        Ok(())
    });
    let watch = LambdaCallback::new().on_train_epoch_end(move |_, module| {
        watched.lock().unwrap().push(values(module).into_iter().collect());
        Ok(())
    });
    // What the masks are is in the checkpoint's state of the callback, so every epoch's is kept.
    let checkpoint = ModelCheckpoint::new().dirpath(folder.path()).save_top_k(Maximum::Unlimited).filename("{epoch}");
    let mut trainer = Trainer::builder()
        .max_epochs(4)
        .num_sanity_val_steps(0)
        .accelerator("cpu")
        .no_logger()
        .gradient_clip_val(0.3)
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .callback(seed)
        .callback(pruning(&case["options"]))
        .callback(watch)
        .callback(checkpoint)
        .console(Console::memory())
        .build()
        .unwrap();
    _ = trainer.fit(&mut net, (pairs(data, "train", 4), pairs(data, "val", 4))).unwrap();

    let mut epochs = epochs.lock().unwrap().clone();
    let mut saved = Json::Null;
    for (number, epoch) in epochs.iter_mut().enumerate() {
        let file = serialization::load(folder.path().join(format!("epoch={number}.ckpt"))).unwrap();
        let file = file.as_dict().unwrap();
        let callbacks = file.dict("callbacks").unwrap();
        let key = callbacks.keys().find(|key| key.starts_with("ModelPruning")).unwrap();
        let masks = callbacks.dict(key).unwrap().dict("masks").unwrap();
        for (name, values) in epoch.as_object_mut().unwrap() {
            *values = json!({ "mask": masks.tensor(name).ok().map(flat), "values": values });
        }
        let weights = file.dict("state_dict").unwrap().iter();
        saved = weights
            .map(|(name, value)| (name.as_str().unwrap().to_owned(), flat(value.as_tensor().unwrap())))
            .collect();
    }
    let last: Json = values(&net).into_iter().collect();
    json!({ "epochs": epochs, "saved": saved, "final": last })
}

#[track_caller]
fn assert_close(path: &str, a: &Json, b: &Json) {
    match (a, b) {
        (Json::Object(a), Json::Object(b)) => {
            let sorted = |keys: serde_json::map::Keys<'_>| {
                let mut keys: Vec<String> = keys.cloned().collect();
                keys.sort();
                keys
            };
            assert_eq!(sorted(a.keys()), sorted(b.keys()), "{path}");
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

#[test]
fn masks_and_weights_are_lightnings() {
    let case = |optimizer: &str, options: Json| json!({ "optimizer": optimizer, "options": options });
    let cases = json!([
        case("Adam", json!({ "pruning_fn": "l1_unstructured", "use_lottery_ticket_hypothesis": false })),
        case("SGD", json!({ "pruning_fn": "l1_unstructured", "amount": 7, "use_lottery_ticket_hypothesis": false })),
        case(
            "SGD",
            json!({ "pruning_fn": "l1_unstructured", "amount": 0.3, "use_global_unstructured": false,
            "use_lottery_ticket_hypothesis": false })
        ),
        case(
            "Adam",
            json!({ "pruning_fn": "random_unstructured", "amount": 0.25,
            "use_lottery_ticket_hypothesis": false })
        ),
        case(
            "SGD",
            json!({ "pruning_fn": "random_unstructured", "amount": 1, "use_global_unstructured": false,
            "parameter_names": ["weight"], "use_lottery_ticket_hypothesis": false })
        ),
        case(
            "Adam",
            json!({ "pruning_fn": "ln_structured", "amount": 0.3, "use_global_unstructured": false,
            "pruning_dim": 0, "pruning_norm": 2, "parameter_names": ["weight"],
            "use_lottery_ticket_hypothesis": false })
        ),
        case(
            "SGD",
            json!({ "pruning_fn": "ln_structured", "amount": 1, "use_global_unstructured": false,
            "pruning_dim": 1, "pruning_norm": 1, "parameters_to_prune": ["fc2.weight"],
            "use_lottery_ticket_hypothesis": false })
        ),
        case(
            "Adam",
            json!({ "pruning_fn": "random_structured", "amount": 0.4, "use_global_unstructured": false,
            "pruning_dim": -1, "parameter_names": ["weight"], "use_lottery_ticket_hypothesis": false })
        ),
        case("Adam", json!({ "pruning_fn": "l1_unstructured", "amount": 0.2 })),
        case("SGD", json!({ "pruning_fn": "l1_unstructured", "amount": 0.2, "use_global_unstructured": false })),
        case(
            "SGD",
            json!({ "pruning_fn": "l1_unstructured", "amount": 0.2,
            "use_lottery_ticket_hypothesis": [false, true, false, false] })
        ),
        case(
            "Adam",
            json!({ "pruning_fn": "l1_unstructured", "amount": [0.0, 0.1, 0.4, 0.2],
            "use_lottery_ticket_hypothesis": false })
        ),
        case("SGD", json!({ "pruning_fn": "l1_unstructured", "apply_pruning": [true, false, true, false] })),
        case(
            "Adam",
            json!({ "pruning_fn": "l1_unstructured", "amount": 0.1, "prune_on_train_epoch_end": false,
            "use_lottery_ticket_hypothesis": false })
        ),
        case("SGD", json!({ "pruning_fn": "l1_unstructured", "amount": 0.5, "apply_pruning": false })),
        case(
            "SGD",
            json!({ "pruning_fn": "l1_unstructured", "amount": 3,
            "parameters_to_prune": ["fc2.bias", "fc1.weight"], "use_lottery_ticket_hypothesis": false })
        ),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.pt");
    let data = data();
    serialization::save(&path, &Value::Dict(data.clone())).unwrap();
    let theirs = python("pruning.py", &[path.to_str().unwrap(), &cases.to_string()]);
    for (case, theirs) in cases.as_array().unwrap().iter().zip(theirs.as_array().unwrap()) {
        assert_close(&case.to_string(), theirs, &run(&data, case));
    }
}
