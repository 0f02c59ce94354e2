//! [`Outcome`]: the result of a fit.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Termination};

use fulgurite_fabric::loggers::RunStatus;

use crate::error::{Error, how_it_ended};
use crate::signals::Signal;
use crate::state::TrainerState;

/// The result of a fit. A `main` that returns it, or a `Result` of it, exits with its
/// [`exit_code`](Outcome::exit_code).
///
/// A signal that ends a fit is no error: the run has written a checkpoint and can go on from there. But what follows a
/// training that is not over, such as a test, is usually not wanted then; [`completed`](Outcome::completed) ends it:
///
/// ```
/// # use fulgurite::prelude::*;
/// # fn demo<M: LightningModule, D: LightningDataModule<Batch = M::Batch>>(mut model: M, mut data: D, mut trainer: Trainer) -> Result<()> {
/// trainer.fit(&mut model, &mut data)?.completed()?;
/// trainer.test(&mut model, &mut data)?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a signal may have ended the training; call `completed()?` so that nothing runs after it then"]
#[non_exhaustive]
pub enum Outcome {
    /// A limit of the run was reached.
    Finished,
    /// Training was stopped by a request, for this reason.
    Stopped(String),
    /// The user pressed Ctrl-C.
    Interrupted {
        /// The checkpoint to resume from, if one was written.
        checkpoint: Option<PathBuf>,
    },
    /// A signal terminated it: SIGTERM or SIGHUP.
    Terminated {
        /// The signal.
        signal: Signal,
        /// The checkpoint to resume from, if one was written.
        checkpoint: Option<PathBuf>,
    },
    /// The job was about to reach its time limit and was requeued.
    Requeued {
        /// The signal.
        signal: Signal,
        /// The checkpoint that the job's next run resumes from; `None` if nothing had been trained yet.
        checkpoint: Option<PathBuf>,
    },
}

impl Outcome {
    /// The signal that ended the run, if one did.
    pub fn signal(&self) -> Option<Signal> {
        match self {
            Outcome::Finished | Outcome::Stopped(_) => None,
            Outcome::Interrupted { .. } => Some(Signal::Interrupt),
            Outcome::Terminated { signal, .. } | Outcome::Requeued { signal, .. } => Some(*signal),
        }
    }

    /// An error if a signal ended the run. Both a run that reached a limit and one that was stopped by a request, such as
    /// early stopping, are complete.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Interrupted`], which has the signal and the checkpoint to resume from.
    pub fn completed(self) -> Result<(), Error> {
        let Some(signal) = self.signal() else { return Ok(()) };
        Err(Error::Interrupted { signal, checkpoint: self.into_checkpoint() })
    }

    fn into_checkpoint(self) -> Option<PathBuf> {
        match self {
            Outcome::Finished | Outcome::Stopped(_) => None,
            Outcome::Interrupted { checkpoint }
            | Outcome::Terminated { checkpoint, .. }
            | Outcome::Requeued { checkpoint, .. } => checkpoint,
        }
    }

    /// The exit code by convention: 0, or 128 plus the signal's number (130 for Ctrl-C, 143 for SIGTERM).
    pub fn exit_code(&self) -> ExitCode {
        self.signal().map_or(ExitCode::SUCCESS, Signal::exit_code)
    }
}

impl Termination for Outcome {
    fn report(self) -> ExitCode {
        self.exit_code()
    }
}

/// How loggers and the record of the run name the end of an entry point.
pub(crate) fn status_of<T>(outcome: &Result<T, Error>) -> RunStatus {
    match outcome {
        Ok(_) => RunStatus::Success,
        Err(error) if error.signal().is_some() => RunStatus::Interrupted,
        Err(_) => RunStatus::Failed,
    }
}

impl TrainerState {
    /// The outcome of a fit that was ended by a signal.
    pub(crate) fn outcome_of(&mut self, signal: Signal) -> Outcome {
        let checkpoint = self.shutdown.take_checkpoint();
        if self.shutdown.is_requeued() {
            return Outcome::Requeued { signal, checkpoint };
        }
        let is_interrupt = signal == Signal::Interrupt;
        if let Some(path) = checkpoint.as_deref().map(Path::display) {
            self.print(&format!("{}; resume from {path}", how_it_ended(signal)));
        }
        if is_interrupt { Outcome::Interrupted { checkpoint } } else { Outcome::Terminated { signal, checkpoint } }
    }
}
