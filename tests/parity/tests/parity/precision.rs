//! Precision against PyTorch and Lightning: the scaler number by number, and training in every precision.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fulgurite::fabric::{GradScaler, GradScalerOptions, MixedPrecision};
use fulgurite::optim::Optimizer;
use fulgurite::prelude::*;
use fulgurite::tch::Reduction;
use fulgurite::tch::nn;
use fulgurite::torch::{grad, params, serialization, to_host_f64};
use fulgurite::{Console, ModuleView, Plugin};
use fulgurite_parity::python;
use serde_json::{Value as Json, json};

fn leaf(values: &[f32], shape: &[i64]) -> Tensor {
    Tensor::from_slice(values).reshape(shape).set_requires_grad(true)
}

fn scaler_state(scaler: &GradScaler) -> Json {
    let state = scaler.state_dict().unwrap();
    json!({
        "scale": state.float("scale").unwrap(),
        "growth_factor": state.float("growth_factor").unwrap(),
        "backoff_factor": state.float("backoff_factor").unwrap(),
        "growth_interval": state.int("growth_interval").unwrap(),
        "_growth_tracker": state.int("_growth_tracker").unwrap(),
    })
}

/// Two optimizers, with infinities and NaN in the gradients of one, the other and both.
#[test]
fn the_scaler_is_pytorchs_step_by_step() {
    let first = [leaf(&[0.5, -1.0], &[2]), leaf(&[2.0], &[1, 1])];
    let second = [leaf(&[1.5], &[1])];
    let of = |parameters: &[Tensor]| parameters.iter().map(Tensor::shallow_clone).collect::<Vec<_>>();
    let mut optimizers =
        [SGD::new(of(&first)).lr(0.1).momentum(0.9).build().unwrap(), Adam::new(of(&second)).lr(0.1).build().unwrap()];
    let options = GradScalerOptions::default().init_scale(1024.0).growth_factor(3.0).backoff_factor(0.25);
    let mut scaler = GradScaler::new(options.growth_interval(3)).unwrap();
    let theirs = python("precision.py", &["scaler"]);
    let theirs = theirs.as_array().unwrap();
    assert_eq!(theirs.len(), 24);
    for (step, theirs) in theirs.iter().enumerate() {
        let (a, b) = match step {
            4 => (f64::INFINITY, 1.0),
            5 => (1.0, f64::NAN),
            11 => (f64::NEG_INFINITY, f64::INFINITY),
            17 => (1.0, 1e38),
            _ => (1.0, 1.0),
        };
        optimizers.iter_mut().for_each(|optimizer| optimizer.zero_grad().unwrap());
        let ours = (first[0].square().sum(Kind::Float) + first[1].exp().sum(Kind::Float)) * a;
        scaler.scale(&(ours + second[0].cos().sum(Kind::Float) * b)).unwrap().backward();
        if step % 2 == 0 {
            scaler.unscale_(optimizers[0].as_ref()).unwrap();
            let _norm = grad::clip_grad_norm(&first, 0.5, 2.0).unwrap();
        }
        for optimizer in &mut optimizers {
            let _ = scaler.step(optimizer.as_mut()).unwrap();
        }
        scaler.update().unwrap();
        if step == 20 {
            let mut state = scaler.state_dict().unwrap();
            state.set("growth_factor", 2.0);
            state.set("growth_interval", 1);
            scaler.load_state_dict(&state).unwrap();
        }
        assert_eq!(scaler_state(&scaler), theirs["scaler"], "after step {step}");
        let weights: Vec<f64> = first
            .iter()
            .chain(&second)
            .flat_map(|weight| Vec::<f64>::try_from(weight.flatten(0, -1).to_kind(Kind::Double)).unwrap())
            .collect();
        for (ours, theirs) in weights.iter().zip(theirs["weights"].as_array().unwrap()) {
            assert!(near(*ours, theirs.as_f64().unwrap(), 1e-6), "step {step}: {ours} and {theirs}");
        }
    }
}

fn near(a: f64, b: f64, tolerance: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1e-3)
}

