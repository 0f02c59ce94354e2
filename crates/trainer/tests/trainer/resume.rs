//! A run that stops and goes on ends where a run that never stopped ends, bit by bit, whatever it was doing when its
//! checkpoint was written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fulgurite::callbacks::{EMAWeightAveraging, StochasticWeightAveraging};
use fulgurite::data::rand::{Rng, SeedableRng};
use fulgurite::data::{
    BatchIter, CombinedLoader, DataError, DataLoader, Dataset, ItemRng, IterableDataLoader, IterableDataset,
    IterableFn, Loader,
};
use fulgurite::loggers::{Logged, MemoryLogger};
use fulgurite::metrics::MulticlassAccuracy;
use fulgurite::optim::{CosineAnnealingLR, ReduceLROnPlateau};
use fulgurite::prelude::*;
use fulgurite::torch::params;
use fulgurite::{Console, ModuleView, SaveRequest, TrainerBuilder};

mod loader_state;
mod mutated;
#[path = "resume/parameters.rs"]
mod parameters;

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
    data: Data,
    /// Steps by hand, every two batches.
    manual: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Data {
    Indexed,
    Stream,
    /// Two loaders of different length, put together.
    Combined,
}

const PLAIN: Setup = Setup { workers: 0, plateau: None, data: Data::Indexed, manual: false };

/// Dropout, a metric, and every way of logging.
struct Net {
    vars: nn::VarStore,
    fc1: nn::Linear,
    dropout: nn::Dropout,
    fc2: nn::Linear,
    acc: MulticlassAccuracy,
    setup: Setup,
}

impl Net {
    fn new(setup: Setup) -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let fc1 = nn::linear(3, 16).at(vars.root() / "fc1").unwrap();
        let dropout = nn::dropout(0.3).at(vars.root() / "dropout").unwrap();
        let fc2 = nn::linear(16, 3).at(vars.root() / "fc2").unwrap();
        Net { vars, fc1, dropout, fc2, acc: MulticlassAccuracy::new(3), setup }
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        self.fc2.forward(&self.dropout.forward(&self.fc1.forward(x).relu()))
    }

    fn loader(&self) -> DataLoader<Noisy> {
        DataLoader::new(Noisy).batch_size(4).num_workers(self.setup.workers)
    }

    fn stream(&self) -> IterableDataLoader<impl IterableDataset<Item = (Tensor, i64)> + use<>> {
        let numbers = IterableFn::new("numbers", |epoch| Ok((0..Noisy.len()).map(move |i| Ok(i + epoch as usize))));
        let noisy = numbers.try_map(|index, rng| Noisy.get(index % Noisy.len(), rng));
        IterableDataLoader::new(noisy).batch_size(4).num_workers(self.setup.workers)
    }
}

