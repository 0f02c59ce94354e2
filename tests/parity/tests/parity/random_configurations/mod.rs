//! Random configurations: whatever Lightning calls, logs, writes and learns in each, in whatever order, we do too.
//!
//! `random_configurations.py` draws them from all arguments and runs them in Lightning; each run leaves a trace of
//! everything that happened, and ours must be the same. `FULGURITE_PARITY_CONFIGURATIONS` and `FULGURITE_PARITY_SEED`
//! draw more of them, or others.

mod model;
mod run;
mod trace;

use fulgurite::config::TrainerConfig;
use fulgurite::torch::serialization;
use fulgurite_parity::python;
use fulgurite_torch::Value;
use serde_json::{Value as Json, json};

/// Numbers agree to this, relative to the greater one or to 1.
const TOLERANCE: f64 = 2e-5;

const SEED: u64 = 1;
const CONFIGURATIONS: usize = 300;

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn agree(theirs: &Json, ours: &Json) -> bool {
    match (theirs, ours) {
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| agree(a, b)))
        }
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| agree(a, b)),
        (Json::Number(a), Json::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1.0)
        }
        (a, b) => a == b,
    }
}

/// A trace without what is documented as different on purpose.
fn normalized(config: &Json, trace: &[Json]) -> Vec<Json> {
    let named = |event: &Json, name: &str| event[0] == name;
    let callbacks = config["callbacks"].as_array().unwrap();
    let mut trace = trace.to_vec();
    if callbacks.iter().any(|options| options["save_last"] == true) {
        // `last.ckpt` is a second name of the checkpoint written with it, so there is one to gather, not two.
        trace.dedup_by(|a, b| named(a, "Module.on_save_checkpoint") && named(b, "Module.on_save_checkpoint"));
        // And it holds the weights that the run ended with.
        let mut ended = false;
        trace.retain(|event| {
            ended = named(event, "Callback.on_train_end") || ended && !named(event, "Module.on_train_end");
            !(ended && named(event, "Module.on_save_checkpoint"))
        });
    }
    without_what_going_back_replaces(&without_what_is_not_restored(&rows_before_checkpoints(&trace)))
}

/// A run that goes back to an earlier checkpoint replaces what it wrote since; Lightning leaves it, and writes `-v1` beside.
fn without_what_going_back_replaces(trace: &[Json]) -> Vec<Json> {
    let resumed = trace.iter().position(|event| event[0] == "-- resume").unwrap_or(trace.len());
    let (before, after) = trace.split_at(resumed);
    let step = |name: &Json| {
        let digits = name.as_str()?.split_once("step=")?.1;
        digits[..digits.find(|c: char| !c.is_ascii_digit())?].parse::<u64>().ok()
    };
    let written = before.iter().filter(|event| event[0] == "files").filter_map(|event| event[1].as_array()).flatten();
    let goes_back = after.first().is_some_and(|event| written.filter_map(step).max() > step(&event[1]));
    let is_replaced = |event: &&Json| goes_back && (event[0] == "files" || event[0] == "kept");
    before.iter().chain(after.iter().filter(|event| !is_replaced(event))).cloned().collect()
}

/// What a batch or an epoch logged is written before its checkpoint, so that a run that goes on from there has it.
fn rows_before_checkpoints(trace: &[Json]) -> Vec<Json> {
    const PASSED: [&str; 4] = [
        "Module.on_save_checkpoint",
        "Module.on_train_batch_end",
        "Module.on_train_epoch_end",
        "Module.lr_scheduler_step",
    ];
    let mut ordered: Vec<Json> = Vec::new();
    for event in trace {
        let passed = ordered.iter().rev().take_while(|event| PASSED.iter().any(|name| event[0] == *name)).count();
        let tail = ordered.len() - passed;
        let saved = ordered[tail..].iter().position(|event| event[0] == "Module.on_save_checkpoint");
        let Some(at) = saved.filter(|_| event[0] == "log").map(|saved| tail + saved) else {
            ordered.push(event.clone());
            continue;
        };
        // What the module logs after the checkpoint comes in a row of its own.
        match ordered[..at].last_mut().filter(|row| row[0] == "log" && row[1] == event[1]) {
            Some(row) => row[2].as_object_mut().unwrap().extend(event[2].as_object().unwrap().clone()),
            None => ordered.insert(at, event.clone()),
        }
    }
    // A name that a callback logged before the checkpoint and the module logs again after it is in the row once.
    let again = |row: &Json, next: &Json| row[0] == "log" && next[0] == "Module.on_save_checkpoint";
    for index in 1..ordered.len() {
        if again(&ordered[index - 1], &ordered[index]) {
            let row = ordered[index - 1][2].as_object_mut().unwrap();
            row.retain(|name, _| !name.starts_with("on_train_batch_end"));
        }
    }
    ordered
}

