//! The folder of a run: `wandb/run-20260131_235959-abcd1234`, and what lies in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::entry::now_ms;
use crate::time::stamp;

/// How often another second is tried for the name.
const TRIES: i64 = 1000;

/// Creates the folder of a run below `root/wandb`, and the link to the latest.
pub(super) fn create(root: &Path, id: &str, offline: bool) -> io::Result<PathBuf> {
    let wandb = root.join("wandb");
    fs::create_dir_all(&wandb)?;
    let (kinds, seconds) = (["run", "offline-run"], now_ms() / 1000);
    for later in 0..TRIES {
        let names = kinds.map(|kind| format!("{kind}-{}-{id}", stamp(seconds + later)));
        let name = &names[usize::from(offline)];
        // The names tell in which order the parts of a run came, whatever kind they are of.
        if names.iter().any(|name| wandb.join(name).exists()) {
            continue;
        }
        let folder = wandb.join(name);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        fs::create_dir(folder.join("files"))?;
        link_latest(&wandb, name);
        return Ok(folder);
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        "a thousand folders of this run have the names of the next seconds",
    ))
}

/// Where links are not possible, nothing needs it.
fn link_latest(wandb: &Path, name: &str) {
    #[cfg(unix)]
    {
        let beside = wandb.join(format!(".latest-run-{}", std::process::id()));
        let _ = fs::remove_file(&beside);
        if std::os::unix::fs::symlink(name, &beside).is_ok() && fs::rename(&beside, wandb.join("latest-run")).is_err() {
            let _ = fs::remove_file(&beside);
        }
    }
    #[cfg(not(unix))]
    let _ = (wandb, name);
}

/// A file that was put below `files/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaFile {
    /// Its path there.
    pub path: String,
    /// Its digest.
    pub sha256: String,
    /// Its size in bytes.
    pub size: usize,
}

/// Writes a medium of a row below `files/` of a run's folder: `media/KIND/KEY_STEP_DIGEST.EXTENSION`.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// let media = fulgurite_trackers::wandb::put_media(folder.path(), "images", "val/a", 3, b"...", "png")?;
/// assert_eq!(media.path, "media/images/val/a_3_ab5df625bc76dbd4e163.png");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Fails if the file cannot be written.
pub fn put_media(
    folder: &Path,
    kind: &str,
    key: &str,
    step: i64,
    bytes: &[u8],
    extension: &str,
) -> io::Result<MediaFile> {
    let digest = Sha256::digest(bytes);
    let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let is_plain = |c: char| c.is_alphanumeric() || "-_. ".contains(c);
    let parts = key.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
    let plain = |part: &str| -> String { part.chars().take(100).map(|c| if is_plain(c) { c } else { '_' }).collect() };
    let name = parts.map(plain).collect::<Vec<_>>().join("/");
    let path = format!("media/{kind}/{name}_{step}_{}.{extension}", &sha256[..20]);
    let file = folder.join("files").join(&path);
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(file, bytes)?;
    Ok(MediaFile { path, sha256, size: bytes.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        for (key, start) in
            [("../../x", "media/images/x_0_"), ("/a\\b:c", "media/images/a_b_c_0_"), ("", "media/images/_0_")]
        {
            let media = put_media(folder.path(), "images", key, 0, b"x", "png").unwrap();
            assert!(media.path.starts_with(start), "{}", media.path);
            assert_eq!(fs::read(folder.path().join("files").join(media.path)).unwrap(), b"x");
        }
    }
}
