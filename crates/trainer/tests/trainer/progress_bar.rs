//! What the progress bar leaves behind where nothing can move: in a log file.

use std::time::Duration;

use expect_test::expect;
use fulgurite::data::{Batches, FnLoader};
use fulgurite::loggers::MemoryLogger;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::host_reads;
use fulgurite::{Console, TrainerBuilder};

/// Logs numbers that say which epoch and step they are from.
struct Counting {
    vars: nn::VarStore,
    layer: nn::Linear,
    fails_at: Option<(u64, usize)>,
}

impl Counting {
    fn new() -> Counting {
        let vars = nn::VarStore::new(Device::Cpu);
        let layer = nn::linear(vars.root() / "layer", 2, 1, Default::default());
        Counting { vars, layer, fails_at: None }
    }
}

impl LightningModule for Counting {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        let at = (step.current_epoch(), step.batch_idx());
        if self.fails_at == Some(at) {
            return Err("no more".into());
        }
        step.log("train_loss", at.0 as f64 + at.1 as f64 / 10.0).prog_bar();
        step.log("not_shown", 1.0);
        Ok(batch.apply(&self.layer).mean(Kind::Float).into())
    }

    fn validation_step(&mut self, _: Tensor, step: &mut Step) -> Result<()> {
        let epoch = step.current_epoch() as f64;
        step.log("val_loss", epoch + 0.5).prog_bar();
        Ok(())
    }

    fn test_step(&mut self, _: Tensor, step: &mut Step) -> Result<()> {
        step.log("test_acc", 0.98).prog_bar();
        Ok(())
    }

    fn predict_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Value> {
        Ok(batch.into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.1).into())
    }
}

fn batch() -> Tensor {
    Tensor::ones([2, 2], (Kind::Float, Device::Cpu))
}

fn batches(n: usize) -> Vec<Tensor> {
    (0..n).map(|_| batch()).collect()
}

/// A trainer whose every epoch is long enough to leave a line.
fn trainer(console: &Console) -> TrainerBuilder {
    Trainer::builder()
        .max_epochs(2)
        .accelerator("cpu")
        .no_logger()
        .enable_checkpointing(false)
        .enable_model_summary(false)
        .console(console.clone())
}

fn bar() -> ProgressBar {
    ProgressBar::new().refresh_rate(Duration::ZERO)
}

/// What was printed, without what differs from run to run: times and rates.
fn contents(console: &Console) -> String {
    let mut text = String::new();
    for line in console.contents().lines() {
        let words = line.split(' ').map(|word| match word {
            word if word.starts_with("0:00:") => "TIME",
            word if word.ends_with("it/s") => "RATE",
            word => word,
        });
        text += &words.collect::<Vec<_>>().join(" ");
        text.push('\n');
    }
    assert!(!text.contains(['\x1b', '\r']), "{text:?}");
    text
}

