//! [`OnExceptionCheckpoint`]: saves a checkpoint when an error ends training.

use std::path::{Path, PathBuf};

use derive_setters::Setters;
use fulgurite_engine::config::Configurable;
use fulgurite_engine::{
    Callback, Checkpointer, Error, ModuleView, Outline, Result, SaveRequest, TrainerFn, TrainerState,
};
use fulgurite_torch::Value;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model_checkpoint::real_path;

const FILE_EXTENSION: &str = ".ckpt";

/// Saves a checkpoint when an error, a panic in a hook or Ctrl-C ends `fit`, and removes it when
/// a fit ends as it should. `ckpt_path` resumes from it.
///
/// As in Lightning, it counts as a callback that writes checkpoints, so the trainer does not add a `ModelCheckpoint`.
/// Unlike in Lightning, nothing is saved on errors during evaluation, prediction, `fast_dev_run`, or before training
/// begins, since nothing was trained, and the file may be what an earlier run left. With several processes an error saves
/// nothing either, because the other processes may be in the middle of a step.
///
/// ```
/// use fulgurite::callbacks::OnExceptionCheckpoint;
/// use fulgurite::prelude::*;
///
/// let trainer = Trainer::builder().callback(OnExceptionCheckpoint::new("checkpoints")).callback(ModelCheckpoint::new());
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct OnExceptionCheckpoint {
    options: OnExceptionCheckpointOptions,
    /// Training began in this fit: before, there is nothing that a file which an earlier run left does not have.
    trains: bool,
    failed: bool,
}

/// Options of [`OnExceptionCheckpoint`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(generate_delegates(ty = "OnExceptionCheckpoint", field = "options"))]
#[non_exhaustive]
pub struct OnExceptionCheckpointOptions {
    /// The folder of the checkpoint.
    #[setters(skip)]
    pub dirpath: PathBuf,
    /// The name of the file, without extension.
    #[setters(into)]
    pub filename: String,
}

impl Default for OnExceptionCheckpointOptions {
    fn default() -> OnExceptionCheckpointOptions {
        OnExceptionCheckpointOptions { dirpath: PathBuf::new(), filename: "on_exception".into() }
    }
}

impl Configurable for OnExceptionCheckpoint {
    type Options = OnExceptionCheckpointOptions;

    fn from_options(mut options: OnExceptionCheckpointOptions) -> Result<OnExceptionCheckpoint, Error> {
        if !options.dirpath.as_os_str().is_empty() {
            options.dirpath = real_path(&options.dirpath);
        }
        let callback = OnExceptionCheckpoint { options, trains: false, failed: false };
        callback.check()?;
        Ok(callback)
    }
}

impl OnExceptionCheckpoint {
    /// Saves to `on_exception.ckpt` in the folder `dirpath`.
    pub fn new(dirpath: impl AsRef<Path>) -> OnExceptionCheckpoint {
        let dirpath = real_path(dirpath.as_ref());
        let options = OnExceptionCheckpointOptions { dirpath, ..OnExceptionCheckpointOptions::default() };
        OnExceptionCheckpoint { options, trains: false, failed: false }
    }

    /// The path of the checkpoint file.
    pub fn ckpt_path(&self) -> PathBuf {
        self.options.dirpath.join(format!("{}{FILE_EXTENSION}", self.options.filename))
    }

    fn check(&self) -> Result<(), Error> {
        let OnExceptionCheckpointOptions { dirpath, filename } = &self.options;
        let problem = if dirpath.as_os_str().is_empty() {
            "OnExceptionCheckpoint needs `dirpath`, the folder to save to: an error may come before a run has one"
        } else if filename.is_empty() {
            "OnExceptionCheckpoint::filename(\"\") is not a file name; leave it out, or write one without extension"
        } else {
            return Ok(());
        };
        Err(Error::Config(problem.into()))
    }
}

impl Checkpointer for OnExceptionCheckpoint {
    fn interrupted_checkpoint(&self) -> Option<PathBuf> {
        Some(self.ckpt_path())
    }

    fn last_checkpoints(&self, trainer: &mut TrainerState) -> Vec<PathBuf> {
        let path = self.ckpt_path();
        let is_there = trainer.checkpoint_io().exists(&path).unwrap_or(false);
        is_there.then_some(path).into_iter().collect()
    }

    fn resumes_by_itself(&self) -> bool {
        true
    }
}

impl Callback for OnExceptionCheckpoint {
    fn checkpointer(&self) -> Option<&dyn Checkpointer> {
        Some(self)
    }

    fn setup(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView, _: TrainerFn) -> Result<()> {
        (self.trains, self.failed) = (false, false);
        Ok(self.check()?)
    }

    fn on_train_start(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.trains = true;
        Ok(())
    }

    fn on_exception(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView, error: &Error) -> Result<()> {
        self.failed = true;
        if !self.trains || trainer.config().fast_dev_run > 0 || self.check().is_err() {
            return Ok(());
        }
        if !trainer.can_save_after(error) {
            return Ok(());
        }
        let path = self.ckpt_path();
        trainer.print(&format!("an error ends the run, so it is saved to {}: {error}", path.display()));
        trainer.request_checkpoint(SaveRequest::new(path));
        Ok(())
    }

    fn teardown(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        self.trains = false;
        if stage != TrainerFn::Fit || self.failed || trainer.is_interrupted() || trainer.config().fast_dev_run > 0 {
            return Ok(());
        }
        let (path, io) = (self.ckpt_path(), trainer.checkpoint_io());
        let is_checkpoint = |value: Value| value.as_dict().is_some_and(|dict| Outline(dict).is_checkpoint());
        // Another file of that name was not written by this callback.
        if io.exists(&path)? && io.outline(&path).is_ok_and(is_checkpoint) {
            io.remove(&path)?;
        }
        Ok(())
    }
}
