//! [`NnError`]: what can be wrong with a layer or its input.

use fulgurite_torch::TorchError;
use fulgurite_torch::tch::TchError;

/// The errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NnError {
    /// A layer that cannot be created.
    #[error("{layer}: {message}")]
    Options {
        /// The layer, such as `` `fc` (Linear) ``.
        layer: String,
        /// What is wrong with its options, and what is possible.
        message: String,
    },
    /// A layer that cannot be applied to its input.
    #[error("{layer}: {message}")]
    Forward {
        /// The layer, such as `` `fc` (Linear(in_features=2, out_features=3)) ``.
        layer: String,
        /// Libtorch's sentence, or what is wrong with the input.
        message: String,
    },
    /// An operation of libtorch that failed outside a layer.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl From<TchError> for NnError {
    fn from(error: TchError) -> NnError {
        NnError::Torch(error.into())
    }
}

/// A result of this crate.
pub type Result<T, E = NnError> = std::result::Result<T, E>;
