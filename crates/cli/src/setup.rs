//! Finding libtorch or fetching it, and telling cargo where it is.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::console::complain;
use crate::libtorch::{self, VERSION};
use crate::prerequisites::{cargo_is_new_enough, compiler_is_there};
use crate::python;
use crate::store::Store;

/// Which libtorch to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// The one that is known, or else one that is fetched.
    Any,
    /// The one in this folder, which was named by an option or a variable.
    Folder { named_by: &'static str, folder: PathBuf },
    /// The one that the `torch` of a Python environment consists of.
    Python(OsString),
}

impl Wish {
    /// What the options say, or else the variable `LIBTORCH`.
    pub(crate) fn new(folder: Option<PathBuf>, python: Option<OsString>) -> Wish {
        let variable = || env::var_os("LIBTORCH").filter(|value| !value.is_empty()).map(PathBuf::from);
        match (folder, python) {
            (Some(folder), _) => Wish::Folder { named_by: "--libtorch", folder },
            (None, Some(interpreter)) => Wish::Python(interpreter),
            (None, None) => variable().map_or(Wish::Any, |folder| Wish::Folder { named_by: "LIBTORCH", folder }),
        }
    }
}

/// Sets up libtorch for the clone of Fulgurite in `root`, and tells its cargo; returns where libtorch is. Takes no time when
/// that is done. A libtorch that all crates of the user share is used, but none is fetched for them.
///
/// # Errors
///
/// One sentence about what is missing on this machine, or about the libtorch that the variable `LIBTORCH` names.
pub fn in_clone(root: &Path) -> Result<PathBuf> {
    needs()?;
    let own = Store::of_clone(root);
    let stores = [Some(own.clone()), Store::of_user().ok()];
    let known = find(Some(root), Wish::new(None, None), stores.into_iter().flatten(), "cargo xtask setup")?;
    let libtorch = known.map_or_else(|| own.fill(), Ok)?;
    libtorch::write_cargo_config(root, &libtorch)?;
    Ok(libtorch)
}

/// Sets up libtorch for all crates of the user. The cargo of the crate in `root` is told of it; such a crate keeps the
/// libtorch that it knows unless there is a wish.
pub(crate) fn for_user(root: Option<&Path>, wish: Wish) -> Result<PathBuf> {
    needs()?;
    let store = Store::of_user();
    let known = find(root, wish, store.as_ref().ok().cloned(), "fulgurite setup")?;
    let libtorch = known.map_or_else(|| store?.fill(), Ok)?;
    if let Some(root) = root {
        libtorch::write_cargo_config(root, &libtorch)?;
    }
    Ok(libtorch)
}

/// What building with libtorch needs besides it.
fn needs() -> Result<()> {
    if cfg!(windows) {
        bail!("Fulgurite does not build on Windows yet: use the Windows Subsystem for Linux (`wsl --install`)");
    }
    cargo_is_new_enough()?;
    compiler_is_there()?;
    if env::var_os("RUSTFLAGS").is_some_and(|flags| !flags.is_empty()) {
        complain(
            "warning: RUSTFLAGS is set, so cargo ignores the flags that let programs find libtorch: unset it, or move its flags to `target.<triple>.rustflags` in ~/.cargo/config.toml",
        );
    }
    Ok(())
}

/// The libtorch that is wished for; or else the one that cargo was told about last in `root`, or that is in a store.
fn find(
    root: Option<&Path>,
    wish: Wish,
    stores: impl IntoIterator<Item = Store>,
    command: &str,
) -> Result<Option<PathBuf>> {
    let remembered = root.and_then(libtorch::in_cargo_config);
    match wish {
        // Cargo passes on what set-up told it last time. That is no wish of the user's, and the folder may be gone since.
        Wish::Folder { named_by: "LIBTORCH", folder } if remembered.as_ref() == Some(&folder) => {}
        Wish::Folder { named_by, folder } => return wished(named_by, &folder, command).map(Some),
        Wish::Python(interpreter) => return python::torch_of(&interpreter).map(Some),
        Wish::Any => {}
    }
    let stores = stores.into_iter().map(|store| store.libtorch());
    Ok(remembered.into_iter().chain(stores).find(|folder| libtorch::check(folder).is_ok()))
}

fn wished(named_by: &str, folder: &Path, command: &str) -> Result<PathBuf> {
    let folder = std::path::absolute(folder).context("a libtorch that is named needs a path")?;
    match libtorch::check(&folder) {
        Ok(()) => Ok(folder),
        Err(why) => {
            let without = if named_by == "LIBTORCH" { "unset it" } else { "leave it out" };
            bail!(
                "{named_by} cannot be used: {why}; point it to libtorch {VERSION}, or {without} and `{command}` fetches that"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtorch::tests::fake;

    fn found(root: &Path, asked: Option<PathBuf>) -> String {
        let wish = asked.map_or(Wish::Any, |folder| Wish::Folder { named_by: "LIBTORCH", folder });
        match find(Some(root), wish, [Store::of_clone(root)], "cargo xtask setup") {
            Ok(path) => path.unwrap().display().to_string(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn libtorch_names_a_folder_that_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let theirs = root.path().join("theirs");
        fake(&theirs, VERSION);
        assert_eq!(found(root.path(), Some(theirs.clone())), theirs.display().to_string());
    }

    #[test]
    fn a_wrong_version_is_one_clear_sentence() {
        let root = tempfile::tempdir().unwrap();
        let theirs = root.path().join("theirs");
        fake(&theirs, "2.9.1+cpu");
        let expected = format!(
            "LIBTORCH cannot be used: {} holds libtorch 2.9.1, and 2.11.0 is needed; point it to libtorch 2.11.0, or unset it and `cargo xtask setup` fetches that",
            theirs.display()
        );
        assert_eq!(found(root.path(), Some(theirs)), expected);
    }

    #[test]
    fn what_set_up_remembers_is_no_wish_of_the_users() {
        let root = tempfile::tempdir().unwrap();
        let (gone, own) = (root.path().join("gone"), root.path().join(".libtorch/torch"));
        libtorch::write_cargo_config(root.path(), &gone).unwrap();
        fake(&own, VERSION);
        assert_eq!(found(root.path(), Some(gone)), own.display().to_string());
    }

    #[test]
    fn libtorch_elsewhere_is_remembered() {
        let root = tempfile::tempdir().unwrap();
        let theirs = root.path().join("theirs");
        fake(&theirs, VERSION);
        libtorch::write_cargo_config(root.path(), &theirs).unwrap();
        assert_eq!(found(root.path(), None), theirs.display().to_string());
    }
}
