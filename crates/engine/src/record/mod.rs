//! [`RunRecord`]: what a run did, in a file of its log folder that a killed program leaves behind too. The guide's page on
//! reports has the format.

mod bounded;
mod command_line;
mod event;
mod file;
mod ledger;
mod machine;

use std::io;
use std::path::Path;
use std::time::Duration;

use fulgurite_fabric::loggers::{CheckpointNews, RunStatus};

pub(crate) use event::About;
use event::{Done, Event, now};
use file::RecordFile;
pub(crate) use ledger::Activity;
use ledger::{Ledger, seconds};
pub(crate) use machine::Machine;

/// The name of the file.
pub(crate) const FILE: &str = "run.jsonl";
const FORMAT: u32 = 1;

/// What an entry point may write beside its progress.
const MOST_BYTES: usize = 16 << 20;
/// What it may write before it is known where.
const MOST_WAITING: usize = 1 << 20;

/// The record of a run: an account of the time, and the lines that are written about it.
#[derive(Debug)]
pub(crate) struct RunRecord {
    ledger: Ledger,
    begun: f64,
    /// Training batches and samples of this entry point.
    batches: u64,
    samples: u64,
    /// When progress is written next, in the time of the ledger.
    due: Duration,
    /// How many of the console's warnings are written.
    warnings: usize,
    lines: Lines,
    written: usize,
    omitted: u64,
    /// What is being written; kept, so that a line of progress allocates nothing.
    buffer: Vec<u8>,
}

/// Where a run stands, and how many steps it is to take, if that is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    pub(crate) step: u64,
    pub(crate) epoch: u64,
    pub(crate) of_steps: Option<u64>,
}

/// Where lines go.
#[derive(Debug)]
enum Lines {
    /// Nowhere.
    Off,
    /// To the buffer: it is not known yet whether there is a folder for them.
    Waiting,
    To(RecordFile),
}

impl Default for RunRecord {
    fn default() -> RunRecord {
        RunRecord {
            ledger: Ledger::begin(),
            begun: 0.0,
            batches: 0,
            samples: 0,
            due: Duration::ZERO,
            warnings: 0,
            lines: Lines::Off,
            written: 0,
            omitted: 0,
            buffer: Vec::new(),
        }
    }
}

impl RunRecord {
    /// An entry point begins.
    pub(crate) fn begin(&mut self) {
        *self = RunRecord { begun: now(), warnings: self.warnings, lines: Lines::Waiting, ..RunRecord::default() };
    }

    /// Begins an activity, and returns the one that it ends.
    pub(crate) fn enter(&mut self, activity: Activity) -> Activity {
        self.ledger.enter(activity)
    }

    pub(crate) fn activity(&self) -> Activity {
        self.ledger.activity()
    }

    /// Counts a training batch, and the samples of all processes in it.
    pub(crate) fn count_batch(&mut self, samples: u64) {
        self.batches += 1;
        self.samples = self.samples.saturating_add(samples);
    }

    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.lines, Lines::Waiting)
    }

    /// This entry point writes nothing.
    pub(crate) fn turn_off(&mut self) {
        self.lines = Lines::Off;
        self.buffer = Vec::new();
    }

    /// Writes to the folder of the run, first what has waited for it.
    pub(crate) fn open(&mut self, folder: &Path, entry: &str, run_id: Option<&str>, about: &About) -> io::Result<()> {
        self.lines = Lines::To(RecordFile::append_to(&folder.join(FILE))?);
        let waiting = std::mem::take(&mut self.buffer);
        let (time, pid) = (self.begun, std::process::id());
        self.write(&Event::Start { v: FORMAT, time, entry, pid, run_id, about })?;
        self.buffer = waiting;
        self.flush()
    }

    /// Training begins, or goes on.
    pub(crate) fn training_begins(&mut self, resumed_from: Option<&Path>, at: Position) -> io::Result<()> {
        let resumed_from = resumed_from.map(|path| path.to_string_lossy());
        self.write(&Event::Train { time: now(), resumed_from, step: at.step, epoch: at.epoch })
    }

    pub(crate) fn summary(&mut self, text: &str) -> io::Result<()> {
        self.write(&Event::summary(text))
    }

    /// A checkpoint is on the disk. What was done until then is written too: it is what a restart goes on from.
    pub(crate) fn checkpoint(&mut self, news: &CheckpointNews, at: Position) -> io::Result<()> {
        self.write(&Event::checkpoint(news, at.step))?;
        self.ledger.settle();
        let (ledger, next) = (self.ledger.clone(), interval(self.ledger.lasted()));
        self.write(&self.done(at, next, &ledger))
    }

    /// Writes the warnings that are not written yet.
    pub(crate) fn warn(&mut self, warnings: &[String]) -> io::Result<()> {
        self.warnings += warnings.len();
        warnings.iter().try_for_each(|text| self.write(&Event::warning(text)))
    }

    /// How many warnings are written.
    pub(crate) fn warnings(&self) -> usize {
        self.warnings
    }

    /// Whether it is time for a line of progress, as far as is known without the clock.
    pub(crate) fn is_due(&self) -> bool {
        self.ledger.lasted() >= self.due && matches!(self.lines, Lines::To(_))
    }

    /// Writes how far the run is.
    pub(crate) fn progress(&mut self, at: Position) -> io::Result<()> {
        self.ledger.settle();
        let (ledger, next) = (self.ledger.clone(), interval(self.ledger.lasted()));
        self.due = self.ledger.lasted() + next;
        self.append(&self.done(at, next, &ledger)).map(drop)
    }

    fn done<'l>(&self, at: Position, next: Duration, seconds_spent: &'l Ledger) -> Event<'l> {
        let done = Done { step: at.step, epoch: at.epoch, batches: self.batches, samples: self.samples };
        Event::Progress { time: now(), done, of_steps: at.of_steps, next: seconds(next), seconds: seconds_spent }
    }

    /// The entry point has ended. Nothing more is written.
    pub(crate) fn end(&mut self, status: RunStatus, error: Option<&str>, at: Position) -> io::Result<()> {
        self.ledger.settle();
        let done = Done { step: at.step, epoch: at.epoch, batches: self.batches, samples: self.samples };
        let ledger = self.ledger.clone();
        let written = self.append(&Event::end(status, error, done, &ledger, self.omitted));
        self.turn_off();
        written.map(drop)
    }

    /// A line, unless there were too many.
    fn write(&mut self, event: &Event<'_>) -> io::Result<()> {
        let most = if self.is_waiting() { MOST_WAITING } else { MOST_BYTES };
        if self.written > most {
            self.omitted += 1;
            return Ok(());
        }
        self.written += self.append(event)?;
        Ok(())
    }

    /// Appends a line, of this length, to the file, or to what waits for one.
    fn append(&mut self, event: &Event<'_>) -> io::Result<usize> {
        if matches!(self.lines, Lines::Off) {
            return Ok(0);
        }
        let before = self.buffer.len();
        serde_json::to_writer(&mut self.buffer, event)?;
        self.buffer.push(b'\n');
        let length = self.buffer.len() - before;
        self.flush().map(|()| length)
    }

    fn flush(&mut self) -> io::Result<()> {
        let Lines::To(file) = &mut self.lines else { return Ok(()) };
        let appended = file.append(&self.buffer);
        self.buffer.clear();
        appended
    }
}

/// How long until progress is written again: often at first, then so that a run's file stays small.
fn interval(lasted: Duration) -> Duration {
    (lasted / 300).clamp(Duration::from_secs(1), Duration::from_secs(600))
}
