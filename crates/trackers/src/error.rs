//! [`TrackerError`].

use std::path::PathBuf;

/// Why a tracker cannot be used, or an outbox not be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackerError {
    /// The options or variables are wrong, or the server refuses what was asked. The message says what to do.
    #[error("{0}")]
    Refused(String),
    /// The server cannot be reached, or fails.
    #[error("{0}")]
    Unreachable(String),
    /// A file of the outbox cannot be read or written.
    #[error("the outbox {} cannot be used: {source}; check that its folder exists, is writable and has free space", .path.display())]
    Outbox {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
}

impl TrackerError {
    /// [`TrackerError::Outbox`] of a file, for `map_err`.
    pub fn outbox(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> TrackerError {
        let path = path.into();
        move |source| TrackerError::Outbox { path, source }
    }
}
