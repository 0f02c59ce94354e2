//! A line through points, and trainers for it.

use std::path::Path;
use std::process::ExitCode;

use fulgurite::cli::{Cli, FromConfig, SaveConfig};
use fulgurite::prelude::*;
use fulgurite::{Console, TrainerBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LineOptions {
    /// Fails at this step.
    pub(crate) fails_at: Option<u64>,
    /// An option without effect.
    pub(crate) width: i64,
}

pub(crate) struct Line {
    vars: nn::VarStore,
    layer: nn::Linear,
    options: LineOptions,
}

impl FromConfig for Line {
    type Config = LineOptions;

    fn from_config(options: LineOptions) -> Result<Line> {
        let vars = nn::VarStore::new(Device::Cpu);
        let layer = nn::linear(1, 1).at(&vars)?;
        Ok(Line { vars, layer, options })
    }
}

impl LightningModule for Line {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn hparams(&self) -> Result<Dict> {
        let optim = Dict::new().with("betas", (0.9, 0.999)).with("on", true);
        Ok(Dict::new().with("width", self.options.width).with("optim", optim))
    }

    fn training_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> Result<Loss> {
        if self.options.fails_at == Some(step.trainer().global_step()) {
            return Err("it was told to fail".into());
        }
        let loss = self.layer.forward(&x).mse_loss(&y, tch::Reduction::Mean);
        step.log("train_loss", &loss);
        step.log("not/a@number", f64::NAN);
        Ok(loss.into())
    }

    fn validation_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> Result<()> {
        let loss = self.layer.forward(&x).mse_loss(&y, tch::Reduction::Mean);
        step.log("val_loss", &loss);
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.05).into())
    }
}

pub(crate) fn line() -> Line {
    Line::from_config(LineOptions::default()).unwrap()
}

pub(crate) struct Points;

impl FromConfig for Points {
    type Config = NoOptions;

    fn from_config(_: NoOptions) -> Result<Points> {
        Ok(Points)
    }
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct NoOptions {}

impl LightningDataModule for Points {
    type Batch = (Tensor, Tensor);

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        let x = Tensor::linspace(-1, 1, 16, (Kind::Float, Device::Cpu)).view([16, 1]);
        let y = &x * 2.0;
        Ok(DataLoader::new(TensorDataset::new((x, y))?).batch_size(4).into())
    }

    fn val_dataloader(&mut self, trainer: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        self.train_dataloader(trainer)
    }
}

/// A trainer that prints into memory, and logs every step of four an epoch.
pub(crate) fn trainer(root: &Path, console: &Console) -> TrainerBuilder {
    Trainer::builder()
        .default_root_dir(root)
        .accelerator("cpu")
        .log_every_n_steps(1)
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .console(console.clone())
}

/// Runs a program with these arguments, and returns what it prints.
pub(crate) fn cli(root: &Path, args: &[&str]) -> String {
    let console = Console::memory();
    let root = format!("--trainer.default_root_dir={}", root.display());
    let common = ["fit", &root, "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1"];
    let quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"];
    let args = common.iter().chain(&quiet).chain(args).copied();
    let cli = Cli::<Line, Points>::new("line")
        .console(console.clone())
        .args(args)
        .env([("A", "b")])
        .save_config(SaveConfig::Overwrite);
    assert_eq!(format!("{:?}", cli.run()), format!("{:?}", ExitCode::SUCCESS), "{}", console.contents());
    console.contents()
}

/// What a program prints that refuses its arguments.
pub(crate) fn refused(args: &[&str]) -> String {
    let console = Console::memory();
    let cli = Cli::<Line, Points>::new("line").console(console.clone()).args(args.iter().copied()).env([("A", "b")]);
    assert_eq!(format!("{:?}", cli.run()), format!("{:?}", ExitCode::from(2)));
    console.contents()
}