#[test]
fn names_mean_what_they_mean_in_lightning() {
    let names =
        ["16", "bf16", "32", "64", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "32-true", "64-true", "nonsense"];
    let mut arguments = vec!["names"];
    arguments.extend(names);
    let theirs = python("precision.py", &arguments);
    for name in names {
        let console = Console::memory();
        let trainer =
            Trainer::builder().accelerator("cpu").no_logger().console(console.clone()).precision(name).build();
        let ours = trainer.ok().map(|trainer| trainer.state().fabric().precision().name());
        let warned = console.contents().lines().filter(|line| line.contains("precision")).count();
        assert_eq!(json!([ours, warned]), theirs[name], "{name}: {}", console.contents());
    }
}

#[derive(Clone, Default)]
struct Rows(Arc<Mutex<Vec<Json>>>);

impl Rows {
    fn push(&self, row: Json) {
        self.0.lock().unwrap().push(row);
    }
}

/// What hooks see.
struct Events(Rows);

fn dtype(kind: Kind) -> &'static str {
    match kind {
        Kind::Float => "torch.float32",
        Kind::Double => "torch.float64",
        Kind::Half => "torch.float16",
        Kind::BFloat16 => "torch.bfloat16",
        _ => "another",
    }
}

fn norm(module: &dyn ModuleView) -> f64 {
    let grads = params::named_parameters(module.vars()).into_iter().map(|(_, parameter)| parameter.grad());
    let squares: Vec<f64> = grads
        .filter(Tensor::defined)
        .map(|grad| to_host_f64(&grad.to_kind(Kind::Double).square().sum(Kind::Double)).unwrap())
        .collect();
    squares.iter().sum::<f64>().sqrt()
}

fn number(x: f64) -> Json {
    if x.is_finite() { json!(x) } else { json!(x.to_string()) }
}

impl Callback for Events {
    fn on_before_zero_grad(
        &mut self,
        _: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &mut dyn Optimizer,
    ) -> Result<()> {
        self.0.push(json!(["zero_grad"]));
        Ok(())
    }

    fn on_before_backward(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView, loss: &Tensor) -> Result<()> {
        self.0.push(json!(["backward", number(to_host_f64(loss)?), dtype(loss.kind())]));
        Ok(())
    }

    fn on_after_backward(&mut self, _: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        self.0.push(json!(["gradient", number(norm(module))]));
        Ok(())
    }

    fn on_before_optimizer_step(
        &mut self,
        _: &mut TrainerState,
        module: &mut dyn ModuleView,
        _: &mut dyn Optimizer,
    ) -> Result<()> {
        self.0.push(json!(["step", number(norm(module))]));
        Ok(())
    }

    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        outputs: &Loss,
        _: &dyn std::any::Any,
        _: usize,
    ) -> Result<()> {
        let scaler = trainer.fabric().precision().scaler().map_or(json!({}), scaler_state);
        let loss = outputs.loss().ok_or("there is a loss")?;
        let logged = trainer.callback_metrics()?["loss"].to_f64();
        let row = json!(["end", number(to_host_f64(loss)?), dtype(loss.kind()), number(logged), scaler]);
        self.0.push(row);
        self.0.push(json!(["clipped", number(norm(module))]));
        let sums = params::named_parameters(module.vars())
            .into_iter()
            .map(|(_, parameter)| to_host_f64(&parameter.to_kind(Kind::Double).abs().sum(Kind::Double)).unwrap());
        self.0.push(json!(["weights", sums.collect::<Vec<_>>()]));
        Ok(())
    }
}

struct Net {
    vars: nn::VarStore,
    fc1: nn::Linear,
    fc2: nn::Linear,
    kinds: Vec<&'static str>,
}

type Batch = (Tensor, Tensor, Tensor);

