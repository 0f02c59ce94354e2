//! [`DataError`]: everything that can go wrong between a file and a batch.

use std::path::PathBuf;

use fulgurite_torch::TorchError;

/// Any error a dataset, a transform or a collate function may return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong while loading data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A dataset could not give an item.
    #[error("item {index} of {dataset} could not be loaded: {source}")]
    Item {
        /// The item asked for.
        index: usize,
        /// The name of the dataset.
        dataset: String,
        /// What the dataset said.
        source: BoxError,
    },
    /// The code of a dataset panicked.
    #[error("item {index} of {dataset} could not be loaded: the code of the dataset panicked: {message}")]
    ItemPanicked {
        /// The item asked for.
        index: usize,
        /// The name of the dataset.
        dataset: String,
        /// The panic's message.
        message: String,
    },
    /// The items of a batch could not be put together.
    #[error("batch {batch} of {dataset} could not be collated: {source}")]
    Collate {
        /// The 0-based batch of the epoch.
        batch: usize,
        /// The name of the dataset.
        dataset: String,
        /// What the collate function said.
        source: BoxError,
    },
    /// The code that collates panicked.
    #[error("batch {batch} of {dataset} could not be collated: the collate function panicked: {message}")]
    CollatePanicked {
        /// The 0-based batch of the epoch.
        batch: usize,
        /// The name of the dataset.
        dataset: String,
        /// The panic's message.
        message: String,
    },
    /// A stream failed to give its next record.
    #[error("record {position} of {dataset} could not be read: {source}")]
    Record {
        /// How many records came before it in this epoch.
        position: usize,
        /// The name of the dataset.
        dataset: String,
        /// What the stream said.
        source: BoxError,
    },
    /// The sampler or the stream that says what is in a batch panicked.
    #[error("the items of batch {batch} of {dataset} could not be chosen: its sampler or stream panicked: {message}")]
    OrderPanicked {
        /// The 0-based batch of the epoch.
        batch: usize,
        /// The name of the dataset.
        dataset: String,
        /// The panic's message.
        message: String,
    },
    /// The system did not give the worker threads asked for.
    #[error("the {count} worker threads of a loader could not be started: {source}; ask for a smaller num_workers")]
    Threads {
        /// `num_workers`.
        count: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// The loader was stopped before the batch was ready.
    #[error("batch {batch} was not loaded: the loader was stopped")]
    Stopped {
        /// The 0-based batch of the epoch.
        batch: usize,
    },
    /// A setting of a loader, sampler or dataset that cannot work. The text says what to do instead.
    #[error("{0}")]
    Setting(String),
    /// A file could not be read.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what it should be. The text says what was found and what was expected.
    #[error("{} is not usable: {message}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The files of a published data set are not there. The text says which, and where they come from.
    #[error("{0}")]
    Missing(String),
    /// A file could not be downloaded. The text says where to put it by hand.
    #[error("{0}")]
    Download(String),
    /// libtorch refused an operation.
    #[error("{doing}: {source}")]
    Torch {
        /// What was being done.
        doing: String,
        /// libtorch's error.
        source: TorchError,
    },
    /// A loader made of a user's own iterator failed.
    #[error("batch {batch} of the loader failed: {source}")]
    Source {
        /// The 0-based batch of the epoch.
        batch: usize,
        /// The iterator's error.
        source: BoxError,
    },
}
