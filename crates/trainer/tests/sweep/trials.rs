//! Sweeps that come to their end.

use std::path::Path;

use fulgurite_search::{Direction, Study, Trial, TrialState};

use crate::process::{command, events, run, sweep};

const X: &str = "{model.lr: {float: [0, 1]}}";

fn study(folder: &Path) -> Study {
    Study::open(folder.join("sweeps/points/journal.log"), "points", Direction::Minimize).unwrap()
}

fn states(study: &Study) -> Vec<TrialState> {
    study.trials().map(|trial| trial.state).collect()
}

fn lr(trial: &Trial) -> f64 {
    trial.param("model.lr").unwrap().internal
}

pub(crate) fn grid() {
    let folder = tempfile::tempdir().unwrap();
    let space = "{model.lr: {float: [0, 0.4], step: 0.2}, model.kind: {choice: [good]}}";
    let ended = run(sweep(folder.path(), space, &["--sweep.sampler", "grid", "--sweep.n_jobs", "2"]));
    ended.says(0, &["trial 0 complete: val_loss ", "best: trial ", "model.lr=0.", "configuration: ", "history: "]);
    let study = study(folder.path());
    assert_eq!(states(&study), [TrialState::Complete; 3]);
    let mut tried: Vec<f64> = study.trials().map(lr).collect();
    tried.sort_by(f64::total_cmp);
    assert_eq!(tried, [0.0, 0.2, 0.4]);
    let best = study.best_trial().unwrap();
    assert!((lr(best) - 0.3).abs() < 0.11 && best.intermediate_values.len() == 3);
    for key in ["owner", "pid", "run_dir", "command", "log_dir"] {
        assert!(best.user_attrs.contains_key(key), "{key}");
    }
    let swept = folder.path().join("sweeps/points");
    assert!(swept.join("trial_0/output.txt").is_file());
    assert!(std::fs::read_to_string(swept.join("history.svg")).unwrap().contains("<svg"));

    // The best can be trained, and the same command has nothing left to do.
    let printed = run(command(folder.path(), &["fit", "--config", "sweeps/points/best.yaml", "--print_config"]));
    printed.says(0, &[&format!("lr: {}", lr(best)), "kind: good", "max_epochs: 3"]);
    let again = run(sweep(folder.path(), space, &["--sweep.sampler", "grid", "--sweep.n_jobs", "2"]));
    again.says(0, &["goes on with 3 of 3 trials", "best: trial "]);
    let other = run(sweep(folder.path(), "{model.lr: {choice: [0.1]}}", &["--sweep.n_trials", "4"]));
    other.says(2, &["the study `points`: earlier trials have drawn `model.lr` in another way"]);
}

pub(crate) fn random_and_tpe() {
    for sampler in ["{random: {seed: 1}}", "{tpe: {seed: 1, n_startup_trials: 2}}"] {
        let folder = tempfile::tempdir().unwrap();
        let args =
            ["--sweep.sampler", sampler, "--sweep.n_trials", "4", "--sweep.n_jobs", "2", "--sweep.pruner", "none"];
        run(sweep(folder.path(), X, &args)).says(0, &["best: trial "]);
        let study = study(folder.path());
        assert_eq!(states(&study), [TrialState::Complete; 4]);
        for trial in study.trials() {
            assert!((trial.value.unwrap() - (lr(trial) - 0.3).powi(2)).abs() < 1e-6);
        }
    }
}

pub(crate) fn median() {
    let folder = tempfile::tempdir().unwrap();
    let space = "{model.lr: {choice: [0.3, 0.9]}, model.kind: {choice: [slow]}}";
    let pruner = "{median: {n_startup_trials: 1}}";
    let args = ["--sweep.sampler", "grid", "--sweep.pruner", pruner];
    run(sweep(folder.path(), space, &args)).says(0, &["trial 1 pruned: val_loss 0.36 (epoch 0)"]);
    let study = study(folder.path());
    assert_eq!(states(&study), [TrialState::Complete, TrialState::Pruned]);
    let pruned = study.trials().nth(1).unwrap();
    assert!((pruned.value.unwrap() - 0.36).abs() < 1e-6 && pruned.intermediate_values.len() < 3);
}

