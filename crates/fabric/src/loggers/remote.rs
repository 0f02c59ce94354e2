//! What the loggers of trackers share: how entries go to the thread that sends them, and how a run ends.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fulgurite_trackers::{Courier, Entry, Left, TrackerError};

use super::{LoggerError, RunStatus};

/// A signal leaves little time before the process is killed.
const MOST_WHEN_INTERRUPTED: Duration = Duration::from_secs(10);

/// Sends entries between the start and the end of a run, and keeps what the user should know.
#[derive(Debug)]
pub(super) struct Sender {
    logger: &'static str,
    courier: Option<Courier>,
    warned: HashSet<String>,
    warnings: Vec<String>,
}

impl Sender {
    /// Of the logger of this name.
    pub(super) fn new(logger: &'static str) -> Sender {
        Sender { logger, courier: None, warned: HashSet::new(), warnings: Vec::new() }
    }

    pub(super) fn begin(&mut self, courier: Courier) {
        self.courier = Some(courier);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.courier.is_some()
    }

    /// Adds an entry to the outbox.
    pub(super) fn post(&self, entry: &Entry) -> Result<(), LoggerError> {
        self.courier.as_ref().map_or(Ok(()), |courier| courier.post(entry).map_err(|error| self.failed(error)))
    }

    /// Waits until all entries are on the disk.
    pub(super) fn save(&self) -> Result<(), LoggerError> {
        self.courier.as_ref().map_or(Ok(()), |courier| courier.save().map_err(|error| self.failed(error)))
    }

    /// The outbox's file.
    pub(super) fn outbox(&self) -> Option<PathBuf> {
        self.courier.as_ref().map(|courier| courier.path().to_owned())
    }

    /// Ends without sending, and returns the outbox's file.
    pub(super) fn leave(&mut self) -> Result<Option<PathBuf>, LoggerError> {
        self.save()?;
        Ok(self.courier.take().map(|courier| courier.path().to_owned()))
    }

    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Warns of a subject once.
    pub(super) fn warn_once(&mut self, subject: &str, warning: impl FnOnce() -> String) {
        if self.warned.insert(subject.to_owned()) {
            self.warnings.push(warning());
        }
    }

    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        if let Some(courier) = &self.courier {
            self.warnings.extend(courier.take_warnings());
        }
        std::mem::take(&mut self.warnings)
    }

    /// Sends what is left, for so many seconds. Returns what could not be sent and how to send it, in a sentence.
    pub(super) fn finish(&mut self, status: RunStatus, seconds: u64) -> Result<Option<String>, LoggerError> {
        let Some(courier) = self.courier.take() else { return Ok(None) };
        let place = courier.path().parent().unwrap_or(courier.path()).display().to_string();
        let finished = courier.finish(patience(status, seconds)).map_err(|error| self.failed(error))?;
        self.warnings.extend(finished.warnings);
        Ok(finished.left.map(|left| not_sent(&left, "lines", &place)))
    }

    pub(super) fn failed(&self, error: TrackerError) -> LoggerError {
        LoggerError::other(self.logger, error)
    }
}

/// How long the end of a run waits for the server, of so many seconds that were asked for.
pub(super) fn patience(status: RunStatus, seconds: u64) -> Duration {
    let patience = Duration::from_secs(seconds);
    if status == RunStatus::Interrupted { patience.min(MOST_WHEN_INTERRUPTED) } else { patience }
}

/// What could not be sent, and how to send it.
pub(super) fn not_sent(left: &Left, unit: &str, place: &str) -> String {
    let Left { values, files, why } = left;
    let why = why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    format!("{values} {unit} and {files} files are not sent{why}; `fulgurite sync {place}` sends them")
}

/// A variable, unless it is empty.
pub(super) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Who runs this.
pub(super) fn user() -> Option<String> {
    ["LOGNAME", "USER", "USERNAME"].into_iter().find_map(variable)
}

/// Whether a text is an identifier of 32 hexadecimal digits.
pub(super) fn is_run_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The runs whose folders lie in a folder.
pub(super) fn runs_in(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let folders = fs::read_dir(folder).into_iter().flatten().flatten();
    folders.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_run_id(name))
}

/// A name as one folder.
pub(super) fn plain_folder(name: &str) -> String {
    const LONGEST: usize = 100;
    let is_plain = |c: char| c.is_alphanumeric() || "-_. ".contains(c);
    let mut plain = String::new();
    for c in name.chars().map(|c| if is_plain(c) { c } else { '_' }) {
        if plain.len() + c.len_utf8() > LONGEST {
            break;
        }
        plain.push(c);
    }
    if plain.trim_matches('.').is_empty() { "_".to_owned() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::plain_folder;

    #[test]
    fn every_name_becomes_one_folder_that_file_systems_take() {
        assert_eq!(plain_folder("a/b: ü"), "a_b_ ü");
        assert_eq!(plain_folder(".."), "_");
        let long = plain_folder(&"学".repeat(300));
        assert!(long.len() <= 100 && long.chars().all(|c| c == '学'), "{long}");
    }
}
