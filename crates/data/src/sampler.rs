//! Samplers: the order of the items of a dataset in an epoch.

use std::sync::Arc;

use crate::DataError;
use crate::seed::{self, Purpose};

/// The samples of one epoch.
pub type SampleIter<T = usize> = Box<dyn Iterator<Item = T> + Send>;

/// An order of items (`usize`), or of whole batches (`Vec<usize>`), for every epoch.
///
/// It is a function of the seed and the epoch, never of torch's generator or of what was drawn before: that is what
/// makes a run resumable at any batch.
pub trait Sampler<T = usize>: Send + Sync + 'static {
    /// The samples of `epoch`. Skipping with [`Iterator::nth`] should be cheap.
    fn iter(&self, seed: u64, epoch: u64) -> SampleIter<T>;

    /// The number of samples per epoch.
    fn len(&self) -> usize;

    /// Whether [`iter`](Sampler::iter) yields exactly [`len`](Sampler::len) samples, in every epoch. Default `false`: an
    /// epoch ends where the samples do. If it is `true`, an epoch that ends earlier is an error.
    fn len_is_exact(&self) -> bool {
        false
    }

    /// Whether an epoch is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the order differs from that of the dataset.
    fn is_shuffled(&self) -> bool {
        true
    }

    /// Whether an item can be drawn twice in an epoch. Each draw then has its own random numbers.
    fn repeats(&self) -> bool {
        false
    }

    /// Whether it yields only the part of one process, so that it must not be sharded again.
    fn is_distributed(&self) -> bool {
        false
    }
}

impl<T, S: Sampler<T> + ?Sized> Sampler<T> for Arc<S> {
    fn iter(&self, seed: u64, epoch: u64) -> SampleIter<T> {
        (**self).iter(seed, epoch)
    }

    fn len(&self) -> usize {
        (**self).len()
    }

    fn len_is_exact(&self) -> bool {
        (**self).len_is_exact()
    }

    fn is_shuffled(&self) -> bool {
        (**self).is_shuffled()
    }

    fn repeats(&self) -> bool {
        (**self).repeats()
    }

    fn is_distributed(&self) -> bool {
        (**self).is_distributed()
    }
}

/// `0, 1, 2, …`
#[derive(Debug, Clone)]
pub struct SequentialSampler(usize);

impl SequentialSampler {
    /// The items of a dataset of length `len`, in order.
    pub fn new(len: usize) -> SequentialSampler {
        SequentialSampler(len)
    }
}

impl Sampler for SequentialSampler {
    fn iter(&self, _: u64, _: u64) -> SampleIter {
        Box::new(0..self.0)
    }

    fn len(&self) -> usize {
        self.0
    }

    fn len_is_exact(&self) -> bool {
        true
    }

    fn is_shuffled(&self) -> bool {
        false
    }
}

/// A new random order every epoch; follows `torch.utils.data.RandomSampler`.
#[derive(Debug, Clone)]
pub struct RandomSampler {
    len: usize,
    replacement: bool,
    num_samples: Option<usize>,
}

impl RandomSampler {
    /// Every item of a dataset of length `len` once.
    pub fn new(len: usize) -> RandomSampler {
        RandomSampler { len, replacement: false, num_samples: None }
    }

    /// Samples with replacement. Default `false`.
    pub fn replacement(mut self, replacement: bool) -> RandomSampler {
        self.replacement = replacement;
        self
    }

    /// The number of samples per epoch; without replacement, more than the dataset has means complete orders one after
    /// the other. Default: the length of the dataset.
    pub fn num_samples(mut self, num_samples: usize) -> RandomSampler {
        self.num_samples = Some(num_samples);
        self
    }
}

impl Sampler for RandomSampler {
    fn iter(&self, seed: u64, epoch: u64) -> SampleIter {
        let mut rng = seed::generator(seed, epoch, Purpose::Order);
        let (len, count) = (self.len, self.len());
        if self.replacement {
            return Box::new((0..count).map(move |_| seed::below(&mut rng, len as u64) as usize));
        }
        let orders = (0..count.div_ceil(len.max(1))).flat_map(move |_| {
            let mut order: Vec<usize> = (0..len).collect();
            seed::shuffle(&mut order, &mut rng);
            order
        });
        Box::new(orders.take(count))
    }

    fn len(&self) -> usize {
        if self.len == 0 { 0 } else { self.num_samples.unwrap_or(self.len) }
    }

    fn len_is_exact(&self) -> bool {
        true
    }

    fn repeats(&self) -> bool {
        self.replacement || self.len() > self.len
    }
}

/// Some items, in a new random order every epoch; follows `torch.utils.data.SubsetRandomSampler`.
#[derive(Debug, Clone)]
pub struct SubsetRandomSampler(Vec<usize>);

impl SubsetRandomSampler {
    /// The items at `indices`, each once.
    pub fn new(indices: impl Into<Vec<usize>>) -> SubsetRandomSampler {
        SubsetRandomSampler(indices.into())
    }
}

