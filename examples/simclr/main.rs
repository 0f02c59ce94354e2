//! SimCLR: learns from digits without labels which of them look alike, as in *A Simple Framework for Contrastive Learning
//! of Visual Representations* (Chen et al. 2020). Fifty labels are then enough to read the others.
//!
//! `cargo run --release --example simclr -- --help` lists what can be changed.

#![expect(clippy::print_stdout, reason = "a program prints")]

use clap::Parser;
use fulgurite::data::Loader;
use fulgurite::data::datasets::Digits;
use fulgurite::data::transforms::{ColorJitter, InterpolationMode, RandomResizedCrop, RandomRotation, Transform};
use fulgurite::optim::LinearWarmupCosineAnnealingLR;
use fulgurite::prelude::*;

/// Train SimCLR on handwritten digits.
#[derive(Parser, Debug, Clone)]
struct Args {
    /// Epochs to train at most.
    #[arg(long, default_value_t = 20)]
    max_epochs: u32,
    /// Epochs until the learning rate is reached.
    #[arg(long, default_value_t = 2)]
    warmup_epochs: u32,
    /// Digits per step.
    #[arg(long, default_value_t = 128)]
    batch_size: usize,
    /// Highest learning rate.
    #[arg(long, default_value_t = 3e-3)]
    lr: f64,
    /// Below 1, the loss looks at what is most alike.
    #[arg(long, default_value_t = 0.2)]
    temperature: f64,
    /// Threads that load data.
    #[arg(long, default_value_t = 0)]
    num_workers: usize,
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

/// An encoder, whose features are what is learned, and a projection, in which views are compared.
struct SimClr {
    vars: nn::VarStore,
    encoder: nn::Sequential,
    projection: nn::Sequential,
    labelled: (Tensor, Tensor),
    args: Args,
}

impl SimClr {
    fn new(args: &Args, labelled: (Tensor, Tensor)) -> Result<SimClr> {
        let vars = nn::VarStore::new(Device::Cpu);
        let conv = |from, to, stride| nn::conv2d(from, to, 3).stride(stride).padding(1).bias(false);
        let encoder = nn::sequential()
            .add(conv(1, 32, 1)) // 8 × 8
            .add(nn::batch_norm2d(32))
            .add(nn::relu())
            .add(conv(32, 64, 2)) // 4 × 4
            .add(nn::batch_norm2d(64))
            .add(nn::relu())
            .add(conv(64, 128, 2)) // 2 × 2
            .add(nn::batch_norm2d(128))
            .add(nn::relu())
            .add(nn::adaptive_avg_pool2d(1))
            .add(nn::flatten())
            .at(vars.root() / "encoder")?;
        let projection = nn::sequential()
            .add(nn::linear(128, 128))
            .add(nn::relu())
            .add(nn::linear(128, 64))
            .at(vars.root() / "projection")?;
        Ok(SimClr { vars, encoder, projection, labelled, args: args.clone() })
    }

    fn features(&self, images: &Tensor) -> Tensor {
        nn::normalize(&self.encoder.forward(images), 2.0, 1)
    }
}

/// The normalized temperature-scaled cross entropy of pairs of views, and how often a view is most like its pair.
fn nt_xent(a: &Tensor, b: &Tensor, temperature: f64) -> (Tensor, Tensor) {
    let views = nn::normalize(&Tensor::cat(&[a, b], 0), 2.0, 1);
    let similarity = (views.matmul(&views.tr()) / temperature).fill_diagonal_(f64::NEG_INFINITY, false);
    let count = a.size()[0];
    let pairs = Tensor::arange(2 * count, (Kind::Int64, a.device())).roll(count, 0);
    (similarity.cross_entropy_for_logits(&pairs), similarity.accuracy_for_logits(&pairs))
}

impl LightningModule for SimClr {
    /// One or two views of digits, each `[batch, 1, 8, 8]`, and what they are, which training does not use.
    type Batch = (Vec<Tensor>, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, (views, _): Self::Batch, step: &mut Step) -> Result<Loss> {
        let [a, b] = [0, 1].map(|view| self.projection.forward(&self.encoder.forward(&views[view])));
        let (loss, top1) = nt_xent(&a, &b, self.args.temperature);
        step.log("train_loss", &loss).prog_bar();
        step.log("train_top1", top1).prog_bar();
        Ok(loss.into())
    }

    /// A digit has the label of the most similar one among the few whose label is known.
    fn validation_step(&mut self, (views, labels): Self::Batch, step: &mut Step) -> Result<()> {
        let (known, known_labels) = self.labelled.to_device(step.device());
        let similarity = self.features(&views[0]).matmul(&self.features(&known).tr());
        let predicted = known_labels.index_select(0, &similarity.argmax(1, false));
        step.log("val_acc", predicted.eq_tensor(&labels).to_kind(Kind::Float).mean(Kind::Float)).prog_bar();
        Ok(())
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        let steps = u32::try_from(trainer.estimated_stepping_batches()?.ok_or("the run has no end")?)?;
        let warmup = steps * self.args.warmup_epochs / self.args.max_epochs.max(1);
        let schedule = LinearWarmupCosineAnnealingLR::new(warmup, steps);
        let optimizer = AdamW::new(&self.vars).lr(self.args.lr).weight_decay(1e-4);
        Ok(Optimizers::from(optimizer).scheduler(LrSchedulerConfig::new(schedule).interval(Interval::Step)))
    }
}

#[fulgurite::main]
fn main() -> Result<()> {
    let args = Args::parse();
    seed_everything(args.seed)?;
    let Digits { train, val, .. } = Digits::load()?;
    let labelled = DataLoader::new(train.clone()).batch_size(50).iter(0, 0)?.next().ok_or("there is no digit")??;
    let view = (
        RandomResizedCrop::new(8).scale((0.6, 1.0)),
        RandomRotation::new(15.0).interpolation(InterpolationMode::Bilinear),
        ColorJitter::new().brightness(0.4).contrast(0.4),
    );
    let train = train.try_map(move |(image, label), rng| {
        Ok((vec![view.apply(image.shallow_clone(), rng)?, view.apply(image, rng)?], label))
    });
    let train =
        DataLoader::new(train).batch_size(args.batch_size).shuffle(true).drop_last(true).num_workers(args.num_workers);
    let val = DataLoader::new(val.map(|(image, label), _| (vec![image], label))).batch_size(180);

    let mut model = SimClr::new(&args, labelled)?;
    let mut trainer = Trainer::builder()
        .max_epochs(u64::from(args.max_epochs))
        .log_every_n_steps(1)
        .accelerator(&args.accelerator)
        .default_root_dir(&args.default_root_dir)
        .fast_dev_run(args.fast_dev_run.into())
        .callback(ModelCheckpoint::monitor("val_acc").mode(Mode::Max))
        .build()?;
    trainer.fit(&mut model, (train, val))?.completed()?;
    if !args.fast_dev_run {
        println!("logs: {}", trainer.state().log_dir().display());
    }
    Ok(())
}
