//! Runs that change sides, in the middle of an epoch and at its end: Lightning goes on from a checkpoint of ours and we
//! from one of Lightning's, and the rest is what either would have done alone, to 1e-5.
//!
//! Lightning begins an ordinary loader again at its first batch wherever the checkpoint was written, so its side has a
//! loader that begins where it should (as a stateful one does). Ours finds the place by itself.
//!
//! Checkpoints with a batch norm change sides too: PyTorch's counts its batches and `tch`'s does not.

use std::any::Any;
use std::path::Path;

use fulgurite::optim::{CosineAnnealingLR, ReduceLROnPlateau, StepLR};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::{params, serialization};
use fulgurite::{Console, ModuleView};
use fulgurite_parity::python;
use fulgurite_test_support::pairs;
use serde_json::{Map, Value as Json, json};

const BATCHES: u64 = 6;

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    optimizer: &'static str,
    scheduler: &'static str,
    accumulate: u64,
}

const fn case(name: &'static str, optimizer: &'static str, scheduler: &'static str, accumulate: u64) -> Case {
    Case { name, optimizer, scheduler, accumulate }
}

const CASES: [Case; 7] = [
    case("adam-step", "Adam", "step", 1),
    case("adam-cosine-3", "Adam", "cosine", 3),
    case("adamw-cosine", "AdamW", "cosine", 1),
    case("adamw-plateau", "AdamW", "plateau", 1),
    case("sgd-plateau-2", "SGD", "plateau", 2),
    case("sgd-cosine", "SGD", "cosine", 1),
    case("sgd-step-2", "SGD", "step", 2),
];

/// Where a run is taken over: after this optimizer step within an epoch, or after this epoch's validation.
#[derive(Clone, Copy)]
enum From {
    Step(u64),
    Epoch(u64),
}

impl Case {
    fn takeovers(self) -> [From; 3] {
        // In the first epoch and the third, never at its end.
        let per_epoch = BATCHES / self.accumulate;
        [From::Step(1), From::Step(2 * per_epoch + 1), From::Epoch(1)]
    }

    fn file(self, side: &str, from: From) -> String {
        match from {
            From::Step(step) => format!("{}-{side}-step={step}.ckpt", self.name),
            From::Epoch(epoch) => format!("{}-{side}-best-epoch={epoch}.ckpt", self.name),
        }
    }

    fn job(self, from: Option<(&str, From)>) -> Json {
        let batches_done = match from {
            Some((_, From::Step(step))) => (step * self.accumulate) % BATCHES,
            _ => 0,
        };
        json!({
            "name": self.name, "optimizer": self.optimizer, "scheduler": self.scheduler, "accumulate": self.accumulate,
            "from": from.map(|(side, from)| self.file(side, from)), "batches_done": batches_done,
        })
    }
}

struct Net {
    vars: nn::VarStore,
    fc1: nn::Linear,
    norm: nn::BatchNorm,
    fc2: nn::Linear,
    case: Case,
}

impl Net {
    fn new(case: Case) -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let without_bias = nn::LinearConfig { bias: false, ..Default::default() };
        let fc1 = nn::linear(vars.root() / "fc1", 4, 8, without_bias);
        let norm = nn::batch_norm1d(vars.root() / "norm", 8, Default::default());
        let fc2 = nn::linear(vars.root() / "fc2", 8, 3, Default::default());
        Net { vars, fc1, norm, fc2, case }
    }

    fn loss(&self, (x, y): &(Tensor, Tensor), step: &Step) -> Tensor {
        let x = x.apply(&self.fc1).apply_t(&self.norm, step.is_training());
        x.tanh().apply(&self.fc2).cross_entropy_for_logits(y)
    }
}

