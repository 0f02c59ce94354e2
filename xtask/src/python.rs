//! Making Pythons: one that has PyTorch and Lightning, and one that has experiment trackers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use fulgurite_cli::pip::Pip;
use fulgurite_cli::prerequisites::has_space;
use fulgurite_cli::python::with_pip;

/// What PyTorch with everything it asks for needs while it is installed.
const NEEDED_BYTES: u64 = 9_000_000_000;

/// The same of the trackers.
const NEEDED_BYTES_OF_SERVICES: u64 = 2_000_000_000;

/// A Python that has PyTorch, Lightning and what else the comparisons need: the one that `FULGURITE_PARITY_PYTHON`
/// names, or that of `.venv/parity`, which is made if need be.
pub(crate) fn with_lightning(root: &Path) -> Result<PathBuf> {
    let wanted = Wanted {
        name: "parity",
        tests: "parity",
        variable: "FULGURITE_PARITY_PYTHON",
        what: "PyTorch and Lightning",
        size: "three gigabytes",
        needed: NEEDED_BYTES,
    };
    named_or_made(root, &wanted)
}

/// A Python that has experiment trackers, Optuna and Ray Tune: the one that `FULGURITE_SERVICES_PYTHON` names, or that of
/// `.venv/services`, which is made if need be.
pub(crate) fn with_services(root: &Path) -> Result<PathBuf> {
    let wanted = Wanted {
        name: "services",
        tests: "trackers",
        variable: "FULGURITE_SERVICES_PYTHON",
        what: "experiment trackers",
        size: "one and a half gigabytes",
        needed: NEEDED_BYTES_OF_SERVICES,
    };
    named_or_made(root, &wanted)
}

/// A virtual environment of the workspace.
struct Wanted {
    /// Its folder in `.venv`.
    name: &'static str,
    /// The folder of the tests that need it.
    tests: &'static str,
    /// Names another one.
    variable: &'static str,
    what: &'static str,
    size: &'static str,
    needed: u64,
}

impl Wanted {
    /// The file that lists what is installed.
    fn requirements(&self, root: &Path) -> PathBuf {
        root.join("tests").join(self.tests).join("requirements.txt")
    }
}

/// The interpreter that the variable names, or that of the virtual environment.
fn named_or_made(root: &Path, wanted: &Wanted) -> Result<PathBuf> {
    let Some(named) = std::env::var_os(wanted.variable).filter(|named| !named.is_empty()) else {
        return made(root, wanted);
    };
    if !Path::new(&named).is_file() {
        bail!(
            "{} names {}, which does not exist: point it to a Python that has what tests/{}/requirements.txt lists, or unset it",
            wanted.variable,
            Path::new(&named).display(),
            wanted.tests
        );
    }
    Ok(named.into())
}

/// The interpreter of a virtual environment, which is made if it is not there or not as it should be.
fn made(root: &Path, wanted: &Wanted) -> Result<PathBuf> {
    let requirements = wanted.requirements(root);
    let list = fs::read_to_string(&requirements)?;
    let folder = root.join(".venv").join(wanted.name);
    let interpreter = folder.join("bin").join("python");
    // Written last: what is there without it, or with another text, is not what is wanted.
    let stamp = folder.join("installed.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == list) && interpreter.exists() {
        return Ok(interpreter);
    }

    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    has_space(&folder, wanted.needed, wanted.what)?;
    let python = with_pip()?;
    println!("Installing {} into {} (once; about {}).", wanted.what, folder.display(), wanted.size);
    // Without pip of its own, because Debian keeps what would bring it in a package apart.
    let made = Command::new(&python).args(["-m", "venv", "--without-pip"]).arg(&folder).output()?;
    if !made.status.success() {
        bail!(
            "Python cannot make a virtual environment: install its module venv, with `apt install python3-venv` on Debian and Ubuntu"
        );
    }
    let args = ["--requirement".into(), requirements.into_os_string()];
    let pip =
        Pip { python, interpreter: Some(&interpreter), folder: &folder, what: wanted.what, needed: wanted.needed };
    pip.install(&args)?;
    fs::remove_dir_all(folder.join("tmp"))?;
    fs::write(&stamp, list)?;
    Ok(interpreter)
}
