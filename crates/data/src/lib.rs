//! Data for training: datasets, samplers, and a loader with worker threads.
//!
//! | what | type |
//! |---|---|
//! | items by index | [`Dataset`]: [`TensorDataset`], [`InMemory`], [`datasets`], [`Subset`], [`ConcatDataset`], [`Dataset::map`] |
//! | items as a stream | [`IterableDataset`]: [`IterableFn`] |
//! | their order | [`Sampler`]: sequential, random, weighted, of a subset, in batches, of similar length, of one process of several |
//! | images, decoded and augmented | `images` (feature `image`), [`transforms`] |
//! | from items to a batch | [`Collate`]: [`DefaultCollate`], [`PadSequences`], or a closure |
//! | batches | [`Loader`]: [`DataLoader`], [`IterableDataLoader`], [`Batches`], [`FnLoader`], [`CombinedLoader`] |
//! | what a batch can be | [`Batch`], which can be derived |
//! | tables and series made fit for a model | [`tabular`] |
//! | a tensor that a dataset or closure holds | [`SharedTensor`] |
//!
//! Names and behaviour are those of `torch.utils.data`, with one difference that matters: what an epoch yields,
//! augmentation included, is a function of the seed and the epoch. It does not depend on the number of workers, and
//! any position in it can be reached without loading what comes before.
//!
//! ```
//! use fulgurite_data::datasets::Digits;
//! use fulgurite_data::rand::RngExt;
//! use fulgurite_data::{DataLoader, Dataset, Loader};
//!
//! let digits = Digits::load()?;
//! let shifted = digits.train.map(|(image, label), rng| (image.roll([rng.random_range(-1..=1i64)], [1]), label));
//! let loader = DataLoader::new(shifted).batch_size(64).shuffle(true).num_workers(2);
//! let (images, labels) = loader.iter(0, 0)?.next().unwrap()?;
//! assert_eq!(images.size(), [64, 1, 8, 8]);
//! # Ok::<(), fulgurite_data::DataError>(())
//! ```

mod batch;
mod batch_map;
mod bucket_sampler;
mod collate;
mod combined_loader;
mod data_loader;
mod dataset;
pub mod datasets;
mod distributed_sampler;
mod error;
#[cfg(feature = "image")]
pub mod images;
mod iterable;
mod loader;
mod padding;
mod sampler;
mod seed;
mod share;
mod subset;
pub mod tabular;
mod tensor_dataset;
pub mod transforms;
mod workers;

pub use batch::Batch;
pub use batch_map::MapBatch;
pub use bucket_sampler::BucketBatchSampler;
pub use collate::{AcceptStacked, Collate, DefaultCollate, Stack, Stacked};
pub use combined_loader::{Combine, CombinedLoader};
pub use data_loader::DataLoader;
pub use dataset::{Dataset, InMemory, Map, TryMap};
pub use distributed_sampler::{DistributedSampler, Remainder, Shard};
pub use error::{BoxError, DataError};
pub use fulgurite_macros::{Batch, Stack};
pub use fulgurite_torch as torch;
pub use fulgurite_torch::SharedTensor;
pub use iterable::{IterableDataLoader, IterableDataset, IterableFn, MapIterable, RecordIter, ShuffleIterable};
pub use loader::{BatchIter, Batches, BoxLoader, FnLoader, IntoLoader, Limited, Loader, RepeatedEpoch};
pub use padding::{PadSequences, Padded};
pub use rand;
pub use sampler::{
    BatchSampler, RandomSampler, SampleIter, Sampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler,
};
pub use seed::ItemRng;
pub use share::ShareWithWorkers;
pub use subset::{ConcatDataset, SplitLength, Subset, random_split};
pub use tensor_dataset::{TensorDataset, Tensors};
