//! A checkpoint of what a run had learned when an error ended it. `tests/trainer/interrupt.rs` presses Ctrl-C.

use std::path::Path;

use fulgurite::callbacks::{LambdaCallback, OnExceptionCheckpoint, OnExceptionCheckpointOptions};
use fulgurite::config::Configurable;
use fulgurite::loggers::{Logged, MemoryLogger};
use fulgurite::optim::Optimizer;
use fulgurite::prelude::*;
use fulgurite::torch::serialization;
use fulgurite::{SaveRequest, TrainerBuilder};

use crate::callbacks::scripted::{Scripted, batches, quiet};

/// The step of the checkpoint that a fit of two epochs of four batches left, if it left one.
fn saved_step(folder: &Path) -> Option<i64> {
    let path = folder.join("on_exception.ckpt");
    path.exists().then(|| serialization::load(path).unwrap().as_dict().unwrap().int("global_step").unwrap())
}

fn trainer(folder: &Path) -> Trainer {
    quiet(folder).max_epochs(2).callback(OnExceptionCheckpoint::new(folder)).build().unwrap()
}

#[test]
fn an_error_is_saved_and_resumed_from_and_the_file_goes_when_all_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let mut module = Scripted::new(&[1.0]);
    module.fails_after = Some(6);
    trainer(folder.path()).fit(&mut module, (batches(4), batches(1))).unwrap_err();
    assert_eq!(saved_step(folder.path()), Some(6));
    // It counts as a callback that writes checkpoints, so nothing else did.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    // Evaluation neither saves nor removes.
    let mut evaluates = trainer(folder.path());
    evaluates.verbose(false).validate(&mut module, batches(1)).unwrap();
    assert_eq!(saved_step(folder.path()), Some(6));

    module.fails_after = None;
    let mut resumed = trainer(folder.path());
    let path = resumed.callback::<OnExceptionCheckpoint>().unwrap().ckpt_path();
    _ = resumed.ckpt_path(path.to_str().unwrap()).fit(&mut module, (batches(4), batches(1))).unwrap();
    assert_eq!(resumed.state().global_step(), 8);
    assert_eq!(saved_step(folder.path()), None);
}

/// Panics in one hook after another; the optimizers and schedulers are in the file all the same.
#[test]
fn a_panic_loses_nothing() {
    let at = |step: u64| {
        move |trainer: &mut TrainerState| -> Result<()> {
            assert!(trainer.global_step() < step, "the cat sat on it");
            Ok(())
        }
    };
    for (panics, step) in [
        (LambdaCallback::new().on_train_batch_start(move |t, _, _, _| at(3)(t)), 3),
        (LambdaCallback::new().on_before_backward(move |t, _, _| at(3)(t)), 3),
        (LambdaCallback::new().on_before_optimizer_step(move |t, _, _: &mut dyn Optimizer| at(5)(t)), 5),
        (LambdaCallback::new().on_validation_end(move |t, _| at(3)(t)), 4),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let builder = quiet(folder.path()).max_epochs(2).callback(panics);
        let mut trainer = builder.callback(OnExceptionCheckpoint::new(folder.path())).build().unwrap();
        let error = trainer.fit(&mut Scripted::new(&[1.0]), (batches(4), batches(1))).unwrap_err();
        assert!(error.to_string().contains("the cat sat on it"), "{error}");
        assert_eq!(saved_step(folder.path()), Some(step));
        let file = serialization::load(folder.path().join("on_exception.ckpt")).unwrap();
        assert_eq!(file.as_dict().unwrap().list("optimizer_states").unwrap().len(), 1);
    }
}

/// Steps its optimizer by hand, and panics in the middle of it.
struct PanicsByHand(Scripted);

impl LightningModule for PanicsByHand {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        self.0.vars()
    }

    fn automatic_optimization(&self) -> bool {
        false
    }

    fn training_step(&mut self, _: Tensor, step: &mut Step) -> Result<Loss> {
        let _loss = step.optimizer_step_with(self, 0, |_, _, _| unreachable!("the closure gave up"))?;
        Ok(Loss::skip())
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        self.0.configure_optimizers(trainer)
    }
}

#[test]
fn a_panic_in_manual_optimization_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    trainer(folder.path()).fit(&mut PanicsByHand(Scripted::new(&[1.0])), batches(1)).unwrap_err();
    let file = serialization::load(folder.path().join("on_exception.ckpt")).unwrap();
    assert_eq!(file.as_dict().unwrap().list("optimizer_states").unwrap().len(), 1);
}

#[test]
fn a_rehearsal_saves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut module = Scripted::new(&[1.0]);
    module.fails_after = Some(0);
    let builder = quiet(folder.path()).fast_dev_run(1).callback(OnExceptionCheckpoint::new(folder.path()));
    builder.build().unwrap().fit(&mut module, (batches(1), batches(1))).unwrap_err();
    assert_eq!(saved_step(folder.path()), None);
}

