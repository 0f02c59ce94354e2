//! Manual optimization against Lightning's: weights, rates, counters, logs and checkpoints of two optimizers that the
//! module steps itself.

use fulgurite::Console;
use fulgurite::optim::StepLR;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::serialization;
use fulgurite_parity::python;
use serde_json::{Value as Json, json};

struct Pair {
    vars: nn::VarStore,
    a: Tensor,
    b: Tensor,
    seen: Vec<Json>,
}

impl Pair {
    fn new() -> Pair {
        let vars = nn::VarStore::new(Device::Cpu);
        let var = |name: &str, values: [f32; 2]| {
            let mut var = vars.root().zeros(name, &[1, 2]);
            tch::no_grad(|| var.copy_(&Tensor::from_slice(&values).view([1, 2])));
            var
        };
        let (a, b) = (var("a", [1.0, -0.5]), var("b", [0.25, 2.0]));
        Pair { vars, a, b, seen: Vec::new() }
    }
}

impl LightningModule for Pair {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn automatic_optimization(&self) -> bool {
        false
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        step.toggle_optimizer(0)?;
        let loss = ((&self.a - &self.b) * &x).square().sum(Kind::Float);
        step.log("loss_a", &loss);
        step.zero_grad(0)?;
        step.manual_backward(self, &loss)?;
        step.clip_gradients(0, 0.5, Default::default())?;
        step.optimizer_step(self, 0)?;
        step.untoggle_optimizer();

        step.toggle_optimizer(1)?;
        let loss = (&self.a * &self.b * &x).sum(Kind::Float).square() / 2;
        step.log("loss_b", &loss).epoch_only();
        step.manual_backward(self, &loss)?;
        if step.batch_idx() % 2 == 1 {
            step.optimizer_step(self, 1)?;
            step.zero_grad(1)?;
            step.lr_scheduler_step(1, None)?;
        }
        step.untoggle_optimizer();
        Ok(loss.into())
    }

    fn on_train_batch_end(&mut self, trainer: &mut TrainerState, _: &Loss, _: &Tensor, _: usize) -> Result<()> {
        let rates: Vec<f64> = trainer.optimizers().map(|optimizer| optimizer.param_groups()[0].lr).collect();
        let floats = |tensor: &Tensor| Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap();
        self.seen.push(json!([trainer.global_step(), floats(&self.a), floats(&self.b), rates]));
        Ok(())
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        trainer.lr_scheduler_step(0, None)
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let one = Optimizers::from(SGD::new(std::slice::from_ref(&self.a)).lr(0.1).momentum(0.9))
            .scheduler(StepLR::new(1).gamma(0.5));
        let by_step = LrSchedulerConfig::new(StepLR::new(2).gamma(0.1)).interval(Interval::Step);
        Ok(one.and(Optimizers::from(AdamW::new(std::slice::from_ref(&self.b)).lr(0.05)).scheduler(by_step)))
    }
}

#[test]
fn a_run_is_lightnings() {
    let theirs = python("manual.py", &[]);
    let root = tempfile::tempdir().unwrap();
    let mut trainer = Trainer::builder()
        .max_steps(13)
        .max_epochs(9)
        .log_every_n_steps(1)
        .accelerator("cpu")
        .logger(CsvLogger::new(root.path()))
        .callback(ModelCheckpoint::new().dirpath(root.path()).every_n_train_steps(5).save_top_k(Maximum::Unlimited))
        .callback(LearningRateMonitor::new())
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .console(Console::memory())
        .build()
        .unwrap();
    let mut model = Pair::new();
    let batches: Vec<Tensor> =
        (0..5).map(|i| Tensor::from_slice(&[i as f32 / 4.0, 1.0 - i as f32 / 8.0]).view([1, 2])).collect();
    _ = trainer.fit(&mut model, batches).unwrap();

    for (ours, theirs) in model.seen.iter().zip(theirs["seen"].as_array().unwrap()) {
        close(ours, theirs);
    }
    assert_eq!(model.seen.len(), theirs["seen"].as_array().unwrap().len());
    let csv = std::fs::read_to_string(trainer.state().log_dir().join("metrics.csv")).unwrap();
    let (ours, theirs_csv) = (table(&csv), table(theirs["csv"].as_str().unwrap()));
    close(&ours, &theirs_csv);

    let files: Vec<String> = std::fs::read_dir(root.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".ckpt"))
        .collect();
    assert_eq!(json!(files), theirs["files"]);
    let Value::Dict(checkpoint) = serialization::load(root.path().join(&files[0])).unwrap() else { panic!("no dict") };
    assert_eq!(json!(checkpoint.int("global_step").unwrap()), theirs["global_step"]);
    assert_eq!(
        to_json(&Value::Dict(checkpoint.dict("loops").unwrap().dict("fit_loop").unwrap().clone())),
        theirs["loops"]
    );
}

/// Equal, but for the last bits of floats.
#[track_caller]
fn close(ours: &Json, theirs: &Json) {
    match (ours, theirs) {
        (Json::Array(ours), Json::Array(theirs)) if ours.len() == theirs.len() => {
            ours.iter().zip(theirs).for_each(|(ours, theirs)| close(ours, theirs));
        }
        (Json::Number(ours), Json::Number(theirs)) => {
            let (ours, theirs) = (ours.as_f64().unwrap(), theirs.as_f64().unwrap());
            assert!((ours - theirs).abs() <= 1e-5 * theirs.abs(), "{ours} here, {theirs} there");
        }
        (ours, theirs) => assert_eq!(ours, theirs, "here, there"),
    }
}

fn table(csv: &str) -> Json {
    let cell = |cell: &str| cell.parse::<f64>().map_or(json!(cell), |number| json!(number));
    csv.lines().map(|line| line.split(',').map(cell).collect::<Json>()).collect()
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Dict(dict) => {
            dict.iter().map(|(key, value)| (key.as_str().unwrap().to_owned(), to_json(value))).collect()
        }
        Value::Int(number) => json!(number),
        Value::Bool(flag) => json!(flag),
        other => panic!("{other:?}"),
    }
}
