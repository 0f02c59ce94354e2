//! Leaving a run at a safe point, because a signal asks for it.

use std::path::{Path, PathBuf};

use fulgurite_fabric::environments::SlurmJob;

use super::{EvalResults, Run};
use crate::callbacks::Role;
use crate::error::Error;
use crate::module::LightningModule;
use crate::saving::SaveRequest;
use crate::signals::{Signal, Signals, Wish};
use crate::state::{Stage, TrainerFn, TrainerState};

/// What a run knows of its end before the end, and of the run it goes on with.
#[derive(Default)]
pub(crate) struct Leaving {
    pub signals: Signals,
    /// The scheduler's job that this is part of.
    pub job: Option<SlurmJob>,
    /// The scheduler was asked to run the job again.
    pub requeued: bool,
    /// What a run that a signal ended is to go on from.
    pub checkpoint: Option<PathBuf>,
    /// It goes on with an earlier run, in whose folder it may be.
    pub joins_earlier_run: bool,
    pub time_is_over: bool,
    /// Where a run was saved whose time was over in the middle of an epoch.
    pub cut: Option<PathBuf>,
}

/// Where a run can be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SafePoint {
    /// Nothing was done yet that is worth keeping.
    Beginning,
    /// After a training batch.
    Batch,
    /// Within a validation, which is then still to be done.
    Validation,
    /// Between two epochs.
    Epochs,
}

impl<M: LightningModule> Run<'_, '_, M> {
    /// Ends the run if a signal asks for it, and leaves a checkpoint to go on from.
    pub(crate) fn leave_if_asked(&mut self, at: SafePoint) -> Result<(), Error> {
        if self.engine.state.entry != TrainerFn::Fit {
            return self.engine.state.heed_signals();
        }
        let Some(wish) = self.engine.state.leaving.signals.wish() else { return Ok(()) };
        let is_trial = self.engine.state.quiet;
        self.engine.state.leaving.checkpoint = match at {
            _ if is_trial => None,
            SafePoint::Beginning => self.engine.state.resumed_from.clone(),
            SafePoint::Batch => self.save_for(wish, self.engine.state.validation_is_due())?,
            SafePoint::Validation | SafePoint::Epochs => self.save_for(wish, false)?,
        };
        match wish {
            Wish::Leave(signal) => Err(Error::of_signal(signal)),
            Wish::Requeue(signal) if self.engine.state.requeue_job() => Err(Error::of_signal(signal)),
            Wish::Requeue(_) => Ok(()),
        }
    }

    /// Evaluates within fit. A signal ends the run, or the evaluation is done again where the run goes on.
    pub(crate) fn evaluate_or_leave(&mut self, at: SafePoint) -> Result<Vec<EvalResults>, Error> {
        loop {
            match self.evaluate() {
                Err(error) if error.signal().is_some() => {
                    let stage = self.engine.state.stage;
                    if at == SafePoint::Validation {
                        self.engine.state.stage = Stage::Train;
                    }
                    self.leave_if_asked(at)?;
                    self.engine.state.stage = stage;
                    self.engine.state.rewind_validation()?;
                }
                evaluated => return evaluated,
            }
        }
    }

    /// Saves a run whose time is over in the middle of an epoch, before the hooks of the epoch's end, so that a run with more
    /// time goes on within the epoch.
    pub(crate) fn save_if_time_is_over(&mut self) -> Result<(), Error> {
        let state = &self.engine.state;
        if state.leaving.time_is_over && !state.is_last_train_batch() && state.epoch_is_done() {
            // The end brings a validation about that a longer run does not have here.
            let stop = self.engine.state.stop.take();
            let validation_pending = self.engine.state.validation_is_due();
            self.engine.state.stop = stop;
            let saved = self.save_for(Wish::Leave(Signal::Interrupt), validation_pending)?;
            self.engine.state.leaving.cut = saved;
        }
        Ok(())
    }

