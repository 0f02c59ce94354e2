//! The program that is searched: its `val_loss` is known beforehand.

use std::io::Write;
use std::time::Duration;

use fulgurite::cli::{Cli, FromConfig};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    #[default]
    Good,
    Crash,
    Garbage,
    Silent,
    Nan,
    Slow,
    /// Crashes in its third epoch, but not a second time in the same folder.
    CrashOnce,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Config {
    /// The best is 0.3.
    lr: f64,
    /// How it behaves.
    kind: Kind,
    /// Follows the data's.
    size: i64,
}

pub(crate) struct Net {
    vars: nn::VarStore,
    layer: nn::Linear,
    config: Config,
}

impl FromConfig for Net {
    type Config = Config;

    fn from_config(config: Config) -> Result<Net> {
        let vars = nn::VarStore::new(Device::Cpu);
        let layer = nn::linear(vars.root(), 1, 1, Default::default());
        Ok(Net { vars, layer, config })
    }
}

impl LightningModule for Net {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> Result<Loss> {
        match self.config.kind {
            Kind::Crash => std::process::exit(7),
            Kind::Garbage => {
                let report = std::fs::OpenOptions::new().append(true).open(std::env::var("FULGURITE_REPORT")?);
                report?.write_all(b"Segmentation fault\n")?;
                std::thread::sleep(Duration::from_secs(2));
            }
            Kind::Slow => std::thread::sleep(Duration::from_millis(100)),
            Kind::CrashOnce => {
                std::thread::sleep(Duration::from_millis(100));
                if step.current_epoch() == 2 && std::fs::create_dir("crashed").is_ok() {
                    std::process::exit(7);
                }
            }
            Kind::Good | Kind::Silent | Kind::Nan => {}
        }
        Ok((self.layer.forward(&x) - y).square().mean(fulgurite::tch::Kind::Float).into())
    }

    fn validation_step(&mut self, _: Self::Batch, step: &mut Step) -> Result<()> {
        let Config { lr, kind, size } = self.config;
        match kind {
            Kind::Silent => drop(step.log("other", lr)),
            Kind::Nan => drop(step.log("val_loss", f64::NAN)),
            _ => drop(step.log("val_loss", (lr - 0.3).powi(2) + size as f64)),
        }
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.01).into())
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct DataConfig {
    /// Added to the loss.
    size: i64,
}

pub(crate) struct Points;

impl FromConfig for Points {
    type Config = DataConfig;

    fn from_config(_: DataConfig) -> Result<Points> {
        Ok(Points)
    }
}

impl LightningDataModule for Points {
    type Batch = (Tensor, Tensor);

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        let x = Tensor::arange(8, (fulgurite::tch::Kind::Float, Device::Cpu)).view([8, 1]);
        Ok(DataLoader::new(TensorDataset::new((x.shallow_clone(), x))?).batch_size(4).into())
    }

    fn val_dataloader(&mut self, trainer: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        self.train_dataloader(trainer)
    }
}

pub(crate) fn cli() -> Cli<Net, Points> {
    let defaults = "trainer: {max_epochs: 3, accelerator: cpu, logger: false, enable_checkpointing: false, \
                    enable_progress_bar: false, enable_model_summary: false}";
    Cli::new("points").defaults(defaults).link("data.size", "model.size")
}
