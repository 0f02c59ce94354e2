//! The simple profiler counts what Lightning's counts, and key averages are those of `torch.profiler`.

use std::collections::BTreeMap;

use fulgurite::Console;
use fulgurite::optim::StepLR;
use fulgurite::prelude::*;
use fulgurite::profilers::SimpleProfiler;
use fulgurite::tch::nn;
use fulgurite_parity::python;
use fulgurite_torch::profiler;

struct Line {
    vars: nn::VarStore,
    layer: nn::Linear,
}

impl LightningModule for Line {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        let loss = step.profile("encode", |_| batch.apply(&self.layer).square().mean(Kind::Float));
        step.log("train_loss", &loss);
        Ok(loss.into())
    }

    fn validation_step(&mut self, batch: Tensor, step: &mut Step) -> Result<()> {
        step.log("val_loss", batch.apply(&self.layer).square().mean(Kind::Float));
        Ok(())
    }

    fn test_step(&mut self, batch: Tensor, step: &mut Step) -> Result<()> {
        step.log("test_loss", batch.apply(&self.layer).square().mean(Kind::Float));
        Ok(())
    }

    fn predict_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Value> {
        Ok(batch.apply(&self.layer).into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let scheduler = LrSchedulerConfig::from(StepLR::new(1).gamma(0.5)).interval(Interval::Step);
        Ok(Optimizers::from(SGD::new(&self.vars).lr(0.001)).scheduler(scheduler))
    }
}

struct Data;

fn loader(count: usize) -> Vec<Tensor> {
    (0..count).map(|_| Tensor::ones([2, 4], (Kind::Float, Device::Cpu))).collect()
}

impl LightningDataModule for Data {
    type Batch = Tensor;

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        Ok(loader(4).into())
    }

    fn val_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        Ok(loader(3).into())
    }

    fn test_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        Ok(loader(3).into())
    }

    fn predict_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Tensor>> {
        Ok(loader(3).into())
    }

    fn state_dict(&self) -> Result<Dict> {
        Ok(Dict::new().with("seen", 1))
    }
}

type Counts = BTreeMap<String, u64>;

/// What our simple profiler counts, per entry point.
fn counts(accumulate: u64) -> BTreeMap<&'static str, Counts> {
    let root = tempfile::tempdir().unwrap();
    let vars = nn::VarStore::new(Device::Cpu);
    let layer = nn::linear(vars.root(), 4, 1, Default::default());
    let mut module = Line { vars, layer };
    let mut trainer = Trainer::builder()
        .max_epochs(2)
        .accumulate_grad_batches(accumulate)
        .gradient_clip_val(1.0)
        .log_every_n_steps(1)
        .val_check_interval(0.5)
        .callback(EarlyStopping::monitor("val_loss"))
        .callback(ModelCheckpoint::monitor("val_loss").dirpath(root.path()))
        .accelerator("cpu")
        .logger(CsvLogger::new(root.path()))
        .profiler("simple")
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .console(Console::memory())
        .build()
        .unwrap();
    let count = |trainer: &Trainer| {
        let records = trainer.profiler::<SimpleProfiler>().unwrap().records();
        records.map(|(action, record)| (action.to_owned(), record.calls)).collect::<Counts>()
    };
    let mut all = BTreeMap::new();
    _ = trainer.fit(&mut module, &mut Data).unwrap();
    all.insert("fit", count(&trainer));
    trainer.validate(&mut module, &mut Data).unwrap();
    all.insert("validate", count(&trainer));
    trainer.test(&mut module, &mut Data).unwrap();
    all.insert("test", count(&trainer));
    trainer.predict(&mut module, &mut Data).unwrap();
    all.insert("predict", count(&trainer));
    all
}

