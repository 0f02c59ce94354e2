//! [`DistributedSampler`]: the part of the samples for one of several processes.

use std::fmt;
use std::iter::Fuse;
use std::marker::PhantomData;

use crate::{DataError, SampleIter, Sampler};

/// The part of the data for a process: every `num_replicas`-th sample, starting at `rank`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shard {
    /// The number of processes that share the data.
    pub num_replicas: usize,
    /// The rank of this process.
    pub rank: usize,
    /// How the last samples are handled if they are fewer than processes.
    pub remainder: Remainder,
}

/// How the last samples of an epoch are handled if they are fewer than processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Remainder {
    /// The first samples of the epoch are repeated, so that every process has equally many: for training, where
    /// processes wait for each other in every step.
    #[default]
    Pad,
    /// Some processes have one sample less, and no sample is repeated: for evaluation.
    Keep,
    /// They are dropped.
    Drop,
}

impl Shard {
    /// The part of process `rank` of `num_replicas`, padded.
    ///
    /// # Errors
    ///
    /// Fails if the rank is not below the number of processes.
    pub fn new(num_replicas: usize, rank: usize) -> Result<Shard, DataError> {
        if rank >= num_replicas {
            return Err(DataError::Setting(format!(
                "rank {rank} of {num_replicas} processes was requested; ranks range from 0 to the number of processes minus one"
            )));
        }
        Ok(Shard { num_replicas, rank, remainder: Remainder::Pad })
    }

    /// Sets how the last samples are handled.
    pub fn remainder(mut self, remainder: Remainder) -> Shard {
        self.remainder = remainder;
        self
    }

    /// The number of this process's samples, out of `len`.
    pub fn len_of(&self, len: usize) -> usize {
        match self.remainder {
            Remainder::Pad => len.div_ceil(self.num_replicas),
            Remainder::Drop => len / self.num_replicas,
            Remainder::Keep => len.saturating_sub(self.rank).div_ceil(self.num_replicas),
        }
    }
}

/// The samples of another sampler that belong to one of several processes; follows
/// `torch.utils.data.DistributedSampler`.
///
/// Process `r` of `n` takes the samples at `r`, `r + n`, `r + 2n`, …: batches of `b` samples on each process are together
/// what one process would have with batches of `n * b`. The order is that of the inner sampler, a function of seed and
/// epoch, so `set_epoch` is not needed.
///
/// ```
/// use fulgurite_data::{DistributedSampler, Remainder, Sampler, SequentialSampler, Shard};
///
/// let of = |rank| -> Result<Vec<usize>, fulgurite_data::DataError> {
///     Ok(DistributedSampler::new(SequentialSampler::new(5), Shard::new(2, rank)?).iter(0, 0).collect())
/// };
/// assert_eq!((of(0)?, of(1)?), (vec![0, 2, 4], vec![1, 3, 0]));
///
/// let kept = Shard::new(2, 1)?.remainder(Remainder::Keep);
/// assert_eq!(DistributedSampler::new(SequentialSampler::new(5), kept).iter(0, 0).collect::<Vec<_>>(), [1, 3]);
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
pub struct DistributedSampler<S, T = usize> {
    sampler: S,
    shard: Shard,
    _samples: PhantomData<fn() -> T>,
}

impl<T, S: Sampler<T>> DistributedSampler<S, T> {
    /// The samples of `sampler` that are those of `shard`.
    pub fn new(sampler: S, shard: Shard) -> DistributedSampler<S, T> {
        DistributedSampler { sampler, shard, _samples: PhantomData }
    }
}

impl<T: Send + 'static, S: Sampler<T>> Sampler<T> for DistributedSampler<S, T> {
    fn iter(&self, seed: u64, epoch: u64) -> SampleIter<T> {
        let comes_out_even = self.sampler.len_is_exact() && self.sampler.len().is_multiple_of(self.shard.num_replicas);
        let is_padded = self.shard.remainder == Remainder::Pad && !comes_out_even;
        Box::new(Part {
            samples: self.sampler.iter(seed, epoch).fuse(),
            again: is_padded.then(|| self.sampler.iter(seed, epoch)),
            shard: self.shard,
            passed: 0,
        })
    }

    fn len(&self) -> usize {
        self.shard.len_of(self.sampler.len())
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
        true
    }
}

/// Every `num_replicas`-th of the samples, up to their end, which may differ from the reported length.
struct Part<T> {
    samples: Fuse<SampleIter<T>>,
    /// The same order once more: what makes the processes equal comes from its beginning.
    again: Option<SampleIter<T>>,
    shard: Shard,
    /// Samples of all processes so far.
    passed: usize,
}

