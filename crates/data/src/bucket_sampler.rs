//! [`BucketBatchSampler`]: batches of items of similar length.

use std::cmp::Reverse;

use crate::seed::{self, Purpose};
use crate::{DataError, SampleIter, Sampler};

/// Batches of items of similar length, so that little of a batch is padding.
///
/// An epoch's random order is cut into pools of [`pool`](BucketBatchSampler::pool) batches; a pool is sorted by length and cut
/// into batches, and all batches are put into a random order. Without [`shuffle`](BucketBatchSampler::shuffle) the whole
/// dataset is sorted, longest first, so that a batch that does not fit into memory is the first. Like every sampler it is a
/// function of seed and epoch, and a process of several takes every n-th batch.
///
/// ```
/// use fulgurite_data::torch::tch::Tensor;
/// use fulgurite_data::{BucketBatchSampler, DataLoader, Dataset, InMemory, Loader, PadSequences};
///
/// let texts = vec![vec![1i64; 9], vec![2; 2], vec![3; 8], vec![4; 1]];
/// let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
/// let sampler = BucketBatchSampler::new(lengths, 2)?.shuffle(true);
/// let tensors = InMemory::new(texts).map(|text, _| Tensor::from_slice(&text));
/// let loader = DataLoader::new(tensors).batch_sampler(sampler).collate(PadSequences::new());
/// for batch in loader.iter(0, 0)? {
///     assert!([2, 9].contains(&batch?.values.size()[1])); // 9 with 8, 2 with 1
/// }
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct BucketBatchSampler {
    lengths: Vec<usize>,
    batch_size: usize,
    pool: usize,
    shuffle: bool,
    drop_last: bool,
    max_tokens: Option<usize>,
}

impl BucketBatchSampler {
    /// Batches of `batch_size` of the items whose lengths these are, by index.
    ///
    /// # Errors
    ///
    /// Fails if `batch_size` is 0.
    pub fn new(lengths: impl Into<Vec<usize>>, batch_size: usize) -> Result<BucketBatchSampler, DataError> {
        if batch_size == 0 {
            return Err(DataError::Setting("batch_size is 0; a batch has at least one item".into()));
        }
        let lengths = lengths.into();
        Ok(BucketBatchSampler { lengths, batch_size, pool: 100, shuffle: false, drop_last: false, max_tokens: None })
    }

    /// Other batches in another order every epoch. Default `false`.
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// The batches of a pool, with `shuffle`: more mean less padding, fewer a more random epoch. Default 100; at least 1.
    pub fn pool(mut self, batches: usize) -> Self {
        self.pool = batches.max(1);
        self
    }

    /// Leaves out the items that fill no batch. Default `false`.
    pub fn drop_last(mut self, drop_last: bool) -> Self {
        self.drop_last = drop_last;
        self
    }

    /// Limits a batch to so many tokens, padding included: its longest item times its items. `batch_size` is then the most
    /// items of a batch.
    ///
    /// # Errors
    ///
    /// Fails if an item alone has more.
    pub fn max_tokens(mut self, max_tokens: usize) -> Result<Self, DataError> {
        if let Some((item, length)) = self.lengths.iter().enumerate().find(|(_, length)| **length > max_tokens) {
            return Err(DataError::Setting(format!(
                "item {item} has length {length}, and a batch at most {max_tokens} tokens; cut it, leave it out, or raise \
                 max_tokens"
            )));
        }
        self.max_tokens = Some(max_tokens);
        Ok(self)
    }

    fn batches(&self, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
        let mut rng = seed::generator(seed, epoch, Purpose::Order);
        let mut order: Vec<usize> = (0..self.lengths.len()).collect();
        if self.shuffle {
            seed::shuffle(&mut order, &mut rng);
        }
        if self.drop_last && self.max_tokens.is_none() {
            order.truncate(order.len() / self.batch_size * self.batch_size);
        }
        let pool = if self.shuffle { self.pool.saturating_mul(self.batch_size) } else { order.len().max(1) };
        let mut batches = Vec::with_capacity(self.len_without_limit());
        for pool in order.chunks_mut(pool) {
            // Stable: items of one length stay in their random order.
            pool.sort_by_key(|&item| Reverse(self.lengths[item]));
            self.cut(pool, &mut batches);
        }
        if self.shuffle {
            seed::shuffle(&mut batches, &mut rng);
        }
        batches
    }

    /// Cuts a pool, whose longest item is the first, into batches.
    fn cut(&self, mut pool: &[usize], batches: &mut Vec<Vec<usize>>) {
        while let Some(&longest) = pool.first() {
            let fit = self.max_tokens.map_or(usize::MAX, |most| most / self.lengths[longest].max(1));
            let size = self.batch_size.min(fit).max(1);
            // With a limit of tokens, what is left of a pool is a batch that is not full.
            if pool.len() < size && self.drop_last {
                return;
            }
            let (batch, rest) = pool.split_at(size.min(pool.len()));
            batches.push(batch.to_vec());
            pool = rest;
        }
    }

    fn len_without_limit(&self) -> usize {
        let items = self.lengths.len();
        if self.drop_last { items / self.batch_size } else { items.div_ceil(self.batch_size) }
    }
}

impl Sampler<Vec<usize>> for BucketBatchSampler {
    fn iter(&self, seed: u64, epoch: u64) -> SampleIter<Vec<usize>> {
        Box::new(self.batches(seed, epoch).into_iter())
    }

    fn len(&self) -> usize {
        match self.max_tokens {
            // Shuffled pools differ a little; those of one epoch stand for all.
            Some(_) => self.batches(0, 0).len(),
            None => self.len_without_limit(),
        }
    }

    fn len_is_exact(&self) -> bool {
        self.max_tokens.is_none() || !self.shuffle
    }

    fn is_shuffled(&self) -> bool {
        self.shuffle
    }
}
