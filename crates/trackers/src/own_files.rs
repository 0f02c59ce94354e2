//! Which files an outbox may ask for, if somebody else may have written it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The folder of an outbox, whose files may be sent; checkpoints may be anywhere.
#[derive(Debug, Clone)]
pub(crate) struct OwnFiles(PathBuf);

impl OwnFiles {
    pub(crate) fn of(folder: &Path) -> OwnFiles {
        OwnFiles(folder.canonicalize().unwrap_or_else(|_| folder.to_owned()))
    }

    /// Whether the file was put there by whoever wrote the outbox.
    pub(crate) fn holds(&self, file: &Path) -> bool {
        file.canonicalize().is_ok_and(|real| real.starts_with(&self.0))
    }

    /// Whether the file may be sent.
    pub(crate) fn may_send(&self, file: &Path) -> bool {
        let is_checkpoint = || {
            let mut magic = [0; 4];
            File::open(file).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"PK\x03\x04"
        };
        self.holds(file) || is_checkpoint()
    }
}
