//! [`Cargo`]: the cargo that runs this, run again.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

const NO_START: &str = "cargo does not start";

/// A call of cargo in the workspace. Its output goes where ours goes.
pub(crate) struct Cargo(Command);

impl Cargo {
    pub(crate) fn new(root: &Path) -> Cargo {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(root);
        // What cargo says of the running package. A dependency whose build script reads it would be built again, and all that
        // depends on it, whenever cargo is started by hand after this, and by this after that.
        let is_of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for name in names.filter(|name| is_of_package(name)) {
            command.env_remove(name);
        }
        if let Some(config) = std::env::var_os("FULGURITE_CARGO_CONFIG") {
            command.arg("--config").arg(config);
        }
        Cargo(command)
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Cargo {
        self.0.env(name, value);
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Cargo {
        self.0.args(args);
        self
    }

    /// Runs it, and hands on how it ended: cargo has said itself what went wrong.
    pub(crate) fn run(mut self) -> Result<ExitCode> {
        let status = self.0.status().context(NO_START)?;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
    }

    /// Runs it, and says whether all went well.
    pub(crate) fn succeeds(mut self) -> Result<bool> {
        Ok(self.0.status().context(NO_START)?.success())
    }

    /// Runs it unseen, and says whether all went well, and what it said.
    pub(crate) fn output(mut self) -> Result<(bool, String)> {
        let output = self.0.output().context(NO_START)?;
        let said = [output.stderr, output.stdout].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }
}
