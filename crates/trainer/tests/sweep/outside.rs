//! Programs that another program drives: reports, and the parent watch.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::process::{command, end, events, lives, run, wait_until};

pub(crate) fn report_lines() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.jsonl");
    let mut command = command(folder.path(), &["fit", "--model.lr", "0.5", "--trainer.max_epochs", "2"]);
    run({
        command.env("FULGURITE_REPORT", &report);
        command
    })
    .says(0, &[]);
    let events = events(&report);
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    // The sanity check measures nothing.
    assert_eq!(names, ["start", "metrics", "metrics", "end"]);
    assert_eq!((&events[0]["v"], events[0]["pid"].is_u64()), (&json!(1), true));
    assert_eq!(events[0]["log_dir"], json!(folder.path().canonicalize().unwrap()));
    let steps: Vec<_> = events[1..3].iter().map(|event| (event["step"].as_u64(), event["epoch"].as_u64())).collect();
    assert_eq!(steps, [(Some(2), Some(0)), (Some(4), Some(1))]);
    assert!((events[2]["values"]["val_loss"].as_f64().unwrap() - 0.04).abs() < 1e-6);
    assert_eq!((&events[3]["status"], &events[3]["ckpt"]), (&json!("success"), &Value::Null));
    assert_eq!(events[3]["values"], events[2]["values"]);
}

pub(crate) fn report_of_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.jsonl");
    let args = ["fit", "--model.kind", "nan", "--trainer.callbacks+=TerminateOnNaN", "--trainer.max_epochs", "1"];
    let mut nan = command(folder.path(), &args);
    run({
        nan.env("FULGURITE_REPORT", &report);
        nan
    })
    .says(0, &[]);
    assert_eq!(events(&report)[1]["values"]["val_loss"], json!("NaN"));

    let report = folder.path().join("other.jsonl");
    let mut wrong = command(folder.path(), &["fit", "--ckpt_path", "nowhere.ckpt"]);
    let ended = run({
        wrong.env("FULGURITE_REPORT", &report);
        wrong
    });
    assert_ne!(ended.code, Some(0));
    assert_eq!(events(&report).last().unwrap()["status"], json!("failed"));
}

pub(crate) fn report_to_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    for target in ["-", "fd:1"] {
        let mut command = command(folder.path(), &["fit", "--trainer.max_epochs", "1"]);
        let ended = run({
            command.env("FULGURITE_REPORT", target);
            command
        });
        ended.says(0, &[]);
        assert_eq!(ended.out.lines().filter(|line| line.starts_with("{\"event\":")).count(), 3, "{}", ended.out);
    }
}

pub(crate) fn wrong_variables() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value, said) in [
        ("FULGURITE_REPORT", "", "FULGURITE_REPORT is ``: that is empty; write the path"),
        ("FULGURITE_REPORT", "fd:x", "no number of a descriptor"),
        ("FULGURITE_REPORT", "nowhere/report.jsonl", "FULGURITE_REPORT is `nowhere/report.jsonl`: No such file"),
        ("FULGURITE_PARENT", "me", "FULGURITE_PARENT is `me`; it must be the number of the process"),
        ("FULGURITE_PARENT", "1", "the parent of this process is"),
    ] {
        let mut command = command(folder.path(), &["fit"]);
        let ended = run({
            command.env(name, value);
            command
        });
        assert_ne!(ended.code, Some(0));
        assert!(ended.errors.contains(said), "no {said:?} in:\n{}", ended.errors);
    }
}

/// A shell between us and the program is killed, as Ray kills its workers.
pub(crate) fn the_parent_ends() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.jsonl");
    let program = std::env::current_exe().unwrap();
    let script = format!(
        "export FULGURITE_PARENT=$$; {} fit --model.kind slow --trainer.max_epochs 1000 & wait",
        program.display()
    );
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script]).current_dir(folder.path()).env("FULGURITE_REPORT", &report);
    shell.env(crate::process::IS_PROGRAM, "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    wait_until("it begins", || events(&report).len() > 1);
    let pid = events(&report)[0]["pid"].as_u64().unwrap();
    shell.kill().unwrap();
    wait_until("it ends with its parent", || !lives(pid));
    assert!(end(shell).errors.contains("SIGTERM") || events(&report).last().unwrap()["status"] == json!("interrupted"));
}
