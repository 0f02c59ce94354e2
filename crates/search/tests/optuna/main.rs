//! Optuna itself reads and goes on with our journals, stops the same trials, and rates the same candidates alike.
//!
//! Needs a Python with `optuna`, `FULGURITE_SERVICES_PYTHON`, as `cargo xtask services` sets it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::panic, reason = "a test may fail")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fulgurite_search::{
    Direction, GridSampler, Pruner, PrunerConfig, RandomSampler, Sampler, SearchSpace, Study, TpeOptions, TpeSampler,
    TrialState,
};
use serde_json::{Value, json};

/// A Python that has Optuna.
fn python() -> Option<PathBuf> {
    let found = std::env::var_os("FULGURITE_SERVICES_PYTHON").map(PathBuf::from).unwrap_or_default();
    let has = |python: &Path| {
        let import = Command::new(python).args(["-c", "import optuna"]).stderr(Stdio::null()).status();
        import.is_ok_and(|status| status.success())
    };
    if has(&found) {
        return Some(found);
    }
    println!("skipped: there is no Python with Optuna; `cargo xtask services` runs this with one");
    None
}

/// A folder in memory where there is one: these journals have many lines.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn begin(python: &Path, command: &str, given: &Value) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/optuna/optuna_side.py");
    let mut child =
        Command::new(python).arg(script).arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
    child
}

