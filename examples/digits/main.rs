//! Handwritten digits: a small convolutional network, from random weights to predictions drawn in the terminal.
//!
//! `cargo run --release --example digits -- --help` lists what can be changed.

#![allow(clippy::print_stdout, reason = "a program talks to its user")]

mod draw;

use anyhow::Context;
use clap::Parser;
use fulgurite::data::datasets::Digits;
use fulgurite::data::rand::RngExt;
use fulgurite::data::{ItemRng, Subset};
use fulgurite::metrics::{Average, MulticlassAccuracy};
use fulgurite::optim::OneCycleLR;
use fulgurite::prelude::*;

/// Train a network on handwritten digits.
#[derive(Parser, Debug, Clone)]
struct Args {
    /// Epochs to train at most.
    #[arg(long, default_value_t = 40)]
    max_epochs: i64,
    /// Stop after this many epochs without a better validation accuracy.
    #[arg(long, default_value_t = 12)]
    patience: u64,
    /// Digits per step.
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// Highest learning rate.
    #[arg(long, default_value_t = 5e-3)]
    lr: f64,
    /// Share of hidden values that dropout zeroes.
    #[arg(long, default_value_t = 0.3)]
    dropout: f64,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Train with this many seeds, one after the other, and report the mean.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Threads that load data.
    #[arg(long, default_value_t = 0)]
    num_workers: usize,
    /// cpu, cuda, mps or auto.
    #[arg(long, default_value = "auto")]
    accelerator: String,
    /// Run one batch of everything, to see that it works.
    #[arg(long)]
    fast_dev_run: bool,
    /// Where logs and checkpoints go.
    #[arg(long, default_value = ".")]
    default_root_dir: String,
}

/// Two convolutional blocks and a linear layer.
struct DigitClassifier {
    vars: nn::VarStore,
    features: nn::SequentialT,
    head: nn::Linear,
    accuracy: MulticlassAccuracy,
    args: Args,
    /// Optimizer steps of the whole run, for the schedule.
    steps: u32,
}

impl DigitClassifier {
    fn new(args: &Args, steps_per_epoch: u32) -> DigitClassifier {
        let vars = nn::VarStore::new(Device::Cpu);
        let root = vars.root();
        let padded = nn::ConvConfig { padding: 1, bias: false, ..Default::default() };
        let block = |name: &str, from: i64, to: i64| {
            nn::seq_t()
                .add(nn::conv2d(&root / name / "conv", from, to, 3, padded))
                .add(nn::batch_norm2d(&root / name / "norm", to, Default::default()))
                .add_fn(|x| x.relu())
        };
        let features = nn::seq_t()
            .add(block("block1", 1, 32))
            .add(block("block2", 32, 64))
            .add_fn(|x| x.max_pool2d_default(2))
            .add(block("block3", 64, 128))
            .add_fn(|x| x.max_pool2d_default(2))
            .add_fn(|x| x.flat_view());
        let head = nn::linear(&root / "head", 128 * 4, 10, Default::default());
        let accuracy = MulticlassAccuracy::new(10).average(Average::Micro);
        let steps = steps_per_epoch * u32::try_from(args.max_epochs).unwrap_or(40).max(1);
        DigitClassifier { vars, features, head, accuracy, args: args.clone(), steps }
    }

    fn forward(&self, images: &Tensor, train: bool) -> Tensor {
        images.apply_t(&self.features, train).dropout(self.args.dropout, train).apply(&self.head)
    }

    /// Validation and test do the same under different names.
    fn evaluate(&self, stage: &str, (images, labels): (Tensor, Tensor), step: &mut Step) -> Result<()> {
        let logits = self.forward(&images, false);
        self.accuracy.update(&logits, &labels)?;
        step.log(&format!("{stage}_loss"), logits.cross_entropy_for_logits(&labels)).prog_bar();
        step.log(&format!("{stage}_acc"), &self.accuracy).prog_bar();
        Ok(())
    }
}

impl LightningModule for DigitClassifier {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &nn::VarStore {
        &self.vars
    }

    fn training_step(&mut self, (images, labels): Self::Batch, step: &mut Step) -> Result<Loss> {
        let loss = self.forward(&images, step.is_training()).cross_entropy_for_logits(&labels);
        step.log("train_loss", &loss).on_epoch().prog_bar();
        Ok(loss.into())
    }

    fn validation_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<()> {
        self.evaluate("val", batch, step)
    }

    fn test_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<()> {
        self.evaluate("test", batch, step)
    }

    fn predict_step(&mut self, (images, labels): Self::Batch, _: &mut Step) -> Result<Value> {
        let probabilities = self.forward(&images, false).softmax(-1, Kind::Float);
        Ok(vec![images, labels, probabilities].into())
    }

