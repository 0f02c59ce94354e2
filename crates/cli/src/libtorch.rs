//! What a usable libtorch is, and how cargo learns where it lies.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The version that `tch` is made for.
pub const VERSION: &str = "2.11.0";

/// What its download and its unpacked files need while it is fetched, in bytes.
pub(crate) const NEEDED_BYTES: u64 = 3_000_000_000;

/// What pip fetches. A program on the CPU loads these three packages alone, a sixth of what `torch` asks for.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) const PACKAGES: &[&str] =
    &["--no-deps", "torch==2.11.0", "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"];
/// What pip fetches.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(crate) const PACKAGES: &[&str] = &["torch==2.11.0"];

/// Whether `folder` holds the libtorch that is needed.
///
/// # Errors
///
/// Why it does not, as a sentence that names the folder.
pub fn check(folder: &Path) -> Result<(), String> {
    let place = folder.display();
    let library = folder.join("lib").join(format!("{DLL_PREFIX}torch_cpu{DLL_SUFFIX}"));
    if !library.exists() {
        return Err(format!("{place} holds no libtorch (there is no {})", library.display()));
    }
    match version(folder) {
        Some(version) if version == VERSION && has_old_abi(folder) => Err(format!(
            "{place} was compiled for the C++ ABI before C++11 (_GLIBCXX_USE_CXX11_ABI=0), and that of C++11 is needed"
        )),
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

/// Whether a libtorch says of itself that its strings are those of the old C++ library.
fn has_old_abi(folder: &Path) -> bool {
    let config = fs::read_to_string(folder.join("share/cmake/Torch/TorchConfig.cmake"));
    config.is_ok_and(|text| text.contains("-D_GLIBCXX_USE_CXX11_ABI=0"))
}

fn cargo_config_path(root: &Path) -> PathBuf {
    root.join(".cargo").join("libtorch.toml")
}

/// Writes `.cargo/libtorch.toml` of the crate or workspace in `root`, which its `.cargo/config.toml` includes. A file that
/// says so already stays untouched.
///
/// # Errors
///
/// When the file cannot be written, or no linker can be told this path.
pub fn write_cargo_config(root: &Path, libtorch: &Path) -> Result<()> {
    let (path, config) = (cargo_config_path(root), config_file(libtorch)?);
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

/// The text of `.cargo/libtorch.toml`.
pub(crate) fn config_file(libtorch: &Path) -> Result<String> {
    Ok(format!("# Written by the set-up of Fulgurite; safe to delete.\n{}", cargo_config(libtorch)?))
}

/// What a crate's `.cargo/config.toml` has to say, or include, so that cargo and the crate's programs find `libtorch`.
///
/// The flags stand under `target`, not under `build`, because cargo ignores the latter as soon as the user's own
/// configuration has any flags under `target`, such as those that choose a linker.
///
/// # Errors
///
/// When no linker can be told this path.
pub fn cargo_config(libtorch: &Path) -> Result<String> {
    let place = toml_string(libtorch)?;
    if let Some(separator) = place.chars().find(|c| matches!(c, ',' | ':')) {
        bail!(
            "libtorch cannot lie in {}: programs are told where it is in a list that `{separator}` separates; use a folder without one",
            libtorch.display()
        );
    }
    let flag = toml_string(Path::new(&format!("link-arg=-Wl,-rpath,{}/lib", libtorch.display())))?;
    Ok(format!(
        r#"[env]
LIBTORCH = {place}

[target.'cfg(all())']
rustflags = ["-C", {flag}]

[build]
rustdocflags = ["-C", {flag}]
"#
    ))
}

/// A path as a string of TOML.
pub(crate) fn toml_string(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("the path {} is not UTF-8", path.display()))?;
    let escaped = text.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    });
    Ok(format!("\"{}\"", escaped.collect::<String>()))
}

/// Which libtorch set-up told cargo about last.
pub fn in_cargo_config(root: &Path) -> Option<PathBuf> {
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

        let config = folder.path().join("share/cmake/Torch/TorchConfig.cmake");
        fs::create_dir_all(config.parent().unwrap()).unwrap();
        fs::write(&config, "set(TORCH_CXX_FLAGS \"-D_GLIBCXX_USE_CXX11_ABI=1\")").unwrap();
        assert_eq!(check(folder.path()), Ok(()));
        fs::write(&config, "set(TORCH_CXX_FLAGS \"-D_GLIBCXX_USE_CXX11_ABI=0\")").unwrap();
        assert!(check(folder.path()).unwrap_err().contains("the C++ ABI before C++11"));
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

    #[test]
    fn a_path_that_no_linker_can_be_told_is_refused() {
        let refusal = |path: &str| cargo_config(Path::new(path)).unwrap_err().to_string();
        assert_eq!(
            refusal("/a,b/torch"),
            "libtorch cannot lie in /a,b/torch: programs are told where it is in a list that `,` separates; use a folder without one"
        );
        assert!(refusal("/a:b/torch").contains("`:` separates"));
        let strange: toml::Table = cargo_config(Path::new("/größer \n\\/torch")).unwrap().parse().unwrap();
        assert_eq!(strange["env"]["LIBTORCH"].as_str(), Some("/größer \n\\/torch"));
    }
}