/// Of a run that was over when it was resumed Lightning restores no values; and its count of validation batches, the
/// x-axis of their rows, begins anew in every process.
fn without_what_is_not_restored(trace: &[Json]) -> Vec<Json> {
    let resumed = trace.iter().position(|event| event[0] == "-- resume").unwrap_or(trace.len());
    let (before, after) = trace.split_at(resumed);
    let is_value = |event: &Json| ["metrics", "bar", "progress"].iter().any(|name| event[0] == *name);
    let trains = after.iter().any(|event| event[0] == "Callback.on_train_start");
    let counted_anew = |event: &Json| match event[0] == "log" && event[2].get("epoch").is_none() {
        true => json!(["log", 0, event[2]]),
        false => event.clone(),
    };
    let after = after.iter().filter(|event| trains || !is_value(event)).map(counted_anew);
    before.iter().cloned().chain(after).collect()
}

/// What differs first, side by side with what came before it.
fn difference(theirs: &[Json], ours: &[Json]) -> Option<String> {
    let first = (0..theirs.len().max(ours.len())).find(|&index| match (theirs.get(index), ours.get(index)) {
        (Some(a), Some(b)) => !agree(a, b),
        _ => true,
    })?;
    let show = |event: Option<&Json>| event.map_or("nothing more".to_owned(), Json::to_string);
    let before = theirs[first.saturating_sub(6)..first].iter().map(|event| format!("    both: {event}\n"));
    let after = |trace: &[Json]| -> String {
        trace.iter().skip(first + 1).take(3).map(|event| format!("      then {event}\n")).collect()
    };
    Some(format!(
        "{}  Lightning: {}\n{}  ours:      {}\n{}",
        before.collect::<String>(),
        show(theirs.get(first)),
        after(theirs),
        show(ours.get(first)),
        after(ours),
    ))
}

#[test]
fn every_configuration_runs_as_in_lightning() {
    let (seed, count) =
        (setting("FULGURITE_PARITY_SEED", SEED), setting("FULGURITE_PARITY_CONFIGURATIONS", CONFIGURATIONS));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.pt");
    let data = run::data();
    serialization::save(&path, &Value::Dict(data.clone())).unwrap();
    let arguments = serde_json::to_value(TrainerConfig::default()).unwrap();
    let arguments = arguments.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(",");
    let given = [path.to_str().unwrap(), &seed.to_string(), &count.to_string(), &arguments];
    let results = python("random_configurations.py", &given);

    let (mut found, mut refused) = (Vec::new(), 0);
    for result in results.as_array().unwrap() {
        let config = &result["config"];
        let root = tempfile::tempdir().unwrap();
        let events = result["events"].as_array().unwrap();
        let resumed = events.iter().find(|event| event[0] == "-- resume");
        let ours = run::run(config, &data, root.path(), resumed.and_then(|event| event[1].as_str()));
        let problem = match (result["refused"].as_str(), &ours.refused) {
            (Some(_), Some(_)) => {
                refused += 1;
                None
            }
            (Some(theirs), None) => Some(format!("  Lightning refuses: {theirs}\n  ours runs\n")),
            (None, Some(refusal)) => Some(format!("  Lightning runs\n  ours refuses: {refusal}\n")),
            (None, None) => {
                let theirs = normalized(config, events);
                difference(&theirs, &normalized(config, &ours.events))
            }
        };
        if let Some(problem) = problem {
            found.push(format!("seed {}: {config}\n{problem}", config["seed"]));
        }
    }
    assert!(found.is_empty(), "{}\n{} of {count} configurations differ", found.join("\n"), found.len());
    assert!(refused * 3 < count, "{refused} of {count} configurations are refused, so few are compared");
}
