//! [`DataLoader`]: batches of a map-style dataset.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fulgurite_torch::rng::global_seed;
use fulgurite_torch::tch::{Cuda, Device};
use fulgurite_torch::{catch_panic, readable_error};

use crate::batch_map::MapBatch;
use crate::dataset::Dataset;
use crate::seed::ItemRngs;
use crate::workers::{Epoch, Workers};
use crate::{
    Batch, BatchIter, BatchSampler, BoxError, BoxLoader, Collate, DataError, DefaultCollate, DistributedSampler,
    ItemRng, Loader, RandomSampler, SampleIter, Sampler, SequentialSampler, Shard,
};

/// Loads the items of a [`Dataset`] in batches, in the order of a [`Sampler`], on worker threads.
///
/// Names and defaults are those of `torch.utils.data.DataLoader`. Unlike there, workers are threads; the order and
/// every random number of an item depend on the seed and the epoch alone, not on the number of workers. A clone shares
/// the dataset. Settings that contradict each other are reported when an epoch begins, or by
/// [`check`](DataLoader::check).
///
/// ```
/// use fulgurite_data::{DataLoader, InMemory, Loader};
///
/// let loader = DataLoader::new(InMemory::new(0..10i64)).batch_size(4).shuffle(true).num_workers(2);
/// assert_eq!(loader.len(), Some(3));
/// for batch in loader.iter(0, 0)? {
///     println!("{}", batch?);
/// }
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
pub struct DataLoader<D, C = DefaultCollate> {
    dataset: Arc<D>,
    collate: Arc<C>,
    settings: Settings,
}

#[derive(Clone)]
struct Settings {
    batch_size: Option<usize>,
    shuffle: bool,
    sampler: Option<Arc<dyn Sampler>>,
    batch_sampler: Option<Arc<dyn Sampler<Vec<usize>>>>,
    drop_last: bool,
    workers: Workers,
    pin_memory: bool,
    seed: Option<u64>,
    shard: Option<Shard>,
}

impl<D: Dataset> DataLoader<D> {
    /// A loader of `dataset` with PyTorch's defaults: batches of 1, in order, no workers.
    pub fn new(dataset: D) -> DataLoader<D> {
        DataLoader {
            dataset: Arc::new(dataset),
            collate: Arc::new(DefaultCollate),
            settings: Settings {
                batch_size: None,
                shuffle: false,
                sampler: None,
                batch_sampler: None,
                drop_last: false,
                workers: Workers { count: 0, prefetch_factor: 2 },
                pin_memory: false,
                seed: None,
                shard: None,
            },
        }
    }
}

