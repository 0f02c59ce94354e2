//! Transaction logs that runs have left.

use std::fs;
use std::path::{Path, PathBuf};

use super::file::{LeftFile, RunReader, is_synced, state_path};
use super::record::Record;
use super::server::Server;
use super::uploader::Uploader;
use crate::drain::{Drained, drain};
use crate::error::TrackerError;
use crate::pace::Pace;
use crate::service::{Failure, Sent, Service};
use crate::store::Unsent;
use crate::synced::Synced;

/// Whether it is a transaction log of this program that is not sent yet.
pub(crate) fn is_left(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wandb") && state_path(path).exists() && !is_synced(path)
}

/// Sends a file that a run has left to the server of the variables. `None` if a run is still using it.
pub(crate) fn send(
    path: &Path,
    pace: Pace,
    var: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Synced>, TrackerError> {
    let Some(file) = LeftFile::at(path).map_err(TrackerError::outbox(path))? else { return Ok(None) };
    send_left(&file, Server::new(pace, var)?, true).map(Some)
}

/// With `is_last`, no other part of the run follows.
fn send_left(file: &LeftFile, server: Server, is_last: bool) -> Result<Synced, TrackerError> {
    let path = &file.path;
    let mut reader = RunReader::open(path).map_err(TrackerError::outbox(path))?;
    let Some(run) = reader.run().map_err(TrackerError::outbox(path))? else {
        return Err(TrackerError::Refused(format!("{} does not say which run it is of", path.display())));
    };
    let mut uploader = Uploader::new(server, path, run, true);
    let before = reader.count(file.len).map_err(TrackerError::outbox(path))?;
    let pace = uploader.server().pace;
    let drained = drain(&mut reader, file.len, &mut uploader, &pace).map_err(TrackerError::outbox(path))?;
    let Drained { mut warnings, mut left } = drained;
    if left.is_none() && is_last {
        let mut sent = Sent::default();
        left = match uploader.end_as_failed(&mut sent) {
            Ok(()) => None,
            Err(Failure::Later { why, .. } | Failure::Closed(why)) => Some(why),
        };
        warnings.extend(sent.warnings);
    }
    if left.is_none() {
        if reader.sent() < file.len {
            warnings.push(format!("{} ends with a record that is not whole, which is left out", path.display()));
        }
        file.settle().map_err(TrackerError::outbox(path))?;
    }
    let after = reader.count(file.len).map_err(TrackerError::outbox(path))?;
    let (values, files) = (before.0.saturating_sub(after.0), before.1.saturating_sub(after.1));
    Ok(Synced { to: uploader.name(), values, files, warnings, left })
}

/// Sends the file of a run, and before it what earlier processes have left of the run, so that its rows come in their order.
#[derive(Debug)]
pub(super) struct InOrder {
    uploader: Uploader,
    /// Files that are not sent yet.
    earlier: Vec<PathBuf>,
}

impl InOrder {
    pub(super) fn new(uploader: Uploader, own: &Path, id: &str) -> InOrder {
        let (folder, end) = (own.parent().unwrap_or(own), format!("-{id}"));
        let folders = folder.parent().and_then(|wandb| fs::read_dir(wandb).ok()).into_iter().flatten().flatten();
        let is_of_run = |path: &PathBuf| path.to_str().is_some_and(|name| name.ends_with(&end));
        let files = folders
            .map(|entry| entry.path())
            .filter(|path| !path.is_symlink() && is_of_run(path))
            .map(|folder| folder.join(format!("run-{id}.wandb")));
        let mut earlier: Vec<PathBuf> = files.filter(|path| is_left(path) && begun(path) < begun(own)).collect();
        earlier.sort_by_cached_key(|path| std::cmp::Reverse(begun(path)));
        InOrder { uploader, earlier }
    }

    fn send_earlier(&mut self, sent: &mut Sent) -> Result<(), Failure> {
        while let Some(path) = self.earlier.last() {
            if let Ok(Some(file)) = LeftFile::at(path) {
                match send_left(&file, self.uploader.server().clone(), false) {
                    Ok(Synced { left: Some(why), .. }) => return Err(Failure::Later { why, after: None }),
                    Ok(synced) => sent.warnings.extend(synced.warnings),
                    // It is no reason to keep the rest.
                    Err(error) => sent.warnings.push(format!("an earlier part of the run is not sent: {error}")),
                }
            }
            self.earlier.pop();
        }
        Ok(())
    }
}

impl Service<Record> for InOrder {
    fn send(&mut self, records: &[Record]) -> Sent {
        let mut before = Sent::default();
        if let Err(failure) = self.send_earlier(&mut before) {
            return Sent { failure: Some(failure), ..before };
        }
        let mut sent = self.uploader.send(records);
        sent.warnings.splice(0..0, before.warnings);
        sent
    }

    fn idle(&mut self) -> Sent {
        self.uploader.idle()
    }
}

/// When the run of a folder began: the part of its name without what it is.
pub(crate) fn begun(path: &Path) -> String {
    let name = path.parent().and_then(|folder| folder.file_name()?.to_str()).unwrap_or_default();
    name.trim_start_matches("offline-").to_owned()
}
