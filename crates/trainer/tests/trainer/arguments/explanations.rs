//! What the trainer says of arguments and data that are easily mistaken.

use expect_test::{Expect, expect};
use fulgurite::loggers::MemoryLogger;
use fulgurite::optim::OneCycleLR;
use fulgurite::prelude::*;
use fulgurite::{CallbackIdentity, Console, ModuleView, TrainerBuilder};

use super::{Shuffled, Weight, batches, quiet, weight};

/// Everything said during a fit on three batches, and one of validation.
#[track_caller]
fn said(arguments: fn(TrainerBuilder) -> TrainerBuilder, expected: Expect) {
    let console = Console::memory();
    let mut trainer = arguments(quiet().console(console.clone())).build().unwrap();
    _ = trainer.fit(&mut weight(), (batches(&[1.0, 2.0, 3.0]), batches(&[1.0]))).unwrap();
    expected.assert_eq(&console.contents());
}

#[test]
fn one_and_all() {
    said(
        |t| t.limit_train_batches(1.0).val_check_interval(1.0),
        expect![[r#"
        `Trainer.fit` stopped: `max_epochs=1` reached.
    "#]],
    );
    said(
        |t| t.limit_train_batches(1).limit_val_batches(1),
        expect![[r#"
        `limit_train_batches=1`: one batch per epoch is used (1.0 would be all of them)
        `limit_val_batches=1`: one batch is used (1.0 would be all of them)
        `Trainer.fit` stopped: `max_epochs=1` reached.
    "#]],
    );
    said(
        |t| t.limit_test_batches(1).limit_predict_batches(1).val_check_interval(1),
        expect![[r#"
        `limit_test_batches=1`: one batch is used (1.0 would be all of them)
        `limit_predict_batches=1`: one batch is used (1.0 would be all of them)
        `val_check_interval=1`: validation runs after every batch (1.0 would be after every epoch)
        `Trainer.fit` stopped: `max_epochs=1` reached.
    "#]],
    );
}

#[test]
fn fewer_batches_than_the_logging_interval() {
    said(
        |t| t.logger(MemoryLogger::new()),
        expect![[r#"
        warning: an epoch has 3 training batch(es), and log_every_n_steps=50, so not every epoch writes values of steps; lower it to see them
        `Trainer.fit` stopped: `max_epochs=1` reached.
    "#]],
    );
    said(
        |t| t.logger(MemoryLogger::new()).log_every_n_steps(3),
        expect![[r#"
        `Trainer.fit` stopped: `max_epochs=1` reached.
    "#]],
    );
}

#[test]
fn a_shuffled_loader_that_is_only_evaluated() {
    let console = Console::memory();
    let mut trainer = quiet().console(console.clone()).build().unwrap();
    trainer.validate(&mut weight(), Shuffled(vec![1.0])).unwrap();
    trainer.test(&mut weight(), Shuffled(vec![1.0])).unwrap();
    let warnings: Vec<String> =
        console.contents().lines().filter(|line| line.starts_with("warning")).map(str::to_owned).collect();
    expect![[r#"
        warning: a validation loader is shuffled; turn shuffling off, so that its batches come in the order of the data
        warning: a test loader is shuffled; turn shuffling off, so that its batches come in the order of the data"#]]
    .assert_eq(&warnings.join("\n"));
}

/// Follows one cycle, at the interval it is told.
struct Cycles(Weight, Interval);

impl LightningModule for Cycles {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.0.vars
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        self.0.training_step(x, step)
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let scheduler = LrSchedulerConfig::new(OneCycleLR::new(0.1, 10)).interval(self.1);
        Ok(Optimizers::from(SGD::new(&self.0.vars).lr(0.1)).scheduler(scheduler))
    }
}

#[test]
fn one_cycle_by_epochs() {
    let warnings = |interval| {
        let console = Console::memory();
        let mut trainer = quiet().console(console.clone()).build().unwrap();
        _ = trainer.fit(&mut Cycles(weight(), interval), batches(&[1.0])).unwrap();
        console.contents().lines().filter(|line| line.starts_with("warning")).collect::<Vec<_>>().join("\n")
    };
    expect![
        "warning: a OneCycleLR is stepped once per epoch, and its length is counted in optimizer steps; set its interval to `Interval::Step`"
    ]
    .assert_eq(&warnings(Interval::Epoch));
    expect![""].assert_eq(&warnings(Interval::Step));
}

/// Brings a callback of its own.
struct Watched(Weight);

impl LightningModule for Watched {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.0.vars
    }

    fn configure_callbacks(&mut self) -> Result<Vec<Box<dyn Callback>>> {
        Ok(vec![Box::new(EarlyStopping::monitor("loss"))])
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        step.log("loss", &x);
        self.0.training_step(x, step)
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        self.0.configure_optimizers(trainer)
    }
}

#[test]
fn callbacks_that_the_modules_replace() {
    let console = Console::memory();
    let builder = quiet().console(console.clone()).callback(EarlyStopping::monitor("other"));
    let mut trainer = builder.build().unwrap();
    for _ in 0..2 {
        _ = trainer.fit(&mut Watched(weight()), batches(&[1.0])).unwrap();
    }
    let said = console.contents();
    let replaced: Vec<&str> = said.lines().filter(|line| line.contains("configure_callbacks")).collect();
    assert_eq!(
        replaced,
        ["the module's `configure_callbacks` replaces the trainer's EarlyStopping{'monitor': 'other', 'mode': 'min'}"]
    );
}

/// A callback of a class that is no Rust type.
struct Foreign {
    class: &'static str,
    of_module: bool,
}

impl Callback for Foreign {
    fn identity(&self) -> CallbackIdentity {
        CallbackIdentity::of::<Foreign>().class(self.class)
    }

    fn state_key(&self) -> String {
        self.class.into()
    }

    fn on_fit_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        trainer.print(&format!("{} of the {}", self.class, if self.of_module { "module" } else { "trainer" }));
        Ok(())
    }
}

/// Brings a callback of one of the classes.
struct Bringing(Weight);

impl LightningModule for Bringing {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.0.vars
    }

    fn configure_callbacks(&mut self) -> Result<Vec<Box<dyn Callback>>> {
        Ok(vec![Box::new(Foreign { class: "Watch", of_module: true })])
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        self.0.training_step(x, step)
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        self.0.configure_optimizers(trainer)
    }
}

#[test]
fn one_rust_type_may_stand_for_several_classes_of_callbacks() {
    let console = Console::memory();
    let of_trainer = |class| Foreign { class, of_module: false };
    let builder = quiet().console(console.clone()).callback(of_trainer("Watch")).callback(of_trainer("Stop"));
    _ = builder.build().unwrap().fit(&mut Bringing(weight()), batches(&[1.0])).unwrap();
    let said = console.contents();
    let said: Vec<&str> = said.lines().filter(|line| line.contains(" of the ") || line.contains("place")).collect();
    assert_eq!(
        said,
        [
            "the module's `configure_callbacks` replaces the trainer's Watch",
            "Stop of the trainer",
            "Watch of the module"
        ]
    );
}
