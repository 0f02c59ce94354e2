//! When a run ends early, and why.

use std::path::Path;

use fulgurite::callbacks::StoppingReason::{self, *};
use fulgurite::prelude::*;
use fulgurite::{Console, TrainerBuilder};

use crate::callbacks::scripted::{Scripted, batches, quiet};

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

fn val_loss() -> EarlyStopping {
    EarlyStopping::monitor("val_loss")
}

fn trainer(root: &Path) -> TrainerBuilder {
    quiet(root).max_epochs(6).enable_checkpointing(false)
}

/// Runs up to six epochs of four batches; `steps stopped_epoch wait best reason` must come out.
#[track_caller]
fn expect(
    stopping: EarlyStopping,
    losses: &[f64],
    change: fn(TrainerBuilder) -> TrainerBuilder,
    expected: (u64, u64, u64, f64, StoppingReason),
) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = change(trainer(folder.path()).callback(stopping)).build().unwrap();
    let outcome = trainer.fit(&mut Scripted::new(losses), (batches(4), batches(1))).unwrap();
    let steps = trainer.state().global_step();
    let stopping = trainer.callback::<EarlyStopping>().unwrap();
    let best = f64::from(stopping.best_score() as f32);
    let found = (steps, stopping.stopped_epoch(), stopping.wait_count(), best, stopping.stopping_reason());
    let (steps, epoch, wait, best, reason) = expected;
    assert_eq!(found, (steps, epoch, wait, f64::from(best as f32), reason), "{losses:?}");
    let message = stopping.stopping_reason_message().unwrap_or_default();
    match reason {
        NotStopped => assert_eq!(outcome, Outcome::Finished),
        _ => assert!(matches!(outcome, Outcome::Stopped(_)), "{outcome:?}"),
    }
    message.to_owned()
}

#[test]
fn a_checkpoint_that_was_only_evaluated_stops_no_later_fit() {
    let folder = tempfile::tempdir().unwrap();
    let every_epoch = ModelCheckpoint::new().dirpath(folder.path());
    let builder = quiet(folder.path()).max_epochs(6).callback(val_loss().patience(1)).callback(every_epoch);
    let mut trainer = builder.build().unwrap();
    let mut module = Scripted::new(&[1.0, 2.0]);
    let outcome = trainer.fit(&mut module, (batches(4), batches(1))).unwrap();
    assert!(matches!(outcome, Outcome::Stopped(_)), "{outcome:?}");
    let (steps, path) = (trainer.state().global_step(), trainer.best_model_path());
    trainer.ckpt_path(path).validate(&mut module, batches(1)).unwrap();
    _ = trainer.fit(&mut module, (batches(4), batches(1))).unwrap();
    assert!(trainer.state().global_step() > steps);
}

#[test]
fn patience() {
    let run = |patience, losses: &[f64], expected| expect(val_loss().patience(patience), losses, |t| t, expected);
    run(3, &[6.0, 5.0, 4.0, 3.0, 2.0, 1.0], (24, 0, 0, 1.0, NotStopped));
    let message = run(3, &[1.0, 2.0, 3.0, 4.0], (16, 3, 3, 1.0, PatienceExhausted));
    assert_eq!(
        message,
        "Monitored metric val_loss did not improve in the last 3 records. Best score: 1.000. Signaling Trainer to stop."
    );
    run(1, &[3.0, 2.0, 2.0, 1.0], (12, 2, 1, 2.0, PatienceExhausted));
    run(0, &[3.0, 2.0, 1.0, 1.0], (16, 3, 1, 1.0, PatienceExhausted));
    run(2, &[5.0, 6.0, 4.0, 6.0, 6.0, 1.0], (20, 4, 2, 4.0, PatienceExhausted));
    expect(val_loss().mode(Mode::Max).patience(1), &[1.0, 2.0, 2.0], |t| t, (12, 2, 1, 2.0, PatienceExhausted));
}

#[test]
fn an_improvement_is_more_than_min_delta() {
    let tenth = || val_loss().patience(1).min_delta(0.1);
    // In f32, as the losses are: in f64 the nearest to 0.9 would be an improvement.
    expect(tenth(), &[1.0, 0.9, 0.5], |t| t, (8, 1, 1, 1.0, PatienceExhausted));
    expect(tenth(), &[1.0, 0.8, 0.6, 0.55], |t| t, (16, 3, 1, 0.6, PatienceExhausted));
    expect(tenth().mode(Mode::Max), &[0.1, 0.2, 0.5], |t| t, (8, 1, 1, 0.1, PatienceExhausted));
}

