//! [`Checkpointer`]: a callback that writes checkpoints.

use std::path::{Path, PathBuf};

use crate::state::TrainerState;

/// A callback that writes checkpoints, as seen by the trainer when it looks for a checkpoint to start from or must save
/// on shutdown.
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
    /// The candidate files for `ckpt_path("last")`. Called before [`setup`](crate::Callback::setup).
    fn last_checkpoints(&self, trainer: &mut TrainerState) -> Vec<PathBuf>;

    /// Whether a fit without `ckpt_path` resumes from the one with the most progress, such as after a crash.
    fn resumes_by_itself(&self) -> bool {
        false
    }

    /// The best checkpoint written so far: the target of `ckpt_path("best")`.
    fn best_model_path(&self) -> Option<&Path> {
        None
    }

    /// The file to save the run to when a signal ends a fit.
    fn interrupted_checkpoint(&self) -> Option<PathBuf> {
        None
    }

    /// Whether a file may be one of its checkpoints, judging by the name; files that end with `.ckpt` are always
    /// considered.
    fn names_checkpoint(&self, path: &Path) -> bool {
        false
    }

    /// The number of folder levels in the names of its checkpoints, below the checkpoint folder.
    fn checkpoint_depth(&self) -> usize {
        0
    }
}
