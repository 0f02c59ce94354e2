//! What a usable libtorch is, and how cargo learns where it lies.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The version that `tch` is made for.
pub(crate) const VERSION: &str = "2.11.0";

/// What its download and its unpacked files need while it is fetched.
pub(crate) const NEEDED_BYTES: u64 = 3_000_000_000;

/// What pip fetches. A program on the CPU loads these three packages alone, a sixth of what `torch` asks for.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) const PACKAGES: &[&str] =
    &["--no-deps", "torch==2.11.0", "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"];
/// What pip fetches.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(crate) const PACKAGES: &[&str] = &["torch==2.11.0"];

/// Whether `folder` holds the libtorch that is needed; if not, why.
pub(crate) fn check(folder: &Path) -> Result<(), String> {
    let place = folder.display();
    let library = folder.join("lib").join(format!("{DLL_PREFIX}torch_cpu{DLL_SUFFIX}"));
    if !library.exists() {
        return Err(format!("{place} holds no libtorch (there is no {})", library.display()));
    }
    match version(folder) {
        Some(version) if version == VERSION => Ok(()),
        Some(version) => Err(format!("{place} holds libtorch {version}, and {VERSION} is needed")),
        None => Err(format!("{place} does not say which version of libtorch it holds")),
    }
}

/// The version of a libtorch, from a wheel, an archive, or its headers alone.
fn version(folder: &Path) -> Option<String> {
    let places = [
        ("version.py", "__version__ ="),
        ("build-version", ""),
        ("include/torch/headeronly/version.h", "#define TORCH_VERSION "),
        ("include/torch/csrc/api/include/torch/version.h", "#define TORCH_VERSION "),
    ];
    places.iter().find_map(|(file, key)| {
        let text = fs::read_to_string(folder.join(file)).ok()?;
        let value = &text[text.find(key)? + key.len()..];
        let start = value.find(|c: char| c.is_ascii_digit())?;
        let number = value[start..].split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        Some(number.to_owned())
    })
}

fn cargo_config_path(root: &Path) -> PathBuf {
    root.join(".cargo").join("libtorch.toml")
}

/// Writes what `.cargo/config.toml` includes. A file that says so already stays untouched.
pub(crate) fn write_cargo_config(root: &Path, libtorch: &Path) -> Result<()> {
    let (path, config) = (cargo_config_path(root), cargo_config(libtorch)?);
    if fs::read_to_string(&path).is_ok_and(|old| old == config) {
        return Ok(());
    }
    let write = || {
        fs::create_dir_all(root.join(".cargo"))?;
        let partial = path.with_extension("toml.partial");
        fs::write(&partial, config)?;
        fs::rename(&partial, &path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The flags stand under `target`, not under `build`, because cargo ignores the latter as soon as the user's own
/// configuration has any flags under `target`, such as those that choose a linker.
fn cargo_config(libtorch: &Path) -> Result<String> {
    let place = libtorch.to_str().with_context(|| format!("the path {} is not UTF-8", libtorch.display()))?;
    let place = place.replace('\\', "\\\\").replace('"', "\\\"");
    Ok(format!(
        r#"# Written by `cargo xtask setup`; safe to delete.
[env]
LIBTORCH = "{place}"

[target.'cfg(all())']
rustflags = ["-C", "link-arg=-Wl,-rpath,{place}/lib"]

[build]
rustdocflags = ["-C", "link-arg=-Wl,-rpath,{place}/lib"]
"#
    ))
}

/// Which libtorch set-up told cargo about last.
pub(crate) fn in_cargo_config(root: &Path) -> Option<PathBuf> {
    let config = fs::read_to_string(cargo_config_path(root)).ok()?;
    let value = config.lines().find_map(|line| line.strip_prefix("LIBTORCH = \"")?.strip_suffix('"'))?;
    Some(value.replace("\\\"", "\"").replace("\\\\", "\\").into())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Makes a folder that looks like a libtorch.
    pub(crate) fn fake(folder: &Path, version: &str) {
        fs::create_dir_all(folder.join("lib")).unwrap();
        fs::write(folder.join("lib").join(format!("{DLL_PREFIX}torch_cpu{DLL_SUFFIX}")), "").unwrap();
        fs::write(folder.join("build-version"), version).unwrap();
    }

    fn version_of(file: &str, text: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        version(folder.path())
    }

    #[test]
    fn the_version_is_found_wherever_it_stands() {
        let wheel = "__all__ = ['__version__', 'debug']\n__version__ = '2.11.0+cu130'\ndebug = False\n";
        let header = "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION \\\n  \"2.10.0\"\n";
        assert_eq!(version_of("version.py", wheel).as_deref(), Some("2.11.0"));
        assert_eq!(version_of("build-version", "2.11.0+cpu\n").as_deref(), Some("2.11.0"));
        assert_eq!(version_of("include/torch/headeronly/version.h", header).as_deref(), Some("2.10.0"));
        assert_eq!(version_of("README", "2.11.0"), None);
    }

    #[test]
    fn a_folder_without_libtorch_is_told_from_one_that_hides_its_version() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().display();
        assert_eq!(
            check(folder.path()),
            Err(format!("{place} holds no libtorch (there is no {place}/lib/{DLL_PREFIX}torch_cpu{DLL_SUFFIX})"))
        );
        fake(folder.path(), "unknown");
        assert_eq!(check(folder.path()), Err(format!("{place} does not say which version of libtorch it holds")));
        fake(folder.path(), "2.11.0+cu130");
        assert_eq!(check(folder.path()), Ok(()));
    }

    #[test]
    fn cargo_is_told_once_and_remembers() {
        let root = tempfile::tempdir().unwrap();
        let libtorch = Path::new("/a \"strange\" place/torch");
        assert_eq!(in_cargo_config(root.path()), None);
        write_cargo_config(root.path(), libtorch).unwrap();
        let written = fs::metadata(cargo_config_path(root.path())).unwrap().modified().unwrap();
        assert_eq!(in_cargo_config(root.path()).as_deref(), Some(libtorch));
        write_cargo_config(root.path(), libtorch).unwrap();
        assert_eq!(fs::metadata(cargo_config_path(root.path())).unwrap().modified().unwrap(), written);

        let config: toml::Table = fs::read_to_string(cargo_config_path(root.path())).unwrap().parse().unwrap();
        assert_eq!(config["env"]["LIBTORCH"].as_str(), libtorch.to_str());
        let flag = "link-arg=-Wl,-rpath,/a \"strange\" place/torch/lib";
        assert_eq!(config["target"]["cfg(all())"]["rustflags"][1].as_str(), Some(flag));
        assert_eq!(config["build"]["rustdocflags"][1].as_str(), Some(flag));
    }
}
