//! A generative adversarial network: one network learns to draw handwritten digits, the other to tell them from real
//! ones, and each learns from the other. TensorBoard and a folder of PNG files show, epoch by epoch, what is drawn.
//!
//! `cargo run --release --example gan -- --help` lists what can be changed.

#![expect(clippy::print_stdout, reason = "a program prints")]

#[path = "../autoencoder/draw.rs"]
mod draw;
mod model;

use clap::Parser;
use fulgurite::data::datasets::Digits;
use fulgurite::loggers::{make_grid, save_image};
use fulgurite::optim::CosineAnnealingLR;
use fulgurite::prelude::*;
use fulgurite::torch::params;
use model::{Discriminator, Generator};

/// Train a generative adversarial network on handwritten digits.
#[derive(Parser, Debug, Clone)]
struct Args {
    /// Numbers that a digit is drawn from.
    #[arg(long, default_value_t = 32)]
    latent: i64,
    /// Channels of the widest images in the two networks; the others have two and four times as many.
    #[arg(long, default_value_t = 24)]
    width: i64,
    /// Epochs to train at most.
    #[arg(long, default_value_t = 80)]
    max_epochs: u32,
    /// Digits per step.
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// Learning rate of both networks at the start; it falls to 0.
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// Share of hidden values that dropout zeroes in the discriminator.
    #[arg(long, default_value_t = 0.3)]
    dropout: f64,
    /// What the discriminator is to say of real digits. Below 1, it does not become too sure.
    #[arg(long, default_value_t = 0.9)]
    real_label: f64,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// cpu, cuda, mps or auto.
    #[arg(long, default_value = "auto")]
    accelerator: String,
    /// Run one batch, to see that it works.
    #[arg(long)]
    fast_dev_run: bool,
    /// Where logs and checkpoints go.
    #[arg(long, default_value = ".")]
    default_root_dir: String,
}

/// The optimizers, and their schedulers, by their place in `configure_optimizers`.
const DISCRIMINATOR: usize = 0;
const GENERATOR: usize = 1;

/// Digits drawn after each epoch, and how many of them stand side by side.
const SAMPLES: i64 = 64;
const PER_ROW: u32 = 8;

/// The two networks, and noise from which the same digits are drawn again and again.
struct Gan {
    vars: nn::VarStore,
    generator: Generator,
    discriminator: Discriminator,
    fixed_noise: Tensor,
    args: Args,
}

impl Gan {
    fn new(args: &Args) -> nn::Result<Gan> {
        let vars = nn::VarStore::new(Device::Cpu);
        let generator = Generator::new(&(vars.root() / "generator"), args.latent, args.width)?;
        let discriminator = Discriminator::new(&(vars.root() / "discriminator"), args.width, args.dropout)?;
        let fixed_noise = generator.noise(SAMPLES, Device::Cpu);
        Ok(Gan { vars, generator, discriminator, fixed_noise, args: args.clone() })
    }

    /// The digits of the fixed noise, drawn in evaluation mode.
    fn samples(&self) -> Tensor {
        let noise = self.fixed_noise.to_device(self.vars.device());
        let modes = params::modes(&self.vars);
        self.vars.eval();
        let samples = tch::no_grad(|| self.generator.draw(&noise));
        modes.restore();
        samples
    }
}

/// The loss of verdicts that should all be `label`: 1 for real, 0 for drawn.
fn loss_of(verdicts: &Tensor, label: f64) -> Tensor {
    let labels = verdicts.full_like(label);
    verdicts.binary_cross_entropy_with_logits::<Tensor>(&labels, None, None, tch::Reduction::Mean)
}

/// The mean probability of being real.
fn probability(verdicts: &Tensor) -> Tensor {
    verdicts.detach().sigmoid().mean(Kind::Float)
}

impl LightningModule for Gan {
    /// Digits `[batch, 1, 8, 8]` and their labels, which are not used.
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    /// Each network has an optimizer of its own, and they are stepped one after the other.
    fn automatic_optimization(&self) -> bool {
        false
    }

