//! Triggers that never come: there is a save at the right moment, or a message that says why there is none.

use fulgurite::Console;
use fulgurite::TrainerBuilder;
use fulgurite::optim::ReduceLROnPlateau;
use fulgurite::prelude::*;

use crate::callbacks::scripted::{Scripted, batches, quiet};

/// Four epochs of three batches, without validation unless `val_batches` says otherwise. The checkpoints, the console, and
/// the error.
fn fit(
    callback: impl Callback,
    trainer: fn(TrainerBuilder) -> TrainerBuilder,
    val_batches: usize,
) -> (Vec<String>, String, Option<String>) {
    fit_module(Scripted::new(&[1.0]), callback, trainer, val_batches)
}

fn fit_module(
    mut module: Scripted,
    callback: impl Callback,
    trainer: fn(TrainerBuilder) -> TrainerBuilder,
    val_batches: usize,
) -> (Vec<String>, String, Option<String>) {
    let folder = tempfile::tempdir().unwrap();
    let console = Console::memory();
    let builder = quiet(folder.path()).max_epochs(4).console(console.clone()).callback(callback);
    let mut trainer = trainer(builder).build().unwrap();
    let fitted = trainer.fit(&mut module, (batches(3), batches(val_batches)));
    let entries = std::fs::read_dir(folder.path().join("checkpoints")).into_iter().flatten();
    let mut files: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    (files, console.contents(), fitted.err().map(|error| error.to_string()))
}

type Change = fn(TrainerBuilder) -> TrainerBuilder;

#[test]
fn without_validation_epochs_are_saved_at_their_end() {
    let monitor = || ModelCheckpoint::monitor("train_loss").save_top_k(Maximum::Unlimited);
    let epochs = ["epoch=0-step=3.ckpt", "epoch=1-step=6.ckpt", "epoch=2-step=9.ckpt", "epoch=3-step=12.ckpt"];
    let ways: [(Change, usize); 4] = [
        (|t| t.check_val_every_n_epoch(2).limit_val_batches(0), 1),
        (|t| t.check_val_every_n_epoch(2), 0),
        (|t| t.val_check_interval(std::time::Duration::from_secs(3600)), 0),
        (|t| t.val_check_interval(2), 0),
    ];
    for (trainer, val_batches) in ways {
        let (files, said, error) = fit(monitor(), trainer, val_batches);
        assert_eq!(files, epochs, "{said}{error:?}");
    }
    // With validation, it is waited for.
    let (files, said, _) = fit(monitor(), |t| t.check_val_every_n_epoch(2), 1);
    assert_eq!(files, [epochs[1], epochs[3]], "{said}");
}

#[test]
fn a_trigger_that_cannot_come_is_told_of() {
    let new = || ModelCheckpoint::monitor("train_loss");
    let will = "warning: ModelCheckpoint will save nothing in this run, because";
    let was = "warning: ModelCheckpoint saved nothing in this run, because";
    let unchanged: fn(TrainerBuilder) -> TrainerBuilder = |t| t;
    for (checkpoint, trainer, val_batches, expected) in [
        (
            new().every_n_train_steps(13),
            unchanged,
            1,
            format!("{will} every_n_train_steps=13 does not occur in a run of 12 steps; lower it"),
        ),
        (
            new().every_n_epochs(5),
            unchanged,
            1,
            format!("{will} every_n_epochs=5 does not occur in a run of 4 epochs; lower it"),
        ),
        (
            new().save_on_train_epoch_end(false),
            unchanged,
            0,
            format!("{will} it saves at the end of validation, and this run does not validate"),
        ),
        (
            new().train_time_interval(std::time::Duration::from_secs(3600)),
            unchanged,
            1,
            format!("{was} it ended before train_time_interval=3600s was over; make that shorter"),
        ),
        (new(), |t| t.check_val_every_n_epoch(5), 1, format!("{was} it saves at the end of validation, and none ran")),
    ] {
        let (files, said, error) = fit(checkpoint, trainer, val_batches);
        assert_eq!((files, error), (vec![], None));
        assert!(said.contains(&expected), "{expected}\n{said}");
        assert_eq!(said.matches("saved nothing").count() + said.matches("save nothing").count(), 1, "{said}");
    }
    // Those that come, or are not meant to, are not.
    for (checkpoint, val_batches) in [
        (new().every_n_train_steps(12), 1),
        (new().every_n_epochs(4), 1),
        (new().every_n_epochs(0), 1),
        (new().save_top_k(0).every_n_epochs(5), 1),
        (new(), 0),
    ] {
        let (_, said, error) = fit(checkpoint, |t| t, val_batches);
        assert!(!said.contains("nothing in this run") && error.is_none(), "{said}{error:?}");
    }
}

#[test]
fn an_empty_validation_is_told_of_where_its_value_is_monitored() {
    let because = "This run has no validation batch: give a validation loader with data if it is a value of validation";
    let (files, said, error) = fit(ModelCheckpoint::monitor("val_loss"), |t| t, 0);
    assert_eq!((files.len(), error), (0, None));
    assert!(said.contains(&format!("ModelCheckpoint monitors `val_loss`, which was not logged; logged so far: train_loss, train_mean. {because}")), "{said}");
    let (_, _, error) = fit(EarlyStopping::monitor("val_loss"), |t| t, 0);
    assert!(error.as_ref().is_some_and(|error| error.contains(because)), "{error:?}");
    let mut module = Scripted::new(&[1.0]);
    module.optimizers = |module| {
        let plateau = LrSchedulerConfig::new(ReduceLROnPlateau::new()).monitor("val_loss");
        Optimizers::from(SGD::new(module.vars()).lr(0.01)).scheduler(plateau)
    };
    let (_, _, error) = fit_module(module, ModelCheckpoint::new(), |t| t, 0);
    assert!(error.as_ref().is_some_and(|error| error.contains(because)), "{error:?}");
    // Where there is validation, it is the logging.
    let (_, _, error) = fit(ModelCheckpoint::monitor("val_los"), |t| t, 1);
    assert!(error.as_ref().is_some_and(|error| error.contains("Log it with `step.log(\"val_los\", ..)`")), "{error:?}");
}

#[test]
fn early_stopping_checks_at_the_end_of_epochs_without_validation() {
    let stopping = || EarlyStopping::monitor("train_loss").stopping_threshold(1e9);
    let stops = |said: &str| said.contains("`Trainer.fit` stopped: `max_epochs=4` reached.");
    for val_batches in [0, 1] {
        let (_, said, _) = fit(stopping(), |t| t.check_val_every_n_epoch(2), val_batches);
        assert!(!stops(&said), "{said}");
    }
    let (_, said, _) = fit(stopping().check_on_train_epoch_end(false), |t| t, 0);
    assert!(said.contains("EarlyStopping will check nothing in this run") && stops(&said), "{said}");
}
