//! What the trainer tells a profiler.

use std::sync::{Arc, Mutex};

use fulgurite::prelude::*;
use fulgurite::profilers::ProfiledRun;
use fulgurite::{Console, Loaders};

use crate::profilers::line::{Line, Trouble, batches, line, quiet};

/// Checks that actions nest, and notes batches.
#[derive(Clone, Default)]
struct Checker(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    open: Vec<String>,
    events: Vec<String>,
    /// Batches that began, per stage, and those that ended.
    batches: Vec<(Stage, bool)>,
}

impl Profiler for Checker {
    fn setup(&mut self, run: &ProfiledRun) -> Result<()> {
        *self.0.lock().unwrap() = Told::default();
        self.0.lock().unwrap().events.push(format!("setup {:?}", run.entry_point));
        Ok(())
    }

    fn start(&mut self, action: &str) {
        self.0.lock().unwrap().open.push(action.to_owned());
    }

    fn stop(&mut self, action: &str) {
        let mut told = self.0.lock().unwrap();
        while let Some(open) = told.open.pop()
            && open != action
        {
            told.events.push(format!("{open} was left"));
        }
    }

    fn batch_start(&mut self, stage: Stage, _: Option<usize>) -> Result<()> {
        self.0.lock().unwrap().batches.push((stage, false));
        Ok(())
    }

    fn batch_end(&mut self, stage: Stage) -> Result<()> {
        self.0.lock().unwrap().batches.push((stage, true));
        Ok(())
    }

    fn summary(&mut self) -> Result<String> {
        let mut told = self.0.lock().unwrap();
        let open = told.open.join(" ");
        told.events.push(format!("summary [{open}]"));
        Ok(String::new())
    }

    fn teardown(&mut self) -> Result<()> {
        self.0.lock().unwrap().events.push("teardown".into());
        Ok(())
    }
}

impl Checker {
    fn events(&self) -> String {
        self.0.lock().unwrap().events.join(", ")
    }

    /// Every batch that began has ended before the next; how many there were of a stage.
    fn batches(&self, stage: Stage) -> usize {
        let told = self.0.lock().unwrap();
        assert!(
            told.batches.chunks(2).all(|pair| matches!(pair, [(a, false), (b, true)] if a == b)),
            "{:?}",
            told.batches
        );
        told.batches.iter().filter(|(s, ended)| *s == stage && *ended).count()
    }
}

#[test]
fn actions_nest_and_batches_are_marked_in_every_entry_point() {
    let (root, checker) = (tempfile::tempdir().unwrap(), Checker::default());
    let mut trainer = quiet(root.path(), &Console::memory())
        .max_epochs(2)
        .num_sanity_val_steps(1)
        .profiler(checker.clone())
        .build()
        .unwrap();
    let mut module = line();
    _ = trainer.fit(&mut module, (batches(3), batches(2))).unwrap();
    assert_eq!(checker.events(), "setup Fit, summary [], teardown");
    let stages = [Stage::Train, Stage::SanityCheck, Stage::Validate];
    assert_eq!(stages.map(|stage| checker.batches(stage)), [6, 1, 4]);

    trainer.validate(&mut module, batches(2)).unwrap();
    assert_eq!(
        (checker.events(), checker.batches(Stage::Validate)),
        ("setup Validate, summary [], teardown".into(), 2)
    );
    let loaders: Loaders<Tensor> = batches(2).into();
    trainer.test(&mut module, loaders).unwrap();
    assert_eq!((checker.events(), checker.batches(Stage::Test)), ("setup Test, summary [], teardown".into(), 2));
    trainer.predict(&mut module, batches(4)).unwrap();
    assert_eq!((checker.events(), checker.batches(Stage::Predict)), ("setup Predict, summary [], teardown".into(), 4));
}

#[test]
fn a_panic_ends_its_actions_and_the_profiler_is_still_torn_down() {
    let (root, checker) = (tempfile::tempdir().unwrap(), Checker::default());
    let mut trainer = quiet(root.path(), &Console::memory()).profiler(checker.clone()).build().unwrap();
    let mut module = line();
    module.trouble = (1, Trouble::Panic);
    trainer.fit(&mut module, batches(3)).unwrap_err();
    assert_eq!(checker.events(), "setup Fit, summary [], teardown");
}

/// Its callbacks cannot be had.
struct NoCallbacks(Line);

impl LightningModule for NoCallbacks {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        self.0.vars()
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        self.0.training_step(batch, step)
    }

    fn configure_callbacks(&mut self) -> Result<Vec<Box<dyn Callback>>> {
        Err("the disk melted".into())
    }
}

#[test]
fn callbacks_that_cannot_be_had_end_a_run_that_is_torn_down() {
    let (root, checker) = (tempfile::tempdir().unwrap(), Checker::default());
    let mut trainer = quiet(root.path(), &Console::memory()).profiler(checker.clone()).build().unwrap();
    trainer.fit(&mut NoCallbacks(line()), batches(1)).unwrap_err();
    assert_eq!(checker.events(), "setup Fit, summary [], teardown");
}

struct Broken(&'static str);

impl Profiler for Broken {
    fn setup(&mut self, _: &ProfiledRun) -> Result<()> {
        if self.0 == "setup" { Err("no room".into()) } else { Ok(()) }
    }

    fn start(&mut self, _: &str) {}

    fn stop(&mut self, _: &str) {}

    fn batch_end(&mut self, _: Stage) -> Result<()> {
        if self.0 == "batch" { Err("no room".into()) } else { Ok(()) }
    }

    fn summary(&mut self) -> Result<String> {
        if self.0 == "summary" { Err("no room".into()) } else { Ok(String::new()) }
    }
}

#[test]
fn a_profiler_that_fails_ends_the_run() {
    for (moment, message) in [
        ("setup", "the profiler failed in set-up: no room"),
        ("batch", "the profiler failed at the end of a batch: no room"),
        ("summary", "the profiler failed in its summary: no room"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let mut trainer = quiet(root.path(), &Console::memory()).profiler(Broken(moment)).build().unwrap();
        assert_eq!(trainer.fit(&mut line(), batches(2)).unwrap_err().to_string(), message);
    }
}
