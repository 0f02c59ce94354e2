//! Information from file paths.

use std::path::{Path, PathBuf};

/// The file extension of checkpoints.
pub(super) const EXTENSION: &str = ".ckpt";

/// Whether a file may be a checkpoint, by its name.
pub(super) fn is_checkpoint(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.ends_with(EXTENSION))
}

/// The parent folders of files.
pub(super) fn folders_of(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = paths.iter().filter_map(|path| path.parent()).map(Path::to_path_buf).collect();
    folders.sort();
    folders.dedup();
    folders
}
