//! Shutdown: ends a run at a safe point because of a signal or a time limit.

use std::path::{Path, PathBuf};

use super::{EvalResults, Run};
use crate::error::Error;
use crate::module::LightningModule;
use crate::scope::Scope;
use crate::signals::{Signal, StopRequest};
use crate::stage::Stage;
use crate::state::{SaveRequest, TrainerState};

/// The safe points at which a run can end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SafePoint {
    /// Before anything was trained.
    Beginning,
    /// After a training batch.
    Batch,
    /// Within a validation, which is repeated after resuming.
    Validation,
    /// Between two epochs.
    Epochs,
}

impl<M: LightningModule> Run<'_, '_, M> {
    /// Ends the run if a signal requests it, and writes a checkpoint to resume from.
    pub(crate) fn shut_down_if_requested(&mut self, at: SafePoint) -> Result<(), Error> {
        let state = self.state();
        if !state.position.is_fit() {
            return state.check_signals();
        }
        let Some(request) = state.shutdown.request() else { return Ok(()) };
        let checkpoint = match at {
            _ if state.is_trial => None,
            SafePoint::Beginning => state.resumed_from().map(Path::to_path_buf),
            SafePoint::Batch => {
                let validation_pending = state.validation_is_due();
                self.save_for(request, validation_pending)?
            }
            SafePoint::Validation | SafePoint::Epochs => self.save_for(request, false)?,
        };
        let state = self.state();
        state.shutdown.set_checkpoint(checkpoint);
        match request {
            StopRequest::Leave(signal) => Err(Error::of_signal(signal)),
            StopRequest::Requeue(signal) if state.requeue_job() => Err(Error::of_signal(signal)),
            StopRequest::Requeue(_) => Ok(()),
        }
    }

    /// Evaluates within fit. A signal ends the run, or the evaluation is repeated if the run continues.
    pub(crate) fn evaluate_or_shut_down(&mut self, at: SafePoint) -> Result<Vec<EvalResults>, Error> {
        loop {
            match self.evaluate() {
                Err(error) if error.signal().is_some() => {
                    let stage = if at == SafePoint::Validation { Stage::Train } else { self.state().stage() };
                    self.in_stage(stage, |run| run.shut_down_if_requested(at))?;
                    self.state().begin_validation_again()?;
                }
                evaluated => return evaluated,
            }
        }
    }

    /// Saves a run whose time is over in the middle of an epoch, before the hooks of the epoch's end, so that a run
    /// with more time continues within the epoch.
    pub(crate) fn save_if_time_is_over(&mut self) -> Result<(), Error> {
        let state = self.state();
        if state.requests.time_is_over() && !state.is_last_batch() && state.epoch_is_done() {
            // The end of the run triggers a validation that a longer run does not have here.
            let stop = state.requests.take_stop();
            let validation_pending = state.validation_is_due();
            state.requests.put_stop(stop);
            let saved = self.save_for(StopRequest::Leave(Signal::Interrupt), validation_pending)?;
            self.state().shutdown.set_cut(saved);
        }
        Ok(())
    }

    /// Writes checkpoints to the paths of callbacks, and to the path where the scheduler's next run of the job looks.
    /// Returns the first path, once the file is complete.
    fn save_for(&mut self, request: StopRequest, validation_pending: bool) -> Result<Option<PathBuf>, Error> {
        let paths = self.paths_for(request)?;
        // Earlier background writes may fail, which must not affect these.
        if let Err(error) = self.wait_for_saves() {
            self.state().warn(&error.to_string());
        }
        self.state().fit.epoch.validation.set_due(validation_pending);
        // Two names for one file, if possible.
        let saved = paths.chunks(2).try_for_each(|names| {
            let also = names.get(1).cloned();
            self.save(&SaveRequest { also, ..SaveRequest::new(&names[0]) })
        });
        self.state().fit.epoch.validation.set_due(false);
        saved?;
        self.wait_for_saves()?;
        Ok(paths.into_iter().next())
    }

    fn paths_for(&mut self, request: StopRequest) -> Result<Vec<PathBuf>, Error> {
        let mut paths = Vec::new();
        if self.state().shutdown.saves_for_next_job(request) {
            paths.push(self.state().next_hpc_path()?);
        }
        if matches!(request, StopRequest::Leave(_)) && self.state().shutdown.saves_on_signal() {
            paths.extend(self.engine.checkpointers().filter_map(|checkpointer| checkpointer.interrupted_checkpoint()));
        }
        paths.dedup();
        Ok(paths)
    }
}

impl TrainerState {
    /// For entry points that write no checkpoint: returns an error if a signal requested the end.
    fn check_signals(&self) -> Result<(), Error> {
        match self.shutdown.request() {
            None => Ok(()),
            Some(StopRequest::Requeue(signal)) if !self.position.is_fit() => {
                self.shutdown.signals.forget_requeue();
                self.warn(&format!(
                    "{signal} came outside of fit, where there is nothing to save, so the job is not requeued"
                ));
                Ok(())
            }
            Some(StopRequest::Requeue(signal) | StopRequest::Leave(signal)) => Err(Error::of_signal(signal)),
        }
    }

    /// After an evaluation batch, of which processes may have different numbers: signals are exchanged after the
    /// batches that `all_have`.
    pub(super) fn check_signals_synced(&mut self, all_have: bool) -> Result<(), Error> {
        if all_have {
            self.sync_requests()?;
        }
        self.check_signals()
    }

    /// Restores the state before this validation.
    fn begin_validation_again(&mut self) -> Result<(), Error> {
        let Some(before) = self.fit.epoch.validation.take_before() else { return Ok(()) };
        self.restore(&before)?;
        self.fit.epoch.validation.keep(before);
        Ok(())
    }

    /// What callbacks wrote at the end of training does not continue within the epoch, so what does becomes the newest.
    pub(super) fn renew_cut(&mut self) -> Result<(), Error> {
        let Some(path) = self.shutdown.take_cut() else { return Ok(()) };
        let io = self.fabric.checkpoint_io();
        let checkpoint = io.load(&path)?;
        io.save(&checkpoint, &path)?;
        self.print(&format!("the time limit was reached within an epoch; resume from {}", path.display()));
        Ok(())
    }

    /// Requeues the job. `false`: the scheduler refused, and this run continues.
    fn requeue_job(&mut self) -> bool {
        let Some(job) = self.shutdown.job().cloned() else { return false };
        if self.is_global_zero() {
            if let Err(answer) = job.requeue() {
                self.shutdown.signals.forget_requeue();
                self.warn(&format!("the job is not requeued, so training continues: {answer}"));
                return false;
            }
            let from = self.shutdown.checkpoint().map(Path::display);
            let from = from.map_or("starts afresh".to_owned(), |path| format!("resumes from {path}"));
            self.print(&format!("job {job} is requeued; its next run {from}"));
        }
        self.shutdown.set_requeued();
        true
    }
}
