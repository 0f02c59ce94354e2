//! A small GPT that learns to write, byte by byte, from any text: by default from the Rust sources of this workspace.
//!
//! `cargo run --release --example gpt -- --help` lists what can be changed.

#![expect(clippy::print_stdout, reason = "a program prints")]

mod model;
mod text;

use std::any::Any;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::ensure;
use clap::Parser;
use fulgurite::ModuleView;
use fulgurite::data::datasets::TokenBlocks;
use fulgurite::metrics::Perplexity;
use fulgurite::optim::{LinearWarmupCosineAnnealingLR, ParamGroupConfig};
use fulgurite::prelude::*;
use fulgurite::torch::{params, rng::RngState};
use model::{Gpt, GptConfig};

/// Train a small GPT on text.
#[derive(Parser, Debug, Clone)]
struct Args {
    /// A text, or a folder of texts; by default the sources of this workspace.
    #[arg(long, value_name = "FILE|DIR")]
    text: Option<PathBuf>,
    /// Which files of a folder to read.
    #[arg(long, default_value = "rs")]
    extension: String,
    /// Share of the text, at its end, that is kept for validation.
    #[arg(long, default_value_t = 0.1)]
    val_split: f64,

    /// Transformer blocks.
    #[arg(long, default_value_t = 4)]
    layers: i64,
    /// Numbers per token between the blocks.
    #[arg(long, default_value_t = 128)]
    width: i64,
    /// Attention heads per block.
    #[arg(long, default_value_t = 4)]
    heads: i64,
    /// Bytes the model sees at once.
    #[arg(long, default_value_t = 128)]
    context: usize,
    /// Share of values that dropout zeroes.
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,

    /// Sequences per step.
    #[arg(long, default_value_t = 16)]
    batch_size: usize,
    /// Highest learning rate.
    #[arg(long, default_value_t = 3e-3)]
    lr: f64,
    /// Steps until it is reached; at most half of the run.
    #[arg(long, default_value_t = 30)]
    warmup: u32,
    /// Weight decay of the matrices.
    #[arg(long, default_value_t = 0.1)]
    weight_decay: f64,
    /// Norm to which gradients are clipped.
    #[arg(long, default_value_t = 1.0)]
    gradient_clip_val: f64,
    /// Epochs to train at most.
    #[arg(long, default_value_t = 20)]
    max_epochs: u32,
    /// Steps to train at most.
    #[arg(long)]
    max_steps: Option<u32>,
    /// Steps per epoch: batches come from random places, so an epoch is what lies between two validations.
    #[arg(long, default_value_t = 100)]
    steps_per_epoch: u32,
    /// Validation batches per epoch.
    #[arg(long, default_value_t = 25)]
    limit_val_batches: u64,

    /// Bytes to write at the end of each epoch.
    #[arg(long, default_value_t = 400)]
    sample_length: usize,
    /// What they go on from.
    #[arg(long, default_value = "\n")]
    prompt: String,
    /// Below 1 it writes what is likely, above 1 it dares more.
    #[arg(long, default_value_t = 0.8)]
    temperature: f64,

    /// Seed of everything random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// cpu, cuda, mps or auto.
    #[arg(long, default_value = "auto")]
    accelerator: String,
    /// Threads that load data.
    #[arg(long, default_value_t = 0)]
    num_workers: usize,
    /// A checkpoint to go on from.
    #[arg(long, value_name = "CKPT")]
    resume: Option<String>,
    /// Run one batch of everything, to see that it works.
    #[arg(long)]
    fast_dev_run: bool,
    /// Where logs and checkpoints go.
    #[arg(long, default_value = ".")]
    default_root_dir: String,
}

impl Args {
    fn total_steps(&self) -> u32 {
        (self.max_epochs * self.steps_per_epoch).min(self.max_steps.unwrap_or(u32::MAX))
    }
}

/// A model of language: which byte comes next.
struct Language {
    vars: nn::VarStore,
    gpt: Gpt,
    perplexity: Perplexity,
    args: Args,
}

impl Language {
    fn new(args: &Args) -> Language {
        let vars = nn::VarStore::new(Device::Cpu);
        let &Args { layers, width, heads, dropout, .. } = args;
        let config = GptConfig { layers, width, heads, context: args.context as i64, dropout };
        let gpt = Gpt::new(&vars.root(), config);
        Language { vars, gpt, perplexity: Perplexity::new(), args: args.clone() }
    }
}

impl LightningModule for Language {
    /// Tokens, and the token after each: both `[batch, context]`.
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &nn::VarStore {
        &self.vars
    }

    fn training_step(&mut self, (tokens, next): Self::Batch, step: &mut Step) -> Result<Loss> {
        let loss = cross_entropy(&tokens.apply_t(&self.gpt, true), &next);
        step.log("train_loss", &loss).prog_bar();
        Ok(loss.into())
    }

    fn validation_step(&mut self, (tokens, next): Self::Batch, step: &mut Step) -> Result<()> {
        let logits = tokens.apply_t(&self.gpt, false);
        self.perplexity.update(&logits, &next)?;
        step.log("val_loss", cross_entropy(&logits, &next)).prog_bar();
        step.log("val_perplexity", &self.perplexity).prog_bar();
        Ok(())
    }

