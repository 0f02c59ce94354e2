//! SIGTERM, SIGHUP and Ctrl-C at every kind of safe point.

use std::time::Duration;

use fulgurite::fabric::environments::SUPERVISOR;

use super::process::{Ended, end, run, send, start, wait_for};

/// The undisturbed run.
fn straight(options: &str) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), options, &[])
}

/// Ends a run by its plan, then runs the same program again with `ckpt_path="auto"`: it must end as if nothing had been.
#[track_caller]
fn check(options: &str, moment: &str, code: i32, said: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let options = format!("csv {options}");
    let ended = run(folder.path(), &format!("{options} {moment}"), &[]);
    ended.said(said).with_code(code);
    assert!(!ended.errors.contains("panicked"), "{}", ended.errors);
    // Another seed: nothing may depend on it any more.
    let resumed = run(folder.path(), &format!("{options} ckpt_path=auto seed=12"), &[]);
    assert_eq!(resumed.results(), straight(&options).results(), "{}", resumed.errors);
    let versions = std::fs::read_dir(folder.path().join("lightning_logs")).unwrap().count();
    assert_eq!(versions, 1, "it goes on in the folder of the run");
}

const LEFT: &str =
    "Terminated { signal: Terminate, checkpoint: Some(\"lightning_logs/version_0/checkpoints/interrupted.ckpt\") }";

pub(crate) fn in_a_training_batch() {
    for (at, said) in [(1, "teardown after batch 1"), (2, "teardown after batch 2"), (7, "teardown after batch 7")] {
        check("", &format!("batch={at}"), 143, &["SIGTERM in batch", "saved interrupted.ckpt", said, LEFT]);
    }
    // A callback that saves this very step, too.
    let said =
        ["SIGTERM in batch", "saved epoch=0-step=3.ckpt", "saved interrupted.ckpt", "teardown after batch 3", LEFT];
    check("save_every=3", "batch=3", 143, &said);
}

pub(crate) fn at_other_safe_points() {
    let said = ["SIGTERM in validation", "saved interrupted.ckpt", "teardown after batch 2", LEFT];
    check("", "validation=1", 143, &said);
    check("", "validation=2", 143, &said);
    // Between two epochs; the second file has the second name of the first.
    let said = ["SIGTERM in epoch_end", "saved interrupted.ckpt", "teardown after batch 5", LEFT];
    check("on_exception", "epoch_end=1", 143, &said);
    // While a checkpoint is written, which becomes whole.
    let said =
        ["SIGTERM in saving", "saved epoch=0-step=4.ckpt", "saved interrupted.ckpt", "teardown after batch 4", LEFT];
    check("save_every=2", "saving=2", 143, &[&["saved epoch=0-step=2.ckpt"], &said[..]].concat());
}

pub(crate) fn before_anything_was_trained() {
    let nothing = "Terminated { signal: Terminate, checkpoint: None }";
    for (options, moment) in [("csv", "prepare_data"), ("csv sanity", "validation")] {
        let folder = tempfile::tempdir().unwrap();
        let count = u8::from(moment == "validation");
        let ended = run(folder.path(), &format!("{options} {moment}={count}"), &[]);
        ended.said(&[&format!("SIGTERM in {moment}"), "teardown after batch 0", nothing]).with_code(143);
        let again = run(folder.path(), &format!("{options} ckpt_path=auto"), &[]);
        assert_eq!(again.results(), straight(options).results());
        assert!(again.errors.contains("there is no checkpoint yet, so this is a fresh start"), "{}", again.errors);
    }
    // A run that had gone on keeps what it went on from.
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), "csv batch=7", &[]).with_code(143);
    let ended = run(folder.path(), "csv ckpt_path=auto prepare_data=0", &[]);
    ended.said(&["SIGTERM in prepare_data", "teardown after batch 0", nothing]).with_code(143);
    let resumed = run(folder.path(), "csv ckpt_path=auto", &[]);
    assert_eq!(resumed.results(), straight("csv").results());
}

