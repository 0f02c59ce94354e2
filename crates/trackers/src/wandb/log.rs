//! [`RunLog`]: a run that is being logged.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::file::RunFile;
use super::left::InOrder;
use super::record::{Artifact, Item, Metric, Record, RunInfo, json_number};
use super::server::{Resume, Server};
use super::uploader::Uploader;
use crate::courier::{Courier, Finished};
use crate::entry::now_ms;
use crate::error::TrackerError;

/// The metric on the x-axis: the step of the trainer.
pub const GLOBAL_STEP: &str = "trainer/global_step";

/// A run in a transaction log, whose rows get their numbers and times here.
#[derive(Debug)]
pub struct RunLog {
    courier: Courier<RunFile>,
    folder: PathBuf,
    info: RunInfo,
    rows: i64,
    flushed: Instant,
    is_online: bool,
}

/// Rows are in the file when they are this old.
const FLUSH_AFTER: Duration = Duration::from_secs(2);

impl RunLog {
    /// Begins a run in a new file below `root/wandb`, for W&B's own client or `fulgurite sync`.
    ///
    /// ```
    /// use fulgurite_trackers::wandb::{RunInfo, RunLog, run_id};
    ///
    /// # let root = tempfile::tempdir()?;
    /// let mut log = RunLog::offline(root.path(), RunInfo::new(run_id(), "digits"))?;
    /// log.row(vec![("loss".into(), "0.5".into())])?;
    /// let folder = log.folder().to_owned();
    /// log.finish(0, std::time::Duration::ZERO)?;
    /// assert!(folder.join("files").exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn offline(root: &Path, info: RunInfo) -> Result<RunLog, TrackerError> {
        let file = RunFile::create(root, &info.id, true).map_err(TrackerError::outbox(root))?;
        RunLog::begin(Courier::without_service(file), info, false)
    }

    /// Begins a run in a new file below `root/wandb`, which a thread sends to the server while it grows. A run of this identifier
    /// is continued as `resume` says.
    ///
    /// # Errors
    ///
    /// Fails if the server cannot be reached, refuses the key or the run, or the file cannot be written.
    pub fn online(root: &Path, info: RunInfo, resume: Resume, server: Server) -> Result<RunLog, TrackerError> {
        let info = server.admit(info, resume)?;
        let file = RunFile::create(root, &info.id, false).map_err(TrackerError::outbox(root))?;
        let pace = server.pace;
        let uploader = Uploader::new(server, file.path(), info.clone(), false);
        let service = InOrder::new(uploader, file.path(), &info.id);
        RunLog::begin(Courier::start(file, Box::new(service), pace)?, info, true)
    }

    pub(super) fn begin(courier: Courier<RunFile>, info: RunInfo, is_online: bool) -> Result<RunLog, TrackerError> {
        let folder = courier.path().parent().unwrap_or(courier.path()).to_owned();
        courier.post(&Record::Run(Box::new(info.clone())))?;
        for (name, step_metric) in [(GLOBAL_STEP, ""), ("*", GLOBAL_STEP)] {
            courier.post(&Record::Metric(Metric { name: name.into(), step_metric: step_metric.into() }))?;
        }
        Ok(RunLog { courier, folder, info, rows: 0, flushed: Instant::now(), is_online })
    }

    /// Adds a row, and makes its values the last ones.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn row(&mut self, mut items: Vec<Item>) -> Result<(), TrackerError> {
        let now = now_ms();
        let seconds = |ms: i64| json_number(ms as f64 / 1000.0);
        items.push(("_timestamp".into(), seconds(now)));
        items.push(("_runtime".into(), seconds(now - self.info.start_ms)));
        items.push(("_step".into(), self.rows.to_string()));
        self.courier.post(&Record::Summary(items.clone()))?;
        self.courier.post(&Record::History { step: self.rows, items })?;
        self.rows += 1;
        if self.flushed.elapsed() < FLUSH_AFTER {
            return Ok(());
        }
        self.flushed = Instant::now();
        self.courier.flush()
    }

    /// Adds hyper-parameters, or changes them.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn config(&self, items: Vec<Item>) -> Result<(), TrackerError> {
        if items.is_empty() { Ok(()) } else { self.courier.post(&Record::Config(items)) }
    }

    /// Adds statistics of the machine, such as `cpu` in percent.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn stats(&self, items: Vec<Item>) -> Result<(), TrackerError> {
        self.courier.post(&Record::Stats { ms: now_ms(), items })
    }

    /// A medium lies below `files/`, and a row names it next.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn media(&self, path: &str) -> Result<(), TrackerError> {
        self.courier.post(&Record::File { path: path.to_owned(), is_media: true })
    }

    /// Adds an artifact, whose files stay where they are until they are sent.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn artifact(&self, artifact: Artifact) -> Result<(), TrackerError> {
        self.courier.post(&Record::Artifact(Box::new(artifact)))
    }

    /// The scheduler ends the run, which goes on in another job: the server shows it as preempted.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn preempting(&self) -> Result<(), TrackerError> {
        self.courier.post(&Record::Preempting)
    }

    /// Waits until all records are on the disk.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn save(&self) -> Result<(), TrackerError> {
        self.courier.save()
    }

    /// Ends the run, with the exit code of its program. With a server it waits so long until everything is sent.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn finish(self, code: i32, patience: Duration) -> Result<Finished, TrackerError> {
        self.end(code)?;
        if self.is_online { self.courier.finish(patience) } else { Ok(Finished { left: None, warnings: Vec::new() }) }
    }

    /// Ends a run without a server, so that it may [go on](RunLog::go_on) in the same file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn end(&self, code: i32) -> Result<(), TrackerError> {
        let seconds = (now_ms() - self.info.start_ms) / 1000;
        // What the server shows as the run's duration.
        self.courier.post(&Record::Summary(vec![("_wandb".into(), format!("{{\"runtime\": {seconds}}}"))]))?;
        self.courier.post(&Record::Exit { code, seconds })?;
        self.courier.save()
    }

    /// The run did not end yet. A server that has heard of its end is told nothing.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn go_on(&self) -> Result<(), TrackerError> {
        self.courier.with_outbox(RunFile::go_on).map_err(TrackerError::outbox(self.courier.path()))
    }

    /// Whether a thread sends it.
    pub fn is_online(&self) -> bool {
        self.is_online
    }

    /// The number of the next row.
    pub fn next_row(&self) -> i64 {
        self.rows
    }

    /// The folder of the file, in which `files/` is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The run.
    pub fn info(&self) -> &RunInfo {
        &self.info
    }

    /// What the user should know, once.
    pub fn take_warnings(&self) -> Vec<String> {
        self.courier.take_warnings()
    }

    /// Whether the user asks on the server that the run ends. It says so once.
    pub fn wants_stop(&self) -> bool {
        self.courier.wants_stop()
    }
}
