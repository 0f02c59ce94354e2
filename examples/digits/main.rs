//! Handwritten digits: a small convolutional network, from random weights to predictions drawn in the terminal.
//!
//! `cargo run --release --example digits -- fit` trains it, `-- fit --help` lists what can be changed, and
//! `-- test --ckpt_path FILE.ckpt` evaluates what was trained.

#![allow(clippy::print_stdout, reason = "a program talks to its user")]

mod draw;

use fulgurite::cli::{Cli, FromConfig};
use fulgurite::data::datasets::Digits;
use fulgurite::data::rand::RngExt;
use fulgurite::data::{ItemRng, Subset};
use fulgurite::metrics::{Average, MulticlassAccuracy};
use fulgurite::optim::OneCycleLR;
use fulgurite::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What can be set of the network, in files under `model` and as `--model.lr`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct ClassifierConfig {
    /// Highest learning rate.
    lr: f64,
    /// Weight decay, taken off the weights.
    weight_decay: f64,
    /// Share of hidden values that dropout zeroes.
    dropout: f64,
}

impl Default for ClassifierConfig {
    fn default() -> ClassifierConfig {
        ClassifierConfig { lr: 5e-3, weight_decay: 0.05, dropout: 0.3 }
    }
}

/// Two convolutional blocks and a linear layer.
struct DigitClassifier {
    vars: nn::VarStore,
    features: nn::Sequential,
    head: nn::Linear,
    accuracy: MulticlassAccuracy,
    config: ClassifierConfig,
}

impl FromConfig for DigitClassifier {
    type Config = ClassifierConfig;

    fn from_config(config: ClassifierConfig) -> Result<DigitClassifier> {
        let vars = nn::VarStore::new(Device::Cpu);
        let root = vars.root();
        let block = |name: &str, from: i64, to: i64| -> nn::Result<nn::Sequential> {
            Ok(nn::Sequential::new()
                .add(nn::conv2d(from, to, 3).padding(1).bias(false).at(&root / name / "conv")?)
                .add(nn::batch_norm2d(to).at(&root / name / "norm")?)
                .add(nn::relu()))
        };
        let features = nn::Sequential::new()
            .add(block("block1", 1, 32)?)
            .add(block("block2", 32, 64)?)
            .add(nn::max_pool2d(2).at(&root)?)
            .add(block("block3", 64, 128)?)
            .add(nn::max_pool2d(2).at(&root)?)
            .add(nn::flatten())
            .add(nn::dropout(config.dropout).at(&root / "dropout")?);
        let head = nn::linear(128 * 4, 10).at(&root / "head")?;
        let accuracy = MulticlassAccuracy::new(10).average(Average::Micro);
        Ok(DigitClassifier { vars, features, head, accuracy, config })
    }
}

impl DigitClassifier {
    fn forward(&self, images: &Tensor) -> Tensor {
        self.head.forward(&self.features.forward(images))
    }

    /// Validation and test do the same under different names.
    fn evaluate(&self, stage: &str, (images, labels): (Tensor, Tensor), step: &mut Step) -> Result<()> {
        let logits = self.forward(&images);
        self.accuracy.update(&logits, &labels)?;
        step.log(&format!("{stage}_loss"), logits.cross_entropy_for_logits(&labels)).prog_bar();
        step.log(&format!("{stage}_acc"), &self.accuracy).prog_bar();
        Ok(())
    }
}

