//! Callbacks that change what is trained, against Lightning's: the same steps, losses, learning rates and weights, and
//! checkpoints that go over to the other side.

use std::any::Any;
use std::path::Path;

use fulgurite::callbacks::AnnealingStrategy;
use fulgurite::optim::StepLR;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::{params, serialization};
use fulgurite::{Console, ModuleView};
use fulgurite_parity::python;
use fulgurite_test_support::pairs;
use serde_json::{Value as Json, json};

/// A run: what the script is told of it, and the callback here. With a batch norm the optimizer is SGD: the bias before
/// it has a gradient of rounding errors alone, of which Adam makes full steps.
struct Case {
    name: &'static str,
    callback: &'static str,
    options: Json,
    ours: fn(fulgurite::TrainerBuilder) -> fulgurite::TrainerBuilder,
    bn: bool,
    momentum: f64,
    optimizer: &'static str,
    scheduler: bool,
    epochs: u64,
}

impl Case {
    fn new(
        name: &'static str,
        callback: &'static str,
        options: Json,
        ours: fn(fulgurite::TrainerBuilder) -> fulgurite::TrainerBuilder,
    ) -> Case {
        let (bn, momentum, optimizer, scheduler, epochs) = (false, 0.1, "SGD", true, 5);
        Case { name, callback, options, ours, bn, momentum, optimizer, scheduler, epochs }
    }

    fn description(&self, from: Option<&str>) -> Json {
        json!({
            "name": self.name, "callback": self.callback, "options": self.options, "bn": self.bn,
            "momentum": self.momentum, "optimizer": self.optimizer, "scheduler": self.scheduler,
            "epochs": self.epochs, "from": from,
        })
    }
}

fn cases() -> Vec<Case> {
    let swa = "StochasticWeightAveraging";
    let ema = "EMAWeightAveraging";
    let finetuning = "BackboneFinetuning";
    let accumulation = "GradientAccumulationScheduler";
    vec![
        Case::new("swa", swa, json!({"swa_lrs": 0.05, "swa_epoch_start": 2, "annealing_epochs": 2}), |trainer| {
            trainer.callback(StochasticWeightAveraging::new(0.05).swa_epoch_start(2).annealing_epochs(2))
        }),
        Case {
            optimizer: "Adam",
            scheduler: false,
            epochs: 6,
            ..Case::new(
                "swa-linear",
                swa,
                json!({"swa_lrs": [0.05], "swa_epoch_start": 0.5, "annealing_epochs": 3, "annealing_strategy": "linear"}),
                |trainer| {
                    let swa = StochasticWeightAveraging::new(vec![0.05]).swa_epoch_start(0.5).annealing_epochs(3);
                    trainer.callback(swa.annealing_strategy(AnnealingStrategy::Linear))
                },
            )
        },
        Case {
            bn: true,
            ..Case::new(
                "swa-bn",
                swa,
                json!({"swa_lrs": 0.05, "swa_epoch_start": 3, "annealing_epochs": 0}),
                |trainer| trainer.callback(StochasticWeightAveraging::new(0.05).swa_epoch_start(3).annealing_epochs(0)),
            )
        },
        Case {
            bn: true,
            momentum: 0.37,
            ..Case::new("swa-bn-momentum", swa, json!({"swa_lrs": 0.05, "device": null}), |trainer| {
                trainer.callback(StochasticWeightAveraging::new(0.05).device(None))
            })
        },
        Case {
            bn: true,
            ..Case::new("ema", ema, json!({"decay": 0.9}), |trainer| {
                trainer.callback(EMAWeightAveraging::new().decay(0.9))
            })
        },
        Case {
            bn: true,
            ..Case::new(
                "ema-follow",
                ema,
                json!({"decay": 0.8, "use_buffers": false, "update_every_n_steps": 3, "device": "cpu"}),
                |trainer| {
                    let ema = EMAWeightAveraging::new().decay(0.8).use_buffers(false).update_every_n_steps(3);
                    trainer.callback(ema.device("cpu"))
                },
            )
        },
        Case::new(
            "ema-late",
            ema,
            json!({"decay": 0.5, "update_starting_at_step": 4, "update_starting_at_epoch": 2}),
            |trainer| {
                let ema = EMAWeightAveraging::new().decay(0.5).update_starting_at_step(4).update_starting_at_epoch(2);
                trainer.callback(ema)
            },
        ),
        Case {
            bn: true,
            ..Case::new("average", "WeightAveraging", json!({}), |trainer| trainer.callback(WeightAveraging::new()))
        },
        Case {
            optimizer: "Adam",
            ..Case::new("finetuning", finetuning, json!({"unfreeze_backbone_at_epoch": 1}), |trainer| {
                trainer.callback(BackboneFinetuning::new().unfreeze_backbone_at_epoch(1))
            })
        },
        Case {
            bn: true,
            scheduler: false,
            ..Case::new(
                "finetuning-bn",
                finetuning,
                json!({
                    "unfreeze_backbone_at_epoch": 2, "backbone_initial_lr": 0.013, "train_bn": false,
                    "should_align": false,
                }),
                |trainer| {
                    let finetuning = BackboneFinetuning::new().unfreeze_backbone_at_epoch(2);
                    let finetuning = finetuning.backbone_initial_lr(0.013).train_bn(false).should_align(false);
                    trainer.callback(finetuning)
                },
            )
        },
        Case::new("accumulation", accumulation, json!({"scheduling": {"1": 3, "3": 2}}), |trainer| {
            trainer.callback(GradientAccumulationScheduler::new([(1, 3), (3, 2)]))
        }),
    ]
}