fn end(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn ask(python: &Path, command: &str, given: &Value) -> Value {
    end(begin(python, command, given))
}

/// The space of `optuna_side.py`.
fn space() -> SearchSpace {
    let space = json!({
        "lr": { "float": [1e-5, 1e-1], "log": true },
        "momentum": { "float": [0.0, 1.0], "step": 0.25 },
        "scale": { "float": [-3.0, 5.0] },
        "layers": { "int": [1, 8] },
        "width": { "int": [16, 1024], "log": true },
        "activation": { "choice": ["relu", "gelu", null, 3] },
    });
    SearchSpace::from_value(&space).unwrap()
}

fn shown(value: f64) -> Value {
    match value {
        _ if value.is_nan() => json!("nan"),
        _ if value.is_infinite() => json!(if value > 0.0 { "inf" } else { "-inf" }),
        value => json!(value),
    }
}

/// Numbers that look like those of losses, the same in every run.
fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A study of 40 trials that ended in every way, and one that runs.
fn study(path: &Path) -> Study {
    let mut study = Study::open(path, "mixed", Direction::Minimize).unwrap();
    study.set_metric_name("val_loss").unwrap();
    let (space, mut sampler, mut noise) = (space(), RandomSampler::new(Some(1)), noise(3));
    for index in 0..40 {
        let id = study.ask(&mut sampler, &space).unwrap().unwrap();
        for step in 0..=index % 4 {
            study.report(id, step, noise()).unwrap();
        }
        match index % 8 {
            3 => study.tell(id, TrialState::Pruned, Some(noise())).unwrap(),
            5 => study.tell(id, TrialState::Fail, None).unwrap(),
            7 => {
                study.report(id, 9, f64::NAN).unwrap();
                study.report(id, 10, f64::NEG_INFINITY).unwrap();
                study.tell(id, TrialState::Pruned, None).unwrap();
            }
            _ => study.tell(id, TrialState::Complete, Some(noise())).unwrap(),
        }
        // A trial that has ended cannot be changed any more.
        study.report(id, 99, 0.0).unwrap();
    }
    let running = study.ask(&mut sampler, &space).unwrap().unwrap();
    study.set_user_attr(running, "note", json!({ "a": [1, "ü"] })).unwrap();
    study
}

#[test]
fn optuna_reads_a_journal_and_goes_on_with_it() {
    let Some(python) = python() else { return };
    let folder = scratch();
    let path = folder.path().join("journal.log");
    let mut study = study(&path);
    let trials = study.trials().map(|trial| {
        let state = match trial.state {
            TrialState::Running => "RUNNING",
            TrialState::Complete => "COMPLETE",
            TrialState::Pruned => "PRUNED",
            TrialState::Fail => "FAIL",
            TrialState::Waiting => "WAITING",
        };
        let steps: Vec<Value> =
            trial.intermediate_values.iter().map(|(step, value)| json!([step, shown(*value)])).collect();
        json!({
            "number": trial.number,
            "state": state,
            "params": study.params(trial.id),
            "value": trial.value.map_or(Value::Null, shown),
            "steps": steps,
            "user_attrs": trial.user_attrs,
            "has_times": true,
        })
    });
    let ours = json!({
        "direction": "MINIMIZE",
        "metric": ["val_loss"],
        "best": study.best_trial().unwrap().number,
        "trials": trials.collect::<Vec<_>>(),
    });
    let mut theirs = ask(&python, "read", &json!({ "path": path, "study": "mixed" }));
    theirs.as_object_mut().unwrap().remove("prunes");
    assert_eq!(serde_json::to_string_pretty(&ours).unwrap(), serde_json::to_string_pretty(&theirs).unwrap());

    // And we with what Optuna has appended, beginning with the trial that it has enqueued.
    let id = study.ask(&mut TpeSampler::new(TpeOptions::default()).unwrap(), &space()).unwrap().unwrap();
    assert_eq!(study.trial(id).unwrap().number, 44);
    let params = study.params(id);
    assert_eq!((&params["lr"], &params["layers"], &params["activation"]), (&json!(2e-3), &json!(5), &json!(3)));
    assert_eq!(study.trials().filter(|trial| trial.value == Some(0.5)).count(), 3);
    let again = study.ask(&mut RandomSampler::new(None), &space()).unwrap().unwrap();
    assert_eq!(study.trial(again).unwrap().number, 45);
}

/// A process of ours was killed while it wrote. Optuna would glue its next line to what is left; ours cuts it off.
#[test]
fn optuna_reads_what_follows_a_torn_line() {
    let Some(python) = python() else { return };
    let folder = scratch();
    let path = folder.path().join("journal.log");
    let mut study = study(&path);
    let trials = study.trials().count();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(br#"{"op_code":6,"worker_id":"killed","trial_id":40,"state":1,"val"#).unwrap();
    study.report(trials - 1, 1, 0.5).unwrap();
    study.tell(trials - 1, TrialState::Complete, Some(-1.0)).unwrap();
    let theirs = ask(&python, "read", &json!({ "path": path, "study": "mixed" }));
    assert_eq!((theirs["best"].as_u64(), theirs["trials"].as_array().unwrap().len()), (Some(40), trials));
}

/// Somebody enqueues what is none of the space: that trial fails, and the search goes on.
#[test]
fn wrong_values_that_are_enqueued_fail_alone() {
    let Some(python) = python() else { return };
    let folder = scratch();
    let path = folder.path().join("journal.log");
    let mut study = Study::open(&path, "queue", Direction::Minimize).unwrap();
    let given =
        json!({ "path": path, "study": "queue", "params": [{ "lr": "fast" }, { "layers": 99 }, { "layers": 3 }] });
    ask(&python, "enqueue", &given);
    let id = study.ask(&mut RandomSampler::new(None), &space()).unwrap().unwrap();
    assert_eq!((study.trial(id).unwrap().number, &study.params(id)["layers"]), (2, &json!(3)));
    let reasons: Vec<&Value> = study.trials().filter_map(|trial| trial.user_attrs.get("fail_reason")).collect();
    assert_eq!(reasons[0], "it was enqueued with \"fast\" for `lr`, which is none of the search space");
    assert_eq!(reasons[1], "it was enqueued with 99 for `layers`, which is none of the search space");
    assert_eq!(study.trial(0).unwrap().state, TrialState::Fail);
}

/// What was interrupted is tried again, by whoever goes on with the study.
#[test]
fn trials_that_are_enqueued_again_are_taken_once() {
    let Some(python) = python() else { return };
    let folder = scratch();
    let path = folder.path().join("journal.log");
    let mut study = Study::open(&path, "again", Direction::Minimize).unwrap();
    let grid = SearchSpace::from_value(&json!({ "layers": { "int": [1, 3] }, "activation": { "choice": ["relu"] } }));
    let (grid, mut asked) = (grid.unwrap(), Vec::new());
    let mut sampler = GridSampler::new(&grid).unwrap();
    for _ in 0..2 {
        let id = study.ask(&mut sampler, &grid).unwrap().unwrap();
        study.tell(id, TrialState::Fail, None).unwrap();
        study.retry(id).unwrap();
    }
    while let Some(id) = study.ask(&mut sampler, &grid).unwrap() {
        asked.push(study.params(id)["layers"].as_i64().unwrap());
        study.tell(id, TrialState::Complete, Some(0.0)).unwrap();
    }
    assert_eq!(asked, [1, 2, 3]);
    study.retry(2).unwrap();
    let theirs = ask(&python, "following", &json!({ "path": path, "study": "again" }));
    assert_eq!(theirs, json!({ "params": { "layers": 1, "activation": "relu" }, "first": 0, "history": [0, 1, 2] }));
}

#[test]
fn processes_of_both_sides_append_to_one_journal() {
    const TRIALS: usize = 30;
    let Some(python) = python() else { return };
    let folder = scratch();
    let path = folder.path().join("journal.log");
    Study::open(&path, "shared", Direction::Minimize).unwrap();
    let given = json!({ "path": path, "study": "shared", "count": TRIALS });
    let workers = [begin(&python, "work", &given), begin(&python, "work", &given)];
    let ours: Vec<_> = (0..2)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut study = Study::open(path, "shared", Direction::Minimize).unwrap();
                for index in 0..TRIALS {
                    let id = study.ask(&mut RandomSampler::new(None), &space()).unwrap().unwrap();
                    study.report(id, 0, index as f64).unwrap();
                    study.tell(id, TrialState::Complete, Some(index as f64)).unwrap();
                }
            })
        })
        .collect();
    ours.into_iter().for_each(|thread| thread.join().unwrap());
    workers.into_iter().for_each(|worker| _ = end(worker));
    let study = Study::open(&path, "shared", Direction::Minimize).unwrap();
    let complete: Vec<_> = study.trials().filter(|trial| trial.state == TrialState::Complete).collect();
    assert_eq!(complete.len(), 4 * TRIALS);
    assert!(complete.iter().all(|trial| trial.params.len() == 6 && trial.last().unwrap().1 == trial.value.unwrap()));
}

