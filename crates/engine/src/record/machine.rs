//! [`Machine`]: what a program runs on, as far as that is cheap to learn.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::bounded::{at_most, beginning_of};
use super::command_line;

const NAME: usize = 300;

/// Versions, hardware and the command line.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    fulgurite: &'static str,
    libtorch: Option<String>,
    host: Option<String>,
    os: String,
    cpu: Option<String>,
    processors: usize,
    memory: Option<u64>,
    /// Without keys and passwords.
    command: Vec<String>,
    folder: Option<String>,
    /// The commit that is checked out where the program runs.
    commit: Option<String>,
}

impl Machine {
    /// This machine and program.
    pub(crate) fn here() -> Machine {
        let folder = std::env::current_dir().ok();
        let args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
        Machine {
            fulgurite: env!("CARGO_PKG_VERSION"),
            libtorch: libtorch_version(),
            host: word_of("/proc/sys/kernel/hostname").or_else(|| std::env::var("COMPUTERNAME").ok()).map(short),
            os: os(),
            cpu: field_of("/proc/cpuinfo", "model name").map(short),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory: field_of("/proc/meminfo", "MemTotal").and_then(|text| bytes(&text)),
            command: command_line::without_keys(args),
            commit: folder.as_deref().and_then(commit_in),
            folder: folder.map(|folder| at_most(4096, &folder.to_string_lossy()).into_owned()),
        }
    }
}

fn short(text: String) -> String {
    at_most(NAME, &text).into_owned()
}

fn word_of(path: &str) -> Option<String> {
    let text = beginning_of(Path::new(path), 4096)?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The first `name: value` of a file.
fn field_of(path: &str, name: &str) -> Option<String> {
    let text = beginning_of(Path::new(path), 16 << 10)?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(found, _)| found.trim() == name).map(|(_, value)| value.trim().to_owned()).next()
}

/// `16384 kB`.
fn bytes(text: &str) -> Option<u64> {
    text.strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn os() -> String {
    let named = || {
        let text = beginning_of(Path::new("/etc/os-release"), 16 << 10)?;
        let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
        Some(short(name.trim_matches('"').to_owned()))
    };
    format!(
        "{} ({} {})",
        named().unwrap_or_else(|| std::env::consts::OS.into()),
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}

/// What the folder of the libtorch that was loaded says of itself: a wheel in `version.py`, an archive in `build-version`.
fn libtorch_version() -> Option<String> {
    let maps = beginning_of(Path::new("/proc/self/maps"), 4 << 20)?;
    let line = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
    let library = Path::new(line[line.find('/')?..].trim());
    let root = library.parent()?.parent()?;
    let of_archive = beginning_of(&root.join("build-version"), NAME as u64);
    let version = of_archive.or_else(|| {
        let text = beginning_of(&root.join("version.py"), 4096)?;
        let line = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
        Some(line.trim_matches(['\'', '"']).to_owned())
    })?;
    Some(short(version.trim().to_owned()))
}

/// The commit of the repository that a folder is in, read from its files.
fn commit_in(folder: &Path) -> Option<String> {
    let found = folder.ancestors().map(|folder| folder.join(".git")).find(|git| git.exists())?;
    let git = git_folder(&found)?;
    let head = beginning_of(&git.join("HEAD"), 4096)?;
    let Some(name) = head.trim().strip_prefix("ref: ") else { return hash(&head) };
    if name.split('/').any(|part| part == "..") || !name.starts_with("refs/") {
        return None;
    }
    let shared = beginning_of(&git.join("commondir"), 4096).map_or(git.clone(), |common| git.join(common.trim()));
    let in_file = |root: &PathBuf| hash(&beginning_of(&root.join(name), 4096)?);
    [git, shared.clone()].iter().find_map(in_file).or_else(|| {
        let packed = beginning_of(&shared.join("packed-refs"), 4 << 20)?;
        packed
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(_, other)| *other == name)
            .and_then(|(id, _)| hash(id))
    })
}

/// A work tree has a file that says where its folder is.
fn git_folder(found: &Path) -> Option<PathBuf> {
    if found.is_dir() {
        return Some(found.to_owned());
    }
    let text = beginning_of(found, 4096)?;
    Some(found.parent()?.join(text.trim().strip_prefix("gitdir: ")?))
}

fn hash(text: &str) -> Option<String> {
    let text = text.trim();
    let is_hash = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_commit_is_read_without_git() {
        let folder = tempfile::tempdir().unwrap();
        let id = |digit: &str| digit.repeat(40);
        let (git, below) = (folder.path().join(".git"), folder.path().join("a/b"));
        fs::create_dir_all(git.join("refs/heads")).unwrap();
        fs::create_dir_all(&below).unwrap();
        fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        assert_eq!(commit_in(&below), None);
        fs::write(git.join("packed-refs"), format!("# pack-refs\n{} refs/heads/main\n", id("1"))).unwrap();
        assert_eq!(commit_in(&below), Some(id("1")));
        fs::write(git.join("refs/heads/main"), id("2") + "\n").unwrap();
        assert_eq!(commit_in(&below), Some(id("2")));
        fs::write(git.join("HEAD"), id("3")).unwrap();
        assert_eq!(commit_in(&below), Some(id("3")));
        fs::write(git.join("HEAD"), "ref: refs/../../../secret").unwrap();
        assert_eq!(commit_in(&below), None);

        let tree = git.join("worktrees/tree");
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("HEAD"), "ref: refs/heads/main").unwrap();
        fs::write(tree.join("commondir"), "../..\n").unwrap();
        fs::write(below.join(".git"), format!("gitdir: {}\n", tree.display())).unwrap();
        assert_eq!(commit_in(&below), Some(id("2")));
    }

    #[test]
    fn a_machine_is_described() {
        let here = serde_json::to_value(Machine::here()).unwrap();
        assert!(here["processors"].as_u64().unwrap() > 0 && here["command"].is_array(), "{here}");
        assert_eq!(bytes("16 kB"), Some(16384));
    }
}
