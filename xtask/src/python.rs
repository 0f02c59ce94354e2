//! Making a Python that has PyTorch and Lightning.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use fulgurite_cli::pip::Pip;
use fulgurite_cli::prerequisites::has_space;
use fulgurite_cli::python::with_pip;

/// What PyTorch with everything it asks for needs while it is installed.
const NEEDED_BYTES: u64 = 9_000_000_000;

/// A Python that has PyTorch, Lightning and what else the comparisons need: the one that `FULGURITE_PARITY_PYTHON`
/// names, or that of `.venv/parity`, which is made if need be.
pub(crate) fn with_lightning(root: &Path) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("FULGURITE_PARITY_PYTHON").filter(|named| !named.is_empty()) {
        if !Path::new(&named).is_file() {
            bail!(
                "FULGURITE_PARITY_PYTHON names {}, which does not exist: point it to a Python that has what tests/parity/requirements.txt lists, or unset it",
                Path::new(&named).display()
            );
        }
        return Ok(named.into());
    }
    let requirements = root.join("tests").join("parity").join("requirements.txt");
    let wanted = fs::read_to_string(&requirements)?;
    let folder = root.join(".venv").join("parity");
    let interpreter = folder.join("bin").join("python");
    // Written last: what is there without it, or with another text, is not what is wanted.
    let stamp = folder.join("installed.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) && interpreter.exists() {
        return Ok(interpreter);
    }

    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    has_space(&folder, NEEDED_BYTES, "PyTorch")?;
    let python = with_pip()?;
    println!("Installing PyTorch and Lightning into {} (once; about three gigabytes).", folder.display());
    // Without pip of its own, because Debian keeps what would bring it in a package apart.
    let made = Command::new(&python).args(["-m", "venv", "--without-pip"]).arg(&folder).output()?;
    if !made.status.success() {
        bail!(
            "Python cannot make a virtual environment: install its module venv, with `apt install python3-venv` on Debian and Ubuntu"
        );
    }
    let args = ["--requirement".into(), requirements.into_os_string()];
    let pip = Pip { python, interpreter: Some(&interpreter), folder: &folder, what: "PyTorch", needed: NEEDED_BYTES };
    pip.install(&args)?;
    fs::remove_dir_all(folder.join("tmp"))?;
    fs::write(&stamp, wanted)?;
    Ok(interpreter)
}
