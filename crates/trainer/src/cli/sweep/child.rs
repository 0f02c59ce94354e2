//! [`Child`]: the process of a trial.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fulgurite_torch::process::send_signal;
use signal_hook::consts::SIGTERM;

use super::events::{Event, Events};
use crate::outside;

/// The process of a trial, killed when dropped.
pub(super) struct Child {
    process: std::process::Child,
    folder: PathBuf,
    events: Events,
    began: Instant,
    /// How long it may take to end after it was asked to.
    grace: Duration,
    /// When it was asked to end.
    asked: Option<Instant>,
    ended: bool,
}

impl Child {
    /// Starts `program` with these arguments and its `shares` of devices and processors, as variables; its reports and output are in
    /// `folder`.
    pub(super) fn start(
        program: &Path,
        arguments: &[String],
        folder: PathBuf,
        shares: impl Iterator<Item = (&'static str, String)>,
        grace: Duration,
    ) -> io::Result<Child> {
        fs::create_dir_all(&folder)?;
        let report = folder.join("report.jsonl");
        File::create(&report)?;
        let output = File::create(folder.join(OUTPUT))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(shares)
            .env(outside::REPORT, &report)
            // Nobody goes on with a trial that was stopped.
            .env(outside::PRUNE, "1")
            .env(outside::PARENT, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        // Ctrl-C in the terminal is for the sweep, which ends its trials itself.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let process = command.spawn()?;
        let events = Events::of(report);
        Ok(Child { process, folder, events, began: Instant::now(), grace, asked: None, ended: false })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// What it has reported since the last call.
    pub(super) fn events(&mut self) -> Vec<Event> {
        self.events.read()
    }

    /// Asks it to end, as a scheduler would.
    pub(super) fn terminate(&mut self) {
        if self.asked.is_none() {
            self.asked = Some(Instant::now());
            // It may have ended by itself.
            _ = send_signal(&self.process, SIGTERM);
        }
    }

    /// How it has ended, if it has. One that was asked to and does not is killed.
    pub(super) fn poll(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.asked.is_some_and(|asked| asked.elapsed() > self.grace) {
            self.process.kill()?;
        }
        let status = self.process.try_wait()?;
        self.ended |= status.is_some();
        Ok(status)
    }

    /// The last line of its output.
    pub(super) fn last_words(&self) -> Option<String> {
        let mut file = File::open(self.folder.join(OUTPUT)).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(4096))).ok()?;
        let mut end = Vec::new();
        file.read_to_end(&mut end).ok()?;
        let text = String::from_utf8_lossy(&end);
        let error = text.lines().rev().find(|line| line.starts_with("error:"));
        let last = error.or_else(|| text.lines().rev().find(|line| !line.trim().is_empty()))?;
        Some(last.trim().chars().take(300).collect())
    }
}

const OUTPUT: &str = "output.txt";

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            _ = self.process.kill();
            _ = self.process.wait();
        }
    }
}