impl LightningModule for Net {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::new().with("optimizer", self.case.optimizer).with("scheduler", self.case.scheduler))
    }

    fn training_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<Loss> {
        Ok(self.loss(&batch, step).into())
    }

    fn validation_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<()> {
        let loss = self.loss(&batch, step);
        step.log("val_loss", loss);
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let optimizers: Optimizers = match self.case.optimizer {
            "Adam" => Adam::new(&self.vars).lr(0.02).into(),
            "AdamW" => AdamW::new(&self.vars).lr(0.02).weight_decay(0.1).into(),
            _ => SGD::new(&self.vars).lr(0.1).momentum(0.9).into(),
        };
        let scheduler = match self.case.scheduler {
            "step" => LrSchedulerConfig::from(StepLR::new(1).gamma(0.7)),
            "cosine" => LrSchedulerConfig::from(CosineAnnealingLR::new(20)).interval(Interval::Step),
            _ => {
                let plateau = ReduceLROnPlateau::new().factor(0.5).patience(0).threshold(0.1);
                LrSchedulerConfig::from(plateau).monitor("val_loss")
            }
        };
        Ok(optimizers.scheduler(scheduler))
    }
}

#[derive(Default)]
struct Record {
    rows: Vec<Json>,
    val: Vec<Json>,
}

impl Callback for Record {
    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        outputs: &Loss,
        _: &dyn Any,
        batch_idx: usize,
    ) -> Result<()> {
        let (epoch, step) = (trainer.current_epoch(), trainer.global_step());
        let lrs: Vec<f64> = trainer.optimizer(0).unwrap().param_groups().iter().map(|group| group.lr).collect();
        self.rows.push(json!([epoch, batch_idx, step, outputs.loss().unwrap().double_value(&[]), lrs]));
        Ok(())
    }

    fn on_validation_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        let loss = trainer.callback_metrics()?["val_loss"].to_f64();
        self.val.push(json!([trainer.current_epoch(), loss]));
        Ok(())
    }
}

fn data() -> Dict {
    fulgurite::tch::manual_seed(5);
    let float = (Kind::Float, Device::Cpu);
    let mut data = Dict::new().with("weights", params::state_dict(&Net::new(CASES[0]).vars).unwrap());
    for (name, n) in [("train", 4 * BATCHES as i64), ("val", 8)] {
        data.set(format!("{name}_x"), Tensor::randn([n, 4], float) + 0.5);
        data.set(format!("{name}_y"), Tensor::randint(3, [n], (Kind::Int64, Device::Cpu)));
    }
    data
}

/// What the script does, here.
fn run(case: Case, data: &Dict, folder: &Path, from: Option<&str>) -> Json {
    let steps = ModelCheckpoint::new().dirpath(folder).filename(format!("{}-ours-{{step}}", case.name));
    let best =
        ModelCheckpoint::monitor("val_loss").dirpath(folder).filename(format!("{}-ours-best-{{epoch}}", case.name));
    let mut trainer = Trainer::builder()
        .max_epochs(4)
        .num_sanity_val_steps(0)
        .accelerator("cpu")
        .no_logger()
        .accumulate_grad_batches(case.accumulate)
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .console(Console::memory())
        .callback(Record::default())
        .callback(steps.every_n_train_steps(1).save_top_k(Maximum::Unlimited))
        .callback(best.save_top_k(Maximum::Unlimited))
        .callback(EarlyStopping::monitor("val_loss").patience(3))
        .build()
        .unwrap();
    let mut net = Net::new(case);
    params::load_state_dict(&net.vars, data.dict("weights").unwrap(), true).unwrap();
    _ = trainer
        .ckpt_path(from.map(|from| folder.join(from)))
        .fit(&mut net, (pairs(data, "train", 4), pairs(data, "val", 4)))
        .unwrap();
    let record = trainer.callback::<Record>().unwrap();
    let (rows, val) = (record.rows.clone(), record.val.clone());
    let best = trainer.callbacks::<ModelCheckpoint>().find_map(ModelCheckpoint::best_model_score);
    let stopping = Callback::state_dict(trainer.callback::<EarlyStopping>().unwrap()).unwrap();
    let best_score = stopping.tensor("best_score").unwrap().double_value(&[]);
    let weights = params::state_dict(&net.vars).unwrap();
    let weights = weights.iter().map(|(name, value)| {
        let values = Vec::<f64>::try_from(value.as_tensor().unwrap().reshape([-1]).to_kind(Kind::Double)).unwrap();
        (name.as_str().unwrap().to_owned(), json!(values))
    });
    json!({
        "rows": rows, "val": val, "steps": trainer.state().global_step(), "weights": weights.collect::<Map<_, _>>(),
        "best": best, "stopping": [stopping.int("wait_count").unwrap(), best_score],
    })
}

