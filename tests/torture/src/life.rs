//! [`Life`]: one process of a run, from its start to its end or to its death.

use std::collections::BTreeMap;
use std::fs;
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
    /// SIGKILL to some of a run's processes after so long, which may be several.
    SomeKilledAfter(Victims, Duration),
    /// SIGKILL in a call of the file system, as `CALL:FAULT` says. Of several ranks it is rank 0's: it writes the files.
    KilledIn(String),
}

/// Who dies of a run's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victims {
    /// One rank. The supervisor ends the others.
    Rank(usize),
    /// Every rank and the supervisor, one after the other.
    All,
}

/// The program that trains, and how it is to save.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// More arguments.
    pub args: Vec<String>,
    /// How many ranks it has; with more than one, the program's own launcher starts them.
    pub ranks: usize,
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
        command.arg("--devices").arg(self.ranks.to_string());
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
            Fate::SomeKilledAfter(victims, time) if wait(&mut child, began, *time)?.is_none() => {
                kill_some(&mut child, *victims)?;
                patiently(&mut child, began)?
            }
            _ => patiently(&mut child, began)?,
        };
        let text = |reader: thread::JoinHandle<String>| reader.join().unwrap_or_default();
        Ok(Life { status, said: text(stdout), complaints: text(stderr), time: began.elapsed() })
    }
}

impl Life {
    /// Whether SIGKILL ended it, or a rank of it, as its supervisor says with its exit code.
    pub fn was_killed(&self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        self.status.signal() == Some(9) || self.status.code() == Some(128 + 9)
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

/// How the process ended; one that hangs is an error.
fn patiently(child: &mut Child, began: Instant) -> Result<ExitStatus> {
    if let Some(status) = wait(child, began, PATIENCE)? {
        return Ok(status);
    }
    child.kill()?;
    child.wait()?;
    bail!("the run hangs: it did not complete within {} s", PATIENCE.as_secs());
}

/// Kills ranks that a supervisor has started; where it has started none yet, it dies itself.
fn kill_some(supervisor: &mut Child, victims: Victims) -> Result<()> {
    let ranks = children(supervisor.id())?;
    let chosen: Vec<u32> = match victims {
        Victims::All => ranks.values().copied().collect(),
        Victims::Rank(rank) => ranks.get(&rank).copied().into_iter().collect(),
    };
    for id in &chosen {
        // It may have ended by itself by now.
        Command::new("kill").args(["-KILL", &id.to_string()]).stderr(Stdio::null()).status()?;
    }
    if chosen.is_empty() || victims == Victims::All {
        supervisor.kill()?;
    }
    Ok(())
}

/// The ranks that a process has started, and their process ids.
fn children(parent: u32) -> Result<BTreeMap<usize, u32>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        let Some(id) = folder.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(folder.join("stat")).unwrap_or_default();
        let ours =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok()) == Some(parent);
        let variables = if ours { fs::read(folder.join("environ")).unwrap_or_default() } else { Vec::new() };
        let rank = variables.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(b"RANK="));
        if let Some(rank) = rank.and_then(|rank| std::str::from_utf8(rank).ok()?.parse().ok()) {
            found.insert(rank, id);
        }
    }
    Ok(found)
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