#[test]
fn every_epoch_leaves_a_line_with_its_last_values() {
    let console = Console::memory();
    let mut trainer = trainer(&console).callback(bar()).build().unwrap();
    _ = trainer.fit(&mut Counting::new(), (batches(4), batches(3))).unwrap();
    expect![[r#"
        Epoch 0/1 4/4 TIME RATE train_loss: 0.300 val_loss: 0.500
        Epoch 1/1 4/4 TIME RATE train_loss: 1.300 val_loss: 1.500
        `Trainer.fit` stopped: `max_epochs=2` reached.
    "#]]
    .assert_eq(&contents(&console));
}

#[test]
fn only_the_last_line_is_left_if_asked() {
    let console = Console::memory();
    let mut trainer = trainer(&console).callback(bar().leave(false)).build().unwrap();
    _ = trainer.fit(&mut Counting::new(), (batches(4), batches(3))).unwrap();
    expect![[r#"
        Epoch 1/1 4/4 TIME RATE train_loss: 1.300 val_loss: 1.500
        `Trainer.fit` stopped: `max_epochs=2` reached.
    "#]]
    .assert_eq(&contents(&console));
}

#[test]
fn every_epoch_leaves_its_line_however_short_it_is() {
    let console = Console::memory();
    let slow = ProgressBar::new().refresh_rate(Duration::from_secs(60));
    let mut trainer = trainer(&console).max_epochs(4).callback(slow).build().unwrap();
    _ = trainer.fit(&mut Counting::new(), batches(1)).unwrap();
    expect![[r#"
        Epoch 0/3 1/1 TIME RATE train_loss: 0.000
        Epoch 1/3 1/1 TIME RATE train_loss: 1.000
        Epoch 2/3 1/1 TIME RATE train_loss: 2.000
        Epoch 3/3 1/1 TIME RATE train_loss: 3.000
        `Trainer.fit` stopped: `max_epochs=4` reached.
    "#]]
    .assert_eq(&contents(&console));
}

#[test]
fn lengths_that_nobody_knows_are_counted() {
    let console = Console::memory();
    let unknown = |n: usize| FnLoader::new(move |_| (0..n).map(|_| Ok(batch())));
    let mut trainer = trainer(&console).max_epochs(1).callback(bar()).build().unwrap();
    _ = trainer.fit(&mut Counting::new(), (unknown(5), unknown(2))).unwrap();
    expect![[r#"
        Epoch 0/0 5 TIME RATE train_loss: 0.400 val_loss: 0.500
        `Trainer.fit` stopped: `max_epochs=1` reached.
    "#]]
    .assert_eq(&contents(&console));
}

#[test]
fn wrong_lengths_are_corrected_at_the_end() {
    for (says, line) in [(7, "Epoch 0/0 5/5 "), (3, "Epoch 0/0 5 ")] {
        let console = Console::memory();
        let wrong = FnLoader::new(|_| (0..5).map(|_| Ok(batch()))).with_len(says);
        let mut trainer = trainer(&console).max_epochs(1).callback(bar()).build().unwrap();
        _ = trainer.fit(&mut Counting::new(), (wrong, batches(2))).unwrap();
        assert!(contents(&console).contains(line), "{}", contents(&console));
    }
}

#[test]
fn evaluation_and_prediction_leave_a_line_each() {
    let console = Console::memory();
    let mut trainer = trainer(&console).callback(bar()).build().unwrap();
    let mut module = Counting::new();
    trainer.validate(&mut module, batches(3)).unwrap();
    trainer
        .test(&mut module, Loaders(vec![Box::new(Batches::new(batches(2))), Box::new(Batches::new(batches(1)))]))
        .unwrap();
    trainer.predict(&mut module, batches(3)).unwrap();
    expect![[r#"
        Validation 3/3 TIME RATE val_loss: 0.500
        ──────────────────────────────────────────────────
             Validate metric           DataLoader 0
        ──────────────────────────────────────────────────
                val_loss                    0.5
        ──────────────────────────────────────────────────
        Testing 3/3 TIME RATE test_acc/dataloader_idx_0: 0.980 test_acc/dataloader_idx_1: 0.980
        ───────────────────────────────────────────────────────────────────────────
               Test metric             DataLoader 0             DataLoader 1
        ───────────────────────────────────────────────────────────────────────────
                test_acc                   0.98                     0.98
        ───────────────────────────────────────────────────────────────────────────
        Predicting 3/3 TIME RATE
    "#]]
    .assert_eq(&contents(&console));
}

#[test]
fn a_run_cut_short_says_how_far_it_came() {
    let console = Console::memory();
    let mut trainer = trainer(&console).callback(bar()).build().unwrap();
    let mut module = Counting { fails_at: Some((1, 2)), ..Counting::new() };
    trainer.fit(&mut module, (batches(4), batches(3))).unwrap_err();
    expect![[r#"
        Epoch 0/1 4/4 TIME RATE train_loss: 0.300 val_loss: 0.500
        Epoch 1/1 2/4 TIME RATE train_loss: 1.100 val_loss: 0.500
    "#]]
    .assert_eq(&contents(&console));
}

#[test]
fn the_loggers_version_is_shown() {
    let console = Console::memory();
    let builder = trainer(&console).logger(MemoryLogger::new()).log_every_n_steps(1).max_epochs(1);
    let mut trainer = builder.callback(bar()).build().unwrap();
    _ = trainer.fit(&mut Counting::new(), batches(1)).unwrap();
    expect![[r#"
        Epoch 0/0 1/1 TIME RATE train_loss: 0.000 v_num: 0
        `Trainer.fit` stopped: `max_epochs=1` reached.
    "#]]
    .assert_eq(&contents(&console));
}

/// Logs a tensor every step.
struct OnDevice(Counting);

impl LightningModule for OnDevice {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.0.vars
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        let loss = batch.apply(&self.0.layer).mean(Kind::Float);
        step.log("train_loss", &loss).prog_bar();
        Ok(loss.into())
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        self.0.configure_optimizers(trainer)
    }
}

#[test]
fn values_are_read_only_for_a_line() {
    let console = Console::memory();
    let mut trainer = trainer(&console).callback(bar()).build().unwrap();
    let before = host_reads();
    _ = trainer.fit(&mut OnDevice(Counting::new()), batches(100)).unwrap();
    assert_eq!(host_reads() - before, 2, "one for each epoch");
}
