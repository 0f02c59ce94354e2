//! [`SlurmEnvironment`]: a job that asks to be run again before its time is over, and goes on where it was.

use std::process::Command;
use std::thread;
use std::time::Duration;

use derive_setters::Setters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Configurable;
use crate::error::Error;
use crate::signals::Signal;

/// How often `scontrol` is asked, and how long it may rest in between.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// How a run behaves in a job of the SLURM scheduler.
///
/// A job is recognized by `SLURM_JOB_ID`; one named `bash` or `interactive` is somebody at a terminal. In a job, the
/// `requeue_signal` makes [`fit`](crate::Trainer::fit) write `hpc_ckpt_N.ckpt` to `default_root_dir`, ask
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
    pub(crate) fn listens_for(&self) -> Option<Signal> {
        self.options.auto_requeue.then_some(self.options.requeue_signal)
    }
}

/// The job that this process is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    /// `SLURM_JOB_ID`.
    pub id: String,
    /// What `scontrol` calls it: a task of an array is named by both.
    name: String,
}

impl Job {
    /// `None` outside a job, and at a terminal within one.
    pub(crate) fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Job> {
        let id = variable("SLURM_JOB_ID").filter(|id| !id.is_empty())?;
        if matches!(variable("SLURM_JOB_NAME").as_deref(), Some("bash" | "interactive")) {
            return None;
        }
        let name = match (variable("SLURM_ARRAY_JOB_ID"), variable("SLURM_ARRAY_TASK_ID")) {
            (Some(array), Some(task)) => format!("{array}_{task}"),
            _ => id.clone(),
        };
        Some(Job { id, name })
    }

    /// The job of this process.
    pub(crate) fn current() -> Option<Job> {
        Job::of(|name| std::env::var(name).ok())
    }

    /// Asks the scheduler to run the job again. An error says what it answered.
    pub(crate) fn requeue(&self) -> Result<(), String> {
        let mut answer = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                thread::sleep(PAUSE * attempt);
            }
            let output = match Command::new("scontrol").args(["requeue", &self.name]).output() {
                Ok(output) => output,
                Err(error) => return Err(format!("`scontrol` cannot be run: {error}")),
            };
            if output.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr);
            answer = format!("`scontrol requeue {}` ended with {}: {}", self.name, output.status, said.trim());
        }
        Err(format!("{answer} ({ATTEMPTS} attempts)"))
    }
}

impl std::fmt::Display for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::Job;

    #[test]
    fn a_job_is_recognized_and_named() {
        let job = |variables: &[(&str, &str)]| {
            let found = Job::of(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).into()));
            found.map_or("none".to_owned(), |job| format!("{} {job}", job.id))
        };
        assert_eq!(job(&[]), "none");
        assert_eq!(job(&[("SLURM_JOB_ID", "")]), "none");
        assert_eq!(job(&[("SLURM_JOB_ID", "12")]), "12 12");
        assert_eq!(job(&[("SLURM_JOB_ID", "12"), ("SLURM_JOB_NAME", "train")]), "12 12");
        assert_eq!(job(&[("SLURM_JOB_ID", "12"), ("SLURM_JOB_NAME", "bash")]), "none");
        assert_eq!(job(&[("SLURM_JOB_ID", "12"), ("SLURM_JOB_NAME", "interactive")]), "none");
        let array = [("SLURM_JOB_ID", "12"), ("SLURM_ARRAY_JOB_ID", "10"), ("SLURM_ARRAY_TASK_ID", "3")];
        assert_eq!(job(&array), "12 10_3");
    }
}
