//! Streams: [`IterableDataset`] and [`IterableDataLoader`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fulgurite_torch::rng::global_seed;
use fulgurite_torch::tch::Cuda;
use fulgurite_torch::{catch_panic, readable_error};

use crate::batch_map::MapBatch;
use crate::data_loader::{collated, pinned};
use crate::seed::{self, ItemRngs, Purpose};
use crate::workers::{Epoch, Workers};
use crate::{
    Batch, BatchIter, BoxError, BoxLoader, Collate, DataError, DefaultCollate, ItemRng, Loader, Shard, ShareWithWorkers,
};

/// The records of one epoch.
pub type RecordIter<R> = Box<dyn Iterator<Item = Result<R, BoxError>> + Send>;

/// A dataset that is read from its beginning to its end: a log, a socket, shards too large for an index.
///
/// Reading is split in two, so that workers can share the work without sharding the stream: records are read by one
/// worker at a time, in order; what is slow (decoding, augmentation) belongs into [`load`](IterableDataset::load),
/// which runs on all of them. So no record is read twice, and the order does not depend on the number of workers.
/// Several processes divide a stream that has [`shard`](IterableDataset::shard), and read all of any other.
pub trait IterableDataset:
    Send
    + ShareWithWorkers // A `Tensor` is not `Sync`: hold it as a `fulgurite::data::SharedTensor`.
    + 'static
{
    /// The type of a record: a line, some bytes, a path.
    type Record: Send + 'static;
    /// The type of an item.
    type Item: Send + 'static;

    /// The records of `epoch`. Draw random numbers (a shuffle buffer) from `rng` only.
    fn records(&self, epoch: u64, rng: ItemRng) -> Result<RecordIter<Self::Record>, BoxError>;

    /// The records of `epoch` after the first `position`, for a resumed run. By default the first ones are read and
    /// dropped; a stream that can seek overrides this. With the same `rng` as [`records`](IterableDataset::records).
    fn records_from(&self, epoch: u64, position: usize, rng: ItemRng) -> Result<RecordIter<Self::Record>, BoxError> {
        let mut records = self.records(epoch, rng)?;
        if position > 0 {
            records.nth(position - 1);
        }
        Ok(records)
    }

    /// The part of the same stream that one of several processes reads, so that all parts together are the stream;
    /// `None`, the default, if it cannot be divided: every process then reads all of it.
    fn shard(&self, shard: Shard) -> Option<Self>
    where
        Self: Sized,
    {
        let _ = shard;
        None
    }

    /// Whether the records of an epoch are the same in every pass, as those of files are. A socket or a
    /// queue returns `false`: a resumed run then warns that it cannot continue exactly.
    fn is_repeatable(&self) -> bool {
        true
    }

    /// Decodes a record into an item. `rng` belongs to this record of this epoch.
    fn load(&self, record: Self::Record, rng: &mut ItemRng) -> Result<Self::Item, BoxError>;

    /// The number of records per epoch, if it is known.
    fn len(&self) -> Option<usize> {
        None
    }

    /// Whether an epoch is known to have none.
    fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The name of this dataset in error messages; the name of its type by default.
    fn name(&self) -> String {
        fulgurite_torch::short_type_name::<Self>().to_owned()
    }

    /// The same dataset with `f` applied to every item, on the workers; the error of `f` will name the item.
    fn try_map<T, F>(self, f: F) -> MapIterable<Self, F>
    where
        Self: Sized,
        T: Send + 'static,
        F: Fn(Self::Item, &mut ItemRng) -> Result<T, BoxError> + Send + ShareWithWorkers + 'static,
    {
        MapIterable { dataset: self, f: Arc::new(f) }
    }

    /// The same stream with every `buffer` records in a random order, another one every epoch; see [`ShuffleIterable`].
    ///
    /// ```
    /// use fulgurite_data::{IterableDataLoader, IterableDataset, IterableFn, Loader};
    ///
    /// let numbers = IterableFn::new("numbers", |_| Ok((0..6i64).map(Ok))).shuffle(3);
    /// let mut order = vec![];
    /// for batch in IterableDataLoader::new(numbers).seed(1).iter(0, 0)? {
    ///     order.push(batch?.int64_value(&[0]));
    /// }
    /// let (first, second) = order.split_at(3);
    /// assert!(first.iter().all(|&n| n < 3) && second.iter().all(|&n| n >= 3));
    /// # Ok::<(), fulgurite_data::DataError>(())
    /// ```
    fn shuffle(self, buffer: usize) -> ShuffleIterable<Self>
    where
        Self: Sized,
    {
        ShuffleIterable { dataset: self, buffer: buffer.max(1) }
    }
}

