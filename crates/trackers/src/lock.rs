//! Files that one process uses at a time.

use std::fs::{File, TryLockError};
use std::io;

/// Whether the file is this process's now, as long as it is open.
pub(crate) fn lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        // A file system without locks has no second process to fear either, as far as can be told.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