impl LightningModule for Net {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        let shuffled = self.loader().shuffle(true);
        Ok(match self.setup.data {
            Data::Indexed => shuffled.into(),
            Data::Stream => self.stream().into(),
            Data::Combined => Joined(CombinedLoader::max_size_cycle((shuffled, self.stream().limit(4)))).into(),
        })
    }

    fn val_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        Ok(self.loader().into())
    }

    fn on_train_epoch_start(&mut self, trainer: &mut TrainerState) -> Result<()> {
        let step = trainer.global_step() as f64;
        trainer.log("began_at", step);
        Ok(())
    }

    fn automatic_optimization(&self) -> bool {
        !self.setup.manual
    }

    fn training_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> Result<Loss> {
        let logits = self.logits(&x);
        let loss = logits.cross_entropy_for_logits(&y);
        step.log("loss", &loss).on_step().on_epoch();
        step.log("worst", &loss).epoch_only().reduce(Reduce::Max);
        step.log("total", loss.double_value(&[])).epoch_only().reduce(Reduce::Sum);
        if step.batch_idx() == 1 {
            step.log("once", &loss).on_epoch();
        }
        self.acc.update(&logits, &y)?;
        step.log("acc", &self.acc).epoch_only();
        if self.setup.manual {
            step.manual_backward(self, &loss)?;
            if step.batch_idx() % 2 == 1 {
                step.optimizer_step(self, 0)?;
                step.zero_grad(0)?;
            }
            return Ok(Loss::skip());
        }
        Ok(loss.into())
    }

    fn validation_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> Result<()> {
        // Draws random numbers, as sampling from a model does.
        let logits = self.logits(&x.dropout(0.3, true));
        step.log("val_loss", logits.cross_entropy_for_logits(&y)).on_step().on_epoch();
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

/// Batches of two loaders, as one.
struct Joined(CombinedLoader<((Tensor, Tensor), (Tensor, Tensor))>);

impl Loader for Joined {
    type Batch = (Tensor, Tensor);

    fn len(&self) -> Option<usize> {
        Some(BATCHES_PER_EPOCH as usize)
    }

    fn iter(&self, epoch: u64, skip: usize) -> std::result::Result<BatchIter<Self::Batch>, DataError> {
        let join = |((a, b), (c, d))| (Tensor::cat(&[a, c], 0), Tensor::cat(&[b, d], 0));
        Ok(Box::new(self.0.iter(epoch, skip)?.map(move |batch| batch.map(join))))
    }
}

/// Where [`SaveAt`] asks for a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    BatchStart,
    BatchEnd,
    /// After this many batches, wherever the accumulation window is.
    Batch(u64),
    ValidationStart,
    /// After this batch of the validation.
    ValidationBatch(usize),
    ValidationEpochEnd,
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

impl SaveAt {
    fn batch(&self) -> u64 {
        if let Moment::Batch(batch) = self.moment { batch } else { 0 }
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
        if t.progress().batch.total.ready == self.batch() {
            t.request_checkpoint(SaveRequest::new(&self.path));
        }
        self.at(Moment::BatchEnd, t)
    }

    fn on_validation_start(&mut self, t: &mut TrainerState, _: View) -> Result<()> {
        self.at(Moment::ValidationStart, t)
    }

    fn on_validation_batch_end(
        &mut self,
        t: &mut TrainerState,
        _: View,
        _: &Value,
        _: &dyn std::any::Any,
        batch_idx: usize,
        _: usize,
    ) -> Result<()> {
        self.at(Moment::ValidationBatch(batch_idx), t)
    }

    fn on_validation_epoch_end(&mut self, t: &mut TrainerState, _: View) -> Result<()> {
        self.at(Moment::ValidationEpochEnd, t)
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

fn quiet_builder() -> TrainerBuilder {
    Trainer::builder()
        .accelerator("cpu")
        .logger(MemoryLogger::new())
        .log_every_n_steps(1)
        .enable_checkpointing(false)
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .console(Console::memory())
}

fn fit(setup: Setup, ckpt_path: Option<&Path>, change: impl FnOnce(TrainerBuilder) -> TrainerBuilder) -> Ended {
    let (logger, console) = (MemoryLogger::new(), Console::memory());
    let builder = Trainer::builder()
        .max_epochs(3)
        .accelerator("cpu")
        .log_every_n_steps(1)
        .enable_checkpointing(false)
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .logger(logger.clone())
        .callback(LearningRateMonitor::new())
        .console(console.clone());
    let mut trainer = change(builder).build().unwrap();
    let mut net = Net::new(setup);
    _ = trainer.ckpt_path(ckpt_path).fit(&mut net, ()).unwrap();
    assert!(!console.contents().contains("does not resume exactly"), "{}", console.contents());
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
    check_with(setup, setup, moment, step, change);
}

fn check_with(
    setup: Setup,
    resumed_setup: Setup,
    moment: Moment,
    step: u64,
    change: fn(TrainerBuilder) -> TrainerBuilder,
) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("there.ckpt");
    seed_everything(3).unwrap();
    let save = SaveAt { moment, step, path: path.clone() };
    let straight = fit(setup, None, |trainer| change(trainer).callback(save));
    assert!(path.exists());
    // Another process might have another seed.
    seed_everything(4).unwrap();
    let resumed = fit(resumed_setup, Some(&path), change);
    assert_eq!(resumed.weights, straight.weights, "{moment:?} of step {step}");
    assert!(!resumed.rows.is_empty());
    let rest = &straight.rows[straight.rows.len() - resumed.rows.len()..];
    for (ours, theirs) in resumed.rows.iter().zip(rest) {
        assert_eq!(ours, theirs);
    }
}

#[test]
fn a_resumed_run_ends_where_the_other_did() {
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

#[test]
fn a_window_of_gradients_goes_on() {
    let windows = |trainer: TrainerBuilder| trainer.accumulate_grad_batches(4);
    for batch in [1, 2, 3, 4, 5, 6, 7, 9] {
        check(PLAIN, Moment::Batch(batch), 0, windows);
    }
    let by_hand = Setup { manual: true, ..PLAIN };
    for batch in [1, 2, 7] {
        check(by_hand, Moment::Batch(batch), 0, |trainer| trainer);
    }
}

#[test]
fn a_validation_is_begun_again() {
    let half = |trainer: TrainerBuilder| trainer.val_check_interval(0.5);
    for moment in [Moment::ValidationStart, Moment::ValidationBatch(2), Moment::ValidationEpochEnd] {
        check(PLAIN, moment, 6, |trainer| trainer);
        check(PLAIN, moment, 9, half);
        check(PLAIN, moment, 12, half);
    }
    let plateau = Setup { plateau: Some(Interval::Epoch), ..PLAIN };
    check(plateau, Moment::ValidationBatch(0), 6, |trainer| trainer);
}

#[test]
fn streams_and_several_loaders_go_on_with_any_number_of_workers() {
    for data in [Data::Indexed, Data::Stream, Data::Combined] {
        for (workers, then) in [(0, 0), (2, 2), (0, 3), (2, 0)] {
            let setup = Setup { workers, data, ..PLAIN };
            check_with(setup, Setup { workers: then, ..setup }, Moment::BatchEnd, 8, |trainer| trainer);
        }
    }
}

#[test]
fn averages_of_weights_go_on() {
    let ema = |trainer: TrainerBuilder| trainer.callback(EMAWeightAveraging::new().decay(0.9));
    let swa = |trainer: TrainerBuilder| trainer.callback(StochasticWeightAveraging::new(0.01).swa_epoch_start(1));
    for (moment, step) in [(Moment::BatchEnd, 4), (Moment::BatchEnd, 14), (Moment::EpochEnd, 12)] {
        check(PLAIN, moment, step, ema);
        check(PLAIN, moment, step, swa);
    }
}

/// In Lightning it trains another epoch.
#[test]
fn a_run_that_early_stopping_ended_stays_ended() {
    let folder = tempfile::tempdir().unwrap();
    let stopping = |trainer: TrainerBuilder| {
        trainer.max_epochs(9).callback(EarlyStopping::monitor("val_loss").min_delta(10.0).patience(2))
    };
    let saving = ModelCheckpoint::new().dirpath(folder.path());
    let straight = fit(PLAIN, None, |trainer| stopping(trainer).enable_checkpointing(true).callback(saving));
    let path = folder.path().join("epoch=2-step=18.ckpt");
    let resumed = fit(PLAIN, Some(&path), stopping);
    assert_eq!(resumed, Ended { weights: straight.weights, rows: Vec::new() });
}

/// The stop was asked for while `min_epochs` did not allow it.
#[test]
fn a_stop_that_must_wait_is_not_forgotten() {
    let stopping = |trainer: TrainerBuilder| {
        let early = EarlyStopping::monitor("val_loss").stopping_threshold(1e9);
        trainer.max_epochs(9).min_epochs(2).callback(early)
    };
    check(PLAIN, Moment::BatchEnd, 8, stopping);
}

#[test]
fn a_stream_that_cannot_be_repeated_is_warned_of_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("there.ckpt");
    let run = |resume: bool| {
        let numbers = IterableFn::new("queue", |_| Ok((0..6).map(|i| Noisy.get(i, &mut ItemRng::seed_from_u64(0)))));
        let loader = IterableDataLoader::new(numbers.unrepeatable()).batch_size(1);
        let console = Console::memory();
        let mut trainer = Trainer::builder()
            .accelerator("cpu")
            .max_epochs(2)
            .enable_checkpointing(false)
            .enable_progress_bar(false)
            .logger(MemoryLogger::new())
            .callback(SaveAt { moment: Moment::Batch(3), step: 0, path: path.clone() })
            .console(console.clone())
            .build()
            .unwrap();
        _ = trainer.ckpt_path(resume.then_some(path.as_path())).fit(&mut Net::new(PLAIN), loader).unwrap();
        console.contents().matches("cannot resume exactly where it was: 3 batches").count()
    };
    assert_eq!((run(false), run(true)), (0, 1));
}

/// The callback that people use asks at the same moments.
#[test]
fn model_checkpoints_can_be_resumed_from() {
    let folder = tempfile::tempdir().unwrap();
    let every_two =
        || ModelCheckpoint::new().dirpath(folder.path()).every_n_train_steps(4).save_top_k(Maximum::Unlimited);
    let straight = fit(PLAIN, None, |trainer| trainer.enable_checkpointing(true).callback(every_two()));
    for (epoch, step) in [(0, 4), (1, 8), (1, 12), (2, 16)] {
        let path = folder.path().join(format!("epoch={epoch}-step={step}.ckpt"));
        let resumed = fit(PLAIN, Some(&path), |trainer| trainer);
        assert_eq!(resumed.weights, straight.weights, "from step {step}");
    }
}