impl Sampler for SubsetRandomSampler {
    fn iter(&self, seed: u64, epoch: u64) -> SampleIter {
        let mut order = self.0.clone();
        seed::shuffle(&mut order, &mut seed::generator(seed, epoch, Purpose::Order));
        Box::new(order.into_iter())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn len_is_exact(&self) -> bool {
        true
    }
}

/// Items drawn with given weights; follows `torch.utils.data.WeightedRandomSampler`.
///
/// ```
/// use fulgurite_data::{Sampler, WeightedRandomSampler};
///
/// // The second class is rare: draw it as often as the first.
/// let labels = [0, 0, 0, 1];
/// let weights: Vec<f64> = labels.iter().map(|&l| if l == 0 { 1.0 / 3.0 } else { 1.0 }).collect();
/// let sampler = WeightedRandomSampler::new(weights, 100)?;
/// assert_eq!(sampler.iter(0, 0).count(), 100);
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct WeightedRandomSampler {
    weights: Vec<f64>,
    num_samples: usize,
    replacement: bool,
}

impl WeightedRandomSampler {
    /// `num_samples` draws an epoch, with replacement; `weights[i]` is that of item `i`, on any scale.
    ///
    /// Weights that are negative, not finite, or all zero are an error.
    pub fn new(weights: impl Into<Vec<f64>>, num_samples: usize) -> Result<WeightedRandomSampler, DataError> {
        let weights = weights.into();
        if let Some(at) = weights.iter().position(|w| !w.is_finite() || *w < 0.0) {
            return Err(DataError::Setting(format!(
                "the weight of item {at} is {}; weights are finite and not negative",
                weights[at]
            )));
        }
        if weights.iter().all(|&w| w == 0.0) {
            return Err(DataError::Setting(format!(
                "none of the {} weights is above zero, so no item could be drawn",
                weights.len()
            )));
        }
        Ok(WeightedRandomSampler { weights, num_samples, replacement: true })
    }

    /// Draws every item at most once an epoch; needs `num_samples` weights above zero.
    pub fn without_replacement(mut self) -> Result<WeightedRandomSampler, DataError> {
        let drawable = self.weights.iter().filter(|&&w| w > 0.0).count();
        if drawable < self.num_samples {
            return Err(DataError::Setting(format!(
                "{} samples without replacement need as many items with a weight above zero; there are {drawable}",
                self.num_samples
            )));
        }
        self.replacement = false;
        Ok(self)
    }
}

impl Sampler for WeightedRandomSampler {
    fn iter(&self, seed: u64, epoch: u64) -> SampleIter {
        let mut rng = seed::generator(seed, epoch, Purpose::Order);
        if self.replacement {
            let mut total = 0.0;
            let sums: Vec<f64> = self
                .weights
                .iter()
                .map(|w| {
                    total += w;
                    total
                })
                .collect();
            // `unit` is above 0 and the target at most the total: the first sum that reaches it is of a drawable item.
            return Box::new((0..self.num_samples).map(move |_| {
                let target = seed::unit(&mut rng) * total;
                sums.partition_point(|&sum| sum < target)
            }));
        }
        // Efraimidis and Spirakis 2006: the smallest of exponential keys, in order, are successive weighted draws.
        let drawable = self.weights.iter().enumerate().filter(|(_, w)| **w > 0.0);
        let mut keys: Vec<(f64, usize)> = drawable.map(|(i, w)| (-seed::unit(&mut rng).ln() / w, i)).collect();
        keys.sort_by(|a, b| a.0.total_cmp(&b.0));
        keys.truncate(self.num_samples);
        Box::new(keys.into_iter().map(|(_, i)| i))
    }

    fn len(&self) -> usize {
        self.num_samples
    }

    fn len_is_exact(&self) -> bool {
        true
    }

    fn repeats(&self) -> bool {
        self.replacement
    }
}

/// The samples of another sampler in batches; follows `torch.utils.data.BatchSampler`.
#[derive(Debug, Clone)]
pub struct BatchSampler<S> {
    sampler: S,
    batch_size: usize,
    drop_last: bool,
}

impl<S: Sampler> BatchSampler<S> {
    /// Batches of `batch_size`; the last one, if smaller, is left out with `drop_last`.
    pub fn new(sampler: S, batch_size: usize, drop_last: bool) -> Result<BatchSampler<S>, DataError> {
        if batch_size == 0 {
            return Err(DataError::Setting("batch_size is 0; a batch has at least one item".into()));
        }
        Ok(BatchSampler { sampler, batch_size, drop_last })
    }
}

impl<S: Sampler> Sampler<Vec<usize>> for BatchSampler<S> {
    fn iter(&self, seed: u64, epoch: u64) -> SampleIter<Vec<usize>> {
        Box::new(Chunks {
            samples: self.sampler.iter(seed, epoch).fuse(),
            batch_size: self.batch_size,
            drop_last: self.drop_last,
        })
    }