    fn example_forward(&mut self) -> Result<Tensor> {
        let images = Tensor::zeros([self.args.batch_size as i64, 1, 8, 8], (Kind::Float, self.vars.device()));
        Ok(self.forward(&images, false))
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let schedule = OneCycleLR::new(self.args.lr, self.steps);
        let adamw = AdamW::new(&self.vars).lr(self.args.lr).weight_decay(0.05);
        Ok(Optimizers::from(adamw).scheduler(LrSchedulerConfig::new(schedule).interval(Interval::Step)))
    }

    fn hparams(&self) -> Dict {
        Dict::new()
            .with("lr", self.args.lr)
            .with("batch_size", self.args.batch_size)
            .with("dropout", self.args.dropout)
            .with("seed", self.args.seed)
    }
}

/// The digits that come with Fulgurite; those to learn from are moved about a little each time they are seen.
struct DigitData {
    digits: Digits,
    batch_size: usize,
    num_workers: usize,
}

impl DigitData {
    fn plain(&self, part: &Subset<fulgurite::data::datasets::ImageDataset>) -> Loaders<(Tensor, Tensor)> {
        DataLoader::new(part.clone()).batch_size(self.batch_size).num_workers(self.num_workers).into()
    }
}

impl LightningDataModule for DigitData {
    type Batch = (Tensor, Tensor);

    fn train_dataloader(&mut self) -> Result<Loaders<Self::Batch>> {
        let shifted = self.digits.train.clone().map(|(image, label), rng| (shift(&image, rng), label));
        let loader = DataLoader::new(shifted).batch_size(self.batch_size).shuffle(true);
        Ok(loader.num_workers(self.num_workers).into())
    }

    fn val_dataloader(&mut self) -> Result<Loaders<Self::Batch>> {
        Ok(self.plain(&self.digits.val))
    }

    fn test_dataloader(&mut self) -> Result<Loaders<Self::Batch>> {
        Ok(self.plain(&self.digits.test))
    }

    fn predict_dataloader(&mut self) -> Result<Loaders<Self::Batch>> {
        self.test_dataloader()
    }
}

/// Moves an image by up to one pixel in each direction.
fn shift(image: &Tensor, rng: &mut ItemRng) -> Tensor {
    let (down, right) = (rng.random_range(0..3), rng.random_range(0..3));
    image.constant_pad_nd([1, 1, 1, 1]).narrow(1, down, 8).narrow(2, right, 8)
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut accuracies = Vec::new();
    for run in 0..args.runs {
        accuracies.push(train(&Args { seed: args.seed + run, ..args.clone() })?);
    }
    if args.runs > 1 {
        let mean = accuracies.iter().sum::<f64>() / accuracies.len() as f64;
        let worst = accuracies.iter().copied().fold(f64::INFINITY, f64::min);
        println!("test accuracy over {} seeds: mean {mean:.4}, worst {worst:.4}", args.runs);
    }
    Ok(())
}

/// Trains once; returns the accuracy of the best checkpoint on the test digits.
fn train(args: &Args) -> anyhow::Result<f64> {
    seed_everything(args.seed)?;
    let mut data = DigitData { digits: Digits::load()?, batch_size: args.batch_size, num_workers: args.num_workers };
    let steps_per_epoch = data.digits.train.len().div_ceil(args.batch_size) as u32;
    let mut model = DigitClassifier::new(args, steps_per_epoch);

    let best = ModelCheckpoint::monitor("val_acc").mode(Mode::Max).filename("{epoch}-{val_acc:.3f}");
    let mut trainer = Trainer::builder()
        .max_epochs(args.max_epochs)
        .accelerator(&args.accelerator)
        .default_root_dir(&args.default_root_dir)
        .fast_dev_run(args.fast_dev_run.into())
        .log_every_n_steps(10)
        .callback(best)
        .callback(EarlyStopping::monitor("val_acc").mode(Mode::Max).patience(args.patience))
        .callback(LearningRateMonitor::new())
        .build()?;
    match trainer.fit(&mut model, &mut data)? {
        Outcome::Interrupted { .. } => std::process::exit(130),
        Outcome::Stopped(reason) => println!("stopped: {reason}"),
        _ => {}
    }

    if !args.fast_dev_run {
        trainer.ckpt_path("best");
    }
    let results = trainer.test(&mut model, &mut data)?;
    let accuracy = results.first().and_then(|r| r.get("test_acc")).copied().context("no test accuracy")?;

    let predictions = trainer.predict(&mut model, &mut data)?;
    println!("{}", draw::predictions(&predictions[0][0], 8));
    let log_dir = trainer.state().log_dir();
    println!("logs:        {} (tensorboard --logdir {}/lightning_logs)", log_dir.display(), args.default_root_dir);
    if let Some(path) = trainer.best_model_path() {
        println!("checkpoints: {}", path.parent().unwrap_or(&path).display());
    }
    Ok(accuracy)
}
