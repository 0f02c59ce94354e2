//! `fulgurite ckpt`: hands over to the program `fulgurite-ckpt`, which needs libtorch and is installed apart.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

const PROGRAM: &str = "fulgurite-ckpt";

/// Runs the tools with these arguments, and returns how they ended. `own` is where this program lies.
pub(crate) fn run(own: Option<&Path>, args: &[OsString]) -> Result<ExitCode> {
    let beside = own.and_then(|own| Some(own.parent()?.join(format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX))));
    let program = beside.filter(|beside| beside.is_file()).unwrap_or_else(|| PathBuf::from(PROGRAM));
    let status = match Command::new(&program).args(args).status() {
        Ok(status) => status,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "the tools for checkpoints are the program `{PROGRAM}`, which is not installed: run `cargo install --path crates/trainer` in a clone of {}",
            env!("CARGO_PKG_REPOSITORY")
        ),
        Err(error) => return Err(error).with_context(|| format!("{} does not start", program.display())),
    };
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
