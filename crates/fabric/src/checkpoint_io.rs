//! Checkpoint I/O: how the state of a run is stored.

mod asynchronous;
mod by_path;
mod host_copy;
mod rank_zero;
#[cfg(feature = "object-store")]
mod remote;
mod url;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use fulgurite_torch::serialization::{FileSystem, LocalFileSystem};
use fulgurite_torch::{Value, serialization};

use crate::FabricError;
pub use asynchronous::AsyncCheckpointIo;
pub use by_path::DefaultCheckpointIo;
pub use rank_zero::RankZeroCheckpointIo;
#[cfg(feature = "object-store")]
pub use remote::{ObjectStoreCheckpointIo, ObjectStoreOptions};
pub use url::is_url;

/// Writes, reads and removes checkpoints.
///
/// Paths are local paths, or URLs if an implementation supports them.
pub trait CheckpointIo: Send {
    /// Writes `checkpoint` to `path` atomically: on failure, the previous file is unchanged.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    fn save(&mut self, checkpoint: &Value, path: &Path) -> Result<(), FabricError>;

    /// Reads the checkpoint at `path`, with its tensors on the CPU.
    ///
    /// # Errors
    ///
    /// Fails if the file is missing, truncated, damaged, or not a checkpoint.
    fn load(&mut self, path: &Path) -> Result<Value, FabricError>;

    /// Removes the checkpoint at `path`, if it exists.
    ///
    /// # Errors
    ///
    /// Fails if the file exists and cannot be removed.
    fn remove(&mut self, path: &Path) -> Result<(), FabricError>;

    /// Gives the checkpoint at `path` a second name, atomically.
    ///
    /// # Errors
    ///
    /// Fails if the checkpoint is missing, or if the second name cannot be created.
    fn alias(&mut self, path: &Path, alias: &Alias) -> Result<(), FabricError> {
        let checkpoint = self.load(path)?;
        self.save(&checkpoint, &alias.path)
    }

    /// Writes a checkpoint, then gives it its second name, then removes the files it replaces. The first failure skips the
    /// remaining steps.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be written or removed. Where checkpoints are written in the background, these errors come
    /// from [`CheckpointIo::poll`].
    fn commit(&mut self, checkpoint: &Value, commit: &Commit) -> Result<(), FabricError> {
        self.save(checkpoint, &commit.path)?;
        if let Some(alias) = &commit.alias {
            self.alias(&commit.path, alias)?;
        }
        for old in &commit.remove {
            self.remove(old)?;
            // The names of checkpoints may contain folders, which are removed with their last file.
            let mut folders = old.ancestors().skip(1).take_while(|folder| !commit.path.starts_with(folder));
            while folders.next().is_some_and(|folder| self.remove_empty_folder(folder)) {}
        }
        Ok(())
    }

    /// Removes an empty folder. Returns `false` if it still exists, or if the storage has no folders.
    fn remove_empty_folder(&mut self, folder: &Path) -> bool {
        let _ = folder;
        false
    }

    /// Whether a file exists at `path`.
    ///
    /// # Errors
    ///
    /// Fails if the storage cannot be reached.
    fn exists(&mut self, path: &Path) -> Result<bool, FabricError> {
        Ok(path.exists())
    }

    /// Reads the checkpoint at `path` and drops it, to check that it is usable.
    ///
    /// # Errors
    ///
    /// Fails as [`CheckpointIo::load`] does.
    fn verify(&mut self, path: &Path) -> Result<(), FabricError> {
        self.load(path).map(drop)
    }

    /// The content of the checkpoint at `path` without its tensors, each of which is [`Value::None`]. Implement it if that is
    /// cheaper than reading the whole checkpoint.
    ///
    /// # Errors
    ///
    /// Fails as [`CheckpointIo::load`] does.
    fn outline(&mut self, path: &Path) -> Result<Value, FabricError> {
        self.load(path).map(Value::without_tensors)
    }

    /// The files in a folder, and in those below it, down to `depth` levels, in no particular order.
    ///
    /// # Errors
    ///
    /// Fails if a folder exists and cannot be read.
    fn list_below(&mut self, folder: &Path, depth: usize) -> Result<Vec<StoredFile>, FabricError> {
        let mut files = self.list(folder)?;
        for folder in folders_below(folder, depth) {
            files.extend(self.list(&folder)?);
        }
        Ok(files)
    }

    /// The files in a folder, in no particular order; none if the folder does not exist.
    ///
    /// # Errors
    ///
    /// Fails if the folder exists and cannot be read.
    fn list(&mut self, folder: &Path) -> Result<Vec<StoredFile>, FabricError> {
        list_local(folder)
    }

    /// The first background write that failed since the last call, if any. Cheap enough to be called after
    /// every batch.
    fn poll(&mut self) -> Option<CommitFailure> {
        None
    }

    /// What became of a commit that [`CheckpointIo::commit`] has accepted. Where checkpoints are written in the background, it may
    /// not be complete yet.
    fn commit_state(&self, commit: &Commit) -> CommitState {
        let _ = commit;
        CommitState::Written
    }

    /// Waits until everything is written, and returns the first failure, as [`CheckpointIo::poll`] does.
    fn wait(&mut self) -> Option<CommitFailure> {
        self.poll()
    }
}

/// A checkpoint to be written, the second name it gets, and the files it replaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// The path of the checkpoint.
    pub path: PathBuf,
    /// A second name of the checkpoint.
    pub alias: Option<Alias>,
    /// The checkpoints to remove once the new one is complete.
    pub remove: Vec<PathBuf>,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitState {
    /// It is complete.
    Written,
    /// It waits to be written.
    Pending,
    /// It failed, which [`CheckpointIo::poll`] or [`CheckpointIo::wait`] will say.
    Failed,
}

