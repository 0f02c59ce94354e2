//! [`ReportLines`]: what a run tells the program that started it, as lines of JSON.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fulgurite_engine::{Error, Outcome};
use fulgurite_fabric::loggers::CheckpointNews;
use serde_json::{Map, Value, json};

/// Says where the lines go.
pub(crate) const VARIABLE: &str = "FULGURITE_REPORT";

/// Writes the lines of `FULGURITE_REPORT`: to a file, to `fd:N`, or for `-` to standard output. Clones share it.
#[derive(Clone)]
pub(crate) struct ReportLines(Arc<Mutex<Lines>>);

struct Lines {
    /// `None` in every process of the run but the first.
    out: Option<Box<dyn Write + Send>>,
    /// The latest values.
    values: Map<String, Value>,
}

impl ReportLines {
    /// What the environment asks for, if anything.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be opened.
    pub(crate) fn from_env(is_global_zero: bool) -> Result<Option<ReportLines>, Error> {
        let Some(given) = std::env::var_os(VARIABLE) else { return Ok(None) };
        let out = if is_global_zero { Some(open(&given.to_string_lossy(), Path::new(&given))?) } else { None };
        Ok(Some(ReportLines(Arc::new(Mutex::new(Lines { out, values: Map::new() })))))
    }

    pub(super) fn start(&self, run: Option<&str>, log_dir: &Path) -> io::Result<()> {
        // Relative to a folder that the reader may not know.
        let log_dir = std::path::absolute(log_dir).unwrap_or_else(|_| log_dir.to_owned());
        let event = json!({ "event": "start", "v": 1, "pid": std::process::id(), "run": run, "log_dir": log_dir });
        self.write(&event)
    }

    pub(super) fn metrics(&self, step: u64, epoch: u64) -> io::Result<()> {
        let values = self.lock().values.clone();
        self.write(&json!({ "event": "metrics", "step": step, "epoch": epoch, "values": values }))
    }

    pub(super) fn checkpoint(&self, news: &CheckpointNews) -> io::Result<()> {
        let path = std::path::absolute(&news.path).unwrap_or_else(|_| news.path.clone());
        let score = news.score.map_or(Value::Null, number);
        self.write(&json!({
            "event": "checkpoint", "step": news.step, "epoch": news.epoch, "path": path, "score": score, "best": news.is_best,
        }))
    }

    /// The latest values, which the next lines have.
    pub(super) fn update<'v>(&self, values: impl Iterator<Item = (&'v str, f64)>) {
        let mut lines = self.lock();
        values.for_each(|(name, value)| drop(lines.values.insert(name.to_owned(), number(value))));
    }

    /// How a fit has ended. Whoever reads this knows by the end of the stream what could not be written.
    pub(crate) fn end(&self, ended: &Result<Outcome, Error>, best: Option<&Path>) {
        let signal = ended.as_ref().map_or_else(Error::signal, Outcome::signal);
        let status = match ended {
            _ if signal.is_some() => "interrupted",
            Ok(_) => "success",
            Err(_) => "failed",
        };
        let left = match ended {
            Ok(Outcome::Interrupted { checkpoint } | Outcome::Terminated { checkpoint, .. }) => checkpoint.as_deref(),
            _ => best,
        };
        let ckpt: Option<PathBuf> = left.and_then(|path| std::path::absolute(path).ok());
        let values = self.lock().values.clone();
        _ = self.write(&json!({ "event": "end", "status": status, "values": values, "ckpt": ckpt }));
    }

    /// One line, at once.
    fn write(&self, event: &Value) -> io::Result<()> {
        let mut lines = self.lock();
        let Some(out) = &mut lines.out else { return Ok(()) };
        let written = out.write_all(format!("{event}\n").as_bytes()).and_then(|()| out.flush());
        if written.is_err() {
            lines.out = None;
        }
        written
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(given: &str, path: &Path) -> Result<Box<dyn Write + Send>, Error> {
    let descriptor = given.strip_prefix("fd:");
    let number = descriptor.map(|number| number.parse::<u32>().ok());
    let path = match number {
        // Each line is there at once, and escaped by itself.
        _ if given == "-" => PathBuf::from("/dev/fd/1"),
        Some(Some(number)) => PathBuf::from(format!("/dev/fd/{number}")),
        Some(None) => return Err(wrong(given, "that is no number of a descriptor")),
        None if given.is_empty() => return Err(wrong(given, "that is empty")),
        None => path.to_owned(),
    };
    let opened = OpenOptions::new().create(descriptor.is_none() && given != "-").append(true).open(path);
    opened.map(|file| Box::new(file) as Box<dyn Write + Send>).map_err(|error| wrong(given, &error.to_string()))
}

fn wrong(given: &str, problem: &str) -> Error {
    Error::Config(format!(
        "the environment variable {VARIABLE} is `{given}`: {problem}; write the path of a file in a folder that exists, `fd:` and a \
         number, or `-` for standard output"
    ))
}

/// JSON has no NaN and no infinities: texts.
fn number(value: f64) -> Value {
    match value {
        _ if value.is_finite() => value.into(),
        _ if value.is_nan() => "NaN".into(),
        _ if value > 0.0 => "Infinity".into(),
        _ => "-Infinity".into(),
    }
}