pub(crate) fn hangup_and_ctrl_c() {
    let left = "{ signal: Hangup, checkpoint: Some(\"lightning_logs/version_0/checkpoints/interrupted.ckpt\") }";
    let left = format!("Terminated {left}");
    let said = ["SIGHUP in batch", "saved interrupted.ckpt", "teardown after batch 4", &left];
    check("", "batch=4 signal=SIGHUP", 129, &said);
    let left = "Interrupted { checkpoint: Some(\"lightning_logs/version_0/checkpoints/interrupted.ckpt\") }";
    let said = ["SIGINT in batch", "saved interrupted.ckpt", "teardown after batch 4", left];
    check("", "batch=4 signal=SIGINT", 130, &said);
}

/// Training is over before the next safe point: the run has finished, and the next entry point ends at once.
pub(crate) fn too_late() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), "train_end=0 then_evaluates", &[]);
    let said = [
        "SIGTERM in train_end",
        "teardown after batch 15",
        "Finished",
        "teardown after batch 15",
        "error: ended by SIGTERM",
    ];
    ended.said(&said).with_code(143);
}

/// What the program does after `fit` is not done, unless it asks for it.
pub(crate) fn nothing_follows() {
    let checkpoint = "lightning_logs/version_0/checkpoints/interrupted.ckpt";
    let left = format!("Interrupted {{ checkpoint: Some(\"{checkpoint}\") }}");
    let said = ["SIGINT in batch", "saved interrupted.ckpt", "teardown after batch 4", &left];
    let plan = "csv batch=4 signal=SIGINT then_evaluates";

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(checkpoint);
    let ended = run(folder.path(), plan, &[]);
    let refused = format!(
        "error: validate was not run, because the run before it was interrupted by Ctrl-C; resume from {}; if it is to go on nevertheless, call `trainer.continue_after_interruption()` first",
        path.display()
    );
    ended.said(&[&said[..], &[&refused]].concat()).with_code(130);

    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), &format!("{plan} goes_on"), &[]);
    ended.said(&[&said[..], &["teardown after batch 4", "evaluated"]].concat()).with_code(130);

    // By `completed` and `fulgurite::main`, without another word than that of `fit`.
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), &format!("{plan} main"), &[]);
    ended.said(&said).with_code(130);
    assert_eq!(ended.errors.matches("interrupted").count(), 2, "{}", ended.errors);
    assert!(ended.errors.contains("interrupted by Ctrl-C; resume from "), "{}", ended.errors);

    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), "evaluates validation=1 main", &[]);
    ended.said(&["SIGTERM in validation", "teardown after batch 0"]).with_code(143);
    assert!(ended.errors.ends_with("error: ended by SIGTERM\n"), "{}", ended.errors);
}

/// A trial leaves no checkpoint, and what the program does after it is refused.
pub(crate) fn in_a_trial_of_the_tuner() {
    let refused = |entry: &str| {
        format!(
            "{entry} was not run, because the run before it was ended by SIGTERM; if it is to go on nevertheless, call `trainer.continue_after_interruption()` first"
        )
    };
    let said = ["SIGTERM in batch", "teardown after batch 3", "ended by SIGTERM", &refused("lr_find")];
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), "csv tunes batch=3", &[]);
    ended.said(&[&said[..], &[&format!("error: {}", refused("fit"))]].concat()).with_code(143);
    assert!(!folder.path().join("lightning_logs/version_0/checkpoints").exists());

    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), "csv tunes batch=3 goes_on", &[]);
    assert_eq!(ended.results(), straight("csv").results(), "{}", ended.errors);
}

pub(crate) fn outside_of_runs() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), "after=0", &[]);
    ended.said(&["teardown after batch 15", "Finished", "SIGTERM in after"]);
    assert_eq!(ended.signal, Some(15));
}

pub(crate) fn the_second_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = start(folder.path(), "csv save_every=2 batch=4 hang", &[]);
    wait_for(&mut child, "SIGTERM in batch");
    // It says so before the signal is there.
    std::thread::sleep(Duration::from_millis(300));
    send(&child, "TERM");
    let ended = end(child);
    ended.said(&[]).with_code(143);
    // What was saved before is whole.
    let resumed = run(folder.path(), "csv save_every=2 ckpt_path=auto", &[]);
    assert_eq!(resumed.results(), straight("csv save_every=2").results());
}

