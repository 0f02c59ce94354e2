//! The program that is killed: a small training run that leans on everything that has state, and goes on by itself from
//! what its folder holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use fulgurite::callbacks::SaveLast;
use fulgurite::data::rand::Rng;
use fulgurite::data::{DataLoader, Dataset, ItemRng};
use fulgurite::loggers::CsvLogger;
use fulgurite::metrics::MulticlassAccuracy;
use fulgurite::optim::CosineAnnealingLR;
use fulgurite::prelude::*;
use fulgurite::torch::params;
use fulgurite::{Console, ModuleView, Plugin};
use fulgurite_fabric::{AsyncCheckpointIo, TorchCheckpointIo};
use fulgurite_torch::serialization::faults::FaultyFileSystem;

/// Where checkpoints go, in the run's folder.
pub const CHECKPOINTS: &str = "checkpoints";
/// The weights that the run ended with, in the run's folder.
pub const WEIGHTS: &str = "weights.bin";

const BATCH_SIZE: usize = 4;
const BATCHES_PER_EPOCH: usize = 24;
const EPOCHS: u64 = 8;
const STEPS_PER_EPOCH: u64 = BATCHES_PER_EPOCH as u64 / 2;
const STEPS_PER_SAVE: u64 = 4;
/// How many checkpoints a run writes.
pub const SAVES: u64 = EPOCHS * STEPS_PER_EPOCH / STEPS_PER_SAVE;

/// How the run is to go.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The run's folder.
    pub folder: PathBuf,
    /// Which call of the file system goes wrong, and how, such as `17:kill-within`.
    #[arg(long)]
    pub fault: Option<String>,
    /// Make `last.ckpt` a symbolic link.
    #[arg(long)]
    pub link: bool,
    /// Write checkpoints in the background.
    #[arg(long)]
    pub asynchronous: bool,
    /// How many ranks train.
    #[arg(long, default_value_t = 1)]
    pub devices: usize,
}

/// Points and their class, with noise: what an item is depends on the epoch.
struct Noisy;

impl Dataset for Noisy {
    type Item = (Tensor, i64);

    fn len(&self) -> usize {
        BATCH_SIZE * BATCHES_PER_EPOCH
    }

    fn get(&self, index: usize, rng: &mut ItemRng) -> fulgurite::Result<(Tensor, i64)> {
        let noise = (rng.next_u32() % 1000) as f32 / 1000.0;
        let class = index % 3;
        Ok((Tensor::from_slice(&[index as f32 / 96.0, noise, class as f32 + noise, 1.0]), class as i64))
    }
}

/// Batch norm, dropout, a metric, and several ways of logging.
struct Net {
    vars: nn::VarStore,
    net: nn::Sequential,
    acc: MulticlassAccuracy,
}

impl Net {
    fn new() -> nn::Result<Net> {
        let vars = nn::VarStore::new(Device::Cpu);
        let root = vars.root();
        let net = nn::Sequential::new()
            .add(nn::linear(4, 24).at(&root / "fc1")?)
            .add(nn::batch_norm1d(24).at(&root / "norm")?)
            .add(nn::relu())
            .add(nn::dropout(0.3).at(&root / "dropout")?)
            .add(nn::linear(24, 3).at(&root / "fc2")?);
        Ok(Net { vars, net, acc: MulticlassAccuracy::new(3) })
    }
}

impl LightningModule for Net {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn train_dataloader(&mut self, _: &mut TrainerState) -> fulgurite::Result<Loaders<Self::Batch>> {
        Ok(DataLoader::new(Noisy).batch_size(BATCH_SIZE).shuffle(true).num_workers(2).into())
    }

    fn val_dataloader(&mut self, _: &mut TrainerState) -> fulgurite::Result<Loaders<Self::Batch>> {
        Ok(DataLoader::new(Noisy).batch_size(8 * BATCH_SIZE).into())
    }

    fn training_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> fulgurite::Result<Loss> {
        let logits = self.net.forward(&x);
        let loss = logits.cross_entropy_for_logits(&y);
        step.log("loss", &loss).on_step().on_epoch();
        step.log("worst", &loss).epoch_only().reduce(Reduce::Max);
        self.acc.update(&logits, &y)?;
        step.log("acc", &self.acc).epoch_only();
        Ok(loss.into())
    }

    fn validation_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> fulgurite::Result<()> {
        let logits = self.net.forward(&x);
        step.log("val_loss", logits.cross_entropy_for_logits(&y));
        step.log("val_acc", logits.accuracy_for_logits(&y));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> fulgurite::Result<Optimizers> {
        let schedule = LrSchedulerConfig::new(CosineAnnealingLR::new(60)).interval(Interval::Step);
        Ok(Optimizers::from(AdamW::new(&self.vars).lr(0.02)).scheduler(schedule))
    }
}

/// Says on standard output that training begins, and from where.
struct Announce;

impl Callback for Announce {
    fn on_train_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> fulgurite::Result<()> {
        let from = trainer.resumed_from().and_then(Path::file_name);
        if !trainer.is_global_zero() {
            return Ok(());
        }
        println!("training from {}", from.map_or("scratch".into(), |name| name.to_string_lossy()));
        Ok(())
    }
}

/// Trains to the end, from the newest whole checkpoint of the folder, if there is one; then says how many calls of the
/// file system its checkpoints took.
pub fn train(options: &Options) -> Result<()> {
    // Rank 0 writes the files.
    let is_rank_zero = std::env::var("RANK").map_or(true, |rank| rank == "0");
    let files = match options.fault.as_ref().filter(|_| is_rank_zero) {
        Some(fault) => fault.parse().map_err(|problem: String| anyhow!(problem))?,
        None => FaultyFileSystem::without_faults(),
    };
    seed_everything(11)?;
    let checkpoint = ModelCheckpoint::monitor("loss")
        .dirpath(options.folder.join(CHECKPOINTS))
        .every_n_train_steps(STEPS_PER_SAVE)
        .save_top_k(2)
        .save_last(if options.link { SaveLast::Link } else { SaveLast::Copy });
    let io = TorchCheckpointIo::on(Arc::new(files.clone()));
    let io = if options.asynchronous {
        Plugin::checkpoint_io(AsyncCheckpointIo::new(io))
    } else {
        Plugin::checkpoint_io(io)
    };
    let mut trainer = Trainer::builder()
        .max_epochs(EPOCHS)
        .accelerator("cpu")
        .devices(options.devices)
        .accumulate_grad_batches(2)
        .val_check_interval(0.5)
        .log_every_n_steps(1)
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .default_root_dir(&options.folder)
        .logger(CsvLogger::new(&options.folder))
        .callback(EMAWeightAveraging::new().decay(0.9))
        .callback(LearningRateMonitor::new())
        .callback(Announce)
        .callback(checkpoint)
        .plugin(io)
        .console(Console::memory())
        .build()?;
    let mut net = Net::new()?;
    _ = trainer.ckpt_path("last").fit(&mut net, ())?;
    if !is_rank_zero {
        return Ok(());
    }
    std::fs::write(options.folder.join(WEIGHTS), bits(&net)?)?;
    println!("calls {}", files.calls());
    Ok(())
}

/// Weights and buffers, bit by bit, in the order of their names.
fn bits(net: &Net) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let state = params::state_dict(&net.vars)?;
    let mut names: Vec<&str> = state.keys().collect();
    names.sort_unstable();
    for name in names {
        let values = Vec::<f64>::try_from(state.tensor(name)?.to_kind(Kind::Double).flatten(0, -1))?;
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    Ok(bytes)
}
