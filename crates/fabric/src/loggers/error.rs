//! [`LoggerError`].

use std::path::{Path, PathBuf};

use fulgurite_torch::tch::TchError;
use fulgurite_torch::{TorchError, readable_error};

/// An error of a logger.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoggerError {
    /// A file or folder could not be written.
    #[error("{logger} cannot write {}: {source}; check that the folder exists, is writable and has free space", .path.display())]
    Write {
        /// The logger.
        logger: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A tensor that is not an image.
    #[error("image `{tag}` has shape {shape:?}; give one image as [C, H, W] with C of 1, 3 or 4")]
    ImageShape {
        /// The tag it was logged under.
        tag: String,
        /// The tensor's shape.
        shape: Vec<i64>,
    },
    /// A tensor that is not a batch of images.
    #[error("a grid of images cannot be made from shape {shape:?}; give [N, C, H, W] with N of at least 1")]
    GridShape {
        /// The tensor's shape.
        shape: Vec<i64>,
    },
    /// An image that cannot be encoded as PNG.
    #[error("image `{tag}` cannot be encoded as PNG: {source}")]
    Png {
        /// The tag it was logged under.
        tag: String,
        /// The error of the encoder.
        source: png::EncodingError,
    },
    /// A histogram of a tensor without elements.
    #[error("histogram `{tag}` was given a tensor without elements; skip it when there are no values")]
    EmptyHistogram {
        /// The tag it was logged under.
        tag: String,
    },
    /// An error of a logger of another crate.
    #[error("{logger}: {source}")]
    Other {
        /// The logger.
        logger: String,
        /// The error of the logger.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An operation of libtorch on a logged tensor failed.
    #[error("a tensor logged as `{tag}` cannot be read: {source}")]
    Tensor {
        /// The tag it was logged under.
        tag: String,
        /// The error of libtorch.
        source: TorchError,
    },
}

impl LoggerError {
    /// An error of a logger of another crate.
    ///
    /// ```
    /// use fulgurite_fabric::loggers::LoggerError;
    ///
    /// let error = LoggerError::other("WandbLogger", "the server does not respond; check the network");
    /// assert_eq!(error.to_string(), "WandbLogger: the server does not respond; check the network");
    /// ```
    pub fn other(
        logger: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> LoggerError {
        LoggerError::Other { logger: logger.into(), source: readable_error(source.into()) }
    }

    /// [`LoggerError::Write`] of `logger` at `path`, for `map_err`.
    pub(super) fn write(logger: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> LoggerError {
        let path = path.to_owned();
        move |source| LoggerError::Write { logger, path, source }
    }

    /// [`LoggerError::Tensor`] under `tag`, for `map_err`.
    pub(super) fn tensor(tag: &str) -> impl FnOnce(TchError) -> LoggerError {
        let tag = tag.to_owned();
        move |source| LoggerError::Tensor { tag, source: source.into() }
    }
}
