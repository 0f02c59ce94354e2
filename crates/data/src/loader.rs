//! [`Loader`]: a source of batches that can be walked once per epoch, from any position.

use crate::{Batch, DataError};

/// The batches of one epoch, in order. Owned: it holds what it needs of its loader.
pub type BatchIter<B> = Box<dyn Iterator<Item = Result<B, DataError>> + Send>;

/// A loader of any kind, of batches `B`.
pub type BoxLoader<B> = Box<dyn Loader<Batch = B>>;

/// A source of batches that can be walked once per epoch.
///
/// What an epoch yields is a function of the loader, the global seed and `epoch` alone, so walking it again gives the
/// same batches, and a run resumes by skipping those already consumed.
pub trait Loader: Send {
    /// What it yields.
    type Batch: Batch;

    /// Batches per epoch; `None` when that is not known before the end (iterable datasets).
    fn len(&self) -> Option<usize>;

    /// Whether an epoch is known to yield nothing.
    fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The batches of `epoch` (0-based), without the first `skip`. Skipped batches are not loaded where the order is
    /// known without loading them.
    fn iter(&self, epoch: u64, skip: usize) -> Result<BatchIter<Self::Batch>, DataError>;

    /// Whether the order differs from epoch to epoch.
    fn is_shuffled(&self) -> bool {
        false
    }

    /// The same data in dataset order, for `overfit_batches`; `None` when it already is, or cannot be.
    fn sequential(&self) -> Option<BoxLoader<Self::Batch>> {
        None
    }
}