    /// Writes the run to where callbacks want it, and where the scheduler's next run of the job finds it. The first path,
    /// once the file is whole.
    fn save_for(&mut self, wish: Wish, validation_pending: bool) -> Result<Option<PathBuf>, Error> {
        let mut paths = Vec::new();
        if self.engine.state.leaves_for_next_job(wish) {
            paths.push(self.engine.state.next_hpc_path()?);
        }
        if let Wish::Leave(_) = wish {
            let writers = self.engine.callbacks.iter().filter(|c| c.role() == Role::Checkpoint);
            paths.extend(writers.filter_map(|c| c.interrupted_checkpoint()));
        }
        paths.dedup();
        // What was on its way before may fail, and these must not go with it.
        if let Err(error) = self.wait_for_saves() {
            self.engine.state.warn(&error.to_string());
        }
        let before = self.engine.state.run.progress;
        if validation_pending {
            self.engine.state.run.progress.batch.reopen();
        }
        // Two names for one file, where that can be.
        let saved = paths.chunks(2).try_for_each(|names| {
            let also = names.get(1).cloned();
            self.save(&SaveRequest { also, ..SaveRequest::new(&names[0]) })
        });
        self.engine.state.run.progress = before;
        saved?;
        self.wait_for_saves()?;
        Ok(paths.into_iter().next())
    }
}

impl TrainerState {
    /// For what leaves no checkpoint: an error if a signal asks for the end.
    pub(crate) fn heed_signals(&self) -> Result<(), Error> {
        match self.leaving.signals.wish() {
            None => Ok(()),
            Some(Wish::Requeue(signal)) if self.entry != TrainerFn::Fit => {
                self.leaving.signals.forget_requeue();
                self.warn(&format!(
                    "{signal} came outside of fit, where there is nothing to save, so the job is not requeued"
                ));
                Ok(())
            }
            Some(Wish::Requeue(signal) | Wish::Leave(signal)) => Err(Error::of_signal(signal)),
        }
    }

    /// After a batch of an evaluation, of which processes may have different numbers: those learn of each other's signals that
    /// `all_have`.
    pub(crate) fn heed_signals_together(&mut self, all_have: bool) -> Result<(), Error> {
        if all_have {
            self.exchange_wishes()?;
        }
        self.heed_signals()
    }

    /// Back to where the validation in hand began.
    fn rewind_validation(&mut self) -> Result<(), Error> {
        if let Some(before) = &self.run.before_validation {
            before.rng.restore()?;
            self.run.eval_batches.clone_from(&before.eval_batches);
        }
        Ok(())
    }

    /// Whether the next run of this job is to go on by itself: it was asked for, or the scheduler ends the job and may
    /// run it again.
    fn leaves_for_next_job(&self, wish: Wish) -> bool {
        match wish {
            Wish::Requeue(_) => true,
            Wish::Leave(signal) => self.leaving.signals.requeue.is_some() && signal == Signal::Terminate,
        }
    }

    /// What callbacks wrote at the end of training does not go on within the epoch, so what does becomes the newest.
    pub(crate) fn renew_cut(&mut self) -> Result<(), Error> {
        if let Some(path) = self.leaving.cut.take() {
            let io = self.fabric.checkpoint_io();
            let checkpoint = io.load(&path)?;
            io.save(&checkpoint, &path)?;
            self.print(&format!("the time was over within an epoch; go on from {}", path.display()));
        }
        Ok(())
    }

    /// Asks for another run of the job. `false`: the scheduler refused, and this run goes on.
    fn requeue_job(&mut self) -> bool {
        let Some(job) = self.leaving.job.clone() else { return false };
        if self.is_global_zero() {
            if let Err(answer) = job.requeue() {
                self.leaving.signals.forget_requeue();
                self.warn(&format!("the job is not requeued, so training goes on: {answer}"));
                return false;
            }
            let from = self.leaving.checkpoint.as_deref().map(Path::display);
            let from = from.map_or("starts afresh".to_owned(), |path| format!("goes on from {path}"));
            self.print(&format!("job {job} is requeued; its next run {from}"));
        }
        self.leaving.requeued = true;
        true
    }
}