impl<D: Dataset, C> DataLoader<D, C> {
    /// The number of items per batch. Default 1.
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        self.settings.batch_size = Some(batch_size);
        self
    }

    /// Reshuffles the items at every epoch. Default `false`.
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.settings.shuffle = shuffle;
        self
    }

    /// The sampler of the items; mutually exclusive with `shuffle`.
    pub fn sampler(mut self, sampler: impl Sampler) -> Self {
        self.settings.sampler = Some(Arc::new(sampler));
        self
    }

    /// A sampler of whole batches; mutually exclusive with `batch_size`, `shuffle`, `sampler` and `drop_last`.
    pub fn batch_sampler(mut self, batch_sampler: impl Sampler<Vec<usize>>) -> Self {
        self.settings.batch_sampler = Some(Arc::new(batch_sampler));
        self
    }

    /// Drops the last batch if it is smaller than `batch_size`. Default `false`.
    pub fn drop_last(mut self, drop_last: bool) -> Self {
        self.settings.drop_last = drop_last;
        self
    }

    /// The number of worker threads. With 0, the default, the thread that asks for a batch loads it.
    ///
    /// A worker runs libtorch's operations on its own thread only.
    pub fn num_workers(mut self, num_workers: usize) -> Self {
        self.settings.workers.count = num_workers;
        self
    }

    /// The number of batches that each worker loads in advance. Default 2.
    pub fn prefetch_factor(mut self, prefetch_factor: usize) -> Self {
        self.settings.workers.prefetch_factor = prefetch_factor;
        self
    }

    /// Copies batches into page-locked memory, from which copies to a GPU are asynchronous. No effect without CUDA.
    /// Default `false`.
    pub fn pin_memory(mut self, pin_memory: bool) -> Self {
        self.settings.pin_memory = pin_memory;
        self
    }

    /// The seed of the sampler and of the items' random numbers. Default: that of `seed_everything`.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// The function that collates items into a batch: a closure `Fn(Vec<Item>) -> Result<Batch, BoxError>`, or a
    /// type that implements [`Collate`].
    ///
    /// ```
    /// use fulgurite_data::{BoxError, DataLoader, InMemory, Loader};
    ///
    /// let words = InMemory::new(["one", "three"]);
    /// let lengths = |batch: Vec<&str>| -> Result<Vec<i64>, BoxError> { Ok(batch.iter().map(|w| w.len() as i64).collect()) };
    /// let loader = DataLoader::new(words).batch_size(2).collate(lengths);
    /// assert_eq!(loader.iter(0, 0)?.next().unwrap()?, [3, 5]);
    /// # Ok::<(), fulgurite_data::DataError>(())
    /// ```
    pub fn collate<F: Collate<D::Item>>(self, collate: F) -> DataLoader<D, F> {
        DataLoader { dataset: self.dataset, collate: Arc::new(collate), settings: self.settings }
    }

    /// Applies `f` to every batch, on the worker that collated it, with random numbers that belong to the batch: a resumed
    /// run repeats them. For mixtures of a batch's items, such as [`MixUp`](crate::transforms::MixUp).
    ///
    /// Several processes have numbers of their own. Items are loaded one by one.
    pub fn map_batch<B, F>(self, f: F) -> DataLoader<D, MapBatch<C, F>>
    where
        C: Collate<D::Item>,
        F: Fn(C::Batch, &mut ItemRng) -> Result<B, BoxError> + Send + Sync + 'static,
        B: Batch,
    {
        let collate = Arc::new(MapBatch { collate: self.collate, f });
        DataLoader { dataset: self.dataset, collate, settings: self.settings }
    }

    /// The dataset.
    pub fn dataset(&self) -> &D {
        &self.dataset
    }

    /// Checks the options against each other.
    pub fn check(&self) -> Result<(), DataError> {
        self.batches().map(|_| ())
    }

    /// The items of each batch.
    fn batches(&self) -> Result<Arc<dyn Sampler<Vec<usize>>>, DataError> {
        let Settings { batch_size, shuffle, sampler, batch_sampler, drop_last, .. } = &self.settings;
        let given = |setting: bool, name: &'static str| setting.then_some(name);
        self.settings.workers.check()?;
        if let Some(batches) = batch_sampler {
            let others = [
                given(batch_size.is_some(), "batch_size"),
                given(*shuffle, "shuffle"),
                given(sampler.is_some(), "sampler"),
                given(*drop_last, "drop_last"),
            ];
            let others: Vec<&str> = others.into_iter().flatten().collect();
            if !others.is_empty() {
                return Err(DataError::Setting(format!(
                    "batch_sampler is mutually exclusive with {}; leave one of them out",
                    others.join(", ")
                )));
            }
            return Ok(match self.settings.shard {
                Some(shard) => Arc::new(DistributedSampler::new(batches.clone(), shard)),
                None => batches.clone(),
            });
        }
        if *shuffle && sampler.is_some() {
            return Err(DataError::Setting("sampler is mutually exclusive with shuffle; leave one of them out".into()));
        }
        let len = self.dataset.len();
        let order: Arc<dyn Sampler> = match sampler {
            Some(sampler) => sampler.clone(),
            None if *shuffle => Arc::new(RandomSampler::new(len)),
            None => Arc::new(SequentialSampler::new(len)),
        };
        let batch_size = batch_size.unwrap_or(1);
        Ok(match self.settings.shard {
            Some(shard) => Arc::new(BatchSampler::new(DistributedSampler::new(order, shard), batch_size, *drop_last)?),
            None => Arc::new(BatchSampler::new(order, batch_size, *drop_last)?),
        })
    }
}

