//! A run that stops and goes on ends where a run that never stopped ends, bit by bit, whatever it was doing when its
//! checkpoint was written.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fulgurite::data::rand::Rng;
use fulgurite::data::{DataLoader, Dataset, ItemRng};
use fulgurite::loggers::{Logged, MemoryLogger};
use fulgurite::metrics::MulticlassAccuracy;
use fulgurite::optim::{CosineAnnealingLR, ReduceLROnPlateau};
use fulgurite::prelude::*;
use fulgurite::torch::params;
use fulgurite::{Console, ModuleView, SaveRequest, TrainerBuilder};

const BATCHES_PER_EPOCH: u64 = 6;

/// Points and their class, with noise: what an item is depends on the epoch.
struct Noisy;

impl Dataset for Noisy {
    type Item = (Tensor, i64);

    fn len(&self) -> usize {
        4 * BATCHES_PER_EPOCH as usize - 1
    }

    fn get(&self, index: usize, rng: &mut ItemRng) -> Result<(Tensor, i64)> {
        let noise = (rng.next_u32() % 100) as f32 / 100.0;
        Ok((Tensor::from_slice(&[index as f32 / 10.0, noise, 1.0]), (index % 3) as i64))
    }
}

#[derive(Clone, Copy)]
struct Setup {
    workers: usize,
    plateau: Option<Interval>,
}

const PLAIN: Setup = Setup { workers: 0, plateau: None };

/// Dropout, a metric, and every way of logging.
struct Net {
    vars: nn::VarStore,
    fc1: nn::Linear,
    fc2: nn::Linear,
    acc: MulticlassAccuracy,
    setup: Setup,
}

impl Net {
    fn new(setup: Setup) -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let fc1 = nn::linear(vars.root() / "fc1", 3, 16, Default::default());
        let fc2 = nn::linear(vars.root() / "fc2", 16, 3, Default::default());
        Net { vars, fc1, fc2, acc: MulticlassAccuracy::new(3), setup }
    }

    fn logits(&self, x: &Tensor, train: bool) -> Tensor {
        x.apply(&self.fc1).relu().dropout(0.3, train).apply(&self.fc2)
    }

    fn loader(&self) -> DataLoader<Noisy> {
        DataLoader::new(Noisy).batch_size(4).num_workers(self.setup.workers)
    }
}

impl LightningModule for Net {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &nn::VarStore {
        &self.vars
    }

    fn train_dataloader(&mut self) -> Result<Loaders<Self::Batch>> {
        Ok(self.loader().shuffle(true).into())
    }

    fn val_dataloader(&mut self) -> Result<Loaders<Self::Batch>> {
        Ok(self.loader().into())
    }

    fn on_train_epoch_start(&mut self, trainer: &mut TrainerState) -> Result<()> {
        let step = trainer.global_step() as f64;
        trainer.log("began_at", step);
        Ok(())
    }

    fn training_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> Result<Loss> {
        let logits = self.logits(&x, step.is_training());
        let loss = logits.cross_entropy_for_logits(&y);
        step.log("loss", &loss).on_step().on_epoch();
        step.log("worst", &loss).epoch_only().reduce(Reduce::Max);
        step.log("total", loss.double_value(&[])).epoch_only().reduce(Reduce::Sum);
        if step.batch_idx() == 1 {
            step.log("once", &loss).on_epoch();
        }
        self.acc.update(&logits, &y)?;
        step.log("acc", &self.acc).epoch_only();
        Ok(loss.into())
    }

    fn validation_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> Result<()> {
        let logits = self.logits(&x, step.is_training());
        step.log("val_loss", logits.cross_entropy_for_logits(&y));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let adamw: Optimizers = AdamW::new(&self.vars).lr(0.02).into();
        Ok(match self.setup.plateau {
            Some(interval) => {
                let monitor = if interval == Interval::Step { "loss" } else { "val_loss" };
                let plateau = ReduceLROnPlateau::new().patience(0).factor(0.5).threshold(0.5);
                adamw.scheduler(LrSchedulerConfig::new(plateau).interval(interval).monitor(monitor))
            }
            None => adamw.scheduler(LrSchedulerConfig::new(CosineAnnealingLR::new(20)).interval(Interval::Step)),
        })
    }
}

/// Where [`SaveAt`] asks for a checkpoint.
#[derive(Clone, Copy, PartialEq)]
enum Moment {
    BatchStart,
    BatchEnd,
    ValidationEnd,
    EpochStart,
    EpochEnd,
}

/// Asks for one checkpoint, at a moment of optimizer step `step`.
struct SaveAt {
    moment: Moment,
    step: u64,
    path: PathBuf,
}

impl SaveAt {
    fn at(&self, moment: Moment, trainer: &mut TrainerState) -> Result<()> {
        if moment == self.moment && trainer.global_step() == self.step && !trainer.is_sanity_checking() {
            trainer.request_checkpoint(SaveRequest::new(&self.path));
        }
        Ok(())
    }
}

type View<'a> = &'a mut dyn ModuleView;

impl Callback for SaveAt {
    fn on_train_batch_start(&mut self, t: &mut TrainerState, _: View, _: &dyn std::any::Any, _: usize) -> Result<()> {
        self.at(Moment::BatchStart, t)
    }

    fn on_train_batch_end(
        &mut self,
        t: &mut TrainerState,
        _: View,
        _: &Loss,
        _: &dyn std::any::Any,
        _: usize,
    ) -> Result<()> {
        self.at(Moment::BatchEnd, t)
    }

