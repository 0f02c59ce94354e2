//! Data for training: datasets, samplers, and a loader with worker threads.

mod batch;
mod collate;
mod data_loader;
mod dataset;
pub mod datasets;
mod error;
mod iterable;
mod loader;
mod sampler;
mod seed;
mod subset;
mod tensor_dataset;
mod workers;

pub use batch::Batch;
pub use collate::{Collate, DefaultCollate, Stack, Stacked};
pub use data_loader::DataLoader;
pub use dataset::{Dataset, InMemory, Map, TryMap};
pub use error::{BoxError, DataError};
pub use fulgurite_macros::{Batch, Stack};
pub use fulgurite_torch as torch;
pub use iterable::{IterableDataLoader, IterableDataset, IterableFn, MapIterable, RecordIter};
pub use loader::{BatchIter, Batches, BoxLoader, FnLoader, IntoLoader, Loader};
pub use rand;
pub use sampler::{
    BatchSampler, RandomSampler, SampleIter, Sampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler,
};
pub use seed::ItemRng;
pub use subset::{ConcatDataset, SplitLength, Subset, random_split};
pub use tensor_dataset::{TensorDataset, Tensors};
