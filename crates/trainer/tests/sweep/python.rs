//! Sweeps beside Optuna, its dashboard, rustuna and Ray Tune themselves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fulgurite_search::{Direction, Study, TrialState};
use serde_json::{Value, json};

use crate::process::{IS_PROGRAM, end, events, lives, run, send, sweep, wait_until, wait_within};

/// The Python of `cargo xtask services`, if it has these modules.
fn python(modules: &str) -> Option<PathBuf> {
    let python = std::env::var_os("FULGURITE_SERVICES_PYTHON").map(PathBuf::from).unwrap_or_default();
    // Found, but not loaded, which takes seconds.
    let script = format!("import importlib.util as u; assert all(u.find_spec(name) for name in '{modules}'.split())");
    let has = Command::new(&python).args(["-c", &script]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        println!("skipped: there is no Python with {modules}; `cargo xtask services` runs this with one");
        return None;
    }
    Some(python)
}

fn begin(python: &Path, folder: &Path, script: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(python);
    command.arg(script).args(args).current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env(IS_PROGRAM, "1").env("OMP_NUM_THREADS", "1").spawn().unwrap()
}

fn side() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sweep/side.py")
}

fn shim(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/search").join(name).canonicalize().unwrap()
}

/// What Optuna, the dashboard's server and rustuna read of a sweep's journal.
pub(crate) fn readers() {
    let Some(python) = python("optuna optuna_dashboard rustuna") else { return };
    let folder = tempfile::tempdir().unwrap();
    let space = "{model.lr: {choice: [0.3, 0.9]}, model.kind: {choice: [good, crash]}}";
    run(sweep(folder.path(), space, &["--sweep.sampler", "grid", "--sweep.n_jobs", "2"])).says(0, &[]);
    let read = end(begin(&python, folder.path(), &side(), &["read", "sweeps/points/journal.log", "points"]));
    let found: Value = serde_json::from_str(read.says(0, &[]).out.lines().last().unwrap()).unwrap();
    let states = json!(["COMPLETE", "FAIL", "COMPLETE", "FAIL"]);
    let best = json!({ "model.lr": 0.3, "model.kind": "good" });
    let optuna = json!({ "states": states, "best": best, "metric": ["val_loss"], "steps": [0, 1, 2], "next": 4 });
    assert_eq!(found["optuna"], optuna);
    assert_eq!(
        found["dashboard"],
        json!({ "status": "200 OK", "states": ["Complete", "Fail", "Complete", "Fail"], "metric": ["val_loss"] })
    );
    assert_eq!(found["rustuna"], json!({ "trials": 5, "best": best }));
}

/// Two sweeps and a worker in Python append to one journal at once.
pub(crate) fn several() {
    let Some(python) = python("optuna") else { return };
    let folder = tempfile::tempdir().unwrap();
    let space = "{model.lr: {float: [0, 1]}}";
    let parent = |name: &str| {
        let args = ["--trainer.default_root_dir", name, "--sweep.storage", "journal.log", "--sweep.n_trials", "10"];
        sweep(
            folder.path(),
            space,
            &[&args[..], &["--sweep.n_jobs", "2", "--trainer.max_epochs", "1", "--sweep.pruner", "none"]].concat(),
        )
    };
    let parents = ["a", "b"].map(|name| parent(name).spawn().unwrap());
    let worker = begin(&python, folder.path(), &side(), &["work", "journal.log", "points", "6"]);
    end(worker).says(0, &[]);
    for parent in parents {
        end(parent).says(0, &["best: trial "]);
    }
    let study = Study::open(folder.path().join("journal.log"), "points", Direction::Minimize).unwrap();
    let states: Vec<TrialState> = study.trials().map(|trial| trial.state).collect();
    assert!(states.iter().all(|state| *state == TrialState::Complete), "{states:?}");
    // Trials of others that run meanwhile are not counted.
    assert!((10..=20).contains(&states.len()), "{states:?}");
    let of = |root: &str| folder.path().join(root).join("sweeps/points");
    let is_ours =
        |number: usize| ["a", "b"].iter().filter(|root| of(root).join(format!("trial_{number}")).is_dir()).count();
    let ours: Vec<usize> = (0..states.len()).map(is_ours).collect();
    assert!(ours.iter().all(|count| *count <= 1), "{ours:?}");
    assert_eq!(ours.iter().filter(|count| **count == 0).count(), 6, "those of Python have no folder: {ours:?}");
}

