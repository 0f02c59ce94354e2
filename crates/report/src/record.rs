//! [`Record`]: what a trainer has written of a run, `run.jsonl`. Nothing in it is trusted: numbers are checked, texts and their
//! number are bounded.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Result, failed};

pub(crate) const RECORD: &str = "run.jsonl";

/// A trainer stops at 64 MiB.
const MOST_BYTES: u64 = 80 << 20;
const LONGEST_LINE: u64 = 2 << 20;
const MOST_SEGMENTS: usize = 10_000;
/// Checkpoints, warnings and lines of progress of a segment.
const MOST_LINES: usize = 20_000;
const LONGEST_TEXT: usize = 300_000;

/// What time is spent on, as a trainer names it.
pub(crate) const ACTIVITIES: [&str; 8] =
    ["training", "data", "validation", "test", "prediction", "checkpoints", "setup", "teardown"];

/// The starts of a program, in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) segments: Vec<Segment>,
}

/// One entry point of one start of the program.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    pub(crate) entry: String,
    /// When it began, in seconds since 1970.
    pub(crate) begun: f64,
    /// Versions, hardware and settings by name.
    pub(crate) about: Vec<(String, String)>,
    pub(crate) summary: Option<String>,
    pub(crate) training: Option<Training>,
    pub(crate) progress: Vec<Progress>,
    pub(crate) checkpoints: Vec<Saved>,
    pub(crate) warnings: Vec<(f64, String)>,
    pub(crate) end: Option<End>,
}

/// Where training began.
#[derive(Debug)]
pub(crate) struct Training {
    pub(crate) step: f64,
    pub(crate) epoch: f64,
    pub(crate) resumed_from: Option<String>,
}

/// How far it was.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Progress {
    pub(crate) time: f64,
    pub(crate) step: f64,
    pub(crate) epoch: f64,
    pub(crate) batches: f64,
    pub(crate) samples: f64,
    pub(crate) of_steps: Option<f64>,
    /// Seconds until the next line.
    pub(crate) next: f64,
    /// Seconds of each activity.
    pub(crate) spent: [f64; ACTIVITIES.len()],
}

/// A checkpoint that was on the disk.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) path: String,
    pub(crate) step: f64,
    pub(crate) monitor: Option<String>,
    /// Whether a high score is good.
    pub(crate) high_is_good: bool,
    pub(crate) score: Option<f64>,
}

/// How a segment has ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) status: String,
    pub(crate) error: Option<String>,
}

impl Record {
    /// The record in a folder, empty if there is none.
    pub(crate) fn read(folder: &Path) -> Result<Record> {
        let path = folder.join(RECORD);
        if !path.is_file() {
            return Ok(Record::default());
        }
        let file = File::open(&path).map_err(failed(&path, "read"))?;
        let mut reader = BufReader::new(file.take(MOST_BYTES));
        let mut record = Record::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(failed(&path, "read"))?;
            if read == 0 {
                return Ok(record);
            }
            // The last line of a killed program may be half a line.
            if let Ok(Value::Object(event)) = serde_json::from_slice(&line) {
                record.add(&event);
            }
        }
    }

    fn add(&mut self, event: &Map<String, Value>) {
        let kind = event.get("event").and_then(Value::as_str).unwrap_or_default();
        if kind == "start" && self.segments.len() < MOST_SEGMENTS {
            self.segments.push(Segment::begin(event));
        } else if let Some(segment) = self.segments.last_mut() {
            segment.add(kind, event);
        }
    }
}

impl Segment {
    fn begin(event: &Map<String, Value>) -> Segment {
        // Numbers of the process and of the run differ always, and say nothing.
        let known = ["event", "v", "time", "entry", "pid", "run_id"];
        let about = event.iter().filter(|(name, value)| !known.contains(&name.as_str()) && !value.is_null());
        Segment {
            entry: text(event, "entry").unwrap_or_default(),
            begun: number(event, "time"),
            about: about.take(100).map(|(name, value)| (cut(name), shown(value))).collect(),
            ..Segment::default()
        }
    }

    fn add(&mut self, kind: &str, event: &Map<String, Value>) {
        match kind {
            "train" => {
                let (step, epoch) = (number(event, "step"), number(event, "epoch"));
                self.training = Some(Training { step, epoch, resumed_from: text(event, "resumed_from") });
            }
            "summary" => self.summary = text(event, "text"),
            "progress" if self.progress.len() < MOST_LINES => self.progress.push(Progress::of(event)),
            "checkpoint" if self.checkpoints.len() < MOST_LINES => self.checkpoints.push(Saved::of(event)),
            "warning" if self.warnings.len() < MOST_LINES => {
                self.warnings.push((number(event, "time"), text(event, "text").unwrap_or_default()));
            }
            "end" => {
                self.progress.push(Progress::of(event));
                let status = text(event, "status").unwrap_or_default();
                self.end = Some(End { status, error: text(event, "error") });
            }
            _ => {}
        }
    }

    pub(crate) fn is_fit(&self) -> bool {
        self.entry == "fit"
    }