struct Net {
    vars: nn::VarStore,
    fc: nn::Linear,
    bn: Option<nn::BatchNorm>,
    head: nn::Linear,
    adam: bool,
    scheduler: bool,
}

impl Net {
    fn new(case: &Case) -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let fc = nn::linear(vars.root() / "backbone" / "fc", 4, 8, Default::default());
        let config = nn::BatchNormConfig { momentum: case.momentum, ..Default::default() };
        let bn = case.bn.then(|| nn::batch_norm1d(vars.root() / "backbone" / "bn", 8, config));
        let head = nn::linear(vars.root() / "head", 8, 3, Default::default());
        Net { vars, fc, bn, head, adam: case.optimizer == "Adam", scheduler: case.scheduler }
    }

    fn loss(&self, (x, y): &(Tensor, Tensor), train: bool) -> Tensor {
        let x = x.apply(&self.fc);
        let x = if let Some(bn) = &self.bn { x.apply_t(bn, train) } else { x };
        x.tanh().apply(&self.head).cross_entropy_for_logits(y)
    }
}

impl LightningModule for Net {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<Loss> {
        Ok(self.loss(&batch, step.is_training()).into())
    }

    fn validation_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<()> {
        step.log("val_loss", self.loss(&batch, step.is_training()));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let parameters = params::trainable_parameters(&self.vars);
        let optimizers: Optimizers = match self.adam {
            true => Adam::new(parameters).lr(0.02).into(),
            false => SGD::new(parameters).lr(0.1).momentum(0.9).into(),
        };
        Ok(if self.scheduler { optimizers.scheduler(StepLR::new(1).gamma(0.9)) } else { optimizers })
    }
}

#[derive(Default)]
struct Record {
    rows: Vec<Json>,
    val: Vec<f64>,
}

impl Callback for Record {
    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        outputs: &Loss,
        _: &dyn Any,
        _: usize,
    ) -> Result<()> {
        let (epoch, step) = (trainer.current_epoch(), trainer.global_step());
        let lrs: Vec<f64> = trainer.optimizer(0).unwrap().param_groups().iter().map(|group| group.lr).collect();
        self.rows.push(json!([epoch, step, outputs.loss().unwrap().double_value(&[]), lrs]));
        Ok(())
    }

    fn on_validation_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.val.push(trainer.callback_metrics()?["val_loss"].to_f64());
        Ok(())
    }
}

fn data(case: &Case) -> Dict {
    fulgurite::tch::manual_seed(3);
    let float = (Kind::Float, Device::Cpu);
    let mut data = Dict::new().with("weights", params::state_dict(&Net::new(case).vars).unwrap());
    for (name, n) in [("train", 24), ("val", 8)] {
        data.set(format!("{name}_x"), Tensor::randn([n, 4], float) + 0.5);
        data.set(format!("{name}_y"), Tensor::randint(3, [n], (Kind::Int64, Device::Cpu)));
    }
    data
}

