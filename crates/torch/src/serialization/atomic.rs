//! Writes a file so that either all of it is there afterwards, even after a power cut, or what was there before.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::file_system::{FileSystem, SyncWrite};

/// Writes `path` through `write`: into a temporary file beside it, which is flushed to the disk and then renamed.
pub(super) fn write_atomically<E: From<io::Error>>(
    files: &dyn FileSystem,
    path: &Path,
    write: impl FnOnce(&mut BufWriter<Box<dyn SyncWrite>>) -> Result<(), E>,
) -> Result<(), E> {
    let mut temporary = Temporary::beside(files, path)?;
    let mut out = BufWriter::with_capacity(1 << 16, files.create_new(&temporary.path)?);
    write(&mut out)?;
    out.flush()?;
    out.get_mut().sync_all()?;
    drop(out);
    files.rename(&temporary.path, path)?;
    temporary.renamed = true;
    files.sync_folder(folder_of(path))?;
    Ok(())
}

/// A file that is removed when it goes out of scope, unless it was renamed.
struct Temporary<'a> {
    files: &'a dyn FileSystem,
    path: PathBuf,
    renamed: bool,
}

impl<'a> Temporary<'a> {
    fn beside(files: &'a dyn FileSystem, path: &Path) -> io::Result<Temporary<'a>> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a file name"))?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".tmp-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        Ok(Temporary { files, path: path.with_file_name(hidden), renamed: false })
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = self.files.remove_file(&self.path);
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::LocalFileSystem;
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.ckpt");
        let files = LocalFileSystem;
        write_atomically::<io::Error>(&files, &path, |out| out.write_all(b"old")).unwrap();
        let failed = write_atomically(&files, &path, |out| {
            out.write_all(b"half of the new")?;
            Err(io::Error::other("disk full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "disk full");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        write_atomically::<io::Error>(&files, &path, |out| out.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
