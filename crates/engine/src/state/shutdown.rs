//! [`Shutdown`]: early ends of a run, and what its next run resumes from.

use std::path::{Path, PathBuf};

use fulgurite_fabric::environments::SlurmJob;

use crate::signals::{Signal, Signals, StopRequest};

/// The early end of a run, and what the next run resumes from.
#[derive(Default)]
pub(crate) struct Shutdown {
    pub signals: Signals,
    /// The scheduler's job that this run is part of.
    job: Option<SlurmJob>,
    /// Whether nobody will resume a run that a signal ends.
    is_for_good: bool,
    /// Whether the job was requeued.
    is_requeued: bool,
    /// The checkpoint from which to resume a run that was ended by a signal.
    checkpoint: Option<PathBuf>,
    /// The run continues with an earlier one, in whose folder it may be.
    joins_earlier_run: bool,
    /// The checkpoint of a run whose time limit was reached within an epoch.
    cut: Option<PathBuf>,
    /// The signal that ended the last run, and its checkpoint.
    ended: Option<(Signal, Option<PathBuf>)>,
}

impl Shutdown {
    /// The run is part of a scheduler's job, which is requeued on a signal.
    pub(crate) fn set_job(&mut self, job: Option<SlurmJob>, requeue: Option<Signal>) {
        self.signals.requeue = job.as_ref().and(requeue);
        self.job = job;
    }

    pub(crate) fn set_saves_on_signal(&mut self, saves: bool) {
        self.is_for_good = !saves;
    }

    /// Whether callbacks write a checkpoint to resume from when a signal ends the run.
    pub(crate) fn saves_on_signal(&self) -> bool {
        !self.is_for_good
    }

    pub(crate) fn job(&self) -> Option<&SlurmJob> {
        self.job.as_ref()
    }

    /// Called when an entry point begins.
    pub(crate) fn begin(&mut self) {
        self.is_requeued = false;
        self.checkpoint = None;
        self.cut = None;
    }

    /// A signal has ended the run: entry points are refused from now on.
    pub(crate) fn end(&mut self, signal: Signal) {
        self.signals.answered();
        self.ended = Some((signal, self.checkpoint.clone()));
    }

    /// The signal that ended the last run, and the checkpoint of that, unless runs may follow.
    pub(crate) fn ended(&self) -> Option<(Signal, Option<PathBuf>)> {
        self.ended.clone()
    }

    /// Runs may follow.
    pub(crate) fn forget_end(&mut self) {
        self.ended = None;
    }

    /// Whether the run continues with an earlier one: it was given a checkpoint, or is part of a job.
    pub(crate) fn join_earlier_run(&mut self, from_checkpoint: bool) {
        self.joins_earlier_run = from_checkpoint || self.job.is_some();
    }

    pub(crate) fn joins_earlier_run(&self) -> bool {
        self.joins_earlier_run
    }

    /// The action requested by a signal.
    pub(crate) fn request(&self) -> Option<StopRequest> {
        self.signals.request()
    }

    /// Whether the next run of this job is to continue by itself: it was requested, or the scheduler ends the job and
    /// may run it again.
    pub(crate) fn saves_for_next_job(&self, request: StopRequest) -> bool {
        match request {
            StopRequest::Requeue(_) => true,
            StopRequest::Leave(signal) => self.signals.requeue.is_some() && signal == Signal::Terminate,
        }
    }

    /// Sets the checkpoint from which to resume a run that was ended by a signal.
    pub(crate) fn set_checkpoint(&mut self, checkpoint: Option<PathBuf>) {
        self.checkpoint = checkpoint;
    }

    pub(crate) fn checkpoint(&self) -> Option<&Path> {
        self.checkpoint.as_deref()
    }

    pub(crate) fn take_checkpoint(&mut self) -> Option<PathBuf> {
        self.checkpoint.take()
    }

    /// The scheduler accepted the requeue request.
    pub(crate) fn set_requeued(&mut self) {
        self.is_requeued = true;
    }

    pub(crate) fn is_requeued(&self) -> bool {
        self.is_requeued
    }

    /// The checkpoint of a run whose time limit was reached within an epoch.
    pub(crate) fn set_cut(&mut self, cut: Option<PathBuf>) {
        self.cut = cut;
    }

    pub(crate) fn take_cut(&mut self) -> Option<PathBuf> {
        self.cut.take()
    }
}
