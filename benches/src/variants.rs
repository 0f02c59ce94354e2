//! The variants in Rust: a loop written by hand, and the `Trainer`, bare and with everything.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use fulgurite::TrainerBuilder;
use fulgurite::optim::Optimizer;
use fulgurite::prelude::{
    AdamW, CsvLogger, EarlyStopping, LearningRateMonitor, LightningModule, Loss, Optimizers, Step, TensorBoardLogger,
    Timer, Trainer, TrainerState, seed_everything,
};
use fulgurite::torch::runtime;

use crate::models::{Model, Pair};
use crate::stopwatch::{Plan, Stopwatch};

/// What a process is to measure.
pub struct Task {
    model: String,
    variant: String,
    plan: Plan,
    result: PathBuf,
}

impl TryFrom<&[&str]> for Task {
    type Error = anyhow::Error;

    fn try_from(args: &[&str]) -> Result<Task> {
        let [model, variant, plan @ .., result] = args else { bail!("too few arguments") };
        Ok(Task {
            model: model.to_string(),
            variant: variant.to_string(),
            plan: Plan::from_args(plan)?,
            result: result.into(),
        })
    }
}

pub fn run(task: &Task) -> Result<()> {
    seed_everything(1)?;
    let model = Model::new(&task.model)?;
    let batches = model.batches(task.plan.total_steps());
    let stopwatch = Stopwatch::new(task.plan);
    let folder = tempfile::tempdir()?;
    let stopwatch = match task.variant.as_str() {
        "loop" => hand_written(&model, batches, stopwatch)?,
        "trainer_barebones" => {
            trained(Trainer::builder().max_epochs(1).barebones(true).build()?, model, batches, stopwatch, false)?
        }
        "trainer_full" => trained(full(folder.path()).build()?, model, batches, stopwatch, true)?,
        "trainer_ddp" => {
            let builder = Trainer::builder().max_epochs(1).barebones(true).accelerator("cpu");
            trained(builder.devices(2).strategy("ddp").build()?, model, batches, stopwatch, false)?
        }
        "trainer_ddp_full" => {
            trained(full(folder.path()).devices(2).strategy("ddp").build()?, model, batches, stopwatch, true)?
        }
        "trainer_callbacks" => trained(with_callbacks(folder.path()).build()?, model, batches, stopwatch, true)?,
        variant => bail!("there is no variant {variant}"),
    };
    // Of several processes, the first writes.
    if std::env::var("RANK").is_ok_and(|rank| rank != "0") {
        return Ok(());
    }
    std::fs::write(&task.result, serde_json::to_string(&stopwatch.measured()?)?)?;
    Ok(())
}

/// CSV logger, progress bar, checkpoints.
fn full(folder: &Path) -> TrainerBuilder {
    let builder = Trainer::builder().max_epochs(1).default_root_dir(folder).logger(CsvLogger::new(folder));
    builder.log_every_n_steps(1).accelerator("cpu")
}

/// The same with a second logger, and five callbacks in all: progress bar, checkpoints, and these three.
fn with_callbacks(folder: &Path) -> TrainerBuilder {
    full(folder)
        .logger(TensorBoardLogger::new(folder))
        .callback(EarlyStopping::monitor("train_loss").check_on_train_epoch_end(true))
        .callback(LearningRateMonitor::new())
        .callback(Timer::new(Duration::from_secs(3600)))
}

/// What a careful person writes with `tch`. Memory and threads are set as the trainer sets them, so that the difference
/// between the two is the trainer alone.
fn hand_written(model: &Model, batches: Vec<Pair>, mut stopwatch: Stopwatch) -> Result<Stopwatch> {
    runtime::tune_allocator();
    runtime::adapt_waiting();
    let mut optimizer: Box<dyn Optimizer> = AdamW::new(&model.vars).build()?;
    for batch in &batches {
        let loss = model.loss(batch);
        optimizer.zero_grad()?;
        loss.backward();
        optimizer.step()?;
        stopwatch.step_ended();
    }
    Ok(stopwatch)
}

/// Trains for one epoch, and logs the loss if asked.
pub fn trained(
    mut trainer: Trainer,
    model: Model,
    batches: Vec<Pair>,
    stopwatch: Stopwatch,
    logs: bool,
) -> Result<Stopwatch> {
    let mut module = Timed { model, stopwatch, logs };
    _ = trainer.fit(&mut module, batches)?;
    Ok(module.stopwatch)
}

struct Timed {
    model: Model,
    stopwatch: Stopwatch,
    logs: bool,
}

impl LightningModule for Timed {
    type Batch = Pair;

    fn vars(&self) -> &dyn fulgurite::Parameters {
        &self.model.vars
    }

    fn training_step(&mut self, batch: Pair, step: &mut Step) -> fulgurite::Result<Loss> {
        let loss = self.model.loss(&batch);
        if self.logs {
            step.log("train_loss", &loss).prog_bar();
        }
        Ok(loss.into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> fulgurite::Result<Optimizers> {
        Ok(AdamW::new(&self.model.vars).into())
    }

    fn on_train_batch_end(&mut self, _: &mut TrainerState, _: &Loss, _: &Pair, _: usize) -> fulgurite::Result<()> {
        self.stopwatch.step_ended();
        Ok(())
    }
}