/// A second name of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alias {
    /// The path of the second name.
    pub path: PathBuf,
    /// Whether to create a symbolic link where supported, instead of a separate file.
    pub link: bool,
}

/// A file that [`CheckpointIo::list`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// The path of the file, with the folder.
    pub path: PathBuf,
    /// The time of the last modification.
    pub modified: SystemTime,
    /// The size in bytes.
    pub size: u64,
}

/// A checkpoint that could not be written in the background.
#[derive(Debug)]
pub struct CommitFailure {
    /// The checkpoint that was to be written.
    pub commit: Commit,
    /// The reason of the failure.
    pub error: FabricError,
}

/// `.ckpt` files in the format of PyTorch, on a local file system.
#[derive(Debug, Clone)]
pub struct TorchCheckpointIo {
    files: Arc<dyn FileSystem>,
}

impl Default for TorchCheckpointIo {
    fn default() -> TorchCheckpointIo {
        TorchCheckpointIo::on(Arc::new(LocalFileSystem))
    }
}

impl TorchCheckpointIo {
    /// Uses the local file system.
    pub fn new() -> TorchCheckpointIo {
        TorchCheckpointIo::default()
    }

    /// Writes through `files`. Reads from the local file system.
    pub fn on(files: Arc<dyn FileSystem>) -> TorchCheckpointIo {
        TorchCheckpointIo { files }
    }
}

impl CheckpointIo for TorchCheckpointIo {
    fn save(&mut self, checkpoint: &Value, path: &Path) -> Result<(), FabricError> {
        if let Some(folder) = path.parent() {
            self.files.create_dir_all(folder).map_err(|error| {
                failed(path, format!("its folder cannot be created: {error}; choose another dirpath"))
            })?;
        }
        serialization::save_in(self.files.as_ref(), path, checkpoint).map_err(|error| failed(path, error.to_string()))
    }

    fn load(&mut self, path: &Path) -> Result<Value, FabricError> {
        serialization::load(path).map_err(|error| failed(path, error.to_string()))
    }

    /// Reads the whole file and verifies its checksums, with little memory.
    fn verify(&mut self, path: &Path) -> Result<(), FabricError> {
        serialization::verify(path).map_err(|error| failed(path, error.to_string()))
    }

    fn outline(&mut self, path: &Path) -> Result<Value, FabricError> {
        serialization::outline(path).map_err(|error| failed(path, error.to_string()))
    }

    fn remove_empty_folder(&mut self, folder: &Path) -> bool {
        std::fs::remove_dir(folder).is_ok()
    }

    fn remove(&mut self, path: &Path) -> Result<(), FabricError> {
        match self.files.remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed(path, format!("cannot be removed: {error}")))
            }
            _ => Ok(()),
        }
    }

    fn alias(&mut self, path: &Path, alias: &Alias) -> Result<(), FabricError> {
        let cannot =
            |error: io::Error| failed(&alias.path, format!("cannot be created from {}: {error}", path.display()));
        let beside = serialization::beside(&alias.path, ".tmp");
        // A file that a killed run has left behind.
        let _ = self.files.remove_file(&beside);
        if alias.link && self.files.symlink(link_target(path, &alias.path), &beside).is_ok()
            || self.files.hard_link(path, &beside).is_ok()
        {
            return self.files.rename(&beside, &alias.path).map_err(cannot);
        }
        let checkpoint = self.load(path)?;
        self.save(&checkpoint, &alias.path)
    }
}

/// The target of a link to `path`: only the file name if both are in the same folder.
fn link_target<'a>(path: &'a Path, link: &Path) -> &'a Path {
    match (path.parent(), link.parent()) {
        (Some(a), Some(b)) if a == b => path.file_name().map_or(path, Path::new),
        _ => path,
    }
}

/// The folders below a folder, each once even if several links lead to it. Unreadable folders are skipped.
fn folders_below(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let mut known: HashSet<PathBuf> = folder.canonicalize().into_iter().collect();
    let (mut found, mut level) = (Vec::new(), vec![folder.to_path_buf()]);
    for _ in 0..depth {
        let entries = level.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
        let folders = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
        level = folders.filter(|path| path.canonicalize().is_ok_and(|real| known.insert(real))).collect();
        found.extend(level.iter().cloned());
    }
    found
}

fn list_local(folder: &Path) -> Result<Vec<StoredFile>, FabricError> {
    let cannot = |error: io::Error| failed(folder, format!("the folder cannot be listed: {error}"));
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(cannot)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(cannot)?.path();
        // Follows links; a dangling link is not a file.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_file() {
            files.push(StoredFile { modified: metadata.modified().map_err(cannot)?, size: metadata.len(), path });
        }
    }
    Ok(files)
}

fn failed(path: &Path, message: String) -> FabricError {
    FabricError::Checkpoint { path: path.into(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_255_bytes_are_saved_linked_and_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let mut io = TorchCheckpointIo::new();
        for (length, link) in [(225, false), (250, true), (252, false), (255, true), (255, false)] {
            let path = folder.path().join("a".repeat(length));
            let alias = Alias { path: folder.path().join("b".repeat(length)), link };
            io.save(&Value::Int(7), &path).unwrap();
            io.alias(&path, &alias).unwrap();
            assert_eq!(io.load(&alias.path).unwrap(), Value::Int(7));
            std::fs::remove_file(path).unwrap();
            std::fs::remove_file(alias.path).unwrap();
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }
}
