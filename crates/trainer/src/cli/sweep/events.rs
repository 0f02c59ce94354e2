//! [`Events`]: the lines that a trial reports.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
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
    End {
        values: Map<String, Value>,
    },
    /// No event: what is wrong.
    Garbage(String),
}

/// Reads the lines of a file that grows.
pub(super) struct Events {
    path: PathBuf,
    position: u64,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
    lines: usize,
}

/// A longer line is none of ours.
const LONGEST_LINE: usize = 16 << 20;

impl Events {
    pub(super) fn of(path: PathBuf) -> Events {
        Events { path, position: 0, rest: Vec::new(), lines: 0 }
    }

    /// What was added since the last call.
    pub(super) fn read(&mut self) -> Vec<Event> {
        let added = self.added();
        let Ok(added) = added else { return Vec::new() };
        self.rest.extend(added);
        let mut events = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.lines += 1;
            let event = serde_json::from_slice(&line).ok().and_then(|line| event(&line));
            match event {
                Some(Some(event)) => events.push(event),
                Some(None) => {}
                None => {
                    events.push(Event::Garbage(format!("line {} of {} is no event", self.lines, self.path.display())))
                }
            }
        }
        if self.rest.len() > LONGEST_LINE {
            events.push(Event::Garbage(format!("a line of {} does not end", self.path.display())));
            self.rest.clear();
        }
        events
    }

    fn added(&mut self) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        let mut added = Vec::new();
        if file.metadata()?.len() > self.position {
            file.seek(SeekFrom::Start(self.position))?;
            file.take(LONGEST_LINE as u64).read_to_end(&mut added)?;
            self.position += added.len() as u64;
        }
        Ok(added)
    }
}

/// The event of a line; `None` if it is none, `Some(None)` if it tells nothing that is needed.
fn event(line: &Value) -> Option<Option<Event>> {
    let values = || line.get("values").and_then(Value::as_object).cloned();
    Some(Some(match line.get("event")?.as_str()? {
        "start" => Event::Start { log_dir: line.get("log_dir").and_then(Value::as_str).map(str::to_owned) },
        "metrics" => Event::Metrics { epoch: line.get("epoch")?.as_i64()?, values: values()? },
        "end" => Event::End { values: values()? },
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