    fn example_forward(&mut self) -> Result<Tensor> {
        let shape = [self.args.batch_size as i64, self.args.context as i64];
        Ok(Tensor::zeros(shape, (Kind::Int64, self.vars.device())).apply_t(&self.gpt, false))
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        // The sample's random numbers are put back: what is trained does not depend on what is written.
        let rng = RngState::capture()?;
        let sample = self.gpt.generate(&self.args.prompt, self.args.sample_length, self.args.temperature)?;
        rng.restore()?;
        let sample = text::readable(&sample);
        trainer.print(&format!("─── sample after epoch {} ───\n{}\n───", trainer.current_epoch(), sample.trim()));
        trainer.log_text("sample", &format!("```\n{sample}\n```"))
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let Args { lr, warmup, weight_decay, .. } = self.args;
        let decays = |(name, p): &(String, Tensor)| p.dim() >= 2 && !name.starts_with("embedding");
        let (matrices, rest): (Vec<_>, Vec<_>) = params::named_parameters(&self.vars).into_iter().partition(decays);
        let groups = vec![
            ParamGroupConfig::new(matrices.iter().map(|(_, p)| p)).name("decay").weight_decay(weight_decay),
            ParamGroupConfig::new(rest.iter().map(|(_, p)| p)).name("no_decay").weight_decay(0.0),
        ];
        let steps = self.args.total_steps();
        let schedule = LinearWarmupCosineAnnealingLR::new(warmup.min(steps / 2), steps)
            .warmup_start_lr(0.01 * lr)
            .eta_min(0.1 * lr);
        let adamw = AdamW::new(groups).lr(lr).betas(0.9, 0.95);
        Ok(Optimizers::from(adamw).scheduler(LrSchedulerConfig::new(schedule).interval(Interval::Step)))
    }

    fn hparams(&self) -> Dict {
        let args = &self.args;
        Dict::new()
            .with("layers", args.layers)
            .with("width", args.width)
            .with("heads", args.heads)
            .with("context", args.context)
            .with("dropout", args.dropout)
            .with("batch_size", args.batch_size)
            .with("lr", args.lr)
            .with("warmup", args.warmup)
            .with("weight_decay", args.weight_decay)
            .with("seed", args.seed)
    }
}

fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Tensor {
    logits.flatten(0, 1).cross_entropy_for_logits(&targets.flatten(0, 1))
}

/// Logs how many tokens are trained on per second.
struct Throughput {
    tokens_per_step: usize,
    since: Instant,
}

impl Callback for Throughput {
    fn on_train_epoch_start(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.since = Instant::now();
        Ok(())
    }

    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &Loss,
        _: &dyn Any,
        _: usize,
    ) -> Result<()> {
        let tokens_per_second = self.tokens_per_step as f64 / self.since.elapsed().as_secs_f64();
        trainer.log("tokens_per_second", tokens_per_second);
        self.since = Instant::now();
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.width % args.heads == 0, "--width {} cannot be shared by --heads {}", args.width, args.heads);
    ensure!(args.temperature > 0.0, "--temperature must be above 0");
    ensure!(!args.prompt.is_empty(), "--prompt needs at least one character");
    seed_everything(args.seed)?;

    let path = args.text.clone().unwrap_or_else(text::workspace);
    let text = text::read(&path, &args.extension)?;
    println!("{} bytes of text from {}", text.len(), path.display());
    let (train, val) = TokenBlocks::from_bytes(&text, args.context)?.split(1.0 - args.val_split)?;
    let train = train.random(args.batch_size * args.steps_per_epoch as usize);
    let train = DataLoader::new(train).batch_size(args.batch_size).num_workers(args.num_workers);
    let val = DataLoader::new(val).batch_size(args.batch_size).num_workers(args.num_workers);

    let mut model = Language::new(&args);
    let mut trainer = Trainer::builder()
        .max_epochs(args.max_epochs.into())
        .max_steps(args.total_steps().into())
        .limit_val_batches(args.limit_val_batches)
        .gradient_clip_val(args.gradient_clip_val)
        .log_every_n_steps(10)
        .accelerator(&args.accelerator)
        .default_root_dir(&args.default_root_dir)
        .fast_dev_run(args.fast_dev_run.into())
        .callback(ModelCheckpoint::monitor("val_loss").filename("{epoch}-{val_loss:.3f}"))
        .callback(LearningRateMonitor::new())
        .callback(Throughput { tokens_per_step: args.batch_size * args.context, since: Instant::now() })
        .build()?;
    if let Some(path) = &args.resume {
        trainer.ckpt_path(path);
    }
    if let Outcome::Interrupted { .. } = trainer.fit(&mut model, (train, val))? {
        std::process::exit(130);
    }

    let log_dir = trainer.state().log_dir();
    println!("logs:        {} (tensorboard --logdir {}/lightning_logs)", log_dir.display(), args.default_root_dir);
    if let Some(path) = trainer.best_model_path() {
        println!("checkpoints: {}", path.parent().unwrap_or(&path).display());
    }
    Ok(())
}
