//! Paths, which may be URLs.

use std::path::{Component, Path, PathBuf};

use fulgurite_fabric::is_url;

/// The absolute path, with `~` expanded and existing symbolic links resolved; a URL is returned unchanged.
pub(crate) fn real_path(path: &Path) -> PathBuf {
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

/// Whether a file is in a folder or below it, both by its path and with links resolved. The file itself may be a link.
pub(super) fn lies_in(path: &Path, folder: &Path) -> bool {
    let is_below = is_named_in(path, folder);
    if is_url(folder) || !is_below {
        return is_below;
    }
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| absolute(path));
    path.parent().is_some_and(|parent| real(parent).starts_with(real(folder)))
}

/// The same by the path alone, which is the same on every rank.
pub(super) fn is_named_in(path: &Path, folder: &Path) -> bool {
    let leads_back = path.components().any(|part| part == Component::ParentDir);
    let (path, folder) = (absolute(path), absolute(folder));
    path != folder && path.starts_with(folder) && !leads_back
}

/// The absolute path without `.` and `..`; a URL is returned unchanged.
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
