//! [`ReportError`].

use std::path::{Path, PathBuf};

/// An error of making a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// There is no run where one was named.
    #[error(
        "{} holds no run: a run's folder has a metrics.csv, which CSVLogger writes, or the files of TensorBoardLogger; name the folder of a run, such as lightning_logs/version_0, or one with several",
        .0.display()
    )]
    NoRun(PathBuf),
    /// A file of a run is damaged.
    #[error("{}, line {line}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, such as `read`.
        doing: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },
}

/// The result of making a report.
pub type Result<T, E = ReportError> = std::result::Result<T, E>;

pub(crate) fn failed(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> ReportError {
    let path = path.to_owned();
    move |source| ReportError::Io { path, doing, source }
}