    pub(crate) fn has_succeeded(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.status == "success")
    }

    /// How far it is known to have come.
    pub(crate) fn last(&self) -> Progress {
        let nothing = || {
            let (step, epoch) = self.training.as_ref().map_or((0.0, 0.0), |at| (at.step, at.epoch));
            Progress { time: self.begun, step, epoch, ..Progress::default() }
        };
        self.progress.last().cloned().unwrap_or_else(nothing)
    }

    /// The optimizer steps that it took.
    pub(crate) fn steps(&self) -> f64 {
        self.training.as_ref().map_or(0.0, |training| (self.last().step - training.step).max(0.0))
    }

    /// `success`, `failed` or `interrupted`; without an end `running`, if a line is not overdue, or else `killed`.
    pub(crate) fn status(&self, now: f64) -> &str {
        match &self.end {
            Some(end) => &end.status,
            None => {
                let last = self.last();
                let patience = 60.0 + 2.0 * last.next;
                if now - last.time.max(self.begun) < patience { "running" } else { "killed" }
            }
        }
    }
}

impl Progress {
    fn of(event: &Map<String, Value>) -> Progress {
        let seconds = event.get("seconds").and_then(Value::as_object);
        let spent = |name: &str| seconds.map_or(0.0, |seconds| number(seconds, name));
        Progress {
            time: number(event, "time"),
            step: number(event, "step"),
            epoch: number(event, "epoch"),
            batches: number(event, "batches"),
            samples: number(event, "samples"),
            of_steps: event.get("of_steps").and_then(Value::as_f64).filter(|steps| steps.is_finite()),
            next: number(event, "next").min(3600.0),
            spent: ACTIVITIES.map(spent),
        }
    }

    pub(crate) fn spent_on(&self, activity: &str) -> f64 {
        ACTIVITIES.iter().position(|name| *name == activity).map_or(0.0, |at| self.spent[at])
    }
}

impl Saved {
    fn of(event: &Map<String, Value>) -> Saved {
        let score = match event.get("score") {
            Some(Value::String(text)) => text.parse().ok(),
            other => other.and_then(Value::as_f64),
        };
        Saved {
            path: text(event, "path").unwrap_or_default(),
            step: number(event, "step"),
            monitor: text(event, "monitor"),
            high_is_good: event.get("mode").and_then(Value::as_str) == Some("max"),
            score,
        }
    }

    /// The name of the file.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit(['/', '\\']).next().unwrap_or_default()
    }
}

/// A number that can be calculated with.
fn number(event: &Map<String, Value>, name: &str) -> f64 {
    let number = event.get(name).and_then(Value::as_f64).filter(|number| number.is_finite());
    number.unwrap_or(0.0).clamp(0.0, 1e15)
}

fn text(event: &Map<String, Value>, name: &str) -> Option<String> {
    event.get(name).and_then(Value::as_str).map(cut)
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}

/// A list as its words, such as a command line.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => cut(text),
        Value::Array(items) => cut(&items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        other => cut(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Record {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(RECORD), text).unwrap();
        Record::read(folder.path()).unwrap()
    }

    #[test]
    fn damaged_and_hostile_lines_are_passed_over() {
        let record = read(concat!(
            "{\"event\":\"end\"}\n[1]\n\"start\"\n{\"event\":7}\n\u{0}\n",
            "{\"event\":\"start\",\"entry\":[],\"time\":-1e999,\"command\":[\"a\",[\"b\",{}]]}\n",
            "{\"event\":\"start\",\"entry\":\"fit\",\"time\":1e300}\n",
            "{\"event\":\"progress\",\"step\":-4,\"seconds\":{\"training\":\"x\",\"data\":2,\"setup\":1e308}}\n",
            "{\"event\":\"checkpoint\",\"score\":\"NaN\",\"path\":\"a/../b\\\\c.ckpt\"}\n",
            "{\"event\":\"progress\",\"st",
        ));
        // A number that no float can hold makes a line that is no JSON.
        assert_eq!(record.segments.len(), 1);
        let segment = &record.segments[0];
        let last = segment.last();
        assert_eq!((segment.begun, last.step, last.spent_on("data"), last.spent_on("setup")), (1e15, 0.0, 2.0, 1e15));
        assert_eq!((segment.checkpoints[0].name(), segment.status(0.0)), ("c.ckpt", "running"));
        assert!(segment.checkpoints[0].score.unwrap().is_nan());
        assert_eq!(segment.status(2e15), "killed");
    }

    #[test]
    fn endless_lines_and_files_end() {
        let long = format!("{{\"event\":\"start\",\"entry\":\"{}\"}}\n", "x".repeat(3 << 20));
        let record = read(&(long + "{\"event\":\"start\",\"entry\":\"fit\"}\n"));
        assert_eq!(record.segments.len(), 1);
        let many = "{\"event\":\"start\"}\n".repeat(MOST_SEGMENTS + 10);
        assert_eq!(read(&many).segments.len(), MOST_SEGMENTS);
    }
}
