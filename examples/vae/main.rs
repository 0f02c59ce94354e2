//! A variational autoencoder: learns what handwritten digits look like, and draws new ones from random numbers.
//!
//! `cargo run --release --example vae -- --help` lists what can be changed.

#![expect(clippy::print_stdout, reason = "a program prints")]

#[path = "../autoencoder/draw.rs"]
mod draw;

use clap::Parser;
use fulgurite::data::datasets::Digits;
use fulgurite::prelude::*;
use tch::Reduction;

/// Train a variational autoencoder on handwritten digits.
#[derive(Parser, Debug, Clone)]
struct Args {
    /// Numbers that stand for a digit.
    #[arg(long, default_value_t = 8)]
    latent: i64,
    /// Epochs to train at most.
    #[arg(long, default_value_t = 40)]
    max_epochs: u64,
    /// Digits per step.
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// Learning rate.
    #[arg(long, default_value_t = 2e-3)]
    lr: f64,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
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

/// An encoder that makes a normal distribution of a digit, and a decoder that draws a digit from a point of it.
struct Vae {
    vars: nn::VarStore,
    encoder: nn::Sequential,
    mean: nn::Linear,
    log_var: nn::Linear,
    decoder: nn::Sequential,
    args: Args,
}

impl Vae {
    fn new(args: &Args) -> Result<Vae> {
        let vars = nn::VarStore::new(Device::Cpu);
        let root = vars.root();
        let encoder = nn::sequential()
            .add(nn::conv2d(1, 16, 3).stride(2).padding(1)) // 4 × 4
            .add(nn::relu())
            .add(nn::conv2d(16, 32, 3).stride(2).padding(1)) // 2 × 2
            .add(nn::relu())
            .add(nn::flatten())
            .at(&root / "encoder")?;
        let mean = nn::linear(32 * 4, args.latent).at(&root / "mean")?;
        let log_var = nn::linear(32 * 4, args.latent).at(&root / "log_var")?;
        let decoder = nn::sequential()
            .add(nn::linear(args.latent, 32 * 4))
            .add(nn::relu())
            .add(nn::unflatten(1, &[32, 2, 2]))
            .add(nn::conv_transpose2d(32, 16, 4).stride(2).padding(1)) // 4 × 4
            .add(nn::relu())
            .add(nn::conv_transpose2d(16, 1, 4).stride(2).padding(1)) // 8 × 8
            .at(&root / "decoder")?;
        Ok(Vae { encoder, mean, log_var, decoder, vars, args: args.clone() })
    }

    /// The evidence lower bound, as a loss: how badly the digits are drawn again, and how far their distributions are
    /// from the standard normal one.
    fn elbo(&self, stage: &str, (digits, _): (Tensor, Tensor), step: &mut Step) -> Tensor {
        let hidden = self.encoder.forward(&digits);
        let (mean, log_var) = (self.mean.forward(&hidden), self.log_var.forward(&hidden));
        let drawn = self.decoder.forward(&reparametrize(&mean, &log_var));

        let count = digits.size()[0];
        let recon = nn::bce_with_logits_loss().reduction(Reduction::Sum).forward(&drawn, &digits) / count;
        let kl = (mean.square() + log_var.exp() - 1 - &log_var).sum(Kind::Float) / (2 * count);
        let loss = &recon + &kl;
        step.log(&format!("{stage}_loss"), &loss).prog_bar();
        step.log(&format!("{stage}_recon"), recon);
        step.log(&format!("{stage}_kl"), kl);
        loss
    }

    /// New digits, `[count, 1, 8, 8]`.
    fn sample(&self, count: i64) -> Tensor {
        let latent = Tensor::randn([count, self.args.latent], (Kind::Float, self.vars.device()));
        tch::no_grad(|| self.decoder.forward(&latent).sigmoid())
    }
}

/// A point of the distribution, with a gradient for its mean and variance.
fn reparametrize(mean: &Tensor, log_var: &Tensor) -> Tensor {
    mean + mean.randn_like() * (log_var / 2).exp()
}

impl LightningModule for Vae {
    /// Digits `[batch, 1, 8, 8]`, and what they are, which is not used.
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<Loss> {
        Ok(self.elbo("train", batch, step).into())
    }

    fn validation_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<()> {
        let _loss = self.elbo("val", batch, step);
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(Adam::new(&self.vars).lr(self.args.lr).into())
    }

    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::new().with("latent", self.args.latent).with("lr", self.args.lr))
    }
}

#[fulgurite::main]
fn main() -> Result<()> {
    let args = Args::parse();
    seed_everything(args.seed)?;
    let Digits { train, val, .. } = Digits::load()?;
    let train = DataLoader::new(train).batch_size(args.batch_size).shuffle(true);
    let val = DataLoader::new(val).batch_size(180);

    let mut model = Vae::new(&args)?;
    let mut trainer = Trainer::builder()
        .max_epochs(args.max_epochs)
        .log_every_n_steps(1)
        .accelerator(&args.accelerator)
        .default_root_dir(&args.default_root_dir)
        .fast_dev_run(args.fast_dev_run.into())
        .callback(ModelCheckpoint::monitor("val_loss"))
        .build()?;
    trainer.fit(&mut model, (train, val))?.completed()?;

    let digits = model.sample(4);
    println!("four digits that nobody wrote:");
    println!("{}", draw::side_by_side(&[0, 1, 2, 3].map(|i| digits.get(i))));
    if !args.fast_dev_run {
        println!("logs: {}", trainer.state().log_dir().display());
    }
    Ok(())
}
