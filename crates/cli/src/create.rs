//! `fulgurite new`: makes a crate, whole or not at all.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::dependency::Dependency;
use crate::libtorch;
use crate::{name, template};

/// A crate to be.
pub(crate) struct NewCrate {
    folder: PathBuf,
    name: String,
    dependency: Dependency,
}

impl NewCrate {
    /// Checks whether there can be a crate in `folder`, whose name is that of the folder unless `name` says another.
    pub(crate) fn new(folder: &Path, name: Option<String>, dependency: Dependency) -> Result<NewCrate> {
        let folder = std::path::absolute(folder).with_context(|| format!("no crate can be in {folder:?}"))?;
        let name = match (name, folder.file_name()) {
            (Some(name), _) => name,
            (None, Some(last)) => last.to_string_lossy().into_owned(),
            (None, None) => bail!("{} has no name that a crate could have: say one with `--name`", folder.display()),
        };
        name::check(&name)?;
        // Cargo's own files could not name it.
        libtorch::toml_string(&folder)?;
        match fs::read_dir(&folder).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => bail!("{} is there already, and not empty: choose another folder", folder.display()),
            Err(_) if folder.symlink_metadata().is_ok() => {
                bail!("{} is there already, and is no folder that can be read: choose another", folder.display())
            }
            Err(_) => {}
        }
        Ok(NewCrate { folder, name, dependency })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes it.
    pub(crate) fn write(&self, libtorch: &Path) -> Result<()> {
        let mut files = template::files(&self.name, &self.dependency.to_toml()?);
        files.push((".cargo/libtorch.toml", libtorch::config_file(libtorch)?));
        let mut made = Made::default();
        for (path, text) in files {
            made.file(&self.folder.join(path), |path| fs::write(path, text))?;
        }
        if let Some(lock_file) = self.dependency.lock_file() {
            made.file(&self.folder.join("Cargo.lock"), |path| fs::copy(lock_file, path).map(|_| ()))?;
        }
        if let Some(outer) = outer_workspace(&self.folder).filter(|outer| has_two_roots(outer)) {
            bail!(
                "the workspace of {} would take in {}: add it to `exclude` there, or choose another folder",
                outer.display(),
                self.folder.display()
            );
        }
        made.keep();
        Ok(())
    }
}

/// What has been made so far. It is removed unless it is to be kept.
#[derive(Default)]
struct Made {
    /// Files, and the folders that were not there before, in the order in which they were made.
    paths: Vec<PathBuf>,
}

impl Made {
    /// Makes a file, and the folders above it.
    fn file(&mut self, path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
        let missing = path.ancestors().skip(1).take_while(|folder| folder.symlink_metadata().is_err());
        let mut missing: Vec<_> = missing.map(Path::to_owned).collect();
        missing.reverse();
        let write = || {
            for folder in missing {
                fs::create_dir(&folder)?;
                self.paths.push(folder);
            }
            self.paths.push(path.to_owned());
            write(path)
        };
        write().map_err(|error| anyhow!("cannot write {}: {error}", path.display()))
    }

    fn keep(mut self) {
        self.paths.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.paths.iter().rev() {
            // Folders only while they are empty: what somebody else put there is theirs.
            let _ = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        }
    }
}

/// The manifest of the workspace that a crate in `folder` would belong to if it were no workspace itself.
fn outer_workspace(folder: &Path) -> Option<PathBuf> {
    let manifests = folder.ancestors().skip(1).map(|folder| folder.join("Cargo.toml"));
    manifests.into_iter().find(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("[workspace")))
}

/// Whether cargo finds another workspace among the members of one: it alone knows which crates these are.
fn has_two_roots(manifest: &Path) -> bool {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"];
    let output = Command::new(cargo).args(arguments).arg(manifest).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stderr).contains("multiple workspace roots"))
}