pub(crate) fn bad_trials() {
    let folder = tempfile::tempdir().unwrap();
    let space = "{model.kind: {choice: [crash, garbage, silent, nan, good]}}";
    let args = ["--sweep.sampler", "grid", "--sweep.n_jobs", "2"];
    run(sweep(folder.path(), space, &args)).says(
        0,
        &[
            "trial 0 failed: exit status: 7",
            "trial 1 failed: line 2 of",
            "report.jsonl is no event",
            "trial 2 failed: it has logged no `val_loss`, but other",
            "trial 3 failed: its `val_loss` is NaN",
            "best: trial 4 of 5, val_loss 0.09",
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    let space = "{model.lr: {float: [0, 1]}, model.kind: {choice: [crash]}}";
    let ended = run(sweep(folder.path(), space, &["--sweep.n_trials", "2"]));
    ended.says(1, &["error: no trial is complete"]);
}

pub(crate) fn wrong() {
    let folder = tempfile::tempdir().unwrap();
    for (space, said) in [
        (
            "{model.lrr: {float: [0, 1]}}",
            "the search space's `model.lrr`: there is no option `model.lrr`; did you mean `model.lr`?",
        ),
        ("{model.kind: {choice: [good, bad]}}", "the search space's `model.kind`: `model.kind` takes good|crash|"),
        ("{model.size: {int: [1, 2]}}", "the search space's `model.size`: `model.size` follows `data.size`"),
        ("{trainer.max_epochs: {float: [1.5, 2]}}", "the search space's `trainer.max_epochs`: "),
        ("{model.lr: {float: [0]}}", "`float` needs two bounds"),
        ("{trainer.default_root_dir: {choice: [a]}}", "it is no option of a trial"),
        ("{}", "`sweep.space` is empty"),
    ] {
        run(sweep(folder.path(), space, &[])).says(2, &[said]);
    }
    for (option, value, said) in [
        ("sampler", "tree", "`sweep.sampler`: unknown variant `tree`, expected one of"),
        ("pruner", "{median: {warmup: 1}}", "`sweep.pruner`: unknown field `warmup`"),
        ("n_jobs", "0", "`sweep.n_jobs` is 0; it must be at least 1"),
        ("timeout", "-1", "`sweep.timeout` is -1; it must be a number of seconds"),
        ("study_name", "a/b", "must be the name of a folder"),
        ("sampler", "grid", "a grid needs a `step`"),
        ("n_trial", "3", "did you mean `sweep.n_trials`?"),
    ] {
        run(sweep(folder.path(), X, &[&format!("--sweep.{option}"), value])).says(2, &[said]);
    }
    let missing = run(sweep(folder.path(), X, &["--trainer.precision", "transformer-engine"]));
    missing.says(2, &["this version does not support precision `transformer-engine`"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was written");
}

/// What follows a value by a link follows it in every trial, and in the best.
pub(crate) fn links() {
    let folder = tempfile::tempdir().unwrap();
    let space = "{data.size: {choice: [2, 1]}}";
    run(sweep(folder.path(), space, &["--sweep.sampler", "grid"])).says(0, &["best: trial 1 of 2, val_loss 1.09"]);
    let printed = run(command(folder.path(), &["fit", "--config", "sweeps/points/best.yaml", "--print_config"]));
    assert_eq!(printed.says(0, &[]).out.matches("size: 1").count(), 2, "{}", printed.out);
}

/// Each trial is a run of two processes.
pub(crate) fn ranks() {
    let folder = tempfile::tempdir().unwrap();
    let space = "{model.lr: {choice: [0.3, 0.9]}}";
    let of_two = ["--trainer.devices=2", "--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--sweep.sampler=grid"];
    run(sweep(folder.path(), space, &of_two)).says(0, &["best: trial 0 of 2"]);
    let study = study(folder.path());
    assert_eq!(states(&study), [TrialState::Complete; 2]);
    assert!(study.trials().all(|trial| trial.intermediate_values.len() == 3));
    // Each process has half of the batches.
    let steps = |event: &serde_json::Value| event["step"].as_u64();
    let steps: Vec<u64> =
        events(&folder.path().join("sweeps/points/trial_0/report.jsonl")).iter().filter_map(steps).collect();
    assert_eq!(steps, [1, 2, 3]);
}

/// The checkpoint of the best trial is named.
pub(crate) fn checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let space = "{model.lr: {choice: [0.3]}}";
    let args = ["--trainer.enable_checkpointing=true", "--sweep.n_trials=1"];
    let ended = run(sweep(folder.path(), space, &args));
    let study = study(folder.path());
    let best = study.best_trial().unwrap().user_attrs["ckpt"].as_str().unwrap();
    assert!(Path::new(best).is_file(), "{best}");
    ended.says(0, &[&format!("checkpoint: {best}")]);
}