    fn training_step(&mut self, (digits, _): Self::Batch, step: &mut Step) -> Result<Loss> {
        let noise = self.generator.noise(digits.size()[0], step.device());
        let drawn = self.generator.draw(&noise);

        // The discriminator learns to tell them apart.
        step.toggle_optimizer(DISCRIMINATOR)?;
        let (real, fake) = (self.discriminator.judge(&digits), self.discriminator.judge(&drawn.detach()));
        let d_loss = loss_of(&real, self.args.real_label) + loss_of(&fake, 0.0);
        step.zero_grad(DISCRIMINATOR)?;
        step.manual_backward(self, &d_loss)?;
        step.optimizer_step(self, DISCRIMINATOR)?;

        // The generator learns to be taken for real.
        step.toggle_optimizer(GENERATOR)?;
        let g_loss = loss_of(&self.discriminator.judge(&drawn), 1.0);
        step.zero_grad(GENERATOR)?;
        step.manual_backward(self, &g_loss)?;
        step.optimizer_step(self, GENERATOR)?;

        step.log("d_loss", &d_loss).prog_bar();
        step.log("g_loss", &g_loss).prog_bar();
        step.log("D(x)", probability(&real)).on_epoch();
        step.log("D(G(z))", probability(&fake)).on_epoch();
        Ok(Loss::skip())
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        trainer.lr_scheduler_step(DISCRIMINATOR, None)?;
        trainer.lr_scheduler_step(GENERATOR, None)?;
        if trainer.config().fast_dev_run > 0 {
            return Ok(());
        }
        // Enlarged, since a digit of 8 pixels is not recognizable on a screen.
        let samples = self.samples().upsample_nearest2d([32, 32], None, None);
        let grid = make_grid(&samples, PER_ROW, 4)?;
        trainer.log_image("samples", &grid)?;
        let file = format!("samples/epoch-{:03}.png", trainer.current_epoch());
        Ok(save_image(trainer.log_dir().join(file), &grid)?)
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let epochs = self.args.max_epochs.max(1);
        let optimizer = |part| {
            let adam = Adam::new(params::parameters_of(&self.vars, part)).lr(self.args.lr).betas(0.5, 0.999);
            Optimizers::from(adam).scheduler(CosineAnnealingLR::new(epochs))
        };
        Ok(optimizer("discriminator").and(optimizer("generator")))
    }

    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::new()
            .with("latent", self.args.latent)
            .with("width", self.args.width)
            .with("batch_size", self.args.batch_size)
            .with("lr", self.args.lr)
            .with("dropout", self.args.dropout)
            .with("real_label", self.args.real_label)
            .with("seed", self.args.seed))
    }
}

#[fulgurite::main]
fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    seed_everything(args.seed)?;
    let digits = DataLoader::new(Digits::all()?).batch_size(args.batch_size).shuffle(true).drop_last(true);

    let mut model = Gan::new(&args)?;
    let mut trainer = Trainer::builder()
        .max_epochs(u64::from(args.max_epochs))
        .log_every_n_steps(10)
        .accelerator(&args.accelerator)
        .default_root_dir(&args.default_root_dir)
        .fast_dev_run(args.fast_dev_run.into())
        .build()?;
    trainer.fit(&mut model, digits)?.completed()?;

    let samples = model.samples();
    println!("generated digits:");
    for first in [0, 4] {
        println!("{}", draw::side_by_side(&[0, 1, 2, 3].map(|i| samples.get(first + i))));
    }
    if !args.fast_dev_run {
        let log_dir = trainer.state().log_dir();
        println!("samples:     {}", log_dir.join("samples").display());
        println!("logs:        {} (tensorboard --logdir {}/lightning_logs)", log_dir.display(), args.default_root_dir);
    }
    if let Some(path) = trainer.best_model_path() {
        println!("checkpoints: {}", path.parent().unwrap_or(&path).display());
    }
    Ok(())
}