#[test]
fn the_same_trials_are_stopped_at_the_same_steps() {
    let Some(python) = python() else { return };
    let pruners = [
        json!({ "median": {} }),
        json!({ "median": { "n_startup_trials": 2, "n_warmup_steps": 2, "interval_steps": 3, "n_min_trials": 4 } }),
        json!({ "percentile": { "percentile": 25.0 } }),
        json!({ "successive_halving": {} }),
        json!({ "successive_halving": { "min_resource": 1, "reduction_factor": 2, "min_early_stopping_rate": 1 } }),
        json!({ "successive_halving": { "min_resource": 2, "bootstrap_count": 3 } }),
        json!({ "hyperband": {} }),
        json!({ "hyperband": { "max_resource": 12, "reduction_factor": 2, "bootstrap_count": 1 } }),
        json!({ "threshold": { "lower": 0.05, "upper": 0.9, "interval_steps": 2 } }),
        json!({ "patient": { "patience": 2 } }),
        json!({ "patient": { "patience": 1, "min_delta": 0.05, "wrapped": { "median": { "n_startup_trials": 1 } } } }),
        json!({ "none": {} }),
    ];
    let mut noise = noise(11);
    let mut values = |trials: usize| -> Vec<Vec<Value>> {
        let mut trial = || {
            let (first, slope) = (noise(), noise() * 0.1);
            let value = |step: usize| first - slope * step as f64 + 0.2 * noise();
            let mut values: Vec<Value> = (0..12).map(value).map(|value| json!((value * 50.0).round() / 50.0)).collect();
            if noise() < 0.1 {
                values[(noise() * 12.0) as usize] = json!("nan");
            }
            values
        };
        (0..trials).map(|_| trial()).collect()
    };
    let cases: Vec<Value> = pruners
        .iter()
        .enumerate()
        .flat_map(|(index, pruner)| ["minimize", "maximize"].map(|direction| (index, pruner, direction)))
        .map(|(index, pruner, direction)| {
            json!({ "study": format!("case {index}"), "pruner": pruner, "direction": direction, "values": values(200) })
        })
        .collect();
    let theirs = ask(&python, "prune", &json!({ "cases": cases }));
    let mut stopped = 0;
    for (case, theirs) in cases.iter().zip(theirs.as_array().unwrap()) {
        let ours = stops(case);
        let theirs: Vec<Option<i64>> = serde_json::from_value(theirs.clone()).unwrap();
        assert_eq!(ours, theirs, "{} {}", case["pruner"], case["direction"]);
        stopped += ours.iter().flatten().count();
    }
    assert!(stopped > 1000, "{stopped} trials were stopped");
}

/// The step at which each trial of a case is stopped.
fn stops(case: &Value) -> Vec<Option<i64>> {
    let folder = scratch();
    let direction = if case["direction"] == "minimize" { Direction::Minimize } else { Direction::Maximize };
    let mut study = Study::open(folder.path().join("journal.log"), case["study"].as_str().unwrap(), direction).unwrap();
    let config: PrunerConfig = serde_json::from_value(case["pruner"].clone()).unwrap();
    let mut pruner = Pruner::new(&config).unwrap();
    let mut stops = Vec::new();
    for values in case["values"].as_array().unwrap() {
        let values: Vec<f64> = values.as_array().unwrap().iter().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect();
        let id = study.ask(&mut RandomSampler::new(Some(0)), &SearchSpace::new()).unwrap().unwrap();
        let stop = values.iter().enumerate().find_map(|(step, value)| {
            study.report(id, step as i64, *value).unwrap();
            study.should_prune(id, &mut pruner).unwrap().then_some(step as i64)
        });
        let last = values[values.len() - 1];
        match stop {
            None if !last.is_nan() => study.tell(id, TrialState::Complete, Some(last)).unwrap(),
            _ => study.tell(id, TrialState::Pruned, None).unwrap(),
        }
        stops.push(stop);
    }
    stops
}

