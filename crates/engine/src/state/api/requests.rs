//! Requests that hooks can make: to stop the run, to write a checkpoint, to run a trial of the tuner.

use std::path::Path;

use crate::error::Error;
use crate::state::{SaveRequest, TrainerState};
use crate::tuner::TuneRequest;

impl TrainerState {
    /// Requests the run to stop after this batch, once `min_epochs` and `min_steps` are reached. With several processes
    /// any may request it, and all stop one batch later, when all have been informed.
    pub fn request_stop(&mut self, reason: impl Into<String>) {
        self.requests.stop(reason.into());
    }

    /// Requests the run to stop because its time limit is reached, possibly within an epoch: a checkpoint is written
    /// first from which training can resume there.
    pub fn request_stop_for_time(&mut self, reason: impl Into<String>) {
        self.requests.note_time_is_over();
        self.request_stop(reason);
    }

    /// Whether a stop of the run was requested.
    pub fn should_stop(&self) -> bool {
        self.requests.stop_reason().is_some()
    }

    /// Whether a signal (Ctrl-C, SIGTERM) requested the end of the run.
    pub fn is_interrupted(&self) -> bool {
        self.shutdown.request().is_some()
    }

    /// Requests a checkpoint, which is written as soon as this hook returns.
    pub fn request_checkpoint(&mut self, request: SaveRequest) {
        self.saves.request(request);
    }

    /// Whether a checkpoint with this path was requested, and is about to be written.
    pub fn is_checkpoint_requested(&self, path: &Path) -> bool {
        self.saves.is_requested(path)
    }

    /// Requests a trial of the tuner, from `setup`: it runs before the loop of the entry point begins. A batch size is
    /// searched before a learning rate, which depends on it.
    pub fn request_tuning(&mut self, request: TuneRequest) {
        match request {
            TuneRequest::BatchSize { .. } => self.tune_requests.insert(0, request),
            TuneRequest::LearningRate { .. } => self.tune_requests.push(request),
        }
    }

    /// Whether the run continues with an earlier one, in whose folder it may be.
    pub fn joins_earlier_run(&self) -> bool {
        self.shutdown.joins_earlier_run()
    }

    /// The checkpoint this run was resumed from.
    pub fn resumed_from(&self) -> Option<&Path> {
        self.saves.resumed_from()
    }

    /// The checkpoint that was last read.
    pub fn loaded_from(&self) -> Option<&Path> {
        self.saves.loaded_from()
    }

    /// The identifier shared by the checkpoints of this run and of the runs it was resumed from; `None` before the
    /// first checkpoint.
    pub fn run_id(&self) -> Option<&str> {
        self.saves.run_id()
    }

    /// Whether a checkpoint can be written when `error` ends the run. One process's error leaves it alone, and the
    /// others in the middle of a step; a signal they answer together.
    pub fn can_save_after(&self, error: &Error) -> bool {
        let can = !self.is_distributed() || error.signal().is_some();
        if !can {
            self.warn("no checkpoint is written after an error of one process, because it needs all of them; resume from the last one");
        }
        can
    }
}
