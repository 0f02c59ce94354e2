//! An LSTM that predicts how much power a household takes in the next hour, from the day before.
//!
//! `cargo run --release --example power -- --help` lists what can be changed. Any table with the columns `time`, `power_kw` and
//! `temperature_c` will do; the household of the one that is here does not exist.

#![expect(clippy::print_stdout, reason = "a program prints")]

use std::f64::consts::TAU;

use clap::Parser;
use fulgurite::data::datasets::{CsvTable, SlidingWindows};
use fulgurite::data::tabular::StandardScaler;
use fulgurite::prelude::*;

/// Train an LSTM on the power that a household takes.
#[derive(Parser, Debug, Clone)]
struct Args {
    /// The table, with a row for each hour.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/power/household.csv"))]
    csv: String,
    /// Hours that the model sees.
    #[arg(long, default_value_t = 24)]
    window: usize,
    /// Epochs to train at most.
    #[arg(long, default_value_t = 20)]
    max_epochs: u64,
    /// Windows per step.
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

/// The seconds of a day.
const DAY: i64 = 24 * 60 * 60;

/// Power, temperature, and the time of the day as a point on a circle.
const FEATURES: i64 = 4;

/// Windows over three parts of a series, which follow each other in time.
struct PowerData {
    train: SlidingWindows,
    val: SlidingWindows,
    test: SlidingWindows,
    scaler: StandardScaler,
    batch_size: usize,
}

impl PowerData {
    fn read(args: &Args) -> Result<PowerData> {
        let table = CsvTable::read(&args.csv)?;
        let seconds = table.timestamps("time", "[year]-[month]-[day] [hour]:[minute]")?.remainder(DAY);
        let angle = seconds.to_kind(Kind::Float).unsqueeze(1) * (TAU / DAY as f64);
        let series = Tensor::cat(&[table.numbers(&["power_kw", "temperature_c"])?, angle.sin(), angle.cos()], 1);

        let hours = series.size()[0];
        let (train_end, val_end) = (hours * 70 / 100, hours * 85 / 100);
        let part = |from: i64, to: i64| series.narrow(0, from, to - from);
        let scaler = StandardScaler::fit(&part(0, train_end))?;
        let windows = |from, to| -> Result<SlidingWindows> {
            Ok(SlidingWindows::new([scaler.transform(&part(from, to))?], args.window, 1)?)
        };
        let (train, val, test) = (windows(0, train_end)?, windows(train_end, val_end)?, windows(val_end, hours)?);
        Ok(PowerData { train, val, test, scaler, batch_size: args.batch_size })
    }

    /// What a difference of 1 between scaled values means.
    fn watts(&self) -> f64 {
        1000.0 * self.scaler.std()[0]
    }
}

impl LightningDataModule for PowerData {
    /// Windows `[batch, hours, FEATURES]`, and the hour after each, `[batch, 1, FEATURES]`.
    type Batch = (Tensor, Tensor);

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        Ok(DataLoader::new(self.train.clone()).batch_size(self.batch_size).into())
    }

    fn val_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        Ok(DataLoader::new(self.val.clone()).batch_size(256).into())
    }

    fn test_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        Ok(DataLoader::new(self.test.clone()).batch_size(256).into())
    }
}

/// Two layers of LSTM, and a linear layer that sees their last output.
struct PowerLstm {
    vars: nn::VarStore,
    lstm: nn::Lstm,
    head: nn::Linear,
    lr: f64,
    watts: f64,
}

impl PowerLstm {
    fn new(lr: f64, watts: f64) -> Result<PowerLstm> {
        const HIDDEN: i64 = 64;
        let vars = nn::VarStore::new(Device::Cpu);
        let lstm = nn::lstm(FEATURES, HIDDEN).num_layers(2).batch_first(true).dropout(0.1).at(vars.root() / "lstm")?;
        let head = nn::linear(HIDDEN, 1).at(vars.root() / "head")?;
        Ok(PowerLstm { vars, lstm, head, lr, watts })
    }

    /// The power of the hour after each window, `[batch]`.
    fn forward(&self, windows: &Tensor) -> Tensor {
        let (output, _) = self.lstm.forward(windows, None);
        self.head.forward(&output.select(1, -1)).squeeze_dim(1)
    }
}

/// The power of the first hour, `[batch]`.
fn power(hours: &Tensor) -> Tensor {
    hours.select(1, 0).select(1, 0)
}

impl LightningModule for PowerLstm {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, (windows, next): Self::Batch, step: &mut Step) -> Result<Loss> {
        let loss = nn::mse_loss().forward(&self.forward(&windows), &power(&next));
        step.log("train_loss", &loss).prog_bar();
        Ok(loss.into())
    }

    fn validation_step(&mut self, (windows, next): Self::Batch, step: &mut Step) -> Result<()> {
        step.log("val_loss", nn::mse_loss().forward(&self.forward(&windows), &power(&next))).prog_bar();
        Ok(())
    }

    /// How wrong the model is, and how wrong it would be to say that nothing changes.
    fn test_step(&mut self, (windows, next): Self::Batch, step: &mut Step) -> Result<()> {
        let error = |predicted: &Tensor| nn::l1_loss().forward(predicted, &power(&next)) * self.watts;
        step.log("test_mae_watts", error(&self.forward(&windows)));
        step.log("persistence_mae_watts", error(&windows.select(1, -1).select(1, 0)));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(Adam::new(&self.vars).lr(self.lr).into())
    }
}

#[fulgurite::main]
fn main() -> Result<()> {
    let args = Args::parse();
    seed_everything(args.seed)?;
    let mut data = PowerData::read(&args)?;
    let mut model = PowerLstm::new(args.lr, data.watts())?;
    let mut trainer = Trainer::builder()
        .max_epochs(args.max_epochs)
        .log_every_n_steps(1)
        .accelerator(&args.accelerator)
        .default_root_dir(&args.default_root_dir)
        .fast_dev_run(args.fast_dev_run.into())
        .callback(ModelCheckpoint::monitor("val_loss"))
        .build()?;
    trainer.fit(&mut model, &mut data)?.completed()?;
    trainer.ckpt_path((!args.fast_dev_run).then_some("best")).test(&mut model, &mut data)?;
    if !args.fast_dev_run {
        println!("logs: {}", trainer.state().log_dir().display());
    }
    Ok(())
}
