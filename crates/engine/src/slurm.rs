//! [`SlurmRequeue`]: requeueing of SLURM jobs before they reach their time limit.

use derive_setters::Setters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Configurable;
use crate::error::Error;
use crate::signals::Signal;

/// How a run in a SLURM job is saved and requeued.
///
/// These are the requeue settings; the ranks of the job are discovered by
/// [`environments::SlurmEnvironment`](fulgurite_fabric::environments::SlurmEnvironment). In files and on the command
/// line its class name is Lightning's, `SlurmEnvironment`.
///
/// A job is recognized by `SLURM_JOB_ID`; jobs named `bash` or `interactive` are interactive sessions. In a job, the
/// `requeue_signal` makes `fit` write `hpc_ckpt_N.ckpt` to `default_root_dir`, requeue the job with `scontrol requeue`,
/// and return [`Outcome::Requeued`](crate::Outcome::Requeued). A fit that starts in a job without a `ckpt_path` resumes
/// from the newest such checkpoint. SIGTERM writes one too, but does not requeue the job.
///
/// ```
/// use fulgurite::{Plugin, Signal, SlurmRequeue};
/// use fulgurite::prelude::*;
///
/// let slurm = SlurmRequeue::new().requeue_signal(Signal::User2);
/// let trainer = Trainer::builder().plugin(Plugin::slurm(slurm));
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct SlurmRequeue {
    options: SlurmRequeueOptions,
}

/// Options of [`SlurmRequeue`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(generate_delegates(ty = "SlurmRequeue", field = "options"))]
#[non_exhaustive]
pub struct SlurmRequeueOptions {
    /// Whether the signal requeues the job.
    pub auto_requeue: bool,
    /// The signal that SLURM sends before the time limit of the job, as set with `--signal=SIGUSR1@120`.
    pub requeue_signal: Signal,
}

impl Default for SlurmRequeueOptions {
    fn default() -> SlurmRequeueOptions {
        SlurmRequeueOptions { auto_requeue: true, requeue_signal: Signal::User1 }
    }
}

impl Configurable for SlurmRequeue {
    const ALIASES: &'static [&'static str] = &["SLURMEnvironment"];
    type Options = SlurmRequeueOptions;

    fn class_name() -> &'static str {
        "SlurmEnvironment"
    }

    fn from_options(options: SlurmRequeueOptions) -> Result<SlurmRequeue, Error> {
        Ok(SlurmRequeue { options })
    }
}

impl SlurmRequeue {
    /// Requeues on SIGUSR1.
    pub fn new() -> SlurmRequeue {
        SlurmRequeue::default()
    }

    /// The signal that requeues the job; `None` if `auto_requeue` is off.
    pub fn listens_for(&self) -> Option<Signal> {
        self.options.auto_requeue.then_some(self.options.requeue_signal)
    }
}
