//! Traces of whole runs.

use std::collections::BTreeMap;
use std::path::Path;

use fulgurite::Console;
use fulgurite::prelude::*;
use fulgurite::profilers::{ProfilerSchedule, SortKey};
use serde_json::Value as Json;

use crate::profilers::line::{Trouble, batches, line, quiet};

/// A complete event of a trace.
#[derive(Debug, Clone)]
struct Span {
    name: String,
    category: String,
    thread: String,
    start: f64,
    end: f64,
}

impl Span {
    fn holds(&self, other: &Span) -> bool {
        self.thread == other.thread && self.start <= other.start && other.end <= self.end
    }
}

/// The spans of the program and of operators, once the file is found to be what viewers read.
fn spans(path: &Path) -> Vec<Span> {
    let trace: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    assert!(events.iter().all(|event| event["ph"].is_string() && event["name"].is_string()));
    let mut spans: Vec<Span> = events
        .iter()
        .filter(|event| event["ph"] == "X" && (event["cat"] == "cpu_op" || event["cat"] == "user_annotation"))
        .map(|event| {
            let (start, duration) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
            assert!(duration >= 0.0);
            Span {
                name: event["name"].as_str().unwrap().to_owned(),
                category: event["cat"].as_str().unwrap().to_owned(),
                thread: format!("{} {}", event["pid"], event["tid"]),
                start,
                end: start + duration,
            }
        })
        .collect();
    spans.sort_by(|a, b| a.start.total_cmp(&b.start).then(b.end.total_cmp(&a.end)));
    assert_nested(&spans);
    spans
}

/// On a thread, spans either hold each other or do not touch. Times are rounded to nanoseconds.
#[track_caller]
fn assert_nested(spans: &[Span]) {
    let mut open: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        let stack = open.entry(&span.thread).or_default();
        while stack.last().is_some_and(|around| around.end <= span.start + 0.0011) {
            stack.pop();
        }
        if let Some(around) = stack.last() {
            assert!(span.end <= around.end + 0.0011, "{span:?} sticks out of {around:?}");
        }
        stack.push(span);
    }
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

const TRAINING_STEP: &str = "[pl][profile][Strategy]SingleDeviceStrategy.training_step";

#[test]
fn the_trace_holds_actions_with_their_operators() {
    let (root, console) = (tempfile::tempdir().unwrap(), Console::memory());
    let profiler = PyTorchProfiler::new().record_shapes(true).profile_memory(true).with_flops(true);
    let mut trainer = quiet(root.path(), &console).max_epochs(2).profiler(profiler).build().unwrap();
    _ = trainer.fit(&mut line(), (batches(3), batches(2))).unwrap();

    let traces = trainer.profiler::<PyTorchProfiler>().unwrap().traces().to_vec();
    let names: Vec<_> = traces.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.iter().all(|name| name.ends_with(".pt.trace.json")), "{names:?}");
    let training = spans(traces.iter().find(|path| path.display().to_string().contains("fit-train.")).unwrap());

    // An epoch of three batches is too short for the default schedule, so the first ones are recorded.
    let steps: Vec<_> = training.iter().filter(|span| span.name.starts_with("ProfilerStep#")).collect();
    let numbers: Vec<_> = steps.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(numbers, ["ProfilerStep#0", "ProfilerStep#1", "ProfilerStep#2"]);
    let forward = named(&training, TRAINING_STEP);
    assert_eq!(forward.len(), 3);
    for (step, forward) in steps.iter().zip(&forward) {
        assert!(step.holds(forward) && forward.category == "user_annotation");
        let inside: Vec<_> = training.iter().filter(|span| forward.holds(span)).map(|span| &*span.name).collect();
        assert!(inside.contains(&"aten::linear") && inside.contains(&"[pl][profile]encode"), "{inside:?}");
    }
    let epoch = named(&training, "[pl][profile]run_training_epoch");
    assert!(epoch.len() == 1 && steps.iter().all(|step| epoch[0].holds(step)));
    let backward = named(&training, "[pl][profile][Strategy]SingleDeviceStrategy.backward");
    assert!(training.iter().any(|span| span.name == "aten::mul" && backward.iter().any(|b| b.holds(span))));

    let report = console.contents();
    assert!(
        report.contains("FIT Profiler Report") && report.contains("Operators of training batches 0 to 2"),
        "{report}"
    );
    for part in ["aten::linear", TRAINING_STEP, "ProfilerStep*", "CPU Mem", "# of Calls", "FLOPs"] {
        assert!(report.contains(part), "{part} is missing:\n{report}");
    }
}

