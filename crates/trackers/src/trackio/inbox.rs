//! [`Inbox`]: files that Trackio's dashboard takes in.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record::{METRIC, SYSTEM_METRIC};
use crate::entry::{Entry, now_ms};
use crate::error::TrackerError;
use crate::pace::Pace;
use crate::random::run_id;
use crate::service::{Failure, Sent, Service};

/// Writes entries to files in the inbox of Trackio on this machine. A dashboard, `trackio show`, takes them in and removes them;
/// without one they wait. Lines that are there twice are kept once.
#[derive(Debug)]
pub struct Inbox {
    root: PathBuf,
    /// A folder of its own, so that no two processes write the same file.
    writer: String,
    next: u64,
}

impl Inbox {
    /// The inbox of Trackio's folder, which is created if need be.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be written.
    pub fn open(root: &Path) -> Result<Inbox, TrackerError> {
        // The dashboard takes files in by their names, so those of later processes come later.
        let writer = format!("{:011x}{}", now_ms().max(0), &run_id()[..5]);
        let folder = root.join("inbox").join(&writer);
        fs::create_dir_all(&folder).map_err(|error| {
            TrackerError::Refused(format!(
                "{} cannot be written: {error}; correct TRACKIO_DIR, which is Trackio's folder",
                folder.display()
            ))
        })?;
        Ok(Inbox { root: root.to_owned(), writer, next: 0 })
    }

    /// A file of a thousand lines, or of a second.
    pub fn pace() -> Pace {
        Pace { flush_after: Duration::from_secs(1), ..Pace::default() }
    }

    fn write(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut lines = Vec::new();
        for entry in entries {
            match entry {
                Entry::Record(record) if [METRIC, SYSTEM_METRIC].iter().any(|kind| record["kind"] == *kind) => {
                    serde_json::to_writer(&mut lines, record)?;
                    lines.push(b'\n');
                }
                // Before the line that shows it.
                Entry::Content { path, bytes } => {
                    if let Some(path) = plain_path(path) {
                        write_whole(&self.root.join("media").join(path), bytes)?;
                    }
                }
                _ => {}
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        let name = format!("{:08}.jsonl", self.next);
        write_whole(&self.root.join("inbox").join(&self.writer).join(name), &lines)?;
        self.next += 1;
        Ok(())
    }
}

impl Service for Inbox {
    fn send(&mut self, entries: &[Entry]) -> Sent {
        match self.write(entries) {
            Ok(()) => Sent { done: entries.len(), ..Sent::default() },
            Err(error) => {
                let why = format!("{} cannot be written: {error}", self.root.display());
                Sent { failure: Some(Failure::Later { why, after: None }), ..Sent::default() }
            }
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // A folder that is not empty stays.
        let _ = fs::remove_dir(self.root.join("inbox").join(&self.writer));
    }
}

/// The path of an image, which leads nowhere else.
pub(super) fn plain_path(path: &str) -> Option<&Path> {
    let is_name = |part: &str| {
        !part.trim_matches('.').is_empty() && part.chars().all(|c| c.is_alphanumeric() || "-_. ".contains(c))
    };
    (path.split('/').count() == 4 && path.split('/').all(is_name)).then_some(Path::new(path))
}

/// Writes a file under another name first: whoever reads sees all of it or nothing.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    const TRIES: usize = 3;
    let beside = path.with_extension("tmp");
    let write = || {
        // The dashboard removes folders that are empty, and may do so now.
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&beside, path)
    };
    let mut tries = 0;
    loop {
        tries += 1;
        match write() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => {}
            Err(error) => {
                // Best effort: the first error is the one to report.
                let _ = fs::remove_file(&beside);
                return Err(error);
            }
            Ok(()) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_images_lead_nowhere_else() {
        assert!(plain_path("my-project/a run/-1/0f.png").is_some());
        for bad in ["a/b/c", "a/b/c/d/e", "../b/c/d", "/b/c/d", "a/b/c/..", "a//c/d", "a/b\\c/c/d", "a/b/c/d\n"] {
            assert!(plain_path(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_full_disk_is_a_failure_for_now() {
        let folder = tempfile::tempdir().unwrap();
        let mut inbox = Inbox::open(folder.path()).unwrap();
        let record = Entry::Record(serde_json::json!({ "kind": "metric" }));
        fs::remove_dir_all(folder.path().join("inbox")).unwrap();
        fs::write(folder.path().join("inbox"), "a file").unwrap();
        let sent = inbox.send(std::slice::from_ref(&record));
        assert!(sent.done == 0 && matches!(sent.failure, Some(Failure::Later { .. })), "{sent:?}");
        fs::remove_file(folder.path().join("inbox")).unwrap();
        assert_eq!(inbox.send(&[record]).done, 1);
        let file = folder.path().join("inbox").join(&inbox.writer).join("00000000.jsonl");
        assert_eq!(fs::read_to_string(file).unwrap(), "{\"kind\":\"metric\"}\n");
    }
}
