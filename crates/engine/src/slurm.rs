//! [`SlurmEnvironment`]: a job that asks to be run again before its time is over, and goes on where it was.

use derive_setters::Setters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Configurable;
use crate::error::Error;
use crate::signals::Signal;

/// How a run behaves in a job of the SLURM scheduler.
///
/// These are the settings; which of the job's tasks a process is, is told by
/// [`environments::SlurmEnvironment`](fulgurite_fabric::environments::SlurmEnvironment).
///
/// A job is recognized by `SLURM_JOB_ID`; one named `bash` or `interactive` is somebody at a terminal. In a job, the
/// `requeue_signal` makes `fit` write `hpc_ckpt_N.ckpt` to `default_root_dir`, ask
/// `scontrol requeue` for another run of the job, and return [`Outcome::Requeued`](crate::Outcome::Requeued). A fit that
/// begins in a job without a `ckpt_path` goes on from the newest such checkpoint. SIGTERM leaves one too, without asking
/// for another run.
///
/// ```
/// use fulgurite::{Plugin, Signal, SlurmEnvironment};
/// use fulgurite::prelude::*;
///
/// let slurm = SlurmEnvironment::new().requeue_signal(Signal::User2);
/// let trainer = Trainer::builder().plugin(Plugin::slurm(slurm));
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct SlurmEnvironment {
    options: SlurmEnvironmentOptions,
}

/// Options of [`SlurmEnvironment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(generate_delegates(ty = "SlurmEnvironment", field = "options"))]
#[non_exhaustive]
pub struct SlurmEnvironmentOptions {
    /// Whether the signal has the job run again.
    pub auto_requeue: bool,
    /// The signal that SLURM is told to send some time before the job is over, as with `--signal=SIGUSR1@120`.
    pub requeue_signal: Signal,
}

impl Default for SlurmEnvironmentOptions {
    fn default() -> SlurmEnvironmentOptions {
        SlurmEnvironmentOptions { auto_requeue: true, requeue_signal: Signal::User1 }
    }
}

impl Configurable for SlurmEnvironment {
    const ALIASES: &'static [&'static str] = &["SLURMEnvironment"];
    type Options = SlurmEnvironmentOptions;

    fn from_options(options: SlurmEnvironmentOptions) -> Result<SlurmEnvironment, Error> {
        Ok(SlurmEnvironment { options })
    }
}

impl SlurmEnvironment {
    /// Requeues upon SIGUSR1.
    pub fn new() -> SlurmEnvironment {
        SlurmEnvironment::default()
    }

    /// The signal to listen for, where the job is to be run again.
    pub fn listens_for(&self) -> Option<Signal> {
        self.options.auto_requeue.then_some(self.options.requeue_signal)
    }
}
