//! An autoencoder: squeezes 64 pixels of handwriting into a few numbers and draws the digit again from those alone.
//! TensorBoard shows, epoch by epoch, what it draws.
//!
//! `cargo run --release --example autoencoder -- --help` lists what can be changed.

#![expect(clippy::print_stdout, reason = "a program prints")]

mod draw;

use anyhow::Context;
use clap::Parser;
use fulgurite::data::datasets::Digits;
use fulgurite::loggers::make_grid;
use fulgurite::prelude::*;

/// Train an autoencoder on handwritten digits.
#[derive(Parser, Debug, Clone)]
struct Args {
    /// Numbers that a digit is squeezed into.
    #[arg(long, default_value_t = 8)]
    latent: i64,
    /// Epochs to train at most.
    #[arg(long, default_value_t = 30)]
    max_epochs: u64,
    /// Digits per step.
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// Learning rate.
    #[arg(long, default_value_t = 3e-3)]
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

/// Convolutions down to the latent numbers, and transposed convolutions back up.
struct Autoencoder {
    vars: nn::VarStore,
    encoder: nn::Sequential,
    decoder: nn::Sequential,
    args: Args,
}

impl Autoencoder {
    fn new(args: &Args) -> nn::Result<Autoencoder> {
        let vars = nn::VarStore::new(Device::Cpu);
        let encoder = nn::sequential()
            .add(nn::conv2d(1, 16, 3).stride(2).padding(1)) // 4 × 4
            .add(nn::relu())
            .add(nn::conv2d(16, 32, 3).stride(2).padding(1)) // 2 × 2
            .add(nn::relu())
            .add(nn::flatten())
            .add(nn::linear(32 * 4, args.latent))
            .at(vars.root() / "encoder")?;
        let decoder = nn::sequential()
            .add(nn::linear(args.latent, 32 * 4))
            .add(nn::relu())
            .add(nn::unflatten(1, &[32, 2, 2]))
            .add(nn::conv_transpose2d(32, 16, 4).stride(2).padding(1)) // 4 × 4
            .add(nn::relu())
            .add(nn::conv_transpose2d(16, 1, 4).stride(2).padding(1)) // 8 × 8
            .add(nn::sigmoid())
            .at(vars.root() / "decoder")?;
        Ok(Autoencoder { vars, encoder, decoder, args: args.clone() })
    }

    fn reconstruct(&self, images: &Tensor) -> Tensor {
        self.decoder.forward(&self.encoder.forward(images))
    }
}

impl LightningModule for Autoencoder {
    /// Digits `[batch, 1, 8, 8]` and what they are, which an autoencoder does not want to know.
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, (images, _): Self::Batch, step: &mut Step) -> Result<Loss> {
        let loss = self.reconstruct(&images).mse_loss(&images, tch::Reduction::Mean);
        step.log("train_loss", &loss).prog_bar();
        Ok(loss.into())
    }

    fn validation_step(&mut self, (images, _): Self::Batch, step: &mut Step) -> Result<()> {
        let latent = self.encoder.forward(&images);
        let drawn = self.decoder.forward(&latent);
        step.log("val_loss", drawn.mse_loss(&images, tch::Reduction::Mean)).prog_bar();
        if step.batch_idx() == 0 {
            let pairs = Tensor::cat(&[images.narrow(0, 0, 16), drawn.narrow(0, 0, 16)], 0);
            // Enlarged, since a digit of 8 pixels is not recognizable on a screen.
            let pairs = pairs.upsample_nearest2d([32, 32], None, None);
            step.log_image("originals above reconstructions", &make_grid(&pairs, 16, 2)?)?;
            step.log_histogram("latent", &latent)?;
        }
        Ok(())
    }

    fn predict_step(&mut self, (images, _): Self::Batch, _: &mut Step) -> Result<Value> {
        let drawn = self.reconstruct(&images);
        Ok(vec![images, drawn].into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(Adam::new(&self.vars).lr(self.args.lr).into())
    }

    fn example_forward(&mut self) -> Result<Tensor> {
        Ok(self.reconstruct(&Tensor::zeros([self.args.batch_size as i64, 1, 8, 8], (Kind::Float, self.vars.device()))))
    }

    fn on_train_start(&mut self, trainer: &mut TrainerState) -> Result<()> {
        trainer.log_text("model", &format!("64 pixels → **{} numbers** → 64 pixels", self.args.latent))
    }

    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::new()
            .with("latent", self.args.latent)
            .with("batch_size", self.args.batch_size)
            .with("lr", self.args.lr)
            .with("seed", self.args.seed))
    }
}

#[fulgurite::main]
fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    seed_everything(args.seed)?;
    let Digits { train, val, test } = Digits::load()?;
    let train = DataLoader::new(train).batch_size(args.batch_size).shuffle(true);
    let val = DataLoader::new(val).batch_size(180);
    let test = DataLoader::new(test).batch_size(180);

    let mut model = Autoencoder::new(&args)?;
    let mut trainer = Trainer::builder()
        .max_epochs(args.max_epochs)
        .log_every_n_steps(10)
        .accelerator(&args.accelerator)
        .default_root_dir(&args.default_root_dir)
        .fast_dev_run(args.fast_dev_run.into())
        .callback(ModelCheckpoint::monitor("val_loss").filename("{epoch}-{val_loss:.4f}"))
        .build()?;
    trainer.fit(&mut model, (train, val))?.completed()?;

    let best = (!args.fast_dev_run).then_some("best");
    let predictions = trainer.ckpt_path(best).predict(&mut model, test)?;
    let pair = predictions[0][0].as_list().context("no prediction")?;
    let [Value::Tensor(images), Value::Tensor(drawn)] = pair else { unreachable!() };
    println!("two digits, each with what the model draws from {} numbers:", args.latent);
    println!("{}", draw::side_by_side(&[images.get(0), drawn.get(0), images.get(1), drawn.get(1)]));
    let log_dir = trainer.state().log_dir();
    println!("logs:        {} (tensorboard --logdir {}/lightning_logs)", log_dir.display(), args.default_root_dir);
    if let Some(path) = trainer.best_model_path() {
        println!("checkpoints: {}", path.parent().unwrap_or(&path).display());
    }
    Ok(())
}
