//! [`Life`]: one process of a run, from its start to its end or to its death.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Longer than any life should be.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is done to a process.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// Nothing.
    Spared,
    /// SIGKILL after so long.
    KilledAfter(Duration),
    /// SIGKILL in a call of the file system, as `CALL:FAULT` says.
    KilledIn(String),
}

/// The program that trains, and how it is to save.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// More arguments.
    pub args: Vec<String>,
}

/// How a process went.
#[derive(Debug)]
pub struct Life {
    /// How it ended.
    pub status: ExitStatus,
    /// What it said on standard output.
    pub said: String,
    /// What it said on standard error.
    pub complaints: String,
    /// How long it lived.
    pub time: Duration,
}

impl Program {
    /// Starts it in `folder`, and lets fate have its way.
    pub fn live(&self, folder: &Path, fate: &Fate) -> Result<Life> {
        let mut command = Command::new(&self.path);
        command.arg("train").arg(folder).args(&self.args).env("OMP_NUM_THREADS", "1");
        if let Fate::KilledIn(fault) = fate {
            command.arg("--fault").arg(fault);
        }
        let began = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start")?;
        let stdout = reader(child.stdout.take());
        let stderr = reader(child.stderr.take());
        let status = match fate {
            Fate::KilledAfter(time) => match wait(&mut child, began, *time)? {
                Some(status) => status,
                None => {
                    child.kill()?;
                    child.wait()?
                }
            },
            _ => match wait(&mut child, began, PATIENCE)? {
                Some(status) => status,
                None => {
                    child.kill()?;
                    child.wait()?;
                    bail!("the run hangs: it did not end within {} s", PATIENCE.as_secs());
                }
            },
        };
        let text = |reader: thread::JoinHandle<String>| reader.join().unwrap_or_default();
        Ok(Life { status, said: text(stdout), complaints: text(stderr), time: began.elapsed() })
    }
}

impl Life {
    /// Whether SIGKILL ended it.
    pub fn was_killed(&self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        self.status.signal() == Some(9)
    }

    /// The file it went on from; `None` while it had not come so far. `scratch` for none.
    pub fn went_on_from(&self) -> Option<&str> {
        self.said.lines().find_map(|line| line.strip_prefix("training from "))
    }

    /// How many calls of the file system its checkpoints took, if it lived to the end.
    pub fn calls(&self) -> Option<u64> {
        self.said.lines().find_map(|line| line.strip_prefix("calls ")?.parse().ok())
    }
}

/// How the process ended, if it did so within `limit` of its start.
fn wait(child: &mut Child, began: Instant, limit: Duration) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        thread::sleep(left.min(Duration::from_millis(2)));
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}