    fn len(&self) -> usize {
        let samples = self.sampler.len();
        if self.drop_last { samples / self.batch_size } else { samples.div_ceil(self.batch_size) }
    }

    fn len_is_exact(&self) -> bool {
        self.sampler.len_is_exact()
    }

    fn is_shuffled(&self) -> bool {
        self.sampler.is_shuffled()
    }

    fn repeats(&self) -> bool {
        self.sampler.repeats()
    }

    fn is_distributed(&self) -> bool {
        self.sampler.is_distributed()
    }
}

struct Chunks {
    samples: std::iter::Fuse<SampleIter>,
    batch_size: usize,
    drop_last: bool,
}

impl Iterator for Chunks {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Vec<usize>> {
        let batch: Vec<usize> = self.samples.by_ref().take(self.batch_size).collect();
        let enough = if self.drop_last { batch.len() == self.batch_size } else { !batch.is_empty() };
        enough.then_some(batch)
    }

    fn nth(&mut self, n: usize) -> Option<Vec<usize>> {
        if n > 0 {
            self.samples.nth(n.saturating_mul(self.batch_size) - 1)?;
        }
        self.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(sampler: &impl Sampler, items: usize) -> Vec<usize> {
        let mut counts = vec![0; items];
        sampler.iter(3, 0).for_each(|i| counts[i] += 1);
        counts
    }

    #[test]
    fn random_orders_hold_every_item_once() {
        assert_eq!(counts(&RandomSampler::new(50), 50), [1; 50]);
        let more = RandomSampler::new(4).num_samples(10);
        assert_eq!((more.len(), more.repeats()), (10, true));
        assert!(counts(&more, 4).iter().all(|c| (2..=3).contains(c)));
        assert_eq!(RandomSampler::new(50).num_samples(7).iter(0, 0).count(), 7);
        assert_eq!(RandomSampler::new(0).num_samples(7).iter(0, 0).count(), 0);
        let mut subset: Vec<usize> = SubsetRandomSampler::new([7, 3, 9]).iter(0, 1).collect();
        subset.sort();
        assert_eq!(subset, [3, 7, 9]);
    }

    #[test]
    fn drawing_with_replacement_is_even() {
        let sampler = RandomSampler::new(5).replacement(true).num_samples(50_000);
        assert!(counts(&sampler, 5).iter().all(|c| (9_700..10_300).contains(c)));
    }

    #[test]
    fn weights_set_the_frequency() {
        let sampler = WeightedRandomSampler::new([1.0, 0.0, 3.0, 0.0], 40_000).unwrap();
        let drawn = counts(&sampler, 4);
        assert!((9_700..10_300).contains(&drawn[0]) && drawn[1] == 0 && drawn[3] == 0, "{drawn:?}");
    }

    #[test]
    fn without_replacement_heavy_items_come_first() {
        let sampler = WeightedRandomSampler::new([1.0, 0.0, 3.0], 2).unwrap().without_replacement().unwrap();
        let first_is_heavy = (0..4_000).filter(|&epoch| sampler.iter(0, epoch).next() == Some(2)).count();
        assert!((2_900..3_100).contains(&first_is_heavy), "{first_is_heavy}");
        assert_eq!(counts(&sampler, 3), [1, 0, 1]);
    }

    #[test]
    fn batches_of_samples() {
        let all = |sampler: &dyn Sampler<Vec<usize>>| sampler.iter(0, 0).collect::<Vec<_>>();
        let kept = BatchSampler::new(SequentialSampler::new(5), 2, false).unwrap();
        assert_eq!(all(&kept), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(kept.iter(0, 0).nth(2), Some(vec![4]));
        assert_eq!(kept.iter(0, 0).nth(3), None);
        let dropped = BatchSampler::new(SequentialSampler::new(5), 2, true).unwrap();
        assert_eq!(all(&dropped), [[0, 1], [2, 3]]);
        assert_eq!((dropped.iter(0, 0).nth(1), dropped.iter(0, 0).nth(2)), (Some(vec![2, 3]), None));
    }

    /// Says that it has `.0` samples, and has `.1`.
    struct Mistaken(usize, usize);

    impl Sampler for Mistaken {
        fn iter(&self, _: u64, _: u64) -> SampleIter {
            Box::new(0..self.1)
        }

        fn len(&self) -> usize {
            self.0
        }
    }

    #[test]
    fn samples_beyond_the_length_are_batched_too() {
        let more = BatchSampler::new(Mistaken(4, 7), 2, false).unwrap();
        assert!(!more.len_is_exact());
        assert_eq!(more.iter(0, 0).collect::<Vec<_>>(), [vec![0, 1], vec![2, 3], vec![4, 5], vec![6]]);
        assert_eq!(BatchSampler::new(Mistaken(7, 3), 2, true).unwrap().iter(0, 0).collect::<Vec<_>>(), [[0, 1]]);
    }
}
