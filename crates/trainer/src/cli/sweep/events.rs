//! [`Events`]: the lines that a trial reports.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use serde_json::{Map, Value};

/// What a trial reports.
pub(super) enum Event {
    Start {
        log_dir: Option<String>,
    },
    Metrics {
        epoch: i64,
        values: Map<String, Value>,
    },
    Checkpoint {
        path: String,
        is_best: bool,
    },
    End {
        values: Map<String, Value>,
        ckpt: Option<String>,
    },
    /// No event: what is wrong.
    Garbage(String),
}

/// Reads the lines of a file that grows.
pub(super) struct Events {
    path: PathBuf,
    /// Opened once; a file that is not there yet is tried again.
    file: Option<File>,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
    lines: usize,
    is_garbage: bool,
}

/// A longer line is none of ours.
const LONGEST_LINE: usize = 1 << 20;

impl Events {
    pub(super) fn of(path: PathBuf) -> Events {
        Events { path, file: None, rest: Vec::new(), lines: 0, is_garbage: false }
    }

    /// What was added since the last call, as far as it is at most as long as a line may be, so that a flood cannot fill the memory.
    /// After what is no event, nothing else is read.
    pub(super) fn read(&mut self) -> Vec<Event> {
        if self.is_garbage {
            return Vec::new();
        }
        // What cannot be read now is read later, or is missed at the trial's end.
        let _unread = self.add();
        let mut text = std::mem::take(&mut self.rest);
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.rest = text.split_off(end);
        let mut events = Vec::new();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            self.lines += 1;
            match serde_json::from_slice(line).ok().and_then(|line| event(&line)) {
                Some(event) => events.extend(event),
                None => {
                    events.push(self.garbage("is no event"));
                    return events;
                }
            }
        }
        if self.rest.len() > LONGEST_LINE {
            self.lines += 1;
            events.push(self.garbage("is too long for an event"));
        }
        events
    }

    fn garbage(&mut self, problem: &str) -> Event {
        self.is_garbage = true;
        self.rest.clear();
        Event::Garbage(format!("line {} of {} {problem}", self.lines, self.path.display()))
    }

    fn add(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(File::open(&self.path)?),
        };
        file.take(LONGEST_LINE as u64).read_to_end(&mut self.rest).map(drop)
    }
}

/// The event of a line; `None` if it is none, `Some(None)` if it tells nothing that is needed.
fn event(line: &Value) -> Option<Option<Event>> {
    let values = || line.get("values").and_then(Value::as_object).cloned();
    let text = |key: &str| line.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(Some(match line.get("event")?.as_str()? {
        "start" => Event::Start { log_dir: text("log_dir") },
        "metrics" => Event::Metrics { epoch: line.get("epoch")?.as_i64()?, values: values()? },
        "checkpoint" => Event::Checkpoint { path: text("path")?, is_best: line.get("best")?.as_bool()? },
        "end" => Event::End { values: values()?, ckpt: text("ckpt") },
        _ => return Some(None),
    }))
}

/// A value as it is reported: a number, or the text of one that JSON does not have.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        _ => value.as_f64(),
    }
}
