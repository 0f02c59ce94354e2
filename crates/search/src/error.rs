//! [`SearchError`].

use std::path::PathBuf;

/// An error of a search.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// A parameter of the search space is invalid.
    #[error("the search space's `{name}`: {problem}")]
    Space {
        /// The parameter.
        name: String,
        /// What is wrong, and what to write.
        problem: String,
    },
    /// An option of a sampler or pruner is invalid.
    #[error("{0}")]
    Options(String),
    /// The study cannot be used in this way.
    #[error("the study `{study}`: {problem}")]
    Study {
        /// The name of the study.
        study: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The journal has a line that is none.
    #[error("{}, line {line}: {problem}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The journal cannot be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, such as `open`.
        doing: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },
}

/// The result of a search's functions.
pub type Result<T, E = SearchError> = std::result::Result<T, E>;