/// A stream with a function applied to every item; see [`IterableDataset::try_map`].
#[derive(Debug)]
pub struct MapIterable<D, F> {
    dataset: D,
    f: Arc<F>,
}

impl<D: Clone, F> Clone for MapIterable<D, F> {
    fn clone(&self) -> Self {
        MapIterable { dataset: self.dataset.clone(), f: self.f.clone() }
    }
}

impl<D, F, T> IterableDataset for MapIterable<D, F>
where
    D: IterableDataset,
    F: Fn(D::Item, &mut ItemRng) -> Result<T, BoxError> + Send + Sync + 'static,
    T: Send + 'static,
{
    type Record = D::Record;
    type Item = T;

    fn records(&self, epoch: u64, rng: ItemRng) -> Result<RecordIter<D::Record>, BoxError> {
        self.dataset.records(epoch, rng)
    }

    fn records_from(&self, epoch: u64, position: usize, rng: ItemRng) -> Result<RecordIter<D::Record>, BoxError> {
        self.dataset.records_from(epoch, position, rng)
    }

    fn shard(&self, shard: Shard) -> Option<Self> {
        Some(MapIterable { dataset: self.dataset.shard(shard)?, f: self.f.clone() })
    }

    fn is_repeatable(&self) -> bool {
        self.dataset.is_repeatable()
    }

    fn load(&self, record: D::Record, rng: &mut ItemRng) -> Result<T, BoxError> {
        let item = self.dataset.load(record, rng)?;
        (self.f)(item, rng)
    }

    fn len(&self) -> Option<usize> {
        self.dataset.len()
    }

    fn name(&self) -> String {
        self.dataset.name()
    }
}

/// A stream with every `buffer` records in a random order; see [`IterableDataset::shuffle`].
///
/// The records are cut into windows of `buffer`, and each is put into a random order of its own. So a resumed run goes on
/// within an epoch by reading one window again, where the shuffle buffers of other libraries depend on all that came before.
/// Shuffle the shards of a stream, too, where it has any.
#[derive(Debug, Clone)]
pub struct ShuffleIterable<D> {
    dataset: D,
    buffer: usize,
}

/// The streams of random numbers that the windows draw from; the dataset within has those below.
const WINDOWS: u64 = 1 << 63;

impl<D: IterableDataset> IterableDataset for ShuffleIterable<D> {
    type Record = D::Record;
    type Item = D::Item;

    fn records(&self, epoch: u64, rng: ItemRng) -> Result<RecordIter<D::Record>, BoxError> {
        self.records_from(epoch, 0, rng)
    }

    fn records_from(&self, epoch: u64, position: usize, rng: ItemRng) -> Result<RecordIter<D::Record>, BoxError> {
        let (window, within) = (position / self.buffer, position % self.buffer);
        let records = self.dataset.records_from(epoch, window * self.buffer, rng.clone())?;
        let windows = Windows { records, rng, size: self.buffer, next: window as u64, ready: Vec::new(), failed: None };
        Ok(Box::new(windows.skip(within)))
    }

    fn shard(&self, shard: Shard) -> Option<Self> {
        Some(ShuffleIterable { dataset: self.dataset.shard(shard)?, buffer: self.buffer })
    }