    fn on_validation_end(&mut self, t: &mut TrainerState, _: View) -> Result<()> {
        self.at(Moment::ValidationEnd, t)
    }

    fn on_train_epoch_start(&mut self, t: &mut TrainerState, _: View) -> Result<()> {
        self.at(Moment::EpochStart, t)
    }

    fn on_train_epoch_end(&mut self, t: &mut TrainerState, _: View) -> Result<()> {
        self.at(Moment::EpochEnd, t)
    }
}

/// A row sent to the logger: step, and values by name, as bits.
type Row = (i64, BTreeMap<String, u64>);

/// What a run ends with: weights, and what it logged.
#[derive(Debug, PartialEq)]
struct Ended {
    weights: Vec<f32>,
    rows: Vec<Row>,
}

fn fit(setup: Setup, ckpt_path: Option<&Path>, change: impl FnOnce(TrainerBuilder) -> TrainerBuilder) -> Ended {
    let logger = MemoryLogger::new();
    let builder = Trainer::builder()
        .max_epochs(3)
        .accelerator("cpu")
        .log_every_n_steps(1)
        .enable_checkpointing(false)
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .logger(logger.clone())
        .callback(LearningRateMonitor::new())
        .console(Console::memory());
    let mut trainer = change(builder).build().unwrap();
    let mut net = Net::new(setup);
    if let Some(path) = ckpt_path {
        trainer.ckpt_path(path.to_str().unwrap());
    }
    trainer.fit(&mut net, ()).unwrap();
    let weights = params::named_parameters(&net.vars);
    let weights = weights.iter().flat_map(|(_, w)| Vec::<f32>::try_from(w.detach().flatten(0, -1)).unwrap());
    let rows = logger.take().into_iter().filter_map(|call| match call {
        Logged::Metrics { metrics, step } => {
            Some((step, metrics.into_iter().map(|(name, value)| (name, value.to_bits())).collect()))
        }
        _ => None,
    });
    Ended { weights: weights.collect(), rows: rows.collect() }
}

/// A run that saves at a moment, and another that goes on from there.
fn check(setup: Setup, moment: Moment, step: u64, change: fn(TrainerBuilder) -> TrainerBuilder) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("there.ckpt");
    seed_everything(3).unwrap();
    let save = SaveAt { moment, step, path: path.clone() };
    let straight = fit(setup, None, |trainer| change(trainer).callback(save));
    assert!(path.exists());
    // Another process might have another seed.
    seed_everything(4).unwrap();
    let resumed = fit(setup, Some(&path), change);
    assert_eq!(resumed.weights, straight.weights);
    assert!(!resumed.rows.is_empty());
    let rest = &straight.rows[straight.rows.len() - resumed.rows.len()..];
    for (ours, theirs) in resumed.rows.iter().zip(rest) {
        assert_eq!(ours, theirs);
    }
}

/// Seed and random numbers belong to the process, so one test runs at a time.
static RANDOMNESS: Mutex<()> = Mutex::new(());

#[test]
fn a_resumed_run_ends_where_the_other_did() {
    let _alone = RANDOMNESS.lock().unwrap_or_else(PoisonError::into_inner);
    let half = |trainer: TrainerBuilder| trainer.val_check_interval(0.5);
    let windows = |trainer: TrainerBuilder| trainer.accumulate_grad_batches(2);
    for workers in [0, 2] {
        let setup = Setup { workers, ..PLAIN };
        for step in [1, 4, 6, 9] {
            check(setup, Moment::BatchEnd, step, |trainer| trainer);
        }
        check(setup, Moment::BatchEnd, 3, half);
        check(setup, Moment::ValidationEnd, 9, half);
        check(setup, Moment::ValidationEnd, 12, half);
        check(setup, Moment::EpochEnd, 6, |trainer| trainer);
        check(setup, Moment::EpochEnd, 12, half);
    }
    check(PLAIN, Moment::BatchStart, 0, |trainer| trainer);
    check(PLAIN, Moment::BatchStart, 8, |trainer| trainer);
    check(PLAIN, Moment::EpochStart, 6, |trainer| trainer);
    check(PLAIN, Moment::EpochEnd, 3, windows);
    check(PLAIN, Moment::ValidationEnd, 6, windows);
    for interval in [Interval::Epoch, Interval::Step] {
        let setup = Setup { plateau: Some(interval), ..PLAIN };
        for moment in [Moment::BatchEnd, Moment::ValidationEnd, Moment::EpochEnd] {
            check(setup, moment, 6, |trainer| trainer);
        }
        check(setup, Moment::BatchEnd, 8, |trainer| trainer);
    }
    let stopping = |trainer: TrainerBuilder| trainer.callback(EarlyStopping::monitor("val_loss").patience(2));
    check(PLAIN, Moment::ValidationEnd, 6, stopping);
    check(PLAIN, Moment::EpochEnd, 6, stopping);
}

/// The callback that people use asks at the same moments.
#[test]
fn model_checkpoints_can_be_resumed_from() {
    let _alone = RANDOMNESS.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let every_two = || ModelCheckpoint::new().dirpath(folder.path()).every_n_train_steps(4).save_top_k(-1);
    let straight = fit(PLAIN, None, |trainer| trainer.enable_checkpointing(true).callback(every_two()));
    for (epoch, step) in [(0, 4), (1, 8), (1, 12), (2, 16)] {
        let path = folder.path().join(format!("epoch={epoch}-step={step}.ckpt"));
        let resumed = fit(PLAIN, Some(&path), |trainer| trainer);
        assert_eq!(resumed.weights, straight.weights, "from step {step}");
    }
}
