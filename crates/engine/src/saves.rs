//! Writes the checkpoints that callbacks request, and handles failures.

use fulgurite_fabric::Commit;
use fulgurite_fabric::loggers::CheckpointNews;
use fulgurite_torch::Value;

use crate::error::Error;
use crate::hook::Hook;
use crate::loops::Run;
use crate::module::LightningModule;
use crate::record::Activity;
use crate::scope::Scope;
use crate::state::{OnSaveError, SaveRequest, TrainerState};

impl<M: LightningModule> Run<'_, '_, M> {
    /// Writes the requested checkpoints. If one fails, the others are still written.
    pub(crate) fn serve_save_requests(&mut self) -> Result<(), Error> {
        if !self.state().saves.has_requests() {
            return Ok(());
        }
        let requests = self.state().saves.take_requests();
        if let Err(error) = self.state().write_metrics_ahead() {
            let mut notified = Ok(());
            for request in &requests {
                notified = notified.and(self.notify_of_failure(&request.commit(), &error));
            }
            return self.prefer_save_error(notified, error);
        }
        let mut outcome = Ok(());
        for request in requests {
            outcome = outcome.and(self.save(&request));
        }
        outcome
    }

    pub(crate) fn save(&mut self, request: &SaveRequest) -> Result<(), Error> {
        self.spending(Activity::Checkpoints, |run| {
            run.profiled(|_| "save_checkpoint".to_owned(), |run| run.write_checkpoint(request))
        })
    }

    fn write_checkpoint(&mut self, request: &SaveRequest) -> Result<(), Error> {
        let commit = request.commit();
        // A state that cannot be collected is an error of the program, unlike a disk that is full for a while.
        let checkpoint = match self.dump_checkpoint(request.weights_only) {
            Ok(checkpoint) => Value::Dict(checkpoint),
            Err(error) => return self.save_failed(&commit, error, OnSaveError::Raise),
        };
        let state = self.state();
        if let Err(error) = state.save_loggers() {
            return self.save_failed(&commit, error, OnSaveError::Raise);
        }
        if let Err(error) = state.fabric.save_checkpoint(&checkpoint, &commit) {
            return self.save_failed(&commit, error.into(), request.on_error);
        }
        if let Some(news) = request.news.clone().filter(|_| state.fabric.is_global_zero()) {
            state.saves.announce_later(commit.clone(), news);
        }
        if request.on_error == OnSaveError::Warn {
            state.saves.tolerate(commit);
        }
        self.announce_saves()
    }

    /// Handles the results of checkpoints written in the background.
    pub(crate) fn poll_saves(&mut self) -> Result<(), Error> {
        while let Some(failure) = self.state().checkpoint_io().poll() {
            let on_error = self.state().saves.take_tolerance(&failure.commit);
            self.save_failed(&failure.commit, failure.error.into(), on_error)?;
        }
        self.announce_saves()
    }

    /// Waits until every checkpoint is written. All failures are reported; the first error is returned.
    pub(crate) fn wait_for_saves(&mut self) -> Result<(), Error> {
        self.spending(Activity::Checkpoints, Self::wait_until_written)
    }

    fn wait_until_written(&mut self) -> Result<(), Error> {
        let mut outcome = Ok(());
        while let Some(failure) = self.state().checkpoint_io().wait() {
            let on_error = self.state().saves.take_tolerance(&failure.commit);
            outcome = outcome.and(self.save_failed(&failure.commit, failure.error.into(), on_error));
        }
        self.state().saves.all_written();
        outcome.and(self.announce_saves())
    }

    /// Callbacks learn of it first: what they know of their files must be true before anything else is saved.
    fn save_failed(&mut self, commit: &Commit, error: Error, on_error: OnSaveError) -> Result<(), Error> {
        self.state().saves.forget_news(commit);
        let notified = self.notify_of_failure(commit, &error);
        if on_error == OnSaveError::Raise {
            return self.prefer_save_error(notified, error);
        }
        self.state().warn(&format!("a save failed, and the run continues; earlier checkpoints stay: {error}"));
        notified
    }

    /// Calls `on_checkpoint_failed` on every callback, and returns the first error.
    fn notify_of_failure(&mut self, commit: &Commit, error: &Error) -> Result<(), Error> {
        let mut notified = Ok(());
        for index in 0..self.engine.callbacks.len() {
            notified =
                notified.and(self.engine.on_callback(index, Hook::OnCheckpointFailed, self.module, &mut |c, t, m| {
                    c.on_checkpoint_failed(t, m, commit, error)
                }));
        }
        notified
    }

    /// Loggers and callbacks learn of the checkpoints that are on the disk, and the user what loggers have to say.
    fn announce_saves(&mut self) -> Result<(), Error> {
        self.state().warn_for_loggers();
        while let Some(news) = self.state().next_news() {
            self.state().record_checkpoint(&news);
            let loggers = &mut self.state().fabric.loggers;
            loggers.iter_mut().try_for_each(|logger| logger.after_save_checkpoint(&news))?;
            for index in 0..self.engine.callbacks.len() {
                self.engine.on_callback(index, Hook::OnCheckpointWritten, self.module, &mut |c, t, m| {
                    c.on_checkpoint_written(t, m, &news)
                })?;
            }
        }
        Ok(())
    }

    /// Returns the error of the save, and warns about one of a callback.
    fn prefer_save_error(&mut self, notified: Result<(), Error>, error: Error) -> Result<(), Error> {
        if let Err(later) = notified {
            self.state().warn(&format!("a callback failed too: {later}"));
        }
        Err(error)
    }
}

impl TrainerState {
    /// The next checkpoint that is on the disk, and of which nobody knows yet.
    fn next_news(&mut self) -> Option<CheckpointNews> {
        if self.saves.is_all_announced() {
            return None;
        }
        let io = self.fabric.checkpoint_io();
        self.saves.next_news(|commit| io.commit_state(commit))
    }

    /// Shows the warnings of loggers, and stops the run if one asks for it.
    pub(crate) fn warn_for_loggers(&mut self) {
        for index in 0..self.fabric.loggers.len() {
            let logger = &mut self.fabric.loggers[index];
            for warning in logger.take_warnings() {
                let message = format!("{}: {warning}", self.fabric.loggers[index].class());
                self.warn(&message);
            }
            if let Some(reason) = self.fabric.loggers[index].stop_request() {
                self.request_stop(reason);
            }
        }
    }

    /// What was logged before a checkpoint is on disk before it: a run that resumes from there does not log it again.
    /// So no checkpoint is written after what cannot be.
    fn save_loggers(&mut self) -> Result<(), Error> {
        let saved: Vec<_> = self.fabric.loggers.iter_mut().map(|logger| logger.save()).collect();
        Ok(saved.into_iter().collect::<Result<(), _>>()?)
    }
}
