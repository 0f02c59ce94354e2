//! Checkpoints that callbacks ask for: when they are written, and what happens when one cannot be.

use std::collections::VecDeque;
use std::path::PathBuf;

use fulgurite_fabric::{Alias, Commit};
use fulgurite_torch::Value;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::hook::Hook;
use crate::loops::Run;
use crate::module::LightningModule;
use crate::state::TrainerState;

/// What happens when a checkpoint cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnSaveError {
    /// The error ends the run.
    #[default]
    Raise,
    /// A warning says so, and training goes on. Earlier checkpoints stay.
    Warn,
}

/// A checkpoint to be written as soon as the callback that asks for it returns.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SaveRequest {
    /// Where.
    pub path: PathBuf,
    /// Leave out optimizers, schedulers and callbacks.
    pub weights_only: bool,
    /// A second name for the same file.
    pub also: Option<PathBuf>,
    /// Make the second name a symbolic link.
    pub link: bool,
    /// Files to remove once the new one is whole.
    pub remove: Vec<PathBuf>,
    /// What happens when it cannot be written.
    pub on_error: OnSaveError,
}

impl SaveRequest {
    /// The whole run, to `path`.
    pub fn new(path: impl Into<PathBuf>) -> SaveRequest {
        SaveRequest { path: path.into(), ..SaveRequest::default() }
    }

    pub(crate) fn commit(&self) -> Commit {
        let alias = self.also.clone().map(|path| Alias { path, link: self.link });
        Commit { path: self.path.clone(), alias, remove: self.remove.clone() }
    }
}

/// The latest saves whose failure is only warned of: one that is written in the background fails later.
#[derive(Debug, Default)]
pub(crate) struct Tolerated(VecDeque<Commit>);

/// More than are ever written at the same time.
pub(crate) const MOST_IN_FLIGHT: usize = 64;

impl Tolerated {
    fn add(&mut self, commit: Commit) {
        if self.0.len() == MOST_IN_FLIGHT {
            self.0.pop_front();
        }
        self.0.push_back(commit);
    }

    fn take(&mut self, commit: &Commit) -> OnSaveError {
        match self.0.iter().position(|tolerated| tolerated == commit) {
            Some(index) => {
                self.0.remove(index);
                OnSaveError::Warn
            }
            None => OnSaveError::Raise,
        }
    }
}

impl<M: LightningModule> Run<'_, '_, M> {
    /// Writes the checkpoints that were asked for. One that fails does not keep the others from being written.
    pub(crate) fn serve_requests(&mut self) -> Result<(), Error> {
        if self.engine.state.requests.is_empty() {
            return Ok(());
        }
        self.engine.state.write_metrics_ahead()?;
        let mut outcome = Ok(());
        for request in std::mem::take(&mut self.engine.state.requests) {
            outcome = outcome.and(self.save(&request));
        }
        outcome
    }

    pub(crate) fn save(&mut self, request: &SaveRequest) -> Result<(), Error> {
        let action = self.engine.state.begin_action(|| "save_checkpoint".to_owned());
        let saved = self.write_checkpoint(request);
        self.engine.state.end_action(action);
        saved
    }

    fn write_checkpoint(&mut self, request: &SaveRequest) -> Result<(), Error> {
        let checkpoint = Value::Dict(self.dump_checkpoint(request.weights_only)?);
        let state = &mut self.engine.state;
        let commit = request.commit();
        if let Err(error) = state.save_loggers() {
            return self.save_failed(&commit, error, OnSaveError::Raise);
        }
        match state.fabric.save_checkpoint(&checkpoint, &commit) {
            Ok(()) if request.on_error == OnSaveError::Warn => state.tolerated.add(commit),
            Ok(()) => {}
            Err(error) => return self.save_failed(&commit, error.into(), request.on_error),
        }
        Ok(())
    }

    /// What became of the checkpoints that are written in the background.
    pub(crate) fn poll_saves(&mut self) -> Result<(), Error> {
        while let Some(failure) = self.engine.state.fabric.checkpoint_io().poll() {
            let on_error = self.engine.state.tolerated.take(&failure.commit);
            self.save_failed(&failure.commit, failure.error.into(), on_error)?;
        }
        Ok(())
    }

    /// Waits until every checkpoint is written. All that failed are told of; the first error is returned.
    pub(crate) fn wait_for_saves(&mut self) -> Result<(), Error> {
        let mut outcome = Ok(());
        while let Some(failure) = self.engine.state.fabric.checkpoint_io().wait() {
            let on_error = self.engine.state.tolerated.take(&failure.commit);
            outcome = outcome.and(self.save_failed(&failure.commit, failure.error.into(), on_error));
        }
        self.engine.state.tolerated = Tolerated::default();
        outcome
    }

    /// Callbacks learn of it first: what they know of their files must be true before anything else is saved.
    fn save_failed(&mut self, commit: &Commit, error: Error, on_error: OnSaveError) -> Result<(), Error> {
        let (hook, owner) = (self.engine.state.hook, self.engine.state.owner);
        self.engine.on_callbacks(Hook::OnCheckpointFailed, self.module, |c, t, m| {
            c.on_checkpoint_failed(t, m, commit, &error)
        })?;
        self.engine.state.enter(hook, owner);
        if on_error == OnSaveError::Raise {
            return Err(error);
        }
        self.engine.state.warn(&format!("a save failed, and the run goes on; earlier checkpoints stay: {error}"));
        Ok(())
    }
}

impl TrainerState {
    /// What was logged before a checkpoint is on disk before it: a run that goes on from there does not log it again. So no
    /// checkpoint is written after what cannot be.
    fn save_loggers(&mut self) -> Result<(), Error> {
        let saved: Vec<_> = self.fabric.loggers.iter_mut().map(|logger| logger.save()).collect();
        Ok(saved.into_iter().collect::<Result<(), _>>()?)
    }
}
