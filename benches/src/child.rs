//! The processes that measure: this program again, or Python.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use crate::stopwatch::STARTED;

/// What a process runs.
pub enum Program {
    /// This program, with its first argument.
    Rust(&'static str),
    /// A script of `python/`.
    Python(&'static str),
    /// A script of `python/`, as two ranks.
    Torchrun(&'static str),
}

impl Program {
    fn command(&self) -> Result<Vec<OsString>> {
        Ok(match self {
            Program::Rust(name) => vec![std::env::current_exe()?.into(), (*name).into()],
            Program::Python(script) => vec![python()?, script_path(script).into()],
            Program::Torchrun(script) => {
                let torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"];
                let words = [python()?].into_iter().chain(torchrun.map(OsString::from));
                words.chain([script_path(script).into()]).collect()
            }
        })
    }
}

fn python() -> Result<OsString> {
    std::env::var_os("FULGURITE_PARITY_PYTHON")
        .context("FULGURITE_PARITY_PYTHON is not set: run the benchmarks with `cargo xtask bench`")
}

fn script_path(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script)
}

/// How a program is run.
#[derive(Clone, Copy, Default)]
pub struct Surroundings {
    /// It has a terminal to draw progress bars on.
    pub terminal: bool,
    /// Its threads wait as libgomp makes them, whoever else is busy.
    pub plain_waiting: bool,
    /// Each process has one thread.
    pub one_thread: bool,
}

/// Runs a program and returns what it writes to the file that its last argument names.
pub fn measure<T: DeserializeOwned>(program: &Program, args: &[String], surroundings: Surroundings) -> Result<T> {
    measure_with(program, args, surroundings, &[])
}

/// The same, with variables.
pub fn measure_with<T: DeserializeOwned>(
    program: &Program,
    args: &[String],
    surroundings: Surroundings,
    variables: &[(&str, &str)],
) -> Result<T> {
    let folder = tempfile::tempdir()?;
    let result = folder.path().join("result.json");
    let mut words = if surroundings.terminal { Program::Python("terminal.py").command()? } else { Vec::new() };
    words.extend(program.command()?);
    words.extend(args.iter().map(OsString::from));
    words.push(result.clone().into());

    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(folder.path());
    // Cargo's, for the programs it builds.
    command.env_remove("LD_LIBRARY_PATH").envs(variables.iter().copied());
    if surroundings.plain_waiting {
        command.env("FULGURITE_NO_WAIT_TUNING", "1");
    }
    if surroundings.one_thread {
        command.env("OMP_NUM_THREADS", "1");
    }
    command.env(STARTED, SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos().to_string());
    let output = command.output().with_context(|| format!("{} does not start", words[0].display()))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        bail!("{words:?} failed:\n{}", said.concat());
    }
    let json = std::fs::read_to_string(&result).with_context(|| format!("{words:?} wrote no result"))?;
    Ok(serde_json::from_str(&json)?)
}

/// A program that keeps one processor busy until it is dropped.
pub struct BusyNeighbour(Child);

impl BusyNeighbour {
    /// On the first processor where `taskset` is there to say so, else wherever the system puts it.
    pub fn start() -> Result<BusyNeighbour> {
        let spin = Program::Rust("spin").command()?;
        let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let pinned = quiet(Command::new("taskset").args(["-c", "0"]).args(&spin));
        Ok(BusyNeighbour(pinned.or_else(|_| quiet(Command::new(&spin[0]).args(&spin[1..])))?))
    }
}

impl Drop for BusyNeighbour {
    fn drop(&mut self) {
        // It ends at the latest with the benchmark's terminal; the error cannot be reported.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