#[test]
fn values_that_are_not_finite() {
    let message = expect(val_loss(), &[1.0, NAN], |t| t, (8, 1, 0, 1.0, NonFiniteMetric));
    assert_eq!(
        message,
        "Monitored metric val_loss = nan is not finite. Previous best value was 1.000. Signaling Trainer to stop."
    );
    expect(val_loss(), &[1.0, -INF], |t| t, (8, 1, 0, 1.0, NonFiniteMetric));
    let unchecked = || val_loss().check_finite(false).patience(2);
    expect(unchecked(), &[2.0, NAN, INF, 1.0], |t| t, (12, 2, 2, 2.0, PatienceExhausted));
    expect(unchecked(), &[2.0, -INF, 1.0, 1.0], |t| t, (16, 3, 2, -INF, PatienceExhausted));
    let before_thresholds = val_loss().stopping_threshold(1.0).divergence_threshold(4.0);
    expect(before_thresholds, &[3.0, NAN], |t| t, (8, 1, 0, 3.0, NonFiniteMetric));
}

#[test]
fn thresholds() {
    let low = |threshold| val_loss().stopping_threshold(threshold);
    let message = expect(low(1.0), &[3.0, 1.0, 0.5], |t| t, (12, 2, 0, 1.0, StoppingThreshold));
    assert_eq!(message, "Stopping threshold reached: val_loss = 0.5 < 1.0. Signaling Trainer to stop.");
    expect(low(0.1), &[3.0, 0.1, 0.05], |t| t, (12, 2, 0, 0.1, StoppingThreshold));
    let max = val_loss().mode(Mode::Max).stopping_threshold(0.9);
    expect(max, &[0.1, 0.9, 0.95], |t| t, (12, 2, 0, 0.9, StoppingThreshold));

    let message =
        expect(val_loss().divergence_threshold(4.0), &[3.0, 4.0, 5.0], |t| t, (12, 2, 1, 3.0, DivergenceThreshold));
    // Lightning prints `5.0 < 4.0` here.
    assert_eq!(message, "Divergence threshold reached: val_loss = 5.0 > 4.0. Signaling Trainer to stop.");
    let max = val_loss().mode(Mode::Max).divergence_threshold(0.1);
    expect(max, &[0.5, 0.1, 0.05], |t| t, (12, 2, 1, 0.5, DivergenceThreshold));
}

#[test]
fn checks_follow_validation() {
    let run = |stopping: EarlyStopping, losses: &[f64], change, expected| expect(stopping, losses, change, expected);
    let worse = [3.0, 4.0, 5.0, 6.0, 7.0];
    run(val_loss().patience(2), &worse, |t| t.val_check_interval(2), (6, 1, 2, 3.0, PatienceExhausted));
    run(val_loss().patience(1), &worse, |t| t.check_val_every_n_epoch(2), (16, 3, 1, 3.0, PatienceExhausted));
    let at_validation = val_loss().patience(1).check_on_train_epoch_end(false);
    run(at_validation, &worse, |t| t, (8, 1, 1, 3.0, PatienceExhausted));
    let at_epoch_end = val_loss().patience(1).check_on_train_epoch_end(true);
    run(at_epoch_end, &[5.0, 4.0, 3.0, 4.0], |t| t.val_check_interval(2), (8, 1, 1, 4.0, PatienceExhausted));
    run(val_loss().patience(1), &[3.0, 4.0, 1.0], |t| t.min_epochs(4), (16, 3, 1, 1.0, PatienceExhausted));
    run(val_loss().patience(1), &worse, |t| t.fast_dev_run(1), (1, 0, 0, INF, NotStopped));
    run(val_loss().patience(1), &worse, |t| t.num_sanity_val_steps(1), (8, 1, 1, 3.0, PatienceExhausted));
    // Lightning never checks here.
    let train = EarlyStopping::monitor("train_mean").stopping_threshold(1e9);
    let folder = tempfile::tempdir().unwrap();
    let builder = trainer(folder.path()).callback(train).limit_val_batches(0).check_val_every_n_epoch(2);
    let mut trainer = builder.build().unwrap();
    _ = trainer.fit(&mut Scripted::new(&[1.0]), (batches(4), batches(1))).unwrap();
    assert_eq!(trainer.state().global_step(), 4);
}

