//! [`FileSystem`]: the file system calls for writing checkpoints.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::abandoned;

/// The file system calls for writing checkpoints, one method each, so that a test can make the n-th of them fail, or
/// stop in the middle.
pub trait FileSystem: Debug + Send + Sync {
    /// Creates a file that does not exist yet, and marks it as being written for as long as it is open, so that
    /// [`FileSystem::remove_abandoned`] of another process leaves it alone.
    ///
    /// # Errors
    ///
    /// Fails with [`io::ErrorKind::AlreadyExists`] if there is such a file: choose another name. Fails if the folder
    /// does not exist or is not writable.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn SyncWrite>>;

    /// Renames the file `from` to `to` atomically, replacing what was there.
    ///
    /// # Errors
    ///
    /// Fails if `from` does not exist, or if a folder is not writable.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// Fails if there is no such file, or if its folder is not writable.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Creates a hard link to the file `original`.
    ///
    /// # Errors
    ///
    /// Fails if `link` exists, or if the file system has no hard links.
    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()>;

    /// Creates a symbolic link to `target`, which may be relative to the folder of `link`.
    ///
    /// # Errors
    ///
    /// Fails if `link` exists, or if the file system has no symbolic links.
    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()>;

    /// Flushes the entries of a folder to the disk.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be opened, or if the disk reports an error.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Creates a folder and its missing parents.
    ///
    /// # Errors
    ///
    /// Fails if a parent is not a writable folder.
    fn create_dir_all(&self, folder: &Path) -> io::Result<()>;

    /// Removes the unfinished files of processes that died while they wrote into this folder.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be read.
    fn remove_abandoned(&self, folder: &Path) -> io::Result<()> {
        let _ = folder;
        Ok(())
    }
}

/// A file being written.
pub trait SyncWrite: Write + Send {
    /// Takes the space that `size` bytes need, where the file system can, so that a full disk is known before the first
    /// byte is written.
    ///
    /// # Errors
    ///
    /// Fails if the disk has less space.
    fn reserve(&mut self, size: u64) -> io::Result<()> {
        let _ = size;
        Ok(())
    }

    /// Flushes what was written to the disk.
    ///
    /// # Errors
    ///
    /// Fails if the disk is full or reports an error.
    fn sync_all(&mut self) -> io::Result<()>;
}

/// A file of this machine, which the disk begins to write while more comes, and which does not fill the memory that the
/// system keeps files in: that of a training run belongs to its data.
struct LocalFile {
    file: File,
    written: u64,
    /// The offset up to which writeback was started.
    begun: u64,
    /// The offset up to which it is complete, and the page cache was released.
    settled: u64,
}

/// The number of bytes per writeback.
const PIECE: usize = 16 << 20;

/// The number of bytes that writeback may lag behind.
const BEHIND: u64 = 4 * PIECE as u64;

impl Write for LocalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(&bytes[..bytes.len().min(PIECE)])?;
        self.written += count as u64;
        if self.written - self.begun >= PIECE as u64 {
            begin_writing(&self.file, self.begun, self.written - self.begun);
            self.begun = self.written;
        }
        if self.begun - self.settled > BEHIND {
            let size = self.begun - BEHIND - self.settled;
            settle(&self.file, self.settled, size)?;
            self.settled += size;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl SyncWrite for LocalFile {
    fn reserve(&mut self, size: u64) -> io::Result<()> {
        reserve(&self.file, size)
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// Without it, the disk would be idle until the system's own time comes, or until the sync at the end.
#[cfg(target_os = "linux")]
fn begin_writing(file: &File, from: u64, size: u64) {
    use std::os::fd::AsRawFd;

    // SAFETY: a system call on a descriptor that is open for the call. That it may fail is no loss: the sync tells.
    unsafe { libc::sync_file_range(file.as_raw_fd(), from as i64, size as i64, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(not(target_os = "linux"))]
fn begin_writing(_: &File, _: u64, _: u64) {}

/// Waits until the disk has written these bytes, and gives back the memory they lie in. New memory for every file costs
/// more than the waiting.
#[cfg(target_os = "linux")]
fn settle(file: &File, from: u64, size: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: a system call on a descriptor that is open for the call.
    if unsafe { libc::sync_file_range(file.as_raw_fd(), from as i64, size as i64, all) } != 0 {
        return match io::Error::last_os_error() {
            // A write error is reported once: the sync at the end would not report it again.
            error if matches!(error.raw_os_error(), Some(libc::EIO | libc::ENOSPC | libc::EDQUOT)) => Err(error),
            // A file system that cannot do this loses nothing but that.
            _ => Ok(()),
        };
    }
    // SAFETY: as above. That it may fail is no loss.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), from as i64, size as i64, libc::POSIX_FADV_DONTNEED) };
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn settle(_: &File, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn reserve(file: &File, size: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let size = libc::off_t::try_from(size).map_err(io::Error::other)?;
    if size == 0 {
        return Ok(());
    }
    // SAFETY: a system call on a descriptor that is open for the call.
    match unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, size) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG)) => Err(error),
            // A file system that cannot tell loses nothing but the early answer.
            _ => Ok(()),
        },
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(_: &File, _: u64) -> io::Result<()> {
    Ok(())
}

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalFileSystem;

impl FileSystem for LocalFileSystem {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn SyncWrite>> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        abandoned::hold(&file, path)?;
        Ok(Box::new(LocalFile { file, written: 0, begun: 0, settled: 0 }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        fs::hard_link(original, link)
    }

    #[cfg(unix)]
    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, link)
    }

    #[cfg(not(unix))]
    fn symlink(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A system that cannot do this (Windows has no such call) loses nothing but that.
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        match File::open(folder) {
            Ok(folder) => folder.sync_all(),
            Err(error) if cfg!(windows) && error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)
    }

    fn remove_abandoned(&self, folder: &Path) -> io::Result<()> {
        abandoned::remove_abandoned(folder)
    }
}