/// Why an action is measured here alone.
fn is_ours(action: &str) -> bool {
    // Lightning measures neither.
    let more = ["log_metrics", "setup_train_dataloader"];
    // Lightning leaves these out when they are not overridden, which Rust cannot see.
    let defaults = [
        "Line.prepare_data",
        "Line.configure_model",
        "Line.on_validation_model_train",
        "Line.on_test_model_train",
        "Data.prepare_data",
    ];
    // Lightning tells callbacks nothing of files that are complete.
    let is_of_files = action.ends_with(".on_checkpoint_written");
    is_of_files || more.contains(&action) || defaults.iter().any(|hook| action.ends_with(hook))
}

/// Why an action is measured there alone.
fn is_theirs(action: &str) -> bool {
    // Our strategies have no hooks of their own; Lightning's, for one device, do nothing.
    action.starts_with("[Strategy]SingleDeviceStrategy.on_")
}

#[track_caller]
fn check(accumulate: u64) {
    let theirs: BTreeMap<String, Counts> =
        serde_json::from_value(python("profilers.py", &["simple", &accumulate.to_string()])).unwrap();
    let mut different = Vec::new();
    for (entry, ours) in counts(accumulate) {
        let theirs = &theirs[entry];
        assert!(theirs.len() > 15, "{entry}: {theirs:?}");
        for action in ours.keys().chain(theirs.keys().filter(|action| !ours.contains_key(*action))) {
            let (here, there) = (ours.get(action).copied().unwrap_or(0), theirs.get(action).copied().unwrap_or(0));
            let known = there == 0 && is_ours(action) || here == 0 && is_theirs(action);
            if here != there && !known {
                different.push(format!("{entry}: {action} {here} times here, {there} times there"));
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn actions_and_calls_are_lightnings() {
    check(1);
}

#[test]
fn actions_and_calls_while_accumulating_are_lightnings() {
    check(2);
}

/// The forward and backward passes of a small network, recorded.
fn record() -> profiler::Trace {
    let vars = nn::VarStore::new(Device::Cpu);
    let first = nn::linear(vars.root() / "first", 6, 5, Default::default());
    let second = nn::linear(vars.root() / "second", 5, 3, Default::default());
    let x = Tensor::randn([8, 6], (Kind::Float, Device::Cpu));
    let y = Tensor::randint(3, [8], (Kind::Int64, Device::Cpu));
    let options = profiler::Options { record_shapes: true, with_flops: true, ..Default::default() };
    profiler::start(&options).unwrap();
    for _ in 0..3 {
        fulgurite_torch::grad::zero_grad(&vars.trainable_variables()).unwrap();
        let loss = {
            let _range = profiler::range("forward");
            x.apply(&first).relu().apply(&second).log_softmax(-1, None).nll_loss(&y)
        };
        fulgurite_torch::grad::backward(&loss).unwrap();
    }
    profiler::stop().unwrap()
}

/// In order, without what allocates for `empty_like`: `aten::empty` in some versions, `aten::empty_strided` in others.
fn sorted<T: Ord>(mut rows: Vec<(String, T, u64)>) -> Vec<(String, T, u64)> {
    rows.retain(|(name, ..)| name != "aten::empty" && name != "aten::empty_strided");
    rows.sort();
    rows
}

#[test]
fn key_averages_are_torchs() {
    let theirs = python("profilers.py", &["operators"]);
    let trace = record();
    let rows = trace.key_averages(false).into_iter().map(|row| (row.name, row.calls, row.flops)).collect();
    let theirs_rows: Vec<(String, u64, u64)> = serde_json::from_value(theirs["rows"].clone()).unwrap();
    assert!(theirs_rows.len() > 30);
    assert_eq!(sorted(rows), sorted(theirs_rows));

    let shapes = trace.key_averages(true).into_iter().map(|row| (row.name, row.shapes, row.calls)).collect();
    let theirs_shapes: Vec<(String, String, u64)> = serde_json::from_value(theirs["shapes"].clone()).unwrap();
    assert_eq!(sorted(shapes), sorted(theirs_shapes));
}
