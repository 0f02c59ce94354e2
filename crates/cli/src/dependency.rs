//! How a new crate's manifest says where `fulgurite` is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::libtorch::toml_string;

/// Where cargo finds `fulgurite`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dependency {
    /// A clone on this machine.
    Clone(PathBuf),
    /// A git repository.
    Git(String),
    /// crates.io, with the version of this program.
    Registry,
}

impl Dependency {
    /// What was asked for, or else what this program was built of.
    pub(crate) fn of(clone: Option<PathBuf>, git: Option<String>) -> Result<Dependency> {
        match (clone, git) {
            (Some(clone), _) => Dependency::of_clone(&clone),
            (None, Some(url)) if url.trim().is_empty() => bail!("`--git` needs the URL of a repository"),
            (None, Some(url)) => Ok(Dependency::Git(url)),
            (None, None) => Ok(Dependency::of_package(Path::new(env!("CARGO_MANIFEST_DIR")))),
        }
    }

    fn of_clone(folder: &Path) -> Result<Dependency> {
        let folder = std::path::absolute(folder)?;
        let manifest = folder.join("crates").join("trainer").join("Cargo.toml");
        if !manifest.is_file() {
            bail!("{} is no clone of Fulgurite: there is no {}", folder.display(), manifest.display());
        }
        let folder = folder.canonicalize().with_context(|| format!("cannot read {}", folder.display()))?;
        Ok(Dependency::Clone(folder))
    }

    /// `package` is where this program was compiled: in a clone, in cargo's copy of a repository, or in its copy of the
    /// registry, which has no other crates beside it.
    fn of_package(package: &Path) -> Dependency {
        let of_cargo = package.components().any(|part| part.as_os_str() == "checkouts");
        let clone = package.parent().and_then(Path::parent);
        match clone.map(Dependency::of_clone) {
            Some(Ok(_)) if of_cargo => Dependency::Git(env!("CARGO_PKG_REPOSITORY").to_owned()),
            Some(Ok(clone)) => clone,
            _ => Dependency::Registry,
        }
    }

    /// The dependency's value in `Cargo.toml`.
    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(match self {
            Dependency::Clone(folder) => {
                format!("{{ path = {} }}", toml_string(&folder.join("crates").join("trainer"))?)
            }
            Dependency::Git(url) => format!("{{ git = {} }}", toml_string(Path::new(url))?),
            Dependency::Registry => format!("\"{}\"", env!("CARGO_PKG_VERSION")),
        })
    }

    /// The versions of all dependencies that a clone is tested with.
    pub(crate) fn lock_file(&self) -> Option<PathBuf> {
        let Dependency::Clone(folder) = self else { return None };
        Some(folder.join("Cargo.lock")).filter(|path| path.is_file())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder that looks like a clone.
    fn clone_in(folder: &Path) -> PathBuf {
        fs::create_dir_all(folder.join("crates/trainer")).unwrap();
        fs::create_dir_all(folder.join("crates/cli")).unwrap();
        fs::write(folder.join("crates/trainer/Cargo.toml"), "").unwrap();
        folder.canonicalize().unwrap()
    }

    #[test]
    fn a_program_built_of_a_clone_takes_that_clone() {
        let folder = tempfile::tempdir().unwrap();
        let clone = clone_in(&folder.path().join("it's \"mine\""));
        let dependency = Dependency::of_package(&clone.join("crates/cli"));
        assert_eq!(dependency, Dependency::Clone(clone.clone()));
        let line = format!("fulgurite = {}", dependency.to_toml().unwrap());
        let read: toml::Table = line.parse().unwrap();
        assert_eq!(read["fulgurite"]["path"].as_str(), clone.join("crates/trainer").to_str());
    }

    #[test]
    fn an_installed_program_takes_what_it_was_installed_from() {
        let folder = tempfile::tempdir().unwrap();
        let registry = folder.path().join("registry/src/index/fulgurite-cli-0.1.0");
        assert_eq!(Dependency::of_package(&registry), Dependency::Registry);
        let checkout = clone_in(&folder.path().join("git/checkouts/fulgurite-1/abc"));
        let git = Dependency::of_package(&checkout.join("crates/cli"));
        assert_eq!(git.to_toml().unwrap(), "{ git = \"https://github.com/fulgurite/fulgurite\" }");
    }

    #[test]
    fn a_folder_that_is_no_clone_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().display();
        assert_eq!(
            Dependency::of(Some(folder.path().into()), None).unwrap_err().to_string(),
            format!("{place} is no clone of Fulgurite: there is no {place}/crates/trainer/Cargo.toml")
        );
        assert!(Dependency::of(None, Some(" ".into())).is_err());
    }
}
