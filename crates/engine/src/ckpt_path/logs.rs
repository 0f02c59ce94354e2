//! Continuing the logs of the run that wrote a checkpoint.

use std::path::{Path, PathBuf};

use fulgurite_fabric::is_url;
use fulgurite_fabric::loggers::Logger;
use fulgurite_torch::{Dict, Value};

use crate::error::Error;
use crate::outline::Outline;
use crate::progress::ResumePoint;
use crate::state::TrainerState;

impl TrainerState {
    /// Makes the loggers continue in the run that wrote a checkpoint: in the folder that contains the checkpoint,
    /// or, for one in `own_folders`, the configured folders of this run's checkpoints, where
    /// it says itself. A checkpoint from elsewhere is untrusted, and does not determine folders here.
    pub(super) fn continue_logs(&mut self, path: &Path, checkpoint: &Dict, own_folders: &[PathBuf]) {
        let by_place: Vec<Option<String>> =
            self.fabric.loggers.iter().map(|logger| run_that_holds(logger.as_ref(), path)).collect();
        let is_own = by_place.iter().any(Option::is_some) || own_folders.iter().any(|folder| holds(folder, path));
        let held = Outline(checkpoint).log_versions();
        if !is_own && !held.is_empty() && !by_place.is_empty() {
            let path = path.display();
            self.print(&format!("{path} is in no folder of this run, so the logs start anew instead of continuing"));
        }
        let mut taken = vec![false; held.len()];
        for (index, (logger, by_place)) in self.fabric.loggers.iter_mut().zip(&by_place).enumerate() {
            let said = version_of(logger.class(), index, &held, &mut taken).filter(|_| is_own);
            if let Some(version) = by_place.as_deref().or(said) {
                logger.suggest_version(version);
            }
        }
    }

    /// The class of each logger, for checkpoints.
    pub(crate) fn log_classes(&self) -> Vec<Value> {
        self.fabric.loggers.iter().map(|logger| logger.class().into()).collect()
    }

    /// The run of each logger, for checkpoints.
    pub(crate) fn log_versions(&self) -> Vec<Value> {
        self.fabric.loggers.iter().map(|logger| logger.version().into()).collect()
    }

    /// Makes the loggers drop what the resumed run logged after its checkpoint.
    pub(crate) fn continue_logging(&mut self, resume: &ResumePoint) -> Result<(), Error> {
        // The x-axis counts from 0, and advances at the end of a batch.
        let last = self.fit.epoch.batches_that_stepped() as i64 - i64::from(!resume.batch_open);
        for logger in &mut self.fabric.loggers {
            logger.resume_after(last)?;
        }
        Ok(())
    }
}

/// The version that a checkpoint holds for a logger: the next one of its class, so that one which was added or left out changes
/// nothing for the others. Checkpoints without classes have the loggers in the same order.
fn version_of<'c>(
    class: &str,
    index: usize,
    held: &[(Option<&'c str>, Option<&'c str>)],
    taken: &mut [bool],
) -> Option<&'c str> {
    let is_mine = |at: &usize, held: Option<&str>| !taken[*at] && held.map_or(*at == index, |held| held == class);
    let at = held.iter().enumerate().find(|(at, (held, _))| is_mine(at, *held)).map(|(at, _)| at)?;
    taken[at] = true;
    held[at].1
}

/// The run of a logger whose folder contains a file; a link to elsewhere does not count.
fn run_that_holds(logger: &dyn Logger, path: &Path) -> Option<String> {
    let root = logger.save_dir()?.join(logger.name());
    let is_here = |run: &str| holds(&root, &root.join(run));
    logger.runs().into_iter().find(|run| is_here(run) && holds(&root.join(run), path))
}

/// Whether a path is in a folder, with links resolved; `false` if it does not exist. URLs are compared
/// literally.
fn holds(folder: &Path, path: &Path) -> bool {
    if is_url(folder) || is_url(path) {
        return path.starts_with(folder) && !path.components().any(|part| part.as_os_str() == "..");
    }
    let real =
        path.parent().zip(path.file_name()).and_then(|(parent, name)| Some(parent.canonicalize().ok()?.join(name)));
    let real = real.map(|path| path.canonicalize().unwrap_or(path));
    real.zip(folder.canonicalize().ok()).is_some_and(|(path, folder)| path != folder && path.starts_with(folder))
}
