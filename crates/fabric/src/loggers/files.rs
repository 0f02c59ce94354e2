//! Files that remain readable after write errors: failed appends are undone, and rewrites are atomic.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use fulgurite_torch::serialization::beside;

/// An append-only file with atomic appends.
#[derive(Debug)]
pub(super) struct AppendFile {
    file: File,
    len: u64,
    /// The length that is known to be on disk.
    synced: u64,
}

impl AppendFile {
    /// Creates an empty file. Fails if it exists.
    pub(super) fn create_new(path: &Path) -> io::Result<AppendFile> {
        Ok(AppendFile { file: OpenOptions::new().write(true).create_new(true).open(path)?, len: 0, synced: 0 })
    }

    /// Writes `bytes` at the end. On failure the file is unchanged, so that the same bytes can be retried.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            // Best effort: the first error is the one to report.
            _ = self.file.set_len(self.len);
            _ = self.file.seek(SeekFrom::Start(self.len));
            return Err(error);
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Waits until all of it is on disk: some file systems report only then that there is no space.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.synced < self.len {
            self.file.sync_data()?;
            self.synced = self.len;
        }
        Ok(())
    }
}

/// Replaces the content of `path` atomically: readers see the old or the new content, even after a crash.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<AppendFile> {
    let beside = beside(path, ".tmp");
    let write = || -> io::Result<AppendFile> {
        let mut file = AppendFile { file: File::create(&beside)?, len: 0, synced: 0 };
        file.append(bytes)?;
        file.sync()?;
        fs::rename(&beside, path)?;
        Ok(file)
    };
    write().inspect_err(|_| _ = fs::remove_file(&beside))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{AppendFile, write_atomically};

    #[test]
    fn a_failed_rewrite_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomically(&path, b"old").unwrap();
        #[cfg(target_os = "linux")]
        {
            std::os::unix::fs::symlink("/dev/full", folder.path().join("a.txt.tmp")).unwrap();
            let error = write_atomically(&path, b"new").unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        }
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write_atomically(&path, b"new").unwrap().append(b"er").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer");
    }

    #[test]
    fn an_existing_file_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        AppendFile::create_new(&path).unwrap().append(b"x").unwrap();
        assert_eq!(AppendFile::create_new(&path).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }
}