fn compare(path: &str, ours: &Json, theirs: &Json) {
    match (ours, theirs) {
        (Json::Array(a), Json::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{path}: {ours} is not {theirs}");
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| compare(&format!("{path}/{i}"), a, b));
        }
        (Json::Object(a), Json::Object(b)) => {
            let missing: Vec<&String> = b.keys().filter(|key| !a.contains_key(*key)).collect();
            assert!(missing.is_empty() && a.len() == b.len(), "{path}: {missing:?}");
            a.iter().for_each(|(key, value)| compare(&format!("{path}/{key}"), value, &b[key]));
        }
        _ => {
            let (a, b) = (ours.as_f64().unwrap(), theirs.as_f64().unwrap());
            assert!((a - b).abs() < 1e-5, "{path}: {a} is not {b}");
        }
    }
}

/// What of a whole run comes after a takeover.
fn rest(whole: &Json, from: From) -> Json {
    let mut rest = whole.clone();
    let rows = whole["rows"].as_array().unwrap();
    let first = match from {
        // After the batch that made the step.
        From::Step(step) => rows.iter().position(|row| row[2] == step).unwrap() + 1,
        From::Epoch(epoch) => rows.iter().position(|row| row[0].as_u64().unwrap() > epoch).unwrap(),
    };
    rest["rows"] = rows[first..].to_vec().into();
    let epoch = rows[first][0].as_u64().unwrap();
    let val = whole["val"].as_array().unwrap().iter();
    rest["val"] = val.filter(|row| row[0].as_u64().unwrap() >= epoch).cloned().collect();
    rest
}

#[test]
fn a_run_that_changes_sides_goes_on_as_if_it_had_not() {
    fulgurite::tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let data = data();
    let file = folder.join("data.pt");
    serialization::save(&file, &Value::Dict(data.clone())).unwrap();
    let lightning = |jobs: Vec<Json>| {
        std::fs::write(folder.join("jobs.json"), Json::from(jobs).to_string()).unwrap();
        python("interchange.py", &[file.to_str().unwrap(), folder.to_str().unwrap()])
    };

    let theirs = lightning(CASES.iter().map(|case| case.job(None)).collect());
    let ours: Vec<Json> = CASES.iter().map(|case| run(*case, &data, folder, None)).collect();
    for (case, (ours, theirs)) in CASES.iter().zip(ours.iter().zip(theirs["jobs"].as_array().unwrap())) {
        compare(case.name, ours, theirs);
    }

    let mut jobs = Vec::new();
    let mut expected = Vec::new();
    for (case, whole) in CASES.iter().zip(&ours) {
        for from in case.takeovers() {
            let file = case.file("theirs", from);
            let resumed = run(*case, &data, &folder.join("again"), Some(folder.join(&file).to_str().unwrap()));
            compare(&format!("{} here, from {file}", case.name), &resumed, &rest(whole, from));
            jobs.push(case.job(Some(("ours", from))));
            expected.push((case.file("ours", from), rest(whole, from)));
        }
    }
    let there = lightning(jobs);
    for ((file, expected), resumed) in expected.iter().zip(there["jobs"].as_array().unwrap()) {
        compare(&format!("there, from {file}"), resumed, expected);
    }
    let written = std::fs::read_dir(folder).unwrap();
    let written = written.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("-ours-"));
    assert_eq!(there["opened"], written.count());
}
