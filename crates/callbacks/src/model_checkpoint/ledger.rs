//! [`Ledger`]: the files a [`ModelCheckpoint`](super::ModelCheckpoint) keeps, and how a failed save is rolled back.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use fulgurite_engine::{Error, SaveRequest};
use fulgurite_fabric::{Commit, FabricError};

use super::top_k::TopK;

/// The checkpoints that are kept.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub top: TopK,
    pub current_score: Option<f64>,
    pub best_model_path: Option<PathBuf>,
    pub best_model_score: Option<f64>,
    pub last_model_path: Option<PathBuf>,
    pub last_checkpoint_saved: Option<PathBuf>,
    /// The optimizer step of the last save; 0 before the first, since no save is needed before a step is taken.
    pub last_step_saved: u64,
}

/// How a checkpoint is ranked.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Place {
    /// By the monitored value, replacing the evicted checkpoints.
    Ranked { score: f64, evicted: Vec<PathBuf> },
    /// As the latest checkpoint.
    Latest,
    /// Not ranked: `last`, or the checkpoint written on an error.
    Outside,
}

impl Place {
    /// The value by which it is ranked.
    pub(super) fn score(&self) -> Option<f64> {
        match self {
            Place::Ranked { score, .. } => Some(*score),
            Place::Latest | Place::Outside => None,
        }
    }
}

/// A requested save.
#[derive(Debug, Clone)]
pub(super) struct Save {
    pub commit: Commit,
    pub place: Place,
    /// The name of the `last` checkpoint, if this is one.
    pub last: Option<PathBuf>,
    pub step: u64,
}

impl Kept {
    fn apply(&mut self, save: &Save) {
        match &save.place {
            Place::Ranked { score, evicted } => {
                self.top.forget(evicted);
                self.current_score = Some(self.top.insert(&save.commit.path, *score));
                if let Some((best, score)) = self.top.best() {
                    self.best_model_path = Some(best.clone());
                    self.best_model_score = Some(*score);
                }
            }
            Place::Latest => self.best_model_path = Some(save.commit.path.clone()),
            Place::Outside => {}
        }
        if let Some(last) = &save.last {
            self.last_model_path = Some(last.clone());
        }
        self.last_checkpoint_saved = Some(save.commit.path.clone());
        self.last_step_saved = save.step;
    }

    /// The best checkpoint is the first of the ranking.
    pub(super) fn note_best_of_ranking(&mut self) {
        let best = self.top.best().cloned();
        self.best_model_score = best.as_ref().map(|(_, score)| *score);
        self.best_model_path = best.map(|(path, _)| path);
    }

    pub(super) fn mentions(&self, path: &Path) -> bool {
        let others = [&self.best_model_path, &self.last_model_path, &self.last_checkpoint_saved];
        others.into_iter().flatten().any(|other| other == path)
            || self.top.models.iter().any(|(model, _)| model == path)
    }
}

/// The current files, assuming that every requested save succeeds, with enough information to roll back if one fails: a
/// failure may be reported after later saves were requested.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    pub now: Kept,
    /// The files kept before the pending saves.
    settled: Kept,
    unsettled: VecDeque<Save>,
    /// Files that a failed save should have removed. The next successful save removes them.
    pub overdue: Vec<PathBuf>,
}

impl Ledger {
    pub(super) fn new(top: TopK) -> Ledger {
        Ledger::from(Kept {
            top,
            current_score: None,
            best_model_path: None,
            best_model_score: None,
            last_model_path: None,
            last_checkpoint_saved: None,
            last_step_saved: 0,
        })
    }

    /// Records a requested save.
    pub(super) fn add(&mut self, save: Save) {
        self.now.apply(&save);
        self.unsettled.push_back(save);
        if self.unsettled.len() > SaveRequest::MAX_IN_FLIGHT
            && let Some(oldest) = self.unsettled.pop_front()
        {
            self.settled.apply(&oldest);
        }
    }

    /// Rolls back a failed save. Does nothing if another callback requested it.
    pub(super) fn take_back(&mut self, commit: &Commit, error: &Error) {
        // Of two identical requests, the later one: its step counts as not saved.
        let Some(index) = self.unsettled.iter().rposition(|save| save.commit == *commit) else { return };
        let not_removed = match failed_path(error) {
            Some(path) if commit.alias.as_ref().is_some_and(|alias| alias.path == path) => {
                if let Some(save) = self.unsettled.get_mut(index) {
                    save.last = None;
                }
                &commit.remove[..]
            }
            Some(path) if commit.remove.iter().any(|old| old == path) => {
                commit.remove.split(|old| old == path).next_back().unwrap_or_default()
            }
            _ => {
                self.unsettled.remove(index);
                &commit.remove[..]
            }
        };
        self.now = self.settled.clone();
        self.unsettled.iter().for_each(|save| self.now.apply(save));
        let now = &self.now;
        self.overdue.extend(not_removed.iter().filter(|old| !now.mentions(old)).cloned());
    }
}

impl From<Kept> for Ledger {
    fn from(kept: Kept) -> Ledger {
        Ledger { settled: kept.clone(), now: kept, unsettled: VecDeque::new(), overdue: Vec::new() }
    }
}

/// Which file of a save an error is about.
fn failed_path(error: &Error) -> Option<&Path> {
    match error {
        Error::Fabric(FabricError::Checkpoint { path, .. }) => Some(path),
        _ => None,
    }
}