impl<D, C> Clone for DataLoader<D, C> {
    fn clone(&self) -> Self {
        DataLoader { dataset: self.dataset.clone(), collate: self.collate.clone(), settings: self.settings.clone() }
    }
}

impl<D: Dataset, C: Collate<D::Item>> Loader for DataLoader<D, C> {
    type Batch = C::Batch;

    fn len(&self) -> Option<usize> {
        self.batches().ok().map(|batches| batches.len())
    }

    fn len_is_exact(&self) -> bool {
        self.batches().is_ok_and(|batches| batches.len_is_exact())
    }

    fn iter(&self, epoch: u64, skip: usize) -> Result<BatchIter<C::Batch>, DataError> {
        let Settings { workers, pin_memory, seed, .. } = self.settings;
        let (batches, seed) = (self.batches()?, seed.unwrap_or_else(global_seed));
        let load = BatchLoad {
            dataset: self.dataset.clone(),
            collate: self.collate.clone(),
            rngs: ItemRngs::new(seed, epoch),
            batch_rngs: ItemRngs::of_batches(seed, epoch),
            repeats: batches.repeats(),
            place: self.settings.shard.map_or((1, 0), |shard| (shard.num_replicas, shard.rank)),
            pin: pin_memory && Cuda::is_available(),
        };
        let begin = || {
            let mut plan = batches.iter(seed, epoch).fuse();
            if skip > 0 {
                plan.nth(skip - 1);
            }
            plan
        };
        let dataset = || self.dataset.name();
        let plan = catch_panic(begin).map_err(|message| DataError::OrderPanicked {
            batch: skip,
            dataset: dataset(),
            message,
        })?;
        Epoch {
            plan: plan.map(Ok),
            load: move |batch, indices: Vec<usize>, stop: &AtomicBool| load.batch(batch, &indices, stop),
            first: skip,
            name: self.dataset.name(),
        }
        .run(workers)
    }

    fn batch_indices(&self, epoch: u64) -> Option<SampleIter<Vec<usize>>> {
        // The plan is a function of seed and epoch, so iterating it again yields the same items as for the workers.
        Some(self.batches().ok()?.iter(self.settings.seed.unwrap_or_else(global_seed), epoch))
    }

    fn is_shuffled(&self) -> bool {
        self.batches().is_ok_and(|batches| batches.is_shuffled())
    }

    fn sequential(&self) -> Option<BoxLoader<C::Batch>> {
        if !self.is_shuffled() {
            return None;
        }
        let mut in_order = self.clone();
        if let Some(batches) = &self.settings.batch_sampler {
            // What is in a batch is its own affair, so there is no other order; but it can be the same each time.
            in_order.settings.batch_sampler = Some(Arc::new(FirstEpoch(batches.clone())));
        }
        in_order.settings.shuffle = false;
        in_order.settings.sampler = None;
        Some(Box::new(in_order))
    }

    fn shard(&self, shard: Shard) -> Option<BoxLoader<C::Batch>> {
        if self.batches().ok()?.is_distributed() {
            return None;
        }
        let mut mine = self.clone();
        mine.settings.shard = Some(shard);
        Some(Box::new(mine))
    }
}

/// The batches of the first epoch, in every epoch.
struct FirstEpoch(Arc<dyn Sampler<Vec<usize>>>);