#[test]
fn a_value_that_is_not_logged() {
    let folder = tempfile::tempdir().unwrap();
    let console = Console::memory();
    let fit = |stopping: EarlyStopping| {
        let mut trainer = trainer(folder.path()).console(console.clone()).callback(stopping).build().unwrap();
        let outcome = trainer.fit(&mut Scripted::new(&[1.0]), (batches(1), batches(1)));
        outcome.map_err(|error| error.to_string())
    };
    let missing = "EarlyStopping monitors `acc`, which was not logged; logged so far: train_loss, train_mean, val_loss. Log it with `step.log(\"acc\", ..)`, or monitor one of these";
    let acc = || EarlyStopping::monitor("acc");
    assert_eq!(fit(acc()).unwrap_err(), missing);
    assert_eq!(fit(acc().strict(false)).unwrap(), Outcome::Finished);
    assert!(!console.contents().contains("EarlyStopping"), "{}", console.contents());
    assert_eq!(fit(acc().strict(false).verbose(true)).unwrap(), Outcome::Finished);
    let warning = format!("warning: {missing} (strict is off, so the check is left out)");
    assert!(console.contents().contains(&warning), "{}", console.contents());
    assert_eq!(
        fit(acc().min_delta(-1.0)).unwrap_err(),
        "EarlyStopping::min_delta(-1) is the least change that counts, whichever the mode; write 0.0 or more"
    );
}

#[test]
fn a_resumed_run_goes_on_counting() {
    let folder = tempfile::tempdir().unwrap();
    let fit = |epochs: u64, losses: &[f64], from: Option<&Path>| {
        let checkpoint = ModelCheckpoint::new().dirpath(folder.path());
        let builder = quiet(folder.path()).max_epochs(epochs).callback(val_loss().patience(2)).callback(checkpoint);
        let mut trainer = builder.build().unwrap();
        _ = trainer.ckpt_path(from).fit(&mut Scripted::new(losses), (batches(2), batches(1))).unwrap();
        let stopping = trainer.callback::<EarlyStopping>().unwrap();
        (stopping.wait_count(), stopping.best_score(), stopping.stopped_epoch(), trainer.best_model_path().unwrap())
    };
    let (wait, best, stopped, path) = fit(2, &[1.0, 2.0], None);
    assert_eq!((wait, best, stopped), (1, 1.0, 0));
    let (wait, best, stopped, _) = fit(9, &[3.0], Some(&path));
    assert_eq!((wait, best, stopped), (2, 1.0, 2));
}

#[test]
fn state_is_lightnings() {
    let stopping = val_loss().mode(Mode::Max);
    assert_eq!(stopping.state_key(), "EarlyStopping{'monitor': 'val_loss', 'mode': 'max'}");
    assert_eq!(
        EarlyStopping::monitor("a\"b'c\\").state_key(),
        r#"EarlyStopping{'monitor': 'a"b\'c\\', 'mode': 'min'}"#
    );
    let state = stopping.state_dict().unwrap();
    let keys: Vec<&str> = state.keys().collect();
    assert_eq!(
        keys,
        ["wait_count", "stopped_epoch", "best_score", "patience", "stopping_reason", "stopping_reason_message"]
    );
    // What Lightning wrote before there were reasons.
    let mut old = val_loss();
    let saved = Dict::new().with("wait_count", 2).with("stopped_epoch", 5).with("best_score", 0.5).with("patience", 7);
    old.load_state_dict(&saved).unwrap();
    assert_eq!((old.wait_count(), old.stopped_epoch(), old.best_score()), (2, 5, 0.5));
    assert_eq!(old.stopping_reason(), NotStopped);
}

#[test]
fn verbose_tells_of_improvements() {
    let folder = tempfile::tempdir().unwrap();
    let console = Console::memory();
    let stopping = val_loss().patience(1).min_delta(0.25).verbose(true);
    let mut trainer = trainer(folder.path()).console(console.clone()).callback(stopping).build().unwrap();
    _ = trainer.fit(&mut Scripted::new(&[2.0, 1.0, 1.0]), (batches(1), batches(1))).unwrap();
    let lines = console.contents();
    for line in [
        "Metric val_loss improved. New best score: 2.000",
        "Metric val_loss improved by 1.000 >= min_delta = 0.25. New best score: 1.000",
        "Monitored metric val_loss did not improve in the last 1 records. Best score: 1.000. Signaling Trainer to stop.",
    ] {
        assert!(lines.contains(line), "{lines}");
    }
}
