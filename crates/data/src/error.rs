//! [`DataError`].

use std::path::PathBuf;

use fulgurite_torch::TorchError;

/// Any error a dataset, a transform or a collate function may return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error of loading data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A dataset failed to load an item.
    #[error("item {index} of {dataset} could not be loaded: {source}")]
    Item {
        /// The requested item.
        index: usize,
        /// The name of the dataset.
        dataset: String,
        /// The error of the dataset.
        source: BoxError,
    },
    /// The code of a dataset panicked.
    #[error("item {index} of {dataset} could not be loaded: the code of the dataset panicked: {message}")]
    ItemPanicked {
        /// The requested item.
        index: usize,
        /// The name of the dataset.
        dataset: String,
        /// The panic's message.
        message: String,
    },
    /// The items of a batch could not be collated.
    #[error("batch {batch} of {dataset} could not be collated: {source}")]
    Collate {
        /// The 0-based batch of the epoch.
        batch: usize,
        /// The name of the dataset.
        dataset: String,
        /// The error of the collate function.
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
        /// The number of records before it in this epoch.
        position: usize,
        /// The name of the dataset.
        dataset: String,
        /// The error of the stream.
        source: BoxError,
    },
    /// The sampler or stream of a batch panicked.
    #[error("the items of batch {batch} of {dataset} could not be chosen: its sampler or stream panicked: {message}")]
    OrderPanicked {
        /// The 0-based batch of the epoch.
        batch: usize,
        /// The name of the dataset.
        dataset: String,
        /// The panic's message.
        message: String,
    },
    /// The worker threads could not be started.
    #[error("the {count} worker threads of a loader could not be started: {source}; set a smaller num_workers")]
    Threads {
        /// `num_workers`.
        count: usize,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The loader was stopped before the batch was ready.
    #[error("batch {batch} was not loaded: the loader was stopped")]
    Stopped {
        /// The 0-based batch of the epoch.
        batch: usize,
    },
    /// An invalid setting of a loader, sampler or dataset. The text says what to do instead.
    #[error("{0}")]
    Setting(String),
    /// A file could not be read.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A file has an unexpected format. The text says what was found and what was expected.
    #[error("{} is not usable: {message}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The files of a published data set do not exist. The text says which, and where to get them.
    #[error("{0}")]
    Missing(String),
    /// A file could not be downloaded. The text says where to put it by hand.
    #[error("{0}")]
    Download(String),
    /// An operation of libtorch failed.
    #[error("{doing}: {source}")]
    Torch {
        /// The operation.
        doing: String,
        /// libtorch's error.
        source: TorchError,
    },
    /// The code of a user-defined loader panicked.
    #[error("its code panicked: {message}")]
    LoaderPanicked {
        /// The panic's message.
        message: String,
    },
    /// A user-defined loader failed.
    #[error("batch {batch} of the loader failed: {source}")]
    Source {
        /// The 0-based batch of the epoch.
        batch: usize,
        /// The iterator's error.
        source: BoxError,
    },
}