impl Sampler<Vec<usize>> for FirstEpoch {
    fn iter(&self, seed: u64, _: u64) -> SampleIter<Vec<usize>> {
        self.0.iter(seed, 0)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn len_is_exact(&self) -> bool {
        self.0.len_is_exact()
    }

    fn is_shuffled(&self) -> bool {
        false
    }

    fn repeats(&self) -> bool {
        self.0.repeats()
    }

    fn is_distributed(&self) -> bool {
        self.0.is_distributed()
    }
}

/// How one batch is loaded; shared by the workers.
struct BatchLoad<D, C> {
    dataset: Arc<D>,
    collate: Arc<C>,
    rngs: ItemRngs,
    batch_rngs: ItemRngs,
    repeats: bool,
    /// Of how many processes which one loads.
    place: (usize, usize),
    pin: bool,
}

impl<D: Dataset, C: Collate<D::Item>> BatchLoad<D, C> {
    fn batch(&self, batch: usize, indices: &[usize], stop: &AtomicBool) -> Result<C::Batch, DataError> {
        let len = self.dataset.len();
        if let Some(&index) = indices.iter().find(|&&index| index >= len) {
            let source = format!("the sampler yielded it, but there are only {len} items").into();
            return Err(DataError::Item { index, dataset: self.dataset.name(), source });
        }
        let loaded = match self.stacked(batch, indices)? {
            Some(loaded) => loaded,
            None => {
                let mut items = Vec::with_capacity(indices.len());
                for (slot, &index) in indices.iter().enumerate() {
                    if stop.load(Ordering::Relaxed) {
                        return Err(DataError::Stopped { batch });
                    }
                    items.push(self.item(batch, slot, index)?);
                }
                let (num_replicas, rank) = self.place;
                let mut rng = self.batch_rngs.at((batch * num_replicas + rank) as u64);
                self.collated(batch, || self.collate.collate_seeded(items, &mut rng))?
            }
        };
        if self.pin { self.collated(batch, || pinned(loaded)) } else { Ok(loaded) }
    }

    /// The complete batch at once, if both the dataset and the collate function support it.
    fn stacked(&self, batch: usize, indices: &[usize]) -> Result<Option<C::Batch>, DataError> {
        let Some(accept) = self.collate.accept_stacked() else { return Ok(None) };
        self.collated(batch, || self.dataset.get_stacked(indices).transpose()).map(|made| made.and_then(accept))
    }

    fn item(&self, batch: usize, slot: usize, index: usize) -> Result<D::Item, DataError> {
        // An item that is drawn twice needs different random numbers: its position in the epoch distinguishes the two.
        let (num_replicas, rank) = self.place;
        let place = (slot * num_replicas + rank) as u64;
        let stream = if self.repeats { 1 << 63 | (batch as u64) << 32 | place } else { index as u64 };
        let mut rng = self.rngs.at(stream);
        let failed = |source| {
            let (dataset, index) = self.dataset.locate(index);
            DataError::Item { index, dataset, source: readable_error(source) }
        };
        catch_panic(|| self.dataset.get(index, &mut rng).map_err(failed)).unwrap_or_else(|message| {
            let (dataset, index) = self.dataset.locate(index);
            Err(DataError::ItemPanicked { index, dataset, message })
        })
    }

    fn collated<T>(&self, batch: usize, f: impl FnOnce() -> Result<T, crate::BoxError>) -> Result<T, DataError> {
        collated(batch, || self.dataset.name(), f)
    }
}

/// Runs the code that collates a batch; errors name the batch and the dataset.
pub(crate) fn collated<T>(
    batch: usize,
    name: impl Fn() -> String,
    f: impl FnOnce() -> Result<T, crate::BoxError>,
) -> Result<T, DataError> {
    match catch_panic(f) {
        Ok(made) => {
            made.map_err(|source| DataError::Collate { batch, dataset: name(), source: readable_error(source) })
        }
        Err(message) => Err(DataError::CollatePanicked { batch, dataset: name(), message }),
    }
}

/// The same batch in page-locked memory.
pub(crate) fn pinned<B: Batch>(batch: B) -> Result<B, crate::BoxError> {
    let mut failed = None;
    let pinned = batch.map_tensors(&mut |tensor| {
        if tensor.device() != Device::Cpu {
            return tensor.shallow_clone();
        }
        tensor.f_pin_memory(Device::Cuda(0)).unwrap_or_else(|error| {
            failed.get_or_insert(error);
            tensor.shallow_clone()
        })
    });
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(pinned),
    }
}
