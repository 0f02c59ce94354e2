//! [`Store`]: a place that libtorch is fetched into, once, however many set-ups are at work and wherever one is killed.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::console::say;
use crate::libtorch::{self, VERSION};
use crate::pip::Pip;
use crate::prerequisites::has_space;
use crate::python;

/// A folder that is whole or not there. What becomes it is made in a folder beside it, `.partial`, under a lock, `.lock`.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    folder: PathBuf,
    /// Whether all crates of the user share it.
    shared: bool,
}

impl Store {
    /// The one that all crates of the user share.
    pub(crate) fn of_user() -> Result<Store> {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = match (variable("FULGURITE_CACHE"), variable("XDG_CACHE_HOME"), variable("HOME")) {
            (Some(own), ..) => std::path::absolute(own)?,
            (None, Some(caches), _) if caches.is_absolute() => caches.join("fulgurite"),
            (None, _, Some(home)) => home.join(".cache").join("fulgurite"),
            _ => bail!("there is no place for libtorch, as HOME is not set: let FULGURITE_CACHE name a folder"),
        };
        Ok(Store { folder: cache.join(format!("libtorch-{VERSION}")), shared: true })
    }

    /// That of a clone of Fulgurite alone.
    pub(crate) fn of_clone(root: &Path) -> Store {
        Store { folder: root.join(".libtorch"), shared: false }
    }

    /// Where libtorch is, once it is there.
    pub(crate) fn libtorch(&self) -> PathBuf {
        self.folder.join("torch")
    }

    /// Fetches libtorch, unless somebody else does meanwhile.
    pub(crate) fn fill(&self) -> Result<PathBuf> {
        let (place, parent) = (self.libtorch(), self.parent()?);
        let unusable = |error| match self.shared {
            true => anyhow!(
                "libtorch cannot be kept in {} ({error}): let FULGURITE_CACHE name a folder that can be written to",
                parent.display()
            ),
            false => anyhow!("cannot write to {}: {error}", parent.display()),
        };
        let lock = fs::create_dir_all(parent).and_then(|()| File::create(self.beside("lock"))).map_err(unusable)?;
        // A file system that knows no locks is no reason to fail.
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            say(&format!("Another set-up is at work in {}; waiting for it.", parent.display()));
            lock.lock()?;
        }
        // What another has done meanwhile, or was killed in.
        if libtorch::check(&place).is_err() {
            self.fetch(parent)?;
        }
        Ok(place)
    }

    fn fetch(&self, parent: &Path) -> Result<()> {
        let partial = self.beside("partial");
        // What an interrupted set-up left. Its pip may be at work still, and then some of it stays.
        let _ = fs::remove_dir_all(&partial);
        has_space(parent, libtorch::NEEDED_BYTES, "libtorch")?;
        let python = python::with_pip()?;
        say(&format!("Fetching libtorch {VERSION} into {} (once; about half a gigabyte).", self.folder.display()));
        // A name of its own, so that the two do not mix.
        let own = partial.join(std::process::id().to_string());
        let packages = own.join("packages");
        fs::create_dir_all(&packages).with_context(|| format!("cannot write to {}", parent.display()))?;
        let mut args = vec!["--target".into(), packages.clone().into_os_string()];
        args.extend(libtorch::PACKAGES.iter().map(Into::into));
        let needed = libtorch::NEEDED_BYTES;
        Pip { python, interpreter: None, folder: &own, what: "libtorch", needed }.install(&args)?;

        libtorch::check(&packages.join("torch")).map_err(|why| anyhow!("what pip installed is not right: {why}"))?;
        if self.folder.exists() {
            fs::rename(&self.folder, own.join("replaced"))?;
        }
        fs::rename(&packages, &self.folder)?;
        // It is there: what cannot be removed does no harm.
        let _ = fs::remove_dir_all(&partial);
        Ok(())
    }

    fn parent(&self) -> Result<&Path> {
        self.folder.parent().context("libtorch needs a folder to lie in")
    }

    /// The path of the folder with an extension.
    fn beside(&self, extension: &str) -> PathBuf {
        let mut path = self.folder.clone().into_os_string();
        path.push(".");
        path.push(extension);
        path.into()
    }
}
