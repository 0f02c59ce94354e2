//! [`Event`]: a line of the record.

use std::borrow::Cow;
use std::time::SystemTime;

use fulgurite_fabric::loggers::{CheckpointNews, RunStatus};
use serde::{Serialize, Serializer};

use super::bounded::{at_most, at_most_of};
use super::ledger::{Ledger, seconds};
use super::machine::Machine;

/// What a line says. All of it is bounded.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    /// An entry point begins.
    Start {
        v: u32,
        time: f64,
        entry: &'a str,
        pid: u32,
        run_id: Option<&'a str>,
        #[serde(flatten)]
        about: &'a About,
    },
    /// Training begins, or goes on where a checkpoint was written.
    Train { time: f64, resumed_from: Option<Cow<'a, str>>, step: u64, epoch: u64 },
    /// What is known of the model.
    Summary { text: Cow<'a, str> },
    /// How far it is.
    Progress {
        time: f64,
        #[serde(flatten)]
        done: Done,
        of_steps: Option<u64>,
        /// Seconds after which the next of these lines comes, with the next batch.
        next: f64,
        seconds: &'a Ledger,
    },
    /// A checkpoint is on the disk.
    Checkpoint {
        time: f64,
        step: u64,
        path: Cow<'a, str>,
        monitor: Option<Cow<'a, str>>,
        mode: &'a str,
        #[serde(serialize_with = "number")]
        score: Option<f64>,
        best: bool,
        last: bool,
    },
    /// A warning was printed.
    Warning { time: f64, text: Cow<'a, str> },
    /// The entry point has ended.
    End {
        time: f64,
        status: &'a str,
        error: Option<Cow<'a, str>>,
        #[serde(flatten)]
        done: Done,
        seconds: &'a Ledger,
        /// Lines that were left out, because there were too many.
        omitted: u64,
    },
}

/// Where a run stands, and what this entry point did of it.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Done {
    pub(crate) step: u64,
    pub(crate) epoch: u64,
    /// Training batches of a process.
    pub(crate) batches: u64,
    /// Their samples, of all processes.
    pub(crate) samples: u64,
}

/// What runs, and on what.
#[derive(Debug, Serialize)]
pub(crate) struct About {
    pub(crate) device: String,
    pub(crate) gpu: Option<String>,
    pub(crate) precision: String,
    pub(crate) strategy: String,
    pub(crate) ranks: usize,
    pub(crate) threads: usize,
    #[serde(flatten)]
    pub(crate) machine: Machine,
}

const PATH: usize = 4 << 10;
const WARNING: usize = 4 << 10;
const SUMMARY: usize = 256 << 10;

impl<'a> Event<'a> {
    pub(super) fn summary(text: &'a str) -> Event<'a> {
        Event::Summary { text: at_most(SUMMARY, text) }
    }

    pub(super) fn warning(text: &'a str) -> Event<'a> {
        Event::Warning { time: now(), text: at_most(WARNING, text) }
    }

    pub(super) fn checkpoint(news: &'a CheckpointNews, step: u64) -> Event<'a> {
        Event::Checkpoint {
            time: now(),
            step,
            path: at_most_of(PATH, news.path.to_string_lossy()),
            monitor: news.monitor.as_deref().map(|monitor| at_most(PATH, monitor)),
            mode: news.mode.name(),
            score: news.score,
            best: news.is_best,
            last: news.is_last,
        }
    }

    pub(super) fn end(
        status: RunStatus,
        error: Option<&'a str>,
        done: Done,
        seconds: &'a Ledger,
        omitted: u64,
    ) -> Event<'a> {
        let status = match status {
            RunStatus::Success => "success",
            RunStatus::Failed => "failed",
            RunStatus::Interrupted => "interrupted",
        };
        Event::End { time: now(), status, error: error.map(|text| at_most(WARNING, text)), done, seconds, omitted }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, seconds)
}

/// JSON has no NaN and no infinities: texts.
fn number<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) if value.is_nan() => serializer.serialize_str("NaN"),
        Some(value) if value.is_infinite() => {
            serializer.serialize_str(if *value > 0.0 { "Infinity" } else { "-Infinity" })
        }
        value => value.serialize(serializer),
    }
}