    fn is_repeatable(&self) -> bool {
        self.dataset.is_repeatable()
    }

    fn load(&self, record: D::Record, rng: &mut ItemRng) -> Result<D::Item, BoxError> {
        self.dataset.load(record, rng)
    }

    fn len(&self) -> Option<usize> {
        self.dataset.len()
    }

    fn name(&self) -> String {
        self.dataset.name()
    }
}

struct Windows<R> {
    records: RecordIter<R>,
    rng: ItemRng,
    size: usize,
    /// The number of the next window.
    next: u64,
    /// The records of the window that are left, the next one last.
    ready: Vec<R>,
    /// What ended the records; said after those before it.
    failed: Option<BoxError>,
}

impl<R> Iterator for Windows<R> {
    type Item = Result<R, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() && self.failed.is_none() {
            self.fill();
        }
        self.ready.pop().map(Ok).or_else(|| self.failed.take().map(Err))
    }
}

impl<R> Windows<R> {
    fn fill(&mut self) {
        for record in self.records.by_ref().take(self.size) {
            match record {
                Ok(record) => self.ready.push(record),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        let mut rng = self.rng.clone();
        rng.set_stream(WINDOWS | self.next);
        rng.set_word_pos(0);
        self.next += 1;
        seed::shuffle(&mut self.ready, &mut rng);
    }
}

/// A stream defined by a function from the epoch to an iterator of items. One that draws random numbers implements
/// [`IterableDataset`] itself, whose `records` receives a generator that a resumed run gives again.
///
/// ```
/// use fulgurite_data::{IterableDataLoader, IterableFn, Loader};
///
/// let numbers = IterableFn::new("numbers", |epoch| Ok((0..5).map(move |i| Ok(epoch as i64 * 100 + i))));
/// let loader = IterableDataLoader::new(numbers).batch_size(2).num_workers(2);
/// assert_eq!(loader.iter(0, 0)?.count(), 3);
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct IterableFn<F> {
    name: String,
    epoch: F,
    is_repeatable: bool,
}

impl<F, I, T> IterableFn<F>
where
    F: Fn(u64) -> Result<I, BoxError> + Send + ShareWithWorkers + 'static,
    I: Iterator<Item = Result<T, BoxError>> + Send + 'static,
    T: Send + 'static,
{
    /// `epoch` gives the items of an epoch; error messages call the dataset `name`.
    pub fn new(name: impl Into<String>, epoch: F) -> IterableFn<F> {
        IterableFn { name: name.into(), epoch, is_repeatable: true }
    }

    /// An epoch differs in each pass; see [`IterableDataset::is_repeatable`].
    pub fn unrepeatable(mut self) -> IterableFn<F> {
        self.is_repeatable = false;
        self
    }
}

impl<F, I, T> IterableDataset for IterableFn<F>
where
    F: Fn(u64) -> Result<I, BoxError> + Send + ShareWithWorkers + 'static,
    I: Iterator<Item = Result<T, BoxError>> + Send + 'static,
    T: Send + 'static,
{
    type Record = T;
    type Item = T;

    fn records(&self, epoch: u64, _: ItemRng) -> Result<RecordIter<T>, BoxError> {
        Ok(Box::new((self.epoch)(epoch)?))
    }

    fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }

    fn load(&self, record: T, _: &mut ItemRng) -> Result<T, BoxError> {
        Ok(record)
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// Loads the items of an [`IterableDataset`] in batches. Its order is the stream's, so there is nothing to shuffle or
/// sample here; everything else is as in [`DataLoader`](crate::DataLoader).
pub struct IterableDataLoader<D, C = DefaultCollate> {
    dataset: Arc<D>,
    collate: Arc<C>,
    batch_size: usize,
    drop_last: bool,
    workers: Workers,
    pin_memory: bool,
    seed: Option<u64>,
    /// Which part of the stream this is, if it was divided.
    part: Option<Shard>,
}

impl<D: IterableDataset> IterableDataLoader<D> {
    /// A loader of `dataset` with PyTorch's defaults: batches of 1, no workers.
    pub fn new(dataset: D) -> IterableDataLoader<D> {
        IterableDataLoader {
            dataset: Arc::new(dataset),
            collate: Arc::new(DefaultCollate),
            batch_size: 1,
            drop_last: false,
            workers: Workers { count: 0, prefetch_factor: 2 },
            pin_memory: false,
            seed: None,
            part: None,
        }
    }
}

impl<D: IterableDataset, C> IterableDataLoader<D, C> {
    /// The number of items per batch. Default 1.
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size;
        self
    }

    /// Drops the last batch if it is smaller than `batch_size`. Default `false`.
    pub fn drop_last(mut self, drop_last: bool) -> Self {
        self.drop_last = drop_last;
        self
    }

    /// The number of worker threads. With 0, the default, the thread that asks for a batch loads it.
    pub fn num_workers(mut self, num_workers: usize) -> Self {
        self.workers.count = num_workers;
        self
    }

    /// The number of batches that each worker loads in advance. Default 2.
    pub fn prefetch_factor(mut self, prefetch_factor: usize) -> Self {
        self.workers.prefetch_factor = prefetch_factor;
        self
    }

    /// Copies batches into page-locked memory; no effect without CUDA. Default `false`.
    pub fn pin_memory(mut self, pin_memory: bool) -> Self {
        self.pin_memory = pin_memory;
        self
    }

    /// The seed of the random numbers. Default: that of `seed_everything`.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The function that collates items into a batch; see [`DataLoader::collate`](crate::DataLoader::collate).
    pub fn collate<F: Collate<D::Item>>(self, collate: F) -> IterableDataLoader<D, F> {
        self.collate_with(collate)
    }

    fn collate_with<F>(self, collate: F) -> IterableDataLoader<D, F> {
        let IterableDataLoader { dataset, batch_size, drop_last, workers, pin_memory, seed, part, .. } = self;
        IterableDataLoader {
            dataset,
            collate: Arc::new(collate),
            batch_size,
            drop_last,
            workers,
            pin_memory,
            seed,
            part,
        }
    }

    /// Applies `f` to every batch; see [`DataLoader::map_batch`](crate::DataLoader::map_batch).
    ///
    /// ```
    /// use fulgurite_data::{IterableDataLoader, IterableFn, Loader};
    ///
    /// let numbers = IterableFn::new("numbers", |_| Ok((0..5i64).map(Ok)));
    /// let loader = IterableDataLoader::new(numbers).batch_size(2).map_batch(|batch, _| Ok(batch * 10));
    /// assert_eq!(Vec::<i64>::try_from(loader.iter(0, 1)?.next().unwrap()?).unwrap(), [20, 30]);
    /// # Ok::<(), fulgurite_data::DataError>(())
    /// ```
    pub fn map_batch<B, F>(self, f: F) -> IterableDataLoader<D, MapBatch<C, F>>
    where
        C: Collate<D::Item>,
        F: Fn(C::Batch, &mut ItemRng) -> Result<B, BoxError> + Send + Sync + 'static,
        B: Batch,
    {
        let collate = self.collate.clone();
        self.collate_with(MapBatch { collate, f })
    }

    /// The dataset.
    pub fn dataset(&self) -> &D {
        &self.dataset
    }

    /// Whether the settings can work.
    pub fn check(&self) -> Result<(), DataError> {
        if self.batch_size == 0 {
            return Err(DataError::Setting("batch_size is 0; a batch has at least one item".into()));
        }
        self.workers.check()
    }
}

impl<D, C> Clone for IterableDataLoader<D, C> {
    fn clone(&self) -> Self {
        IterableDataLoader { dataset: self.dataset.clone(), collate: self.collate.clone(), ..*self }
    }
}

impl<D: IterableDataset, C: Collate<D::Item>> Loader for IterableDataLoader<D, C> {
    type Batch = C::Batch;

    fn len(&self) -> Option<usize> {
        self.check().ok()?;
        let records = self.dataset.len()?;
        Some(if self.drop_last { records / self.batch_size } else { records.div_ceil(self.batch_size) })
    }

    fn is_repeatable(&self) -> bool {
        self.dataset.is_repeatable()
    }

    fn iter(&self, epoch: u64, skip: usize) -> Result<BatchIter<C::Batch>, DataError> {
        self.check()?;
        let seed = self.seed.unwrap_or_else(global_seed);
        let name = self.dataset.name();
        let position = skip.saturating_mul(self.batch_size);
        let records = self
            .dataset
            .records_from(epoch, position, seed::generator(seed, epoch, Purpose::Stream))
            .map_err(|source| DataError::Record { position, dataset: name.clone(), source: readable_error(source) })?;
        let plan = Records {
            records: records.fuse(),
            position,
            batch_size: self.batch_size,
            drop_last: self.drop_last,
            name: name.clone(),
        };
        let (dataset, collate) = (self.dataset.clone(), self.collate.clone());
        let (rngs, batch_rngs) = (ItemRngs::new(seed, epoch), ItemRngs::of_batches(seed, epoch));
        let pin = self.pin_memory && Cuda::is_available();
        // The processes of a divided stream draw different random numbers for their records.
        let (num_replicas, rank) = self.part.map_or((1, 0), |part| (part.num_replicas as u64, part.rank as u64));
        let load = move |batch, (first, records): (usize, Vec<D::Record>), stop: &AtomicBool| {
            let mut items = Vec::with_capacity(records.len());
            for (index, record) in (first..).zip(records) {
                if stop.load(Ordering::Relaxed) {
                    return Err(DataError::Stopped { batch });
                }
                items.push(item(&*dataset, index, record, &mut rngs.at(index as u64 * num_replicas + rank))?);
            }
            let mut rng = batch_rngs.at(batch as u64 * num_replicas + rank);
            let made = || collate.collate_seeded(items, &mut rng);
            let make = || made().and_then(|batch| if pin { pinned(batch) } else { Ok(batch) });
            collated(batch, || dataset.name(), make)
        };
        Epoch { plan, load, first: skip, name }.run(self.workers)
    }

    fn shard(&self, shard: Shard) -> Option<BoxLoader<C::Batch>> {
        if self.part.is_some() {
            return None;
        }
        let dataset = Arc::new(self.dataset.shard(shard)?);
        Some(Box::new(IterableDataLoader { dataset, part: Some(shard), ..self.clone() }))
    }
}

fn item<D: IterableDataset>(
    dataset: &D,
    index: usize,
    record: D::Record,
    rng: &mut ItemRng,
) -> Result<D::Item, DataError> {
    match catch_panic(|| dataset.load(record, rng)) {
        Ok(loaded) => {
            loaded.map_err(|source| DataError::Item { index, dataset: dataset.name(), source: readable_error(source) })
        }
        Err(message) => Err(DataError::ItemPanicked { index, dataset: dataset.name(), message }),
    }
}

/// The records of each batch, with the position of the first.
struct Records<R> {
    records: std::iter::Fuse<RecordIter<R>>,
    position: usize,
    batch_size: usize,
    drop_last: bool,
    name: String,
}

impl<R> Iterator for Records<R> {
    type Item = Result<(usize, Vec<R>), DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = self.position;
        let mut batch = Vec::with_capacity(self.batch_size.min(1024));
        for record in self.records.by_ref().take(self.batch_size) {
            match record {
                Ok(record) => batch.push(record),
                Err(source) => {
                    let position = first + batch.len();
                    return Some(Err(DataError::Record {
                        position,
                        dataset: self.name.clone(),
                        source: readable_error(source),
                    }));
                }
            }
        }
        self.position += batch.len();
        let enough = if self.drop_last { batch.len() == self.batch_size } else { !batch.is_empty() };
        enough.then_some(Ok((first, batch)))
    }
}