impl Net {
    fn new() -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let fc1 = nn::linear(vars.root() / "fc1", 16, 32, Default::default());
        let fc2 = nn::linear(vars.root() / "fc2", 32, 4, Default::default());
        Net { vars, fc1, fc2, kinds: Vec::new() }
    }

    fn both(&mut self, (x, y, factor): Batch) -> Tensor {
        let hidden = x.apply(&self.fc1);
        let logits = hidden.tanh().apply(&self.fc2);
        let none: Option<&Tensor> = None;
        let loss = logits.cross_entropy_loss(&y, none, Reduction::Mean, -100, 0.0) * factor.mean(factor.kind());
        self.kinds = [&x, &self.fc1.ws, &hidden, &logits, &loss].map(|tensor| dtype(tensor.kind())).to_vec();
        loss
    }
}

impl LightningModule for Net {
    type Batch = Batch;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Batch, step: &mut Step) -> Result<Loss> {
        let loss = self.both(batch);
        step.log("loss", &loss);
        Ok(loss.into())
    }

    fn validation_step(&mut self, batch: Batch, step: &mut Step) -> Result<()> {
        let loss = self.both(batch);
        step.log("val_loss", &loss);
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.1).momentum(0.9).into())
    }
}

/// Losses times the factors; an infinite one makes infinite gradients.
fn data(factors: &[f32]) -> Dict {
    let mut data = Dict::new().with("weights", params::state_dict(&Net::new().vars).unwrap());
    for which in ["train", "val"] {
        let n = 8 * factors.len() as i64;
        let factors = if which == "train" {
            Tensor::from_slice(factors)
        } else {
            Tensor::ones_like(&Tensor::from_slice(factors))
        };
        data.set(format!("{which}_x"), Tensor::randn([n, 16], (Kind::Float, Device::Cpu)));
        data.set(format!("{which}_y"), Tensor::randint(4, [n], (Kind::Int64, Device::Cpu)));
        data.set(format!("{which}_f"), factors.repeat_interleave_self_int(8, 0, None));
    }
    data
}

fn batches(data: &Dict, which: &str) -> Vec<Batch> {
    let tensors = |name: &str| data.tensor(&format!("{which}_{name}")).unwrap().split(8, 0);
    let (x, y, f) = (tensors("x"), tensors("y"), tensors("f"));
    x.into_iter().zip(y).zip(f).map(|((x, y), f)| (x, y, f)).collect()
}

fn ours(data: &Dict, precision: &str, epochs: u64, folder: &Path, ckpt_path: Option<&Path>) -> Json {
    let rows = Rows::default();
    let builder = Trainer::builder()
        .max_epochs(epochs)
        .num_sanity_val_steps(0)
        .accelerator("cpu")
        .no_logger()
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .gradient_clip_val(0.5)
        .callback(Events(rows.clone()))
        .callback(ModelCheckpoint::new().dirpath(folder).filename("ours"))
        .console(Console::memory());
    let builder = match precision {
        "16-mixed" => {
            let scaler = GradScaler::new(GradScalerOptions::default().growth_interval(4)).unwrap();
            builder.plugin(Plugin::precision(MixedPrecision::fp16(scaler)))
        }
        precision => builder.precision(precision),
    };
    let mut trainer = builder.build().unwrap();
    let mut net = Net::new();
    params::load_state_dict(&net.vars, data.dict("weights").unwrap(), true).unwrap();
    _ = trainer.ckpt_path(ckpt_path).fit(&mut net, (batches(data, "train"), batches(data, "val"))).unwrap();
    let weights = params::state_dict(&net.vars).unwrap();
    let weights = weights.iter().map(|(name, value)| {
        let flat = value.as_tensor().unwrap().flatten(0, -1).to_kind(Kind::Double);
        (name.as_str().unwrap().to_owned(), json!(Vec::<f64>::try_from(flat).unwrap()))
    });
    let saved = serialization::load(trainer.best_model_path().unwrap()).unwrap();
    let saved = saved.as_dict().unwrap().dict("MixedPrecision").ok().map(|state| {
        let mut scaler = GradScaler::default();
        scaler.load_state_dict(state).unwrap();
        scaler_state(&scaler)
    });
    let val_loss = trainer.state_mut().callback_metrics().unwrap()["val_loss"].to_f64();
    json!({
        "rows": *rows.0.lock().unwrap(),
        "kinds": net.kinds,
        "val_loss": val_loss,
        "weights": weights.collect::<serde_json::Map<_, _>>(),
        "saved": saved,
    })
}

