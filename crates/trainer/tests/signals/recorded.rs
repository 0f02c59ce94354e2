//! The record of a run that was killed, and went on.

use std::path::Path;

use super::process::{end, run, send, start, wait_for};

/// The lines of the record, but those of progress and warnings, and without what differs from run to run.
fn record(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("lightning_logs/version_0/run.jsonl")).unwrap();
    let shown = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let kind = event["event"].as_str().unwrap();
        match kind {
            "start" => Some(format!("start {} {}", event["entry"], !event["run_id"].is_null())),
            "train" => Some(format!("train at {} from {}", event["step"], !event["resumed_from"].is_null())),
            "end" => Some(format!("{} at {} after {}", event["status"], event["step"], event["batches"])),
            _ => None,
        }
    };
    text.lines().filter_map(shown).collect()
}

pub(crate) fn a_kill_leaves_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = start(folder.path(), "csv save_every=2 batch=5 hang", &[]);
    wait_for(&mut child, "in batch");
    send(&child, "KILL");
    assert_eq!(end(child).signal, Some(9));
    run(folder.path(), "csv save_every=2 ckpt_path=auto", &[]).with_code(0);
    let expected = [
        "start \"fit\" false",
        "train at 0 from false",
        "start \"fit\" true",
        "train at 4 from true",
        "\"success\" at 15 after 11",
    ];
    assert_eq!(record(folder.path()), expected);
}

pub(crate) fn a_signal_is_an_end() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), "csv batch=7", &[]).with_code(143);
    let expected = ["start \"fit\" false", "train at 0 from false", "\"interrupted\" at 7 after 7"];
    assert_eq!(record(folder.path()), expected);
}
