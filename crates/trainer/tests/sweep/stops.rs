//! Sweeps that are stopped.

use std::path::Path;

use fulgurite_search::{Direction, Study, TrialState};

use crate::process::{end, events, lives, run, send, sweep, wait_until};

const SLOW: &str = "{model.lr: {float: [0, 1]}, model.kind: {choice: [slow]}}";
const GOOD: &str = "{model.lr: {float: [0, 1]}, model.kind: {choice: [slow, good]}}";
const LONG: [&str; 6] = ["--trainer.max_epochs", "1000", "--sweep.n_jobs", "2", "--sweep.n_trials", "4"];

fn study(folder: &Path) -> Study {
    Study::open(folder.join("sweeps/points/journal.log"), "points", Direction::Minimize).unwrap()
}

fn states(folder: &Path) -> Vec<TrialState> {
    study(folder).trials().map(|trial| trial.state).collect()
}

/// The processes of the first two trials, once they train.
fn pids(folder: &Path) -> [u64; 2] {
    let report = |trial: u32| folder.join(format!("sweeps/points/trial_{trial}/report.jsonl"));
    [0, 1].map(|trial| {
        wait_until("it begins", || events(&report(trial)).len() > 1);
        events(&report(trial))[0]["pid"].as_u64().unwrap()
    })
}

pub(crate) fn ctrl_c() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let folder = tempfile::tempdir().unwrap();
        let child = sweep(folder.path(), SLOW, &LONG).spawn().unwrap();
        let pids = pids(folder.path());
        send(child.id(), signal);
        end(child).says(code, &["the trials that run are ended", "trial 0 failed: SIG", "trial 1 failed: SIG"]);
        assert!(!pids.into_iter().any(lives));
        assert_eq!(
            states(folder.path()),
            [TrialState::Fail, TrialState::Fail, TrialState::Waiting, TrialState::Waiting]
        );
    }
}

pub(crate) fn kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = sweep(folder.path(), SLOW, &LONG).spawn().unwrap();
    let pids = pids(folder.path());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("its trials end", || !pids.into_iter().any(lives));
    assert_eq!(states(folder.path()), [TrialState::Running; 2]);

    // Their parameters are tried again, and what was interrupted is not counted.
    let args = ["--sweep.n_trials", "3", "--trainer.max_epochs", "1", "--sweep.pruner", "none"];
    let expected = ["trial 0 failed: its sweep was killed", "goes on with 0 of 3 trials", "best: trial "];
    // The choices of a parameter stay the same in a study.
    run(sweep(folder.path(), SLOW, &args)).says(0, &expected);
    let complete = [TrialState::Complete; 3];
    assert_eq!(states(folder.path()), [&[TrialState::Fail; 2][..], &complete].concat());
    let study = study(folder.path());
    let lrs: Vec<f64> = study.trials().map(|trial| trial.param("model.lr").unwrap().internal).collect();
    assert_eq!(lrs[..2], lrs[2..4]);
}

pub(crate) fn time_limits() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--sweep.trial_timeout", "2", "--sweep.n_trials", "1", "--trainer.max_epochs", "1000"];
    run(sweep(folder.path(), SLOW, &args)).says(1, &["trial 0 failed: it took longer than 2 s"]);
    let folder = tempfile::tempdir().unwrap();
    let args = ["--sweep.timeout", "0.01", "--sweep.n_trials", "50", "--sweep.sampler", "random"];
    run(sweep(folder.path(), GOOD, &args)).says(0, &["best: trial 0 of 1"]);
}
