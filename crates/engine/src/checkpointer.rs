//! [`Checkpointer`]: a callback that writes checkpoints.

use std::path::{Path, PathBuf};

use crate::state::TrainerState;

/// A callback that writes checkpoints, as the trainer sees it when it looks for one to begin with, or has to end.
///
/// ```
/// use std::path::PathBuf;
///
/// use fulgurite::prelude::*;
/// use fulgurite::{Checkpointer, ModuleView, SaveRequest, TrainerState};
///
/// /// Writes one file, after every epoch.
/// struct Latest(PathBuf);
///
/// impl Checkpointer for Latest {
///     fn last_checkpoints(&self, _: &mut TrainerState) -> Vec<PathBuf> {
///         vec![self.0.clone()]
///     }
/// }
///
/// impl Callback for Latest {
///     fn checkpointer(&self) -> Option<&dyn Checkpointer> {
///         Some(self)
///     }
///
///     fn on_train_epoch_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
///         trainer.request_checkpoint(SaveRequest::new(&self.0));
///         Ok(())
///     }
/// }
/// ```
#[expect(unused_variables, reason = "the defaults do nothing with their arguments")]
pub trait Checkpointer {
    /// The files that `ckpt_path("last")` chooses the furthest of. Asked before [`setup`](crate::Callback::setup).
    fn last_checkpoints(&self, trainer: &mut TrainerState) -> Vec<PathBuf>;

    /// Whether a fit that is given no `ckpt_path` resumes from the furthest of these: what a crash left.
    fn resumes_by_itself(&self) -> bool {
        false
    }

    /// The best checkpoint it has written: what `ckpt_path("best")` means.
    fn best_model_path(&self) -> Option<&Path> {
        None
    }

    /// The file in which it wants the run saved when a signal ends a fit.
    fn interrupted_checkpoint(&self) -> Option<PathBuf> {
        None
    }

    /// Whether a file may be one of its checkpoints, by its name; those that end with `.ckpt` are looked at anyway.
    fn names_checkpoint(&self, path: &Path) -> bool {
        false
    }

    /// How many folders the names of its checkpoints have, below the folder that they are in.
    fn checkpoint_depth(&self) -> usize {
        0
    }
}