#[test]
fn an_error_before_training_leaves_what_an_earlier_run_saved() {
    let folder = tempfile::tempdir().unwrap();
    let mut module = Scripted::new(&[1.0]);
    module.fails_after = Some(6);
    trainer(folder.path()).fit(&mut module, (batches(4), batches(1))).unwrap_err();
    let fails = || -> Result<()> { Err("the disk melted".into()) };
    for early in [
        LambdaCallback::new().setup(move |_, _, _| fails()),
        LambdaCallback::new().on_fit_start(move |_, _| fails()),
        LambdaCallback::new().on_train_start(move |_, _| fails()),
    ] {
        let builder = quiet(folder.path()).max_epochs(2).callback(early);
        let mut again = builder.callback(OnExceptionCheckpoint::new(folder.path())).build().unwrap();
        again.fit(&mut Scripted::new(&[1.0]), (batches(4), batches(1))).unwrap_err();
        assert_eq!(saved_step(folder.path()), Some(6));
    }
}

fn fails_at(is_there: bool) -> Result<()> {
    if is_there { Err("the disk melted".into()) } else { Ok(()) }
}

/// Fails in a hook after the third batch.
fn fails_after_a_batch() -> LambdaCallback {
    LambdaCallback::new().on_train_batch_end(|trainer, _, _, _, _| fails_at(trainer.global_step() == 3))
}

#[test]
fn what_was_logged_before_an_error_is_in_the_log_of_the_resumed_run_once() {
    let fit = |folder: &Path, logger: &MemoryLogger, add: fn(TrainerBuilder, &Path) -> TrainerBuilder| {
        let builder = quiet(folder).max_epochs(2).log_every_n_steps(1).logger(logger.clone());
        let mut trainer = add(builder, folder).build().unwrap();
        trainer.fit(&mut Scripted::new(&[1.0]), (batches(4), batches(1)))
    };
    let rows = |logger: &MemoryLogger| -> Vec<String> {
        let calls = logger.take().into_iter();
        calls.filter(|call| matches!(call, Logged::Metrics { .. })).map(|call| format!("{call:?}")).collect()
    };
    let saves: fn(TrainerBuilder, &Path) -> TrainerBuilder =
        |trainer, folder| trainer.callback(OnExceptionCheckpoint::new(folder));
    let fails: [fn(TrainerBuilder, &Path) -> TrainerBuilder; 3] = [
        |trainer, folder| trainer.callback(fails_after_a_batch()).callback(OnExceptionCheckpoint::new(folder)),
        |trainer, folder| {
            let fails = LambdaCallback::new().on_train_epoch_end(|t, _| fails_at(t.current_epoch() == 0));
            trainer.callback(fails).callback(OnExceptionCheckpoint::new(folder))
        },
        // A checkpoint that was asked for before the hook of another callback failed.
        |trainer, folder| {
            let path = folder.join("on_exception.ckpt");
            let asks = LambdaCallback::new().on_train_batch_end(move |trainer, _, _, _, _| {
                trainer.request_checkpoint(SaveRequest::new(&path));
                Ok(())
            });
            trainer.callback(asks).callback(fails_after_a_batch()).enable_checkpointing(false)
        },
    ];
    for fails in fails {
        let (folder, straight, logger) = (tempfile::tempdir().unwrap(), MemoryLogger::new(), MemoryLogger::new());
        seed_everything(1).unwrap();
        _ = fit(folder.path(), &straight, saves).unwrap();
        seed_everything(1).unwrap();
        fit(folder.path(), &logger, fails).unwrap_err();
        _ = fit(folder.path(), &logger, saves).unwrap();
        assert_eq!(rows(&logger), rows(&straight));
    }
}

#[test]
fn options_are_checked() {
    let make = |json: &str| {
        let options: OnExceptionCheckpointOptions = serde_json::from_str(json).unwrap();
        OnExceptionCheckpoint::from_options(options)
    };
    let path = make(r#"{"dirpath": "/tmp", "filename": "oops"}"#).unwrap().ckpt_path();
    assert_eq!(path, Path::new("/tmp/oops.ckpt"));
    let error = make("{}").unwrap_err().to_string();
    assert!(error.contains("needs `dirpath`"), "{error}");

    let nameless = OnExceptionCheckpoint::new("/tmp").filename("");
    let mut trainer = quiet(Path::new("/tmp")).max_epochs(1).callback(nameless).build().unwrap();
    let error = trainer.fit(&mut Scripted::new(&[1.0]), (batches(1), batches(1))).unwrap_err().to_string();
    assert!(error.contains("is not a file name"), "{error}");
}
