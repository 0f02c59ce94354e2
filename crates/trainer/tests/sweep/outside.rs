//! Programs that another program drives: reports, and the parent watch.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::process::{command, end, events, lives, run, send, wait_until};

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

pub(crate) fn report_of_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.jsonl");
    let best = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val_loss"];
    let args = ["fit", "--model.lr=0.5", "--trainer.max_epochs=2", "--trainer.enable_checkpointing=true"];
    let mut command = command(folder.path(), &[&args[..], &best].concat());
    run({
        command.env("FULGURITE_REPORT", &report);
        command
    })
    .says(0, &[]);
    let events = events(&report);
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    // The second is no better.
    assert_eq!(names, ["start", "metrics", "checkpoint", "metrics", "end"]);
    let path = events[2]["path"].as_str().unwrap();
    assert!(std::path::Path::new(path).is_file() && path.starts_with('/'), "{path}");
    let checkpoint = json!({
        "event": "checkpoint", "step": 2, "epoch": 0, "path": path, "score": events[1]["values"]["val_loss"], "best": true,
    });
    assert_eq!((&events[2], &events[4]["ckpt"]), (&checkpoint, &json!(path)));
}

pub(crate) fn prune() {
    for (value, leaves) in [("1", false), ("0", true)] {
        let folder = tempfile::tempdir().unwrap();
        let report = folder.path().join("report.jsonl");
        let args = ["fit", "--model.kind=slow", "--trainer.max_epochs=1000", "--trainer.enable_checkpointing=true"];
        let mut command = command(folder.path(), &args);
        let child = command.env("FULGURITE_REPORT", &report).env("FULGURITE_PRUNE", value).spawn().unwrap();
        wait_until("it trains", || events(&report).len() > 2);
        send(child.id(), "TERM");
        end(child).says(143, &[]);
        let last = events(&report).pop().unwrap();
        assert_eq!((&last["event"], &last["status"]), (&json!("end"), &json!("interrupted")));
        assert_eq!(last["ckpt"].as_str().is_some_and(|path| path.ends_with("interrupted.ckpt")), leaves, "{last}");
        assert_eq!(folder.path().join("checkpoints/interrupted.ckpt").is_file(), leaves);
    }
}

/// As in a sweep of Weights & Biases whose `command` is `[PROGRAM, fit, "${args}"]`.
pub(crate) fn wandb_agent() {
    let agent = |args: &[&str], sweep: &str| {
        let folder = tempfile::tempdir().unwrap();
        let report = folder.path().join("report.jsonl");
        let mut command = command(folder.path(), &[&["fit"], args].concat());
        let ended = run({
            command.env("FULGURITE_REPORT", &report).env("WANDB_SWEEP_ID", sweep).env("WANDB_RUN_ID", "a1b2c3d4");
            command
        });
        (ended, events(&report).pop())
    };
    for args in [
        &["--lr=0.5", "--max_epochs=1", "--kind=good"][..],
        &["--model.lr=0.5", "--trainer.max_epochs=1", "--trainer.enable_checkpointing=False"],
        &["--model={'lr': 0.5, 'kind': 'good'}", "--trainer={'max_epochs': 1}"],
    ] {
        let (ended, last) = agent(args, "x1y2z3");
        ended.says(0, &[]);
        assert!((last.unwrap()["values"]["val_loss"].as_f64().unwrap() - 0.04).abs() < 1e-6);
    }
    for (args, sweep, said) in [
        (["--size=2"], "x1y2z3", "--size: `size` could be `model.size` or `data.size`; write the full name"),
        (["--lrr=2"], "x1y2z3", "there is no option `lrr`; did you mean `model.lr`?"),
        (["lr=2"], "x1y2z3", "`lr=2` is not an option; write --name value or --name=value"),
        (["--lr=2"], "", "there is no option `lr`; did you mean `model.lr`?"),
    ] {
        agent(&args, sweep).0.says(2, &[said]);
    }
}

pub(crate) fn wrong_variables() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value, said) in [
        ("FULGURITE_REPORT", "", "FULGURITE_REPORT is ``: that is empty; write the path"),
        ("FULGURITE_REPORT", "fd:x", "no number of a descriptor"),
        ("FULGURITE_REPORT", "nowhere/report.jsonl", "FULGURITE_REPORT is `nowhere/report.jsonl`: No such file"),
        ("FULGURITE_PRUNE", "yes", "FULGURITE_PRUNE is `yes`; it must be 1, for no checkpoint"),
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