impl LightningModule for DigitClassifier {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, (images, labels): Self::Batch, step: &mut Step) -> Result<Loss> {
        let loss = self.forward(&images).cross_entropy_for_logits(&labels);
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
        let probabilities = self.forward(&images).softmax(-1, Kind::Float);
        Ok(vec![images, labels, probabilities].into())
    }

    fn example_forward(&mut self) -> Result<Tensor> {
        let images = Tensor::zeros([1, 1, 8, 8], (self.head.weight.kind(), self.vars.device()));
        Ok(self.forward(&images))
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        let ClassifierConfig { lr, weight_decay, .. } = self.config;
        let adamw = Optimizers::from(AdamW::new(&self.vars).lr(lr).weight_decay(weight_decay));
        let Some(steps) = trainer.estimated_stepping_batches()? else { return Ok(adamw) };
        let schedule = OneCycleLR::new(lr, u32::try_from(steps)?);
        Ok(adamw.scheduler(LrSchedulerConfig::new(schedule).interval(Interval::Step)))
    }

    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::from_serialize(&self.config))
    }

    fn set_hparam(&mut self, name: &str, value: &Value) -> Result<bool> {
        match (name, value.as_float()) {
            ("lr", Some(lr)) => self.config.lr = lr,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What can be set of the data, in files under `data` and as `--data.batch_size`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct DigitDataConfig {
    /// Digits per step.
    batch_size: usize,
    /// Threads that load data.
    num_workers: usize,
}

impl Default for DigitDataConfig {
    fn default() -> DigitDataConfig {
        DigitDataConfig { batch_size: 64, num_workers: 0 }
    }
}

/// The digits that come with Fulgurite; those to learn from are moved about a little each time they are seen.
struct DigitData {
    digits: Digits,
    config: DigitDataConfig,
}

impl FromConfig for DigitData {
    type Config = DigitDataConfig;

    fn from_config(config: DigitDataConfig) -> Result<DigitData> {
        Ok(DigitData { digits: Digits::load()?, config })
    }
}

impl DigitData {
    fn plain(&self, part: &Subset<fulgurite::data::datasets::ImageDataset>) -> Loaders<(Tensor, Tensor)> {
        DataLoader::new(part.clone()).batch_size(self.config.batch_size).num_workers(self.config.num_workers).into()
    }
}

impl LightningDataModule for DigitData {
    type Batch = (Tensor, Tensor);

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        let shifted = self.digits.train.clone().map(|(image, label), rng| (shift(&image, rng), label));
        let loader = DataLoader::new(shifted).batch_size(self.config.batch_size).shuffle(true);
        Ok(loader.num_workers(self.config.num_workers).into())
    }

    fn val_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        Ok(self.plain(&self.digits.val))
    }

    fn test_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        Ok(self.plain(&self.digits.test))
    }

    fn predict_dataloader(&mut self, trainer: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        self.test_dataloader(trainer)
    }

    fn set_hparam(&mut self, name: &str, value: &Value) -> Result<bool> {
        match (name, value.as_int()) {
            ("batch_size", Some(size)) => self.config.batch_size = usize::try_from(size)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Moves an image by up to one pixel in each direction.
fn shift(image: &Tensor, rng: &mut ItemRng) -> Tensor {
    let (down, right) = (rng.random_range(0..3), rng.random_range(0..3));
    image.constant_pad_nd([1, 1, 1, 1]).narrow(1, down, 8).narrow(2, right, 8)
}

fn cli() -> Cli<DigitClassifier, DigitData> {
    Cli::new("digits")
        .about("A convolutional network that reads handwritten digits.")
        .defaults(include_str!("defaults.yaml"))
        .after_fit(|trainer, model, data| {
            let best = (trainer.state().config().fast_dev_run == 0).then_some("best");
            trainer.ckpt_path(best).test(model, &mut *data)?;
            let predictions = trainer.predict(model, data)?;
            if !trainer.state().is_global_zero() {
                return Ok(());
            }
            println!("{}", draw::predictions(&predictions[0][0], 8));
            println!("logs:        {}", trainer.state().log_dir().display());
            if let Some(path) = trainer.best_model_path() {
                println!("checkpoint:  {}", path.display());
            }
            Ok(())
        })
        .after_predict(|trainer, _, predictions| {
            if trainer.state().is_global_zero() {
                println!("{}", draw::predictions(&predictions[0][0], 8));
            }
            Ok(())
        })
}

fulgurite::cli_main!(cli);
