//! Losses that are no numbers.

use fulgurite::TrainerBuilder;
use fulgurite::callbacks::TerminateOnNaN;
use fulgurite::prelude::*;
use fulgurite::torch::host_reads;

use crate::callbacks::scripted::quiet;
use crate::callbacks::watched::{SKIP, Watched, values, watch, watch_with};

const INF: f64 = f64::INFINITY;

#[test]
fn the_run_ends_at_the_first_loss_that_is_not_finite() {
    let folder = tempfile::tempdir().unwrap();
    for (value, named) in [(f64::NAN, "nan"), (INF, "inf"), (-INF, "-inf")] {
        let run = watch(TerminateOnNaN::new(), &[1.0, SKIP, value, 1.0, 1.0], folder.path());
        let Outcome::Stopped(reason) = run.outcome.unwrap() else { panic!("it did not stop") };
        assert!(reason.starts_with(&format!("TerminateOnNaN: the loss of epoch 0, batch 2 is {named}.")), "{reason}");
        assert!(run.console.contents().contains(&reason));
        assert_eq!(run.trainer.state().progress().batch.total.completed, 3);
    }
    let run = watch(TerminateOnNaN::new(), &[1.0, f64::NAN], folder.path());
    assert!(!run.console.contents().contains("the training loss"), "{}", run.console.contents());
    let run = watch(TerminateOnNaN::new(), &[1.0, -1e30, 1e30], folder.path());
    assert_eq!(run.outcome.unwrap(), Outcome::Finished);
}

#[test]
fn losses_are_read_together_and_the_first_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut losses = vec![1.0; 40];
    losses[13] = f64::NAN;
    losses[14] = INF;
    let run = watch(TerminateOnNaN::new().every_n_steps(10), &losses, folder.path());
    let Outcome::Stopped(reason) = run.outcome.unwrap() else { panic!("it did not stop") };
    assert!(reason.contains("epoch 0, batch 13 is nan"), "{reason}");
    assert_eq!(run.trainer.state().progress().batch.total.completed, 20);

    // Four looks, and none for what is left at the end of the epoch.
    let quiet = |callback| watch_with(callback, &[1.0; 40], folder.path(), |builder| builder.log_every_n_steps(1000));
    let before = host_reads();
    quiet(TerminateOnNaN::new().every_n_steps(10));
    assert_eq!(host_reads() - before, 4);
    let before = host_reads();
    quiet(TerminateOnNaN::new().every_n_steps(15));
    assert_eq!(host_reads() - before, 3);
}

#[test]
fn what_was_not_looked_at_is_before_validation_and_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = ModelCheckpoint::new().dirpath(folder.path()).filename("{epoch}").save_top_k(Maximum::Unlimited);
    let builder = quiet(folder.path()).max_epochs(3).callback(TerminateOnNaN::new().every_n_steps(1000));
    let mut trainer = builder.callback(checkpoint).build().unwrap();
    let mut losses = vec![1.0, f64::NAN];
    losses.extend([1.0; 3]);
    let outcome = trainer.fit(&mut Watched::new(), (values(&losses), values(&[1.0]))).unwrap();
    assert!(matches!(outcome, Outcome::Stopped(reason) if reason.contains("epoch 0, batch 1")));
    assert_eq!(trainer.state().current_epoch(), 1);
}

/// What a run without the callback says of its losses.
fn said(losses: &[f64], arguments: impl FnOnce(TrainerBuilder) -> TrainerBuilder) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let before = host_reads();
    let run = watch_with(Silent, losses, folder.path(), |builder| arguments(builder.log_every_n_steps(1000)));
    assert_eq!(run.outcome.unwrap(), Outcome::Finished);
    assert_eq!(host_reads() - before, 0);
    run.console.contents().lines().filter(|line| line.contains("the training loss")).map(str::to_owned).collect()
}

struct Silent;

impl Callback for Silent {}

#[test]
fn a_run_without_it_says_so_at_once_and_at_its_end() {
    let first =
        |what: &str| format!("warning: the training loss `train_loss` is {what} at epoch 0, batch 2 (global step 2); ");
    let [at_once, at_end] = said(&[1.0, 2.0, f64::NAN, 1.0, INF, 1.0], |builder| builder).try_into().unwrap();
    assert!(at_once.starts_with(&first("NaN")), "{at_once}");
    assert!(at_once.contains("`detect_anomaly(true)`") && at_once.contains("`gradient_clip_val`"), "{at_once}");
    let last = "batch 4 (global step 4); do not trust what was learned, and begin again from a checkpoint before that";
    let expected = format!(
        "warning: the training loss `train_loss` was NaN or infinite in 2 of 4 batch(es) from epoch 0, batch 2 (global step 2) to epoch 0, {last}"
    );
    assert_eq!(at_end, expected);
    let [at_once, at_end] =
        said(&[1.0, SKIP, INF, 1.0], |builder| builder.accumulate_grad_batches(2)).try_into().unwrap();
    assert!(at_once.contains("is infinite at epoch 0, batch 2 (global step 1); "), "{at_once}");
    assert!(
        at_end.contains(
            "was NaN or infinite at epoch 0, batch 2 (global step 1), and finite in the 1 batch(es) after it"
        )
    );
    assert!(said(&[1.0, SKIP, 1e30], |builder| builder).is_empty());
}