#[test]
fn the_default_schedule_records_the_third_to_fifth_batch_of_each_stage() {
    let (root, console) = (tempfile::tempdir().unwrap(), Console::memory());
    let mut trainer = quiet(root.path(), &console)
        .num_sanity_val_steps(2)
        .profiler(PyTorchProfiler::new().dirpath(root.path().join("traces")).filename("perf"))
        .build()
        .unwrap();
    _ = trainer.fit(&mut line(), (batches(7), batches(6))).unwrap();
    let traces = trainer.profiler::<PyTorchProfiler>().unwrap().traces();
    assert_eq!(traces.len(), 2);
    for (trace, name) in traces.iter().zip(["fit-perf-train.", "fit-perf-validate."]) {
        assert!(trace.starts_with(root.path().join("traces")) && trace.display().to_string().contains(name));
        let steps = spans(trace).into_iter().filter(|span| span.name.starts_with("ProfilerStep#"));
        let numbers: Vec<_> = steps.map(|span| span.name).collect();
        assert_eq!(numbers, ["ProfilerStep#2", "ProfilerStep#3", "ProfilerStep#4"]);
    }
    let report = std::fs::read_to_string(root.path().join("traces/fit-perf.txt")).unwrap();
    assert!(report.contains("training batches 2 to 4") && report.contains("validation batches 2 to 4"), "{report}");
}

#[test]
fn a_schedule_can_repeat_and_skip() {
    let (root, console) = (tempfile::tempdir().unwrap(), Console::memory());
    let schedule = ProfilerSchedule { skip_first: 1, wait: 0, warmup: 1, active: 1, repeat: 0 };
    let profiler = PyTorchProfiler::new().schedule(schedule).export_to_chrome(false).sort_by_key(SortKey::Count);
    let mut trainer = quiet(root.path(), &console).profiler(profiler).build().unwrap();
    _ = trainer.fit(&mut line(), batches(7)).unwrap();
    let report = console.contents();
    for batch in ["2 to 2", "4 to 4", "6 to 6"] {
        assert!(report.contains(&format!("training batches {batch}")), "{report}");
    }
    assert_eq!(report.matches("Operators of").count(), 3);
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "no traces were asked for");
}

#[test]
fn a_run_that_ends_early_is_said_and_does_not_spoil_the_next() {
    let (root, console) = (tempfile::tempdir().unwrap(), Console::memory());
    let mut trainer = quiet(root.path(), &console)
        .profiler(PyTorchProfiler::new().schedule(ProfilerSchedule::default()))
        .build()
        .unwrap();
    let mut module = line();
    // In the warm-up; while recording, by an error and by a panic; then a whole one.
    _ = trainer.fit(&mut module, batches(2)).unwrap();
    assert!(console.contents().contains("Nothing was recorded"), "{}", console.contents());
    for trouble in [Trouble::Error, Trouble::Panic] {
        let mut trainer = quiet(root.path(), &console).profiler("pytorch").build().unwrap();
        module.trouble = (3, trouble);
        trainer.fit(&mut module, batches(6)).unwrap_err();
        let traces = trainer.profiler::<PyTorchProfiler>().unwrap().traces();
        assert_eq!(named(&spans(&traces[0]), TRAINING_STEP).len(), 2);
        assert!(console.contents().contains("training batches 2 to 2"), "{}", console.contents());
    }
    trainer.test(&mut module, batches(6)).unwrap();
    let traces = trainer.profiler::<PyTorchProfiler>().unwrap().traces();
    assert_eq!(named(&spans(&traces[0]), "[pl][profile][Strategy]SingleDeviceStrategy.test_step").len(), 3);
}

#[test]
fn options_that_cannot_be_are_said_when_the_run_begins() {
    for (profiler, message) in [
        (
            PyTorchProfiler::new().schedule(ProfilerSchedule { active: 0, ..ProfilerSchedule::default() }),
            "schedule.active=0 would record nothing; write 1 or more",
        ),
        (
            PyTorchProfiler::new().group_by_input_shapes(true),
            "group_by_input_shapes needs the shapes; set record_shapes to true, or leave it out",
        ),
    ] {
        let root = tempfile::tempdir().unwrap();
        let mut trainer = quiet(root.path(), &Console::memory()).profiler(profiler).build().unwrap();
        assert_eq!(trainer.fit(&mut line(), batches(1)).unwrap_err().to_string(), message);
    }
}
