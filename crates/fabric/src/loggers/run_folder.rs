//! `save_dir/name/version_N`: the folder of a run.

use std::cell::OnceCell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The default name of the experiment.
pub(super) const DEFAULT_NAME: &str = "lightning_logs";

/// The version of a run: a number for `version_N`, or a text that is used as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Version {
    /// The folder `version_N`.
    Number(i64),
    /// A folder of this name.
    Name(String),
}

impl From<i32> for Version {
    fn from(number: i32) -> Version {
        Version::Number(number.into())
    }
}

impl From<u32> for Version {
    fn from(number: u32) -> Version {
        Version::Number(number.into())
    }
}

impl From<i64> for Version {
    fn from(number: i64) -> Version {
        Version::Number(number)
    }
}

impl From<&str> for Version {
    fn from(name: &str) -> Version {
        Version::Name(name.into())
    }
}

impl From<String> for Version {
    fn from(name: String) -> Version {
        Version::Name(name)
    }
}

impl Version {
    fn folder(&self) -> String {
        match self {
            Version::Number(number) => format!("version_{number}"),
            Version::Name(name) => name.clone(),
        }
    }
}

/// The settings of the folder, and the folder itself once it has been requested.
#[derive(Debug)]
pub(super) struct RunFolder {
    save_dir: PathBuf,
    name: String,
    version: Option<Version>,
    suggested: Option<String>,
    sub_dir: PathBuf,
    chosen: OnceCell<Chosen>,
}

#[derive(Debug)]
struct Chosen {
    version: String,
    path: PathBuf,
}

impl RunFolder {
    pub(super) fn new(save_dir: PathBuf) -> RunFolder {
        RunFolder {
            save_dir,
            name: DEFAULT_NAME.into(),
            version: None,
            suggested: None,
            sub_dir: PathBuf::new(),
            chosen: OnceCell::new(),
        }
    }

    pub(super) fn set_name(&mut self, name: String) {
        self.name = name;
        self.chosen = OnceCell::new();
    }

    pub(super) fn set_version(&mut self, version: Version) {
        self.version = Some(version);
        self.chosen = OnceCell::new();
    }

    /// Uses this version unless one was given. An empty folder that was reserved before is removed.
    pub(super) fn suggest_version(&mut self, version: &str) {
        if self.version.is_some() {
            return;
        }
        if let Some(chosen) = self.chosen.take().filter(|chosen| chosen.version != version) {
            _ = fs::remove_dir(self.save_dir.join(&self.name).join(chosen.version));
        }
        self.suggested = Some(version.to_owned());
    }

    /// All existing versions; if a version was given, only that one, if it exists or was suggested.
    pub(super) fn runs(&self) -> Vec<String> {
        let root = self.save_dir.join(&self.name);
        let entries = fs::read_dir(&root).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.path().is_dir());
        let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
        let given = self.version.as_ref().map(Version::folder);
        names.filter(|name| given.as_ref().is_none_or(|given| given == name)).collect()
    }

    pub(super) fn set_sub_dir(&mut self, sub_dir: PathBuf) {
        self.sub_dir = sub_dir;
        self.chosen = OnceCell::new();
    }

    pub(super) fn save_dir(&self) -> &Path {
        &self.save_dir
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The version as a folder name. If no version was given, the first call reserves the next free one by creating it, so
    /// that two runs started together never share a folder.
    pub(super) fn version(&self) -> &str {
        &self.chosen().version
    }

    /// The folder, which may not exist yet.
    pub(super) fn path(&self) -> &Path {
        &self.chosen().path
    }

    /// Creates the folder.
    pub(super) fn create(&self) -> io::Result<&Path> {
        let path = self.path();
        fs::create_dir_all(path)?;
        Ok(path)
    }

    fn chosen(&self) -> &Chosen {
        self.chosen.get_or_init(|| {
            let root = self.save_dir.join(&self.name);
            let given = self.version.as_ref().map(Version::folder);
            let version = given.or(self.suggested.clone()).unwrap_or_else(|| reserve_next(&root));
            let mut path = root.join(&version);
            if !self.sub_dir.as_os_str().is_empty() {
                path.push(&self.sub_dir);
            }
            Chosen { version, path }
        })
    }
}

/// Creates the next `version_N` below `root` and returns its name. If it cannot be created, the name is returned anyway:
/// the first write then reports why.
fn reserve_next(root: &Path) -> String {
    let writable = fs::create_dir_all(root).is_ok();
    let mut number = next_version(root);
    loop {
        let name = format!("version_{number}");
        match fs::create_dir(root.join(&name)) {
            Err(error) if writable && error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            _ => return name,
        }
    }
}

/// One more than the highest `version_N`; as in Lightning, `version_3_renamed` counts as 3.
fn next_version(root: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(root) else { return 0 };
    entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("version_")?.split('_').next()?.parse().ok())
        .max()
        .map_or(0, |highest: u64| highest + 1)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::{RunFolder, Version};

    fn folder(save_dir: &std::path::Path, version: Option<Version>) -> RunFolder {
        RunFolder { version, ..RunFolder::new(save_dir.to_owned()) }
    }

    #[test]
    fn the_next_version_is_one_above_the_highest() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(folder(root.path(), None).version(), "version_0");
        for name in ["version_7", "version_9_old", "version_x", "other"] {
            fs::create_dir(root.path().join("lightning_logs").join(name)).unwrap();
        }
        fs::write(root.path().join("lightning_logs/version_50"), "a file is not a run").unwrap();
        let run = folder(root.path(), None);
        assert_eq!(run.version(), "version_10");
        assert!(root.path().join("lightning_logs/version_10").is_dir());
        assert_eq!(run.version(), "version_10");
    }

    #[test]
    fn runs_started_together_get_folders_of_their_own() {
        let root = tempfile::tempdir().unwrap();
        let mut names: Vec<String> = std::thread::scope(|scope| {
            let runs: Vec<_> = (0..8).map(|_| scope.spawn(|| folder(root.path(), None).version().to_owned())).collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 8);
    }

    #[test]
    fn a_suggested_version_replaces_a_reserved_one_but_not_a_given_one() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("lightning_logs/version_0/checkpoints")).unwrap();
        let mut run = folder(root.path(), None);
        assert_eq!(run.version(), "version_1");
        run.suggest_version("version_0");
        assert_eq!(run.version(), "version_0");
        assert_eq!(run.runs(), ["version_0"]);
        let mut given = folder(root.path(), Some("best".into()));
        given.suggest_version("version_0");
        assert_eq!(given.version(), "best");
        assert_eq!(given.runs(), [""; 0]);
    }

    #[test]
    fn a_given_version_is_used_unchanged() {
        let root = PathBuf::from("logs");
        assert_eq!(folder(&root, Some(3.into())).path(), root.join("lightning_logs/version_3"));
        assert_eq!(folder(&root, Some("best".into())).path(), root.join("lightning_logs/best"));
        let below = RunFolder { sub_dir: "fold_1".into(), ..folder(&root, Some(0.into())) };
        assert_eq!(below.path(), root.join("lightning_logs/version_0/fold_1"));
        assert!(!root.exists());
    }
}
