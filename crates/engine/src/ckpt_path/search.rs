//! Selects the checkpoint that a run resumes from among several.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fulgurite_fabric::StoredFile;
use fulgurite_torch::{Dict, Value};

use super::Configuration;
use super::files::{folders_of, is_checkpoint};
use crate::error::Error;
use crate::outline::{Outline, Reach};
use crate::state::TrainerState;

/// The maximum number of folders in a message.
const MOST_TOLD: usize = 3;

/// The criteria for choosing a checkpoint.
#[derive(Clone, Copy, Default)]
pub(super) struct Wanted<'c> {
    /// Whether a fit must be able to resume from it.
    pub resumable: bool,
    /// The configuration that its run must have.
    pub configuration: Option<&'c Configuration>,
}

impl Wanted<'_> {
    fn accepts(self, candidate: &Candidate) -> bool {
        (!self.resumable || Outline(&candidate.checkpoint).can_be_resumed()) && self.difference(candidate).is_none()
    }

    fn difference(self, candidate: &Candidate) -> Option<String> {
        self.configuration?.difference(&candidate.checkpoint)
    }
}

/// A candidate checkpoint.
pub(super) struct Candidate {
    pub path: PathBuf,
    modified: SystemTime,
    /// Without its tensors.
    pub checkpoint: Dict,
}

impl Candidate {
    /// Orders by progress, then by time, and then by name.
    fn rank(&self) -> (Reach, SystemTime, &Path) {
        (Outline(&self.checkpoint).reach(), self.modified, &self.path)
    }
}

/// Candidates in the order in which they are tried.
#[derive(Default)]
pub(super) struct Candidates {
    /// The one with the most progress first.
    readable: Vec<Candidate>,
    /// Damaged ones, of which only the time is known; the newest first.
    damaged: Vec<StoredFile>,
}

impl Candidates {
    /// Removes candidates that do not match.
    fn drop_unwanted(&mut self, wanted: Wanted<'_>) -> Vec<Candidate> {
        self.readable.extract_if(.., |candidate| !wanted.accepts(candidate)).collect()
    }

    /// Removes candidates that another run than `run_id` wrote, unless there is none else.
    pub(super) fn prefer_run(&mut self, run_id: &str) {
        let of_other = |candidate: &Candidate| Outline(&candidate.checkpoint).run_id().is_some_and(|id| id != run_id);
        if !self.readable.iter().all(of_other) {
            self.readable.retain(|candidate| !of_other(candidate));
        }
    }

    /// Removes candidates of other runs than the one that has written last.
    pub(super) fn prefer_newest_run(&mut self) {
        let newest = self.readable.iter().max_by_key(|candidate| candidate.modified);
        let run_id = newest.and_then(|newest| Outline(&newest.checkpoint).run_id().map(str::to_owned));
        if let Some(run_id) = run_id {
            self.prefer_run(&run_id);
        }
    }

    fn paths(&self) -> Vec<PathBuf> {
        let readable = self.readable.iter().map(|candidate| &candidate.path);
        readable.chain(self.damaged.iter().map(|file| &file.path)).cloned().collect()
    }
}

impl TrainerState {
    /// Inspects files without reading their tensors.
    pub(super) fn rank(&mut self, files: impl IntoIterator<Item = StoredFile>) -> Candidates {
        let mut candidates = Candidates::default();
        for file in files {
            match self.fabric.checkpoint_io().outline(&file.path) {
                Err(_) => candidates.damaged.push(file),
                Ok(outline) => {
                    let checkpoint = if let Value::Dict(dict) = outline { dict } else { Dict::new() };
                    candidates.readable.push(Candidate { path: file.path, modified: file.modified, checkpoint });
                }
            }
        }
        candidates.readable.sort_by(|a, b| b.rank().cmp(&a.rank()));
        candidates.damaged.sort_by_key(|file| std::cmp::Reverse(file.modified));
        candidates
    }

    /// The matching, intact candidate with the most progress; warns of each damaged one that may have had more. If none
    /// is intact, that of the other files in their folders. `None` if none matches.
    pub(super) fn choose(
        &mut self,
        mut candidates: Candidates,
        wanted: Wanted<'_>,
    ) -> Result<Option<Candidate>, Error> {
        let others = candidates.drop_unwanted(wanted);
        let paths = candidates.paths();
        let chosen = self.first_intact(candidates);
        self.warn_about_skipped(&others, chosen.as_ref(), wanted);
        let Some(first) = paths.first().filter(|_| chosen.is_none()).cloned() else { return Ok(chosen) };

        let beside = self.list_all(folders_of(&paths))?;
        let beside = beside.into_iter().filter(|file| is_checkpoint(&file.path) && !paths.contains(&file.path));
        let mut beside = self.rank(beside);
        beside.drop_unwanted(wanted);
        if let Some(whole) = self.first_intact(beside) {
            return Ok(Some(whole));
        }
        let problem = "is damaged, and there is no intact checkpoint beside it; restore one from a backup, or move the damaged ones away to start from scratch".into();
        Err(Error::Checkpoint { path: first, problem })
    }

    fn first_intact(&mut self, candidates: Candidates) -> Option<Candidate> {
        let Candidates { readable, damaged } = candidates;
        let whole = readable.into_iter().find(|candidate| self.is_intact(&candidate.path));
        let may_be_newer = |file: &StoredFile| whole.as_ref().is_none_or(|whole| file.modified >= whole.modified);
        for file in damaged.iter().filter(|file| may_be_newer(file)) {
            self.is_intact(&file.path);
        }
        whole
    }

    /// The intact file with the most progress.
    pub(super) fn furthest_intact(&mut self, files: impl IntoIterator<Item = StoredFile>) -> Option<PathBuf> {
        let mut candidates = self.rank(files).readable.into_iter().map(|candidate| candidate.path);
        candidates.find(|path| self.fabric.checkpoint_io().verify(path).is_ok())
    }

    /// Warns of the checkpoints with more progress that were skipped because their configuration differs.
    fn warn_about_skipped(&self, others: &[Candidate], chosen: Option<&Candidate>, wanted: Wanted<'_>) {
        let comes_first = |other: &&Candidate| chosen.is_none_or(|chosen| other.rank() > chosen.rank());
        let mut told: Vec<&Path> = Vec::new();
        for other in others.iter().filter(comes_first) {
            let (Some(folder), Some(difference)) = (other.path.parent(), wanted.difference(other)) else { continue };
            if told.len() < MOST_TOLD && !told.contains(&folder) {
                told.push(folder);
                let name = other.path.display();
                self.warn(&format!(
                    "{name} is skipped, because its run had other hyper-parameters: {difference}; give its path to resume from it"
                ));
            }
        }
    }

    fn is_intact(&mut self, path: &Path) -> bool {
        let verified = self.fabric.checkpoint_io().verify(path);
        if let Err(error) = &verified {
            self.warn(&format!("{error}; so an older checkpoint is looked for"));
        }
        verified.is_ok()
    }
}
