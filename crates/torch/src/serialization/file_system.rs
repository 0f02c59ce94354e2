//! [`FileSystem`]: the calls that writing a checkpoint takes.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// The calls to a file system that writing a checkpoint takes, one method each, so that a test can make the n-th of them
/// fail, or stop in the middle.
pub trait FileSystem: Debug + Send + Sync {
    /// Makes a file that is not there yet.
    ///
    /// # Errors
    ///
    /// What the file system says; so for all of them.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn SyncWrite>>;

    /// Gives the file `from` the name `to`, in place of what had it, in one step.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Gives the file `original` a second name.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()>;

    /// Makes a symbolic link to `target`, which may be relative to the folder of `link`.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()>;

    /// Makes the names in a folder survive a power cut.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Makes a folder and those above it, unless they are there.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn create_dir_all(&self, folder: &Path) -> io::Result<()>;
}

/// A file being written.
pub trait SyncWrite: Write + Send {
    /// Makes what was written survive a power cut.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn sync_all(&mut self) -> io::Result<()>;
}

impl SyncWrite for File {
    fn sync_all(&mut self) -> io::Result<()> {
        File::sync_all(self)
    }
}

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalFileSystem;

impl FileSystem for LocalFileSystem {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn SyncWrite>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).open(path)?))
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
}
