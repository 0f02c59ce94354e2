//! [`Saves`]: requested checkpoints, and the checkpoint files that a run knows.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use fulgurite_fabric::loggers::CheckpointNews;
use fulgurite_fabric::{Alias, Commit, CommitState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to do if a checkpoint cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnSaveError {
    /// The error ends the run.
    #[default]
    Raise,
    /// Warns, and training continues. Earlier checkpoints stay.
    Warn,
}

/// A request for a checkpoint, which is written as soon as the callback's hook returns.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SaveRequest {
    /// The path to write to.
    pub path: PathBuf,
    /// Leave out optimizers, schedulers and callbacks.
    pub weights_only: bool,
    /// A second name for the same file.
    pub also: Option<PathBuf>,
    /// Make the second name a symbolic link.
    pub link: bool,
    /// Files to remove once the new one is complete.
    pub remove: Vec<PathBuf>,
    /// What to do if it cannot be written.
    pub on_error: OnSaveError,
    /// What loggers learn once it is on the disk.
    pub news: Option<CheckpointNews>,
}

impl SaveRequest {
    /// An upper bound of the saves that are in flight at the same time.
    pub const MAX_IN_FLIGHT: usize = 64;

    /// A full checkpoint, written to `path`.
    pub fn new(path: impl Into<PathBuf>) -> SaveRequest {
        SaveRequest { path: path.into(), ..SaveRequest::default() }
    }

    /// The file operations for the checkpoint I/O.
    pub fn commit(&self) -> Commit {
        let alias = self.also.clone().filter(|path| *path != self.path);
        let alias = alias.map(|path| Alias { path, link: self.link });
        // A run that went back writes files again that it was about to remove.
        let is_old = |path: &&PathBuf| **path != self.path && self.also.as_ref() != Some(*path);
        Commit { path: self.path.clone(), alias, remove: self.remove.iter().filter(is_old).cloned().collect() }
    }
}

/// Requested checkpoints, and those that the run wrote or read.
#[derive(Debug, Default)]
pub(crate) struct Saves {
    requests: Vec<SaveRequest>,
    /// The latest saves whose failure is only warned of: one that is written in the background fails later.
    tolerated: VecDeque<Commit>,
    /// What loggers learn once these are on the disk.
    unannounced: VecDeque<(Commit, CheckpointNews)>,
    resumed_from: Option<PathBuf>,
    /// The checkpoint that was last read.
    loaded_from: Option<PathBuf>,
    /// The identifier shared by the files of this run and of the runs it was resumed from; `None` before the first
    /// checkpoint.
    run_id: Option<String>,
}

impl Saves {
    /// Called when an entry point begins.
    pub(crate) fn begin(&mut self) {
        self.requests.clear();
        self.resumed_from = None;
    }

    pub(crate) fn request(&mut self, request: SaveRequest) {
        self.requests.push(request);
    }

    pub(crate) fn is_requested(&self, path: &Path) -> bool {
        self.requests.iter().any(|request| request.path == path || request.also.as_deref() == Some(path))
    }

    pub(crate) fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    pub(crate) fn take_requests(&mut self) -> Vec<SaveRequest> {
        std::mem::take(&mut self.requests)
    }

    /// The failure of this save is only warned of, when it comes.
    pub(crate) fn tolerate(&mut self, commit: Commit) {
        if self.tolerated.len() == SaveRequest::MAX_IN_FLIGHT {
            self.tolerated.pop_front();
        }
        self.tolerated.push_back(commit);
    }

    /// What to do about a failed save.
    pub(crate) fn take_tolerance(&mut self, commit: &Commit) -> OnSaveError {
        match self.tolerated.iter().position(|tolerated| tolerated == commit) {
            Some(index) => {
                self.tolerated.remove(index);
                OnSaveError::Warn
            }
            None => OnSaveError::Raise,
        }
    }

    /// Loggers learn of this save once it is on the disk.
    pub(crate) fn announce_later(&mut self, commit: Commit, news: CheckpointNews) {
        if self.unannounced.len() == SaveRequest::MAX_IN_FLIGHT {
            self.unannounced.pop_front();
        }
        self.unannounced.push_back((commit, news));
    }

    pub(crate) fn is_all_announced(&self) -> bool {
        self.unannounced.is_empty()
    }

    /// The next save that is on the disk, and that loggers do not know of.
    pub(crate) fn next_news(&mut self, state_of: impl Fn(&Commit) -> CommitState) -> Option<CheckpointNews> {
        let is_written = |(commit, _): &(Commit, _)| state_of(commit) == CommitState::Written;
        self.unannounced.pop_front_if(|next| is_written(next)).map(|(_, news)| news)
    }

    /// A failed save is no news.
    pub(crate) fn forget_news(&mut self, commit: &Commit) {
        if let Some(index) = self.unannounced.iter().position(|(other, _)| other == commit) {
            self.unannounced.remove(index);
        }
    }

    /// Marks all saves as finished.
    pub(crate) fn all_written(&mut self) {
        self.tolerated.clear();
    }

    pub(crate) fn resumed_from(&self) -> Option<&Path> {
        self.resumed_from.as_deref()
    }

    pub(crate) fn set_resumed_from(&mut self, path: &Path) {
        self.resumed_from = Some(path.into());
    }

    pub(crate) fn loaded_from(&self) -> Option<&Path> {
        self.loaded_from.as_deref()
    }

    pub(crate) fn set_loaded_from(&mut self, path: &Path) {
        self.loaded_from = Some(path.into());
    }

    pub(crate) fn run_id(&self) -> Option<&str> {
        self.run_id.as_deref()
    }

    pub(crate) fn set_run_id(&mut self, run_id: Option<String>) {
        self.run_id = run_id;
    }
}
