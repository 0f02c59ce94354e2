//! Atomic writes: afterwards the file is either complete, even after a power failure, or unchanged.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::abandoned;
use super::file_system::{FileSystem, SyncWrite};

/// The number of names to try: a second one is needed only if another process chose the same 64 random bits.
const NAMES: usize = 4;

/// Writes `path` through `write`: into a temporary file beside it, which is flushed to the disk and then renamed.
///
/// Unfinished files of dead processes in the folder are removed first, which also frees space.
pub(super) fn write_atomically<E: From<io::Error>>(
    files: &dyn FileSystem,
    path: &Path,
    write: impl FnOnce(&mut BufWriter<Box<dyn SyncWrite>>) -> Result<(), E>,
) -> Result<(), E> {
    // Errors of removing them do not prevent the save.
    let _ = files.remove_abandoned(folder_of(path));
    let (mut temporary, file) = Temporary::beside(files, path)?;
    let mut out = BufWriter::with_capacity(1 << 16, file);
    write(&mut out)?;
    out.flush()?;
    out.get_mut().sync_all()?;
    files.rename(&temporary.path, path)?;
    temporary.renamed = true;
    // Closed only now: while it is open, it does not count as abandoned.
    drop(out);
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
    fn beside(files: &'a dyn FileSystem, path: &Path) -> io::Result<(Temporary<'a>, Box<dyn SyncWrite>)> {
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a file name"))?;
        let mut tried = 0;
        loop {
            let path = path.with_file_name(abandoned::temporary_name(name));
            tried += 1;
            match files.create_new(&path) {
                Ok(file) => return Ok((Temporary { files, path, renamed: false }, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tried < NAMES => {}
                Err(error) => return Err(error),
            }
        }
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
    fn a_name_of_255_bytes_is_written() {
        let folder = tempfile::tempdir().unwrap();
        for length in [224, 225, 250, 255] {
            let path = folder.path().join("n".repeat(length));
            write_atomically::<io::Error>(&LocalFileSystem, &path, |out| out.write_all(b"x")).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"x");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }

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