#[test]
fn candidates_are_rated_alike() {
    let Some(python) = python() else { return };
    let folder = scratch();
    let path = folder.path().join("journal.log");
    let mut study = study(&path);
    let all = space();
    let names: Vec<&str> = all.names().collect();
    let spaces =
        [vec!["lr"], vec!["momentum"], vec!["scale"], vec!["layers"], vec!["width"], vec!["activation"], names];
    let mut random = RandomSampler::new(Some(5));
    let asked = study.ask(&mut random, &SearchSpace::new()).unwrap().unwrap();
    let number = study.trial(asked).unwrap().number;
    let candidates: Vec<Vec<(String, f64)>> = (0..20)
        .map(|index| {
            let trial = study.trials().nth(index).unwrap();
            random.sample(&study.view(), trial, &all).unwrap().unwrap()
        })
        .collect();
    let rows: Vec<Value> =
        candidates.iter().map(|row| row.iter().map(|(n, v)| (n.clone(), json!(v))).collect()).collect();
    let theirs = ask(
        &python,
        "acquisition",
        &json!({ "path": path, "study": "mixed", "number": number, "spaces": spaces, "candidates": rows }),
    );
    let sampler = TpeSampler::new(TpeOptions::default()).unwrap();
    for (names, theirs) in spaces.iter().zip(theirs.as_array().unwrap()) {
        let of = names.iter().fold(SearchSpace::new(), |of, name| of.with(*name, all.get(name).unwrap().clone()));
        let value = |row: &Vec<(String, f64)>, name: &str| row.iter().find(|(other, _)| other == name).unwrap().1;
        let rows: Vec<Vec<f64>> =
            candidates.iter().map(|row| names.iter().map(|name| value(row, name)).collect()).collect();
        let ours = sampler.acquisition(&study.view(), study.trial(asked).unwrap(), &of, &rows);
        for (ours, theirs) in ours.iter().zip(theirs.as_array().unwrap()) {
            let theirs = theirs.as_f64().unwrap();
            assert!((ours - theirs).abs() <= 1e-9 * theirs.abs().max(1.0), "{names:?}: {ours} {theirs}");
        }
    }
}

#[test]
fn minima_are_found_as_well() {
    const SEEDS: u64 = 15;
    const TRIALS: usize = 60;
    let Some(python) = python() else { return };
    let theirs = begin(&python, "bests", &json!({ "seeds": SEEDS, "trials": TRIALS }));
    let space = SearchSpace::from_value(&json!({ "x": { "float": [-5, 10] }, "y": { "float": [0, 15] } })).unwrap();
    let branin = |x: f64, y: f64| {
        use std::f64::consts::PI;
        let valley = y - 5.1 / (4.0 * PI * PI) * x * x + 5.0 / PI * x - 6.0;
        valley * valley + 10.0 * (1.0 - 1.0 / (8.0 * PI)) * x.cos() + 10.0
    };
    let best = |sampler: &mut dyn Sampler| {
        let folder = scratch();
        let mut study = Study::open(folder.path().join("journal.log"), "branin", Direction::Minimize).unwrap();
        for _ in 0..TRIALS {
            let id = study.ask(sampler, &space).unwrap().unwrap();
            let params = study.params(id);
            let value = branin(params["x"].as_f64().unwrap(), params["y"].as_f64().unwrap());
            study.tell(id, TrialState::Complete, Some(value)).unwrap();
        }
        study.best_trial().unwrap().value.unwrap()
    };
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let tpe = |seed| TpeSampler::new(TpeOptions { seed: Some(seed), ..TpeOptions::default() }).unwrap();
    let ours: Vec<f64> = (0..SEEDS).map(|seed| best(&mut tpe(seed))).collect();
    let random: Vec<f64> = (0..SEEDS).map(|seed| best(&mut RandomSampler::new(Some(seed)))).collect();
    let theirs: Vec<f64> = serde_json::from_value(end(theirs)).unwrap();
    let worst = theirs.iter().copied().fold(0.0, f64::max);
    let (ours, random, theirs) = (median(ours), median(random), median(theirs));
    println!("the best of {TRIALS} trials: {ours} here, {theirs} by Optuna, {random} by chance");
    assert!(ours <= worst && ours < random, "{ours} here, {theirs} by Optuna (at worst {worst}), {random} by chance");
}
