//! A small GPT that learns to write, byte by byte, from any text: by default from the Rust sources of this workspace.
//!
//! `cargo run --release --example gpt -- fit` trains it, `-- fit --help` lists what can be changed.

#![expect(clippy::print_stdout, reason = "a program prints")]

mod model;
mod text;

use std::any::Any;
use std::path::PathBuf;
use std::time::Instant;

use fulgurite::ModuleView;
use fulgurite::cli::{Cli, FromConfig};
use fulgurite::data::datasets::TokenBlocks;
use fulgurite::metrics::Perplexity;
use fulgurite::optim::{LinearWarmupCosineAnnealingLR, ParamGroupConfig};
use fulgurite::prelude::*;
use fulgurite::torch::{params, rng::RngState};
use model::{Gpt, GptConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What can be set of the model.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct LanguageConfig {
    /// Transformer blocks.
    layers: i64,
    /// Numbers per token between the blocks.
    width: i64,
    /// Attention heads per block.
    heads: i64,
    /// Bytes the model sees at once; follows `data.context`.
    context: usize,
    /// Share of values that dropout zeroes.
    dropout: f64,
    /// Highest learning rate.
    lr: f64,
    /// Steps until it is reached; at most half of the run.
    warmup: u32,
    /// Weight decay of the matrices.
    weight_decay: f64,
    /// Bytes to write at the end of each epoch.
    sample_length: usize,
    /// What they go on from.
    prompt: String,
    /// Below 1 it writes what is likely, above 1 it dares more.
    temperature: f64,
}

impl Default for LanguageConfig {
    fn default() -> LanguageConfig {
        LanguageConfig {
            layers: 4,
            width: 128,
            heads: 4,
            context: 128,
            dropout: 0.0,
            lr: 3e-3,
            warmup: 30,
            weight_decay: 0.1,
            sample_length: 400,
            prompt: "\n".into(),
            temperature: 0.8,
        }
    }
}

/// A model of language: which byte comes next.
struct Language {
    vars: nn::VarStore,
    gpt: Gpt,
    perplexity: Perplexity,
    config: LanguageConfig,
}

impl FromConfig for Language {
    type Config = LanguageConfig;

    fn from_config(config: LanguageConfig) -> Result<Language> {
        let &LanguageConfig { layers, width, heads, dropout, .. } = &config;
        if heads < 1 || width % heads != 0 {
            return Err(format!("model.width={width} cannot be shared by model.heads={heads}").into());
        }
        if config.temperature <= 0.0 || config.prompt.is_empty() {
            return Err("model.temperature must be above 0, and model.prompt have at least one character".into());
        }
        let vars = nn::VarStore::new(Device::Cpu);
        let gpt = Gpt::new(&vars.root(), GptConfig { layers, width, heads, context: config.context as i64, dropout })?;
        Ok(Language { vars, gpt, perplexity: Perplexity::new(), config })
    }
}

impl LightningModule for Language {
    /// Tokens, and the token after each: both `[batch, context]`.
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, (tokens, next): Self::Batch, step: &mut Step) -> Result<Loss> {
        let loss = cross_entropy(&self.gpt.forward(&tokens), &next);
        step.log("train_loss", &loss).prog_bar();
        Ok(loss.into())
    }

    fn validation_step(&mut self, (tokens, next): Self::Batch, step: &mut Step) -> Result<()> {
        let logits = self.gpt.forward(&tokens);
        self.perplexity.update(&logits, &next)?;
        step.log("val_loss", cross_entropy(&logits, &next)).prog_bar();
        step.log("val_perplexity", &self.perplexity).prog_bar();
        Ok(())
    }

    fn example_forward(&mut self) -> Result<Tensor> {
        let shape = [1, self.config.context as i64];
        Ok(self.gpt.forward(&Tensor::zeros(shape, (Kind::Int64, self.vars.device()))))
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        // Random numbers and modes are put back: what is trained does not depend on what is written.
        let (rng, modes) = (RngState::capture()?, params::modes(&self.vars));
        self.vars.eval();
        let sample = self.gpt.generate(&self.config.prompt, self.config.sample_length, self.config.temperature)?;
        modes.restore();
        rng.restore()?;
        let sample = text::readable(&sample);
        trainer.print(&format!("─── sample after epoch {} ───\n{}\n───", trainer.current_epoch(), sample.trim()));
        trainer.log_text("sample", &format!("```\n{sample}\n```"))
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        let LanguageConfig { lr, warmup, weight_decay, .. } = self.config;
        let decays = |(name, p): &(String, Tensor)| p.dim() >= 2 && !name.starts_with("embedding");
        let (matrices, rest): (Vec<_>, Vec<_>) = params::named_parameters(&self.vars).into_iter().partition(decays);
        let groups = vec![
            ParamGroupConfig::new(matrices.iter().map(|(_, p)| p)).name("decay").weight_decay(weight_decay),
            ParamGroupConfig::new(rest.iter().map(|(_, p)| p)).name("no_decay").weight_decay(0.0),
        ];
        let adamw = Optimizers::from(AdamW::new(groups).lr(lr).betas(0.9, 0.95));
        let Some(steps) = trainer.estimated_stepping_batches()? else { return Ok(adamw) };
        let steps = u32::try_from(steps)?;
        let schedule = LinearWarmupCosineAnnealingLR::new(warmup.min(steps / 2), steps)
            .warmup_start_lr(0.01 * lr)
            .eta_min(0.1 * lr);
        Ok(adamw.scheduler(LrSchedulerConfig::new(schedule).interval(Interval::Step)))
    }

    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::from_serialize(&self.config))
    }
}

fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Tensor {
    logits.flatten(0, 1).cross_entropy_for_logits(&targets.flatten(0, 1))
}

/// What can be set of the text.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct TextConfig {
    /// A text, or a folder of texts; by default the sources of this workspace.
    text: Option<PathBuf>,
    /// Which files of a folder to read.
    extension: String,
    /// Share of the text, at its end, that is kept for validation.
    val_split: f64,
    /// Bytes the model sees at once.
    context: usize,
    /// Sequences per step.
    batch_size: usize,
    /// Steps per epoch: batches come from random places, so an epoch is what lies between two validations.
    steps_per_epoch: usize,
    /// Threads that load data.
    num_workers: usize,
}

impl Default for TextConfig {
    fn default() -> TextConfig {
        TextConfig {
            text: None,
            extension: "rs".into(),
            val_split: 0.1,
            context: 128,
            batch_size: 16,
            steps_per_epoch: 100,
            num_workers: 0,
        }
    }
}

/// Blocks of a text: from random places to train on, one after the other to validate.
struct Text {
    train: TokenBlocks,
    val: TokenBlocks,
    config: TextConfig,
}

impl FromConfig for Text {
    type Config = TextConfig;

    fn from_config(config: TextConfig) -> Result<Text> {
        let path = config.text.clone().unwrap_or_else(text::workspace);
        let text = text::read(&path, &config.extension)?;
        println!("{} bytes of text from {}", text.len(), path.display());
        let (train, val) = TokenBlocks::from_bytes(&text, config.context)?.split(1.0 - config.val_split)?;
        Ok(Text { train, val, config })
    }
}

impl LightningDataModule for Text {
    type Batch = (Tensor, Tensor);

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        let TextConfig { batch_size, steps_per_epoch, num_workers, .. } = self.config;
        let train = self.train.clone().random(batch_size * steps_per_epoch);
        Ok(DataLoader::new(train).batch_size(batch_size).num_workers(num_workers).into())
    }

    fn val_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        let TextConfig { batch_size, num_workers, .. } = self.config;
        Ok(DataLoader::new(self.val.clone()).batch_size(batch_size).num_workers(num_workers).into())
    }
}

/// Logs how many tokens are trained on per second.
struct Throughput {
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
        batch: &dyn Any,
        _: usize,
    ) -> Result<()> {
        if let Some((tokens, _)) = batch.downcast_ref::<(Tensor, Tensor)>() {
            trainer.log("tokens_per_second", tokens.numel() as f64 / self.since.elapsed().as_secs_f64());
        }
        self.since = Instant::now();
        Ok(())
    }
}

fn cli() -> Cli<Language, Text> {
    Cli::new("gpt")
        .about("A small GPT that learns to write, byte by byte, from any text.")
        .defaults(include_str!("defaults.yaml"))
        .link("data.context", "model.context")
        .trainer(|trainer| trainer.callback(Throughput { since: Instant::now() }))
        .after_fit(|trainer, _, _| {
            if !trainer.state().is_global_zero() {
                return Ok(());
            }
            println!("logs:        {}", trainer.state().log_dir().display());
            if let Some(path) = trainer.best_model_path() {
                println!("checkpoint:  {}", path.display());
            }
            Ok(())
        })
}

fulgurite::cli_main!(cli);