/// A rank may be sent a signal by its launcher and by the terminal: only the launcher knows whether it was intended.
pub(crate) fn a_rank_does_not_count_signals() {
    let folder = tempfile::tempdir().unwrap();
    let launcher = std::process::id().to_string();
    let mut child = start(folder.path(), "batch=3 hang_in_teardown grace=2", &[(SUPERVISOR, &launcher)]);
    wait_for(&mut child, "SIGTERM in batch");
    std::thread::sleep(Duration::from_millis(300));
    send(&child, "TERM");
    let ended = end(child);
    ended.with_code(143);
    assert!(ended.errors.contains("SIGTERM came 2 s ago"), "{}", ended.errors);
}

pub(crate) fn the_grace_period() {
    let over = "SIGTERM came 1 s ago, and the run has not ended, so the process is killed now; resume from the last complete checkpoint";
    for (plan, said) in [
        ("batch=4 hang", &["saved epoch=0-step=2.ckpt", "SIGTERM in batch"][..]),
        (
            "batch=3 hang_in_teardown",
            &["saved epoch=0-step=2.ckpt", "SIGTERM in batch", "saved interrupted.ckpt", "teardown after batch 3"],
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let ended = run(folder.path(), &format!("csv save_every=2 grace=1 {plan}"), &[]);
        ended.said(said).with_code(143);
        assert!(ended.errors.contains(over), "{}", ended.errors);
        let resumed = run(folder.path(), "csv save_every=2 ckpt_path=auto", &[]);
        assert_eq!(resumed.results(), straight("csv save_every=2").results());
    }
    // Nobody is hurried who leaves in time.
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), "grace=600 batch=2", &[]);
    ended.with_code(143);
    assert!(!ended.errors.contains("came"), "{}", ended.errors);
}

/// A run whose time is over in the middle of an epoch goes on within it when it has more.
pub(crate) fn max_time() {
    for (options, saved) in [
        ("csv", &["saved interrupted.ckpt"; 2][..]),
        ("csv save_every=0", &["saved interrupted.ckpt", "saved epoch=0-step=1.ckpt", "saved interrupted.ckpt"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let ended = run(folder.path(), &format!("{options} time=20 slow=1"), &[]);
        let (outcome, before) = ended.lines.split_last().unwrap();
        assert_eq!(before, [saved, &["teardown after batch 1"]].concat(), "{}", ended.errors);
        assert!(outcome.starts_with("Stopped(\"Time limit reached"), "{outcome}");
        let resumed = run(folder.path(), &format!("{options} time=600000 ckpt_path=auto seed=12"), &[]);
        assert_eq!(resumed.results()[1], straight(options).results()[1], "{}", resumed.errors);
        assert!(resumed.lines.contains(&"teardown after batch 14".to_owned()), "{:?}", resumed.lines);
    }
}

/// The error counts, and is saved once.
pub(crate) fn an_error_beside_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), "on_exception batch=4 fails=4", &[]);
    let error = "error: Net::training_step failed (epoch 0, batch 3): no more";
    ended.said(&["SIGTERM in batch", "saved ended.ckpt", "teardown after batch 4", error]).with_code(1);
    let resumed = run(folder.path(), "on_exception", &[]);
    assert_eq!(resumed.results(), straight("on_exception").results());
    assert!(!folder.path().join("ended.ckpt").exists());
}

/// As `nohup` starts a program.
pub(crate) fn ignored_signals_stay_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap '' HUP; exec \"$0\"";
    let output = std::process::Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(super::process::PLAN, "batch=2 signal=SIGHUP")
        .env(super::process::FOLDER, folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("SIGHUP in batch\nteardown after batch 15\nFinished\n"), "{text}");
}

pub(crate) fn in_evaluation() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), "evaluates validation=1", &[]);
    ended.said(&["SIGTERM in validation", "teardown after batch 0", "error: ended by SIGTERM"]).with_code(143);
}
