//! Finding Python, its pip, and its `torch`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::libtorch::{self, VERSION};

/// Prints where `torch` lies, without the seconds that importing it takes.
const WHERE_TORCH_IS: &str = "\
import importlib.util
found = importlib.util.find_spec('torch')
print(found.submodule_search_locations[0] if found and found.submodule_search_locations else '')";

/// A Python that has pip.
///
/// # Errors
///
/// When there is none, with what to install.
pub fn with_pip() -> Result<OsString> {
    let python = OsString::from("python3");
    if Command::new(&python).arg("--version").output().is_err() {
        bail!(
            "there is no Python (`python3`), whose pip fetches PyTorch's packages: install it, with `apt install python3-pip` on Debian and Ubuntu, `dnf install python3-pip` on Fedora, `brew install python` on macOS"
        );
    }
    let pip = Command::new(&python).args(["-m", "pip", "--version"]).output()?;
    if !pip.status.success() {
        bail!(
            "Python has no pip (`python3 -m pip` does not run): install it, with `apt install python3-pip` on Debian and Ubuntu, `dnf install python3-pip` on Fedora, `python3 -m ensurepip` elsewhere"
        );
    }
    Ok(python)
}

/// The libtorch that the `torch` of a Python environment consists of.
pub(crate) fn torch_of(interpreter: &OsStr) -> Result<PathBuf> {
    let name = interpreter.display();
    let help = format!(
        "install it with `{name} -m pip install torch=={VERSION}`, or leave out `--python`, and libtorch is fetched"
    );
    let asked = match Command::new(interpreter).args(["-c", WHERE_TORCH_IS]).output() {
        Ok(asked) if asked.status.success() => asked,
        Ok(asked) => {
            let said = String::from_utf8_lossy(&asked.stderr);
            let last = said.lines().last().unwrap_or("no reason given").trim();
            bail!("`{name}` cannot say where its torch is: {last}");
        }
        Err(error) => bail!("`--python` names `{name}`, which does not start: {error}"),
    };
    let printed = String::from_utf8_lossy(&asked.stdout);
    let folder = PathBuf::from(printed.trim());
    if folder.as_os_str().is_empty() {
        bail!("`{name}` has no torch: {help}");
    }
    match libtorch::check(&folder) {
        Ok(()) => Ok(folder),
        Err(why) => bail!("the torch of `{name}` cannot be used: {why}; {help}"),
    }
}