impl<T> Iterator for Part<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let Shard { num_replicas, rank, remainder } = self.shard;
        let place = self.passed.saturating_add(rank);
        let mut mine = None;
        let mut of_group = 0;
        for sample in self.samples.by_ref().take(num_replicas) {
            if of_group == rank {
                mine = Some(sample);
            }
            of_group += 1;
        }
        self.passed += of_group;
        match remainder {
            _ if of_group == 0 => None,
            Remainder::Drop if of_group < num_replicas => None,
            Remainder::Pad if mine.is_none() => self.again.take()?.nth(place % self.passed),
            _ => mine,
        }
    }

    fn nth(&mut self, n: usize) -> Option<T> {
        if n > 0 {
            let skipped = n.saturating_mul(self.shard.num_replicas);
            self.samples.nth(skipped - 1)?;
            self.passed = self.passed.saturating_add(skipped);
        }
        self.next()
    }
}

impl<S: fmt::Debug, T> fmt::Debug for DistributedSampler<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DistributedSampler").field("sampler", &self.sampler).field("shard", &self.shard).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchSampler, RandomSampler, SequentialSampler};

    fn all(num_replicas: usize, len: usize, remainder: Remainder) -> Vec<Vec<usize>> {
        let of = |rank| {
            let shard = Shard::new(num_replicas, rank).unwrap().remainder(remainder);
            let sampler = DistributedSampler::new(SequentialSampler::new(len), shard);
            let samples: Vec<usize> = sampler.iter(0, 0).collect();
            assert_eq!(samples.len(), sampler.len());
            (0..=samples.len()).for_each(|n| assert_eq!(sampler.iter(0, 0).nth(n), samples.get(n).copied()));
            samples
        };
        (0..num_replicas).map(of).collect()
    }

    #[test]
    fn what_does_not_come_out_even() {
        use Remainder::{Drop, Keep, Pad};
        assert_eq!(all(3, 7, Pad), [[0, 3, 6], [1, 4, 0], [2, 5, 1]]);
        assert_eq!(all(3, 7, Keep), [vec![0, 3, 6], vec![1, 4], vec![2, 5]]);
        assert_eq!(all(3, 7, Drop), [[0, 3], [1, 4], [2, 5]]);
        assert_eq!(all(5, 2, Pad), [[0], [1], [0], [1], [0]]);
        assert_eq!(all(3, 1, Keep), [vec![0], vec![], vec![]]);
        assert_eq!(all(2, 0, Pad), [vec![], Vec::<usize>::new()]);
        assert_eq!(all(1, 3, Pad), [[0, 1, 2]]);
    }

    #[test]
    fn batches_are_together_those_of_one_process() {
        let of = |rank| {
            let shard = Shard::new(2, rank).unwrap();
            let sampler = DistributedSampler::new(RandomSampler::new(12), shard);
            BatchSampler::new(sampler, 3, false).unwrap().iter(7, 4).collect::<Vec<_>>()
        };
        let whole = BatchSampler::new(RandomSampler::new(12), 6, false).unwrap().iter(7, 4);
        for ((whole, first), second) in whole.zip(of(0)).zip(of(1)) {
            let joined: Vec<usize> = first.into_iter().zip(second).flat_map(|(a, b)| [a, b]).collect();
            assert_eq!(whole, joined);
        }
    }

    #[test]
    fn parts_go_by_the_samples_and_not_by_their_length() {
        struct Five;
        impl Sampler for Five {
            fn iter(&self, _: u64, _: u64) -> SampleIter {
                Box::new(0..5)
            }

            fn len(&self) -> usize {
                8
            }
        }
        let of = |rank, remainder| {
            let shard = Shard::new(2, rank).unwrap().remainder(remainder);
            DistributedSampler::new(Five, shard).iter(0, 0).collect::<Vec<_>>()
        };
        use Remainder::{Drop, Keep, Pad};
        assert_eq!((of(0, Pad), of(1, Pad)), (vec![0, 2, 4], vec![1, 3, 0]));
        assert_eq!((of(0, Keep), of(1, Keep)), (vec![0, 2, 4], vec![1, 3]));
        assert_eq!((of(0, Drop), of(1, Drop)), (vec![0, 2], vec![1, 3]));
    }

    #[test]
    fn a_rank_that_cannot_be() {
        let error = Shard::new(2, 2).unwrap_err().to_string();
        assert_eq!(
            error,
            "rank 2 of 2 processes was requested; ranks range from 0 to the number of processes minus one"
        );
    }
}
