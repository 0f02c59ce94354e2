//! Paths, which may be URLs.

use std::path::{Component, Path, PathBuf};

use fulgurite_fabric::is_url;

/// The absolute path, with the home folder for `~` and every symbolic link followed that exists by now; a URL as it is.
pub(in crate::callbacks) fn real_path(path: &Path) -> PathBuf {
    if is_url(path) {
        return path.to_path_buf();
    }
    let home = path.strip_prefix("~").ok().and_then(|rest| Some(Path::new(&std::env::var_os("HOME")?).join(rest)));
    let path = absolute(&home.unwrap_or_else(|| path.to_path_buf()));
    for ancestor in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return absolute(&real.join(rest));
        }
    }
    path
}

/// The absolute path without `.` and `..`; a URL as it is.
pub(super) fn absolute(path: &Path) -> PathBuf {
    if is_url(path) {
        return path.to_path_buf();
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    path.components().fold(PathBuf::new(), |mut whole, part| {
        match part {
            Component::ParentDir => drop(whole.pop()),
            part => whole.push(part),
        }
        whole
    })
}