/// What the script does, here.
fn run(case: &Case, data: &Dict, folder: &Path, from: Option<&str>) -> Json {
    let saver = ModelCheckpoint::new()
        .dirpath(folder)
        .filename(format!("{}-ours-{{epoch}}", case.name))
        .save_top_k(Maximum::Unlimited);
    let builder = Trainer::builder()
        .max_epochs(case.epochs)
        .num_sanity_val_steps(0)
        .accelerator("cpu")
        .no_logger()
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .console(Console::memory());
    let mut trainer = (case.ours)(builder).callback(Record::default()).callback(saver).build().unwrap();
    let mut net = Net::new(case);
    params::load_state_dict(&net.vars, data.dict("weights").unwrap(), false).unwrap();
    _ = trainer
        .ckpt_path(from.map(|from| folder.join(from)))
        .fit(&mut net, (pairs(data, "train", 4), pairs(data, "val", 4)))
        .unwrap();
    let record = trainer.callback::<Record>().unwrap();
    let (rows, val) = (record.rows.clone(), record.val.clone());
    let weights = params::state_dict(&net.vars).unwrap();
    let weights: serde_json::Map<String, Json> = weights
        .iter()
        .map(|(name, value)| {
            let values = Vec::<f64>::try_from(value.as_tensor().unwrap().reshape([-1]).to_kind(Kind::Double)).unwrap();
            (name.as_str().unwrap().to_owned(), json!(values))
        })
        .collect();
    let is_statistic = |name: &str| case.callback == "StochasticWeightAveraging" && name.contains("running");
    let statistics: serde_json::Map<String, Json> = weights
        .iter()
        .filter(|(name, _)| is_statistic(name))
        .map(|(name, values)| (name.clone(), values.clone()))
        .collect();
    json!({
        "rows": rows, "val": val, "weights": weights, "steps": trainer.state().global_step(),
        "update_bn": statistics,
    })
}

/// Numbers to within a few roundings of single precision.
fn compare(path: &str, ours: &Json, theirs: &Json) {
    match (ours, theirs) {
        (Json::Array(a), Json::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{path}");
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| compare(&format!("{path}/{i}"), a, b));
        }
        (Json::Object(a), Json::Object(b)) => {
            let keys = |map: &serde_json::Map<String, Json>| {
                let mut keys: Vec<String> = map.keys().cloned().collect();
                keys.sort();
                keys
            };
            assert_eq!(keys(a), keys(b), "{path}");
            a.iter().for_each(|(key, value)| compare(&format!("{path}/{key}"), value, &b[key]));
        }
        _ => {
            let (a, b) = (ours.as_f64().unwrap(), theirs.as_f64().unwrap());
            assert!((a - b).abs() <= 2e-6 * b.abs().max(0.1), "{path}: {a} is not {b}");
        }
    }
}

/// The rows of a run from epoch `from` on.
fn later(run: &Json, from: u64) -> Json {
    let mut run = run.clone();
    let rows = run["rows"].as_array().unwrap().iter();
    run["rows"] = rows.filter(|row| row[0].as_u64().unwrap() >= from).cloned().collect();
    let val = run["val"].as_array().unwrap();
    run["val"] = val[from as usize..].to_vec().into();
    run
}

#[test]
fn weights_are_those_of_lightning() {
    fulgurite::tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let data = data(&Case { bn: true, ..Case::new("", "", json!({}), |trainer| trainer) });
    let file = folder.join("data.pt");
    serialization::save(&file, &Value::Dict(data.clone())).unwrap();
    let python = |cases: Vec<Json>| {
        std::fs::write(folder.join("cases.json"), Json::from(cases).to_string()).unwrap();
        python("weights.py", &[file.to_str().unwrap(), folder.to_str().unwrap()])
    };
    let theirs = python(cases().iter().map(|case| case.description(None)).collect());
    for (case, theirs) in cases().iter().zip(theirs.as_array().unwrap()) {
        compare(case.name, &run(case, &data, folder, None), theirs);
    }

    // From the other side's checkpoint of an epoch's end, the rest is as if nothing had happened. Lightning leaves what
    // finetuning unfroze frozen when it is resumed, so what it makes of ours is compared with what it makes of its own.
    let cases = cases();
    let file = |case: &Case, side: &str, epoch: u64| format!("{}-{side}-epoch={epoch}.ckpt", case.name);
    // PyTorch's batch norms do not take the state of ours.
    let go_over: Vec<&Case> = cases.iter().filter(|case| !case.bn).collect();
    let mut there = Vec::new();
    for epoch in [0, 2] {
        for (case, theirs) in cases.iter().zip(theirs.as_array().unwrap()) {
            let from = file(case, "theirs", epoch);
            let path = format!("{} from {from}", case.name);
            compare(&path, &run(case, &data, folder, Some(&from)), &later(theirs, epoch + 1));
        }
        for side in ["ours", "theirs"] {
            there.extend(go_over.iter().map(|case| case.description(Some(&file(case, side, epoch)))));
        }
    }
    let resumed = python(there);
    for (i, pair) in resumed.as_array().unwrap().chunks(go_over.len()).collect::<Vec<_>>().chunks(2).enumerate() {
        for (case, (ours, theirs)) in go_over.iter().zip(pair[0].iter().zip(pair[1])) {
            compare(&format!("{} there, from ours, {i}", case.name), ours, theirs);
        }
    }
}