fn theirs(data: &Path, precision: &str, epochs: u64, folder: &Path, ckpt_path: Option<&Path>) -> Json {
    let epochs = epochs.to_string();
    let mut arguments = vec!["train", data.to_str().unwrap(), precision, &epochs, folder.to_str().unwrap()];
    arguments.extend(ckpt_path.map(|path| path.to_str().unwrap()));
    python("precision.py", &arguments)
}

/// The largest relative difference between the numbers of two trees of the same form.
#[track_caller]
fn difference(path: &str, a: &Json, b: &Json) -> f64 {
    match (a, b) {
        (Json::Object(a), Json::Object(b)) => {
            assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{path}");
            a.iter().map(|(key, a)| difference(&format!("{path}.{key}"), a, &b[key])).fold(0.0, f64::max)
        }
        (Json::Array(a), Json::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{path}");
            a.iter().zip(b).enumerate().map(|(i, (a, b))| difference(&format!("{path}[{i}]"), a, b)).fold(0.0, f64::max)
        }
        (Json::Number(a), Json::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() / a.abs().max(b.abs()).max(1e-2)
        }
        (a, b) => {
            assert_eq!(a, b, "{path}");
            0.0
        }
    }
}

const PLAIN: [f32; 12] = [1.0; 12];
const WITH_INFINITIES: [f32; 12] =
    [1.0, 1.0, f32::INFINITY, 1.0, 1.0, 1.0, 1.0, 1.0, f32::INFINITY, f32::INFINITY, 1.0, 1.0];

#[track_caller]
fn trains_alike(precision: &str, factors: &[f32], tolerance: f64) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.pt");
    let data = data(factors);
    serialization::save(&file, &data.clone().into()).unwrap();
    let mut ours = ours(&data, precision, 3, &folder.path().join("ours"), None);
    let mut theirs = theirs(&file, precision, 3, &folder.path().join("theirs"), None);
    if precision.ends_with("16-true") {
        // Each weight of 8 or 11 bits is a rounding or two from the other; their sums are among the rows.
        for run in [&mut ours, &mut theirs] {
            run["weights"] = Json::Null;
        }
    }
    let largest = difference(precision, &ours, &theirs);
    println!("{precision}: largest difference {largest:e}");
    assert!(largest <= tolerance, "{precision}: {largest:e}");
}

#[test]
fn training_is_alike_in_bf16_mixed() {
    trains_alike("bf16-mixed", &PLAIN, 1e-4);
}

#[test]
fn training_is_alike_in_16_mixed_and_skips_the_same_steps() {
    trains_alike("16-mixed", &WITH_INFINITIES, 2e-3);
}

#[test]
fn training_is_alike_in_true_precisions() {
    trains_alike("bf16-true", &PLAIN, 0.05);
    trains_alike("16-true", &PLAIN, 0.01);
    trains_alike("64-true", &PLAIN, 1e-9);
}

/// A checkpoint of either goes on in the other, scale and all.
#[test]
fn scalers_go_from_one_to_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    let file = at("data.pt");
    let data = data(&WITH_INFINITIES);
    serialization::save(&file, &data.clone().into()).unwrap();
    ours(&data, "16-mixed", 1, &at("ours"), None);
    theirs(&file, "16-mixed", 1, &at("theirs"), None);
    let from_ours = theirs(&file, "16-mixed", 3, &at("theirs-again"), Some(&at("ours").join("ours.ckpt")));
    let from_theirs = ours(&data, "16-mixed", 3, &at("ours-again"), Some(&at("theirs").join("theirs.ckpt")));
    let largest = difference("resumed", &from_theirs, &from_ours);
    println!("resumed: largest difference {largest:e}");
    assert!(largest <= 2e-3, "{largest:e}");
}
