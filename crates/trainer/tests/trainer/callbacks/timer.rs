//! How long a run may take.

use std::path::Path;
use std::time::Duration;

use fulgurite::Console;
use fulgurite::prelude::*;
use fulgurite::torch::serialization;

use crate::callbacks::scripted::{Scripted, batches, quiet};

/// Three epochs of four batches.
fn fit(timer: Timer, console: &Console) -> (Trainer, Outcome) {
    let folder = tempfile::tempdir().unwrap();
    let builder = quiet(folder.path()).max_epochs(3).enable_checkpointing(false).console(console.clone());
    let mut trainer = builder.callback(timer).build().unwrap();
    let outcome = trainer.fit(&mut Scripted::new(&[1.0]), (batches(4), batches(1))).unwrap();
    (trainer, outcome)
}

#[test]
fn a_run_ends_when_its_time_is_over() {
    let console = Console::memory();
    let message = "Time limit reached. Elapsed time is 0:00:00. Signaling Trainer to stop.";
    let short = Duration::from_nanos(1);
    for (timer, steps) in [(Timer::new(short), 1), (Timer::new(short).interval(Interval::Epoch), 4)] {
        let (trainer, outcome) = fit(timer, &console);
        assert_eq!(outcome, Outcome::Stopped(message.into()));
        assert_eq!(trainer.state().global_step(), steps);
        assert_eq!(trainer.callback::<Timer>().unwrap().time_remaining(), Some(Duration::ZERO));
    }
    assert!(console.contents().contains(message), "{}", console.contents());

    let quiet = Console::memory();
    _ = fit(Timer::new(short).verbose(false), &quiet);
    assert!(!quiet.contents().contains("Time limit"), "{}", quiet.contents());
}

#[test]
fn stages_are_measured() {
    let (trainer, outcome) = fit(Timer::new(None), &Console::memory());
    assert_eq!(outcome, Outcome::Finished);
    let timer = trainer.callback::<Timer>().unwrap();
    assert_eq!(timer.time_remaining(), None);
    for stage in [Stage::Train, Stage::Validate] {
        let took = timer.end_time(stage).unwrap() - timer.start_time(stage).unwrap();
        assert!(!took.is_zero());
        assert_eq!(timer.time_elapsed(stage), took);
    }
    assert!(timer.time_elapsed(Stage::Train) > timer.time_elapsed(Stage::Validate));
    assert_eq!((timer.start_time(Stage::Test), timer.time_elapsed(Stage::Test)), (None, Duration::ZERO));
    let state = timer.state_dict().unwrap();
    let keys: Vec<&str> = state.dict("time_elapsed").unwrap().keys().collect();
    assert_eq!(keys, ["train", "sanity_check", "validate", "test", "predict"]);
}

#[test]
fn a_resumed_run_has_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let fit = |timer: Timer, epochs: u64, from: Option<&Path>| {
        let checkpoint = ModelCheckpoint::new().dirpath(folder.path());
        let builder = quiet(folder.path()).max_epochs(epochs).callback(timer).callback(checkpoint);
        let mut trainer = builder.build().unwrap();
        let outcome = trainer.ckpt_path(from).fit(&mut Scripted::new(&[1.0]), (batches(2), batches(1))).unwrap();
        (trainer, outcome)
    };
    let (first, _) = fit(Timer::new(Duration::from_secs(3600)), 1, None);
    let spent = first.callback::<Timer>().unwrap().time_elapsed(Stage::Train);
    let path = first.best_model_path().unwrap();

    let (second, outcome) = fit(Timer::new(Duration::from_secs(3600)), 2, Some(&path));
    assert_eq!(outcome, Outcome::Finished);
    let timer = second.callback::<Timer>().unwrap();
    let here = timer.end_time(Stage::Train).unwrap() - timer.start_time(Stage::Train).unwrap();
    let before = timer.time_elapsed(Stage::Train) - here;
    assert!(!before.is_zero() && before <= spent, "{before:?} of {spent:?}");

    // No time is left: not one more step is taken.
    let (third, outcome) = fit(Timer::new(Duration::from_nanos(1)), 2, Some(&path));
    assert!(matches!(outcome, Outcome::Stopped(_)), "{outcome:?}");
    assert_eq!(third.state().global_step(), 2);
}

#[test]
fn a_checkpoint_that_was_only_evaluated_takes_no_time_of_a_later_fit() {
    let folder = tempfile::tempdir().unwrap();
    let (hour, path) = (Duration::from_secs(3600), folder.path().join("late.ckpt"));
    let builder = quiet(folder.path()).max_epochs(1).callback(Timer::new(hour)).callback(ModelCheckpoint::new());
    let mut trainer = builder.build().unwrap();
    let mut module = Scripted::new(&[1.0]);
    _ = trainer.fit(&mut module, (batches(2), batches(1))).unwrap();
    let Value::Dict(mut late) = serialization::load(trainer.best_model_path().unwrap()).unwrap() else { panic!() };
    let elapsed = Dict::new().with("train", 7200.0);
    let Some(Value::Dict(callbacks)) = late.get_mut("callbacks") else { panic!("no callbacks") };
    callbacks.set("Timer", Dict::new().with("time_elapsed", elapsed));
    serialization::save(&path, &late.into()).unwrap();
    trainer.ckpt_path(&path).validate(&mut module, batches(1)).unwrap();
    let outcome = trainer.fit(&mut module, (batches(2), batches(1))).unwrap();
    assert_eq!(outcome, Outcome::Finished);
}

#[test]
fn the_trainer_adds_one_for_max_time() {
    let folder = tempfile::tempdir().unwrap();
    let builder = quiet(folder.path()).max_time(Duration::from_nanos(1)).enable_checkpointing(false);
    let mut trainer = builder.build().unwrap();
    _ = trainer.fit(&mut Scripted::new(&[1.0]), (batches(4), batches(1))).unwrap();
    assert_eq!(trainer.state().global_step(), 1);
}

#[test]
fn time_is_printed_as_python_prints_it() {
    let mut timer = Timer::new(Duration::from_secs(1));
    let saved = Dict::new().with("time_elapsed", Dict::new().with("train", 2.0 * 86_400.0 + 3.0 * 3600.0 + 245.0));
    timer.load_state_dict(&saved).unwrap();
    let console = Console::memory();
    _ = fit(timer, &console);
    let line = "Time limit reached. Elapsed time is 2 days, 3:04:05. Signaling Trainer to stop.";
    assert!(console.contents().contains(line), "{}", console.contents());
}
