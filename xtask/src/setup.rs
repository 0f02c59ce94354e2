//! `cargo xtask setup`: finds libtorch or fetches it, and tells cargo where it is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::libtorch::{self, VERSION};
use crate::pip::Pip;
use crate::prerequisites::{cargo_is_new_enough, compiler_is_there, has_space};
use crate::python;

/// What has been set up.
pub(crate) struct Ready {
    /// What `LIBTORCH` should say.
    pub(crate) libtorch: PathBuf,
}

/// Sets up what is missing. Takes no time when nothing is.
pub(crate) fn run(root: &Path) -> Result<Ready> {
    if cfg!(windows) {
        bail!("Fulgurite does not build on Windows yet: use the Windows Subsystem for Linux (`wsl --install`)");
    }
    cargo_is_new_enough()?;
    compiler_is_there()?;
    let libtorch = find_or_fetch(root, std::env::var_os("LIBTORCH").map(PathBuf::from))?;
    libtorch::write_cargo_config(root, &libtorch)?;
    if std::env::var_os("RUSTFLAGS").is_some_and(|flags| !flags.is_empty()) {
        eprintln!(
            "warning: RUSTFLAGS is set, so cargo ignores the flags that let programs find libtorch: unset it, or move its flags to `target.<triple>.rustflags` in ~/.cargo/config.toml"
        );
    }
    Ok(Ready { libtorch })
}

/// Where libtorch is: where `LIBTORCH` says, or else in `.libtorch`, which is filled if need be.
fn find_or_fetch(root: &Path, asked: Option<PathBuf>) -> Result<PathBuf> {
    let own = root.join(".libtorch").join("torch");
    // Cargo passes on what set-up told it last time. That is no wish of the user's, and the folder may be gone since.
    let remembered = libtorch::in_cargo_config(root);
    let wish = asked.filter(|asked| !asked.as_os_str().is_empty() && remembered.as_ref() != Some(asked));
    if let Some(wish) = wish {
        let wish = std::path::absolute(wish)?;
        return match libtorch::check(&wish) {
            Ok(()) => Ok(wish),
            Err(why) => bail!(
                "LIBTORCH cannot be used: {why}; point it to libtorch {VERSION}, or unset it and `cargo xtask setup` fetches that"
            ),
        };
    }
    let known = remembered.into_iter().chain([own.clone()]).find(|folder| libtorch::check(folder).is_ok());
    if let Some(known) = known {
        return Ok(known);
    }
    fetch(root, &own)?;
    Ok(own)
}

/// Fills `.libtorch` through a folder beside it, so that it is whole or not there.
fn fetch(root: &Path, own: &Path) -> Result<()> {
    let partial = root.join(".libtorch.partial");
    fs::create_dir_all(&partial).with_context(|| format!("cannot write to {}", root.display()))?;
    let lock = File::create(partial.join("lock"))?;
    if lock.try_lock().is_err() {
        println!("Another set-up is at work in {}; waiting for it.", partial.display());
        lock.lock()?;
        if libtorch::check(own).is_ok() {
            return Ok(());
        }
        bail!("the other set-up did not finish: run `cargo xtask setup` again");
    }

    // What an interrupted set-up left.
    for left in ["packages", "tmp", "replaced"].map(|name| partial.join(name)) {
        if left.exists() {
            fs::remove_dir_all(left)?;
        }
    }
    has_space(root, libtorch::NEEDED_BYTES, "libtorch")?;
    let python = python::with_pip()?;
    println!("Fetching libtorch {VERSION} into {} (once; about half a gigabyte).", root.join(".libtorch").display());
    let packages = partial.join("packages");
    let mut args = vec!["--target".into(), packages.clone().into_os_string()];
    args.extend(libtorch::PACKAGES.iter().map(Into::into));
    let needed = libtorch::NEEDED_BYTES;
    Pip { python, interpreter: None, folder: &partial, what: "libtorch", needed }.install(&args)?;

    libtorch::check(&packages.join("torch"))
        .map_err(|why| anyhow::anyhow!("what pip installed is not right: {why}"))?;
    let place = root.join(".libtorch");
    if place.exists() {
        fs::rename(&place, partial.join("replaced"))?;
    }
    fs::rename(&packages, &place)?;
    fs::remove_dir_all(&partial)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libtorch::tests::fake;

    fn found(root: &Path, asked: Option<PathBuf>) -> String {
        match find_or_fetch(root, asked) {
            Ok(path) => path.display().to_string(),
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