/// Optuna drives the program, by the shim of the examples.
pub(crate) fn optuna_drives() {
    let Some(python) = python("optuna") else { return };
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let mut driver = Command::new(&python);
    driver.arg(shim("optuna_shim.py")).arg(&program).current_dir(folder.path());
    driver.env(IS_PROGRAM, "1").env("OMP_NUM_THREADS", "1").env("TRIALS", "8");
    let driven = driver.output().unwrap();
    let text = String::from_utf8([driven.stdout, driven.stderr].concat()).unwrap();
    assert!(driven.status.success(), "{text}");
    assert_eq!(text.matches("Trial ").count(), 8, "{text}");
    assert!(text.contains("{'model.lr': ") && !text.contains("failed"), "{text}");
}

/// Ray Tune drives the program, by the shim of the examples: bad trials are stopped, one whose process crashes goes on from its
/// checkpoint, and so does one whose shim is killed, and nothing is left running.
pub(crate) fn ray_drives() {
    let Some(python) = python("ray") else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sweep/offline.py");
    let program = std::env::current_exe().unwrap();
    let mut driver = Command::new(&python);
    driver.arg(&script).arg(shim("ray_shim.py")).arg(&program).current_dir(folder.path());
    driver.args(["--model.kind=crash_once", "--trainer.max_epochs=6", "--trainer.enable_checkpointing=true"]);
    driver.env(IS_PROGRAM, "1").env("OMP_NUM_THREADS", "1").env("TRIALS", "5").env("RAY_USAGE_STATS_ENABLED", "0");
    let mark = format!("FULGURITE_SWEEP_MARK={}", folder.path().display());
    driver.env("FULGURITE_SWEEP_MARK", folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut driver = driver.spawn().unwrap();

    // Ray takes its time on a machine that does much else.
    wait_within(Duration::from_secs(150), "Ray starts a trial", || {
        !running(&program, &mark).is_empty() || driver.try_wait().unwrap().is_some()
    });
    let Some([pid, shim]) = running(&program, &mark).first().copied() else { panic!("{}", end(driver).errors) };
    send(u32::try_from(shim).unwrap(), "KILL");
    wait_until("it ends with its shim", || !lives(pid));
    let ended = end(driver);
    ended.says(0, &["{'model.lr': "]);
    wait_until("nothing is left", || running(&program, &mark).is_empty());

    let trials = results(&folder.path().join("results.jsonl"));
    assert_eq!(trials.len(), 5, "{trials:?}");
    for epochs in &trials {
        let expected: Vec<u64> = (0..epochs.len() as u64).collect();
        assert_eq!(epochs, &expected, "every epoch once: {trials:?}");
    }
    assert!(trials.iter().any(|epochs| epochs.len() == 6), "one comes to its end: {trials:?}\n{}", ended.errors);
    assert!(trials.iter().any(|epochs| epochs.len() < 6), "one is stopped: {trials:?}");
}

/// The processes of a program that have a variable, and their parents.
fn running(program: &Path, mark: &str) -> Vec<[u64; 2]> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.ok()?.path();
        let pid: u64 = path.file_name()?.to_str()?.parse().ok()?;
        let is_program = std::fs::read_link(path.join("exe")).ok()? == program;
        let environment = std::fs::read(path.join("environ")).ok()?;
        let has_mark = environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
        let status = std::fs::read_to_string(path.join("stat")).ok()?;
        let parent = status.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        (is_program && has_mark && lives(pid)).then_some([pid, parent])
    });
    processes.collect()
}

/// The epochs that each trial has reported to Ray.
fn results(path: &Path) -> Vec<Vec<u64>> {
    let mut trials: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for result in events(path) {
        let trial = result["trial"].as_str().unwrap().to_owned();
        trials.entry(trial).or_default().push(result["epoch"].as_u64().unwrap());
    }
    trials.into_values().collect()
}
