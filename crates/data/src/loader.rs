//! [`Loader`]: a source of batches that can be iterated once per epoch, from any position.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fulgurite_torch::{Dict, readable_error};

use crate::{Batch, BoxError, DataError, SampleIter, Shard};

/// The batches of one epoch, in order. Owned: it does not borrow its loader.
pub type BatchIter<B> = Box<dyn Iterator<Item = Result<B, DataError>> + Send>;

/// A loader of any kind, of batches `B`.
pub type BoxLoader<B> = Box<dyn Loader<Batch = B>>;

/// A source of batches that can be iterated once per epoch.
///
/// What an epoch yields is a function of the loader, the global seed and `epoch` alone, so iterating it again gives the
/// same batches, and a run resumes by skipping those already consumed. A loader whose order depends on something else,
/// such as its own generator, has a [`state`](Loader::state).
pub trait Loader: Send {
    /// The type of a batch.
    type Batch: Batch;

    /// Batches per epoch; `None` when that is not known before the end (iterable datasets).
    fn len(&self) -> Option<usize>;

    /// Whether every epoch has exactly [`len`](Loader::len) batches. Default `false`: the length is an estimate, and an
    /// epoch ends with the last batch, which requires fetching one batch ahead. If it is `true`, an epoch that ends earlier
    /// is an error.
    fn len_is_exact(&self) -> bool {
        false
    }

    /// Whether an epoch is known to yield nothing.
    fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The batches of `epoch` (0-based), without the first `skip`. Skipped batches are not loaded where the order is
    /// known without loading them.
    fn iter(&self, epoch: u64, skip: usize) -> Result<BatchIter<Self::Batch>, DataError>;

    /// What the next pass depends on besides the global seed and its epoch, such as the state of a generator that
    /// [`iter`](Loader::iter) draws from; `None`, the default, if there is nothing. [`iter`](Loader::iter) must change it
    /// in the same way regardless of `skip`. A run captures it when a pass begins, saves it for each process, and
    /// restores it before it continues the pass.
    ///
    /// # Errors
    ///
    /// Fails if the state is not available.
    fn state(&self) -> Result<Option<Dict>, DataError> {
        Ok(None)
    }

    /// Restores what [`state`](Loader::state) returned: the next pass is the one that would have followed then.
    ///
    /// # Errors
    ///
    /// Fails if the state is not one of such a loader.
    fn restore(&mut self, state: &Dict) -> Result<(), DataError> {
        let _ = state;
        Ok(())
    }

    /// The indices of the items of each batch of `epoch`, in the order of [`iter`](Loader::iter); `None` when
    /// batches do not consist of indexed items. Nothing is loaded.
    fn batch_indices(&self, epoch: u64) -> Option<SampleIter<Vec<usize>>> {
        let _ = epoch;
        None
    }

    /// Whether iterating an epoch again gives the same batches. `false` for streams that cannot.
    fn is_repeatable(&self) -> bool {
        true
    }

    /// Whether the order differs from epoch to epoch.
    fn is_shuffled(&self) -> bool {
        false
    }

    /// The same data in dataset order, for `overfit_batches`; `None` when it already is, or cannot be.
    fn sequential(&self) -> Option<BoxLoader<Self::Batch>> {
        None
    }

    /// The loaders that it iterates one after the other, if it consists of several.
    fn sequence(&self) -> Option<Vec<BoxLoader<Self::Batch>>> {
        None
    }

    /// The part of the same data that one of several processes sees; `None` where it cannot be divided, because the loader
    /// reads neither numbered items nor a stream that can be divided, or has been divided already.
    fn shard(&self, shard: Shard) -> Option<BoxLoader<Self::Batch>> {
        let _ = shard;
        None
    }

    /// Limits each epoch to the first `batches`.
    fn limit(self, batches: usize) -> Limited<Self>
    where
        Self: Sized,
    {
        Limited { loader: self, batches }
    }

    /// The batches of `epoch` in every epoch, whether they are shuffled, or a stream that differs each time. Of a loader
    /// with a [`state`](Loader::state), every pass is the first one.
    fn repeat_epoch(self, epoch: u64) -> RepeatedEpoch<Self>
    where
        Self: Sized,
    {
        RepeatedEpoch { epoch, inner: Mutex::new(Repeated { loader: self, first: None }) }
    }
}

/// The length of a loader, if an epoch cannot have another.
pub(crate) fn exact_len<L: Loader + ?Sized>(loader: &L) -> Option<usize> {
    loader.len().filter(|_| loader.len_is_exact())
}

impl<L: Loader + ?Sized> Loader for Box<L> {
    type Batch = L::Batch;

    fn len(&self) -> Option<usize> {
        (**self).len()
    }

    fn len_is_exact(&self) -> bool {
        (**self).len_is_exact()
    }

    fn iter(&self, epoch: u64, skip: usize) -> Result<BatchIter<Self::Batch>, DataError> {
        (**self).iter(epoch, skip)
    }

    fn state(&self) -> Result<Option<Dict>, DataError> {
        (**self).state()
    }

    fn restore(&mut self, state: &Dict) -> Result<(), DataError> {
        (**self).restore(state)
    }

    fn batch_indices(&self, epoch: u64) -> Option<SampleIter<Vec<usize>>> {
        (**self).batch_indices(epoch)
    }

    fn is_repeatable(&self) -> bool {
        (**self).is_repeatable()
    }

    fn is_shuffled(&self) -> bool {
        (**self).is_shuffled()
    }

    fn sequential(&self) -> Option<BoxLoader<Self::Batch>> {
        (**self).sequential()
    }

    fn sequence(&self) -> Option<Vec<BoxLoader<Self::Batch>>> {
        (**self).sequence()
    }

    fn shard(&self, shard: Shard) -> Option<BoxLoader<Self::Batch>> {
        (**self).shard(shard)
    }
}

/// The first batches of each epoch of another loader. Created by [`Loader::limit`].
#[derive(Debug, Clone)]
pub struct Limited<L> {
    loader: L,
    batches: usize,
}

impl<L: Loader> Loader for Limited<L> {
    type Batch = L::Batch;

    fn len(&self) -> Option<usize> {
        self.loader.len().map(|len| len.min(self.batches))
    }

    fn len_is_exact(&self) -> bool {
        self.loader.len_is_exact()
    }

    fn iter(&self, epoch: u64, skip: usize) -> Result<BatchIter<L::Batch>, DataError> {
        // One with a state must begin, for the sake of the next pass.
        if skip >= self.batches && self.loader.state()?.is_none() {
            return Ok(Box::new(std::iter::empty()));
        }
        Ok(Box::new(self.loader.iter(epoch, skip)?.take(self.batches.saturating_sub(skip))))
    }

    fn state(&self) -> Result<Option<Dict>, DataError> {
        self.loader.state()
    }

    fn restore(&mut self, state: &Dict) -> Result<(), DataError> {
        self.loader.restore(state)
    }

    fn batch_indices(&self, epoch: u64) -> Option<SampleIter<Vec<usize>>> {
        Some(Box::new(self.loader.batch_indices(epoch)?.take(self.batches)))
    }

    fn is_repeatable(&self) -> bool {
        self.loader.is_repeatable()
    }

    fn is_shuffled(&self) -> bool {
        self.loader.is_shuffled()
    }

    fn sequential(&self) -> Option<BoxLoader<L::Batch>> {
        self.loader.sequential().map(|loader| Box::new(loader.limit(self.batches)) as BoxLoader<L::Batch>)
    }

    fn shard(&self, shard: Shard) -> Option<BoxLoader<L::Batch>> {
        self.loader.shard(shard).map(|loader| Box::new(loader.limit(self.batches)) as BoxLoader<L::Batch>)
    }
}

/// Repeats one epoch of another loader. Created by [`Loader::repeat_epoch`].
#[derive(Debug)]
pub struct RepeatedEpoch<L> {
    epoch: u64,
    inner: Mutex<Repeated<L>>,
}

#[derive(Debug)]
struct Repeated<L> {
    loader: L,
    /// The state that the first pass began with, if the loader has one: every pass begins with it.
    first: Option<Dict>,
}

impl<L: Loader> RepeatedEpoch<L> {
    fn lock(&self) -> MutexGuard<'_, Repeated<L>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: Loader + 'static> Loader for RepeatedEpoch<L> {
    type Batch = L::Batch;

    fn len(&self) -> Option<usize> {
        self.lock().loader.len()
    }

    fn len_is_exact(&self) -> bool {
        self.lock().loader.len_is_exact()
    }

    fn iter(&self, _: u64, skip: usize) -> Result<BatchIter<L::Batch>, DataError> {
        let Repeated { loader, first } = &mut *self.lock();
        match first {
            Some(first) => loader.restore(first)?,
            None => *first = loader.state()?,
        }
        loader.iter(self.epoch, skip)
    }

    fn state(&self) -> Result<Option<Dict>, DataError> {
        let Repeated { loader, first } = &*self.lock();
        first.clone().map_or_else(|| loader.state(), |first| Ok(Some(first)))
    }

    fn restore(&mut self, state: &Dict) -> Result<(), DataError> {
        let Repeated { loader, first } = &mut *self.lock();
        loader.restore(state)?;
        *first = Some(state.clone());
        Ok(())
    }

    fn batch_indices(&self, _: u64) -> Option<SampleIter<Vec<usize>>> {
        self.lock().loader.batch_indices(self.epoch)
    }

    fn is_repeatable(&self) -> bool {
        self.lock().loader.is_repeatable()
    }

    fn sequence(&self) -> Option<Vec<BoxLoader<L::Batch>>> {
        let of_each = |loader: BoxLoader<L::Batch>| Box::new(loader.repeat_epoch(self.epoch)) as BoxLoader<L::Batch>;
        Some(self.lock().loader.sequence()?.into_iter().map(of_each).collect())
    }

    fn shard(&self, shard: Shard) -> Option<BoxLoader<L::Batch>> {
        let part = self.lock().loader.shard(shard)?;
        Some(Box::new(part.repeat_epoch(self.epoch)))
    }
}

/// Anything that converts into a loader: a [`Loader`], or a vector of batches.
pub trait IntoLoader {
    /// The type of a batch.
    type Batch: Batch;

    /// The loader, boxed.
    fn into_loader(self) -> BoxLoader<Self::Batch>;
}

impl<L: Loader + 'static> IntoLoader for L {
    type Batch = L::Batch;

    fn into_loader(self) -> BoxLoader<L::Batch> {
        Box::new(self)
    }
}

impl<B: Batch> IntoLoader for Vec<B> {
    type Batch = B;

    fn into_loader(self) -> BoxLoader<B> {
        Box::new(Batches::new(self))
    }
}

/// Batches in memory: every epoch yields new handles to the same tensors.
///
/// ```
/// use fulgurite_data::{Batches, Loader};
/// use fulgurite_data::torch::tch::Tensor;
///
/// let loader = Batches::new(vec![Tensor::from_slice(&[1.0f32]), Tensor::from_slice(&[2.0f32])]);
/// assert_eq!(loader.len(), Some(2));
/// ```
#[derive(Debug)]
pub struct Batches<B>(Arc<Mutex<Vec<B>>>);

impl<B: Batch> Batches<B> {
    /// A loader of `batches`, in order.
    pub fn new(batches: Vec<B>) -> Batches<B> {
        Batches(Arc::new(Mutex::new(batches)))
    }
}

impl<B> Clone for Batches<B> {
    fn clone(&self) -> Self {
        Batches(self.0.clone())
    }
}

impl<B: Batch> Loader for Batches<B> {
    type Batch = B;

    fn len(&self) -> Option<usize> {
        Some(self.0.lock().unwrap_or_else(PoisonError::into_inner).len())
    }

    fn len_is_exact(&self) -> bool {
        true
    }

    fn iter(&self, _: u64, skip: usize) -> Result<BatchIter<B>, DataError> {
        let batches = self.0.clone();
        let get = move |at: usize| batches.lock().unwrap_or_else(PoisonError::into_inner).get(at).map(B::shallow_clone);
        Ok(Box::new((skip..).map_while(move |at| get(at).map(Ok))))
    }
}

/// A loader defined by a function from the epoch to an iterator of batches.
///
/// ```
/// use fulgurite_data::torch::tch::Tensor;
/// use fulgurite_data::{FnLoader, Loader};
///
/// let loader = FnLoader::new(|epoch| (0..3).map(move |i| Ok(Tensor::from(epoch as i64 * 10 + i)))).with_len(3);
/// assert_eq!(loader.iter(2, 1)?.next().unwrap()?, Tensor::from(21i64));
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct FnLoader<F> {
    epoch: F,
    len: Option<usize>,
}

impl<F, I, B> FnLoader<F>
where
    F: Fn(u64) -> I + Send,
    I: Iterator<Item = Result<B, BoxError>> + Send + 'static,
    B: Batch,
{
    /// `epoch` returns the batches of an epoch, the same for the same epoch.
    pub fn new(epoch: F) -> FnLoader<F> {
        FnLoader { epoch, len: None }
    }

    /// Sets the number of batches per epoch. Default: unknown. An epoch still ends where `epoch` does;
    /// progress bars and fractions of an epoch use this number.
    pub fn with_len(mut self, len: usize) -> FnLoader<F> {
        self.len = Some(len);
        self
    }
}

impl<F, I, B> Loader for FnLoader<F>
where
    F: Fn(u64) -> I + Send,
    I: Iterator<Item = Result<B, BoxError>> + Send + 'static,
    B: Batch,
{
    type Batch = B;

    fn len(&self) -> Option<usize> {
        self.len
    }

    fn iter(&self, epoch: u64, skip: usize) -> Result<BatchIter<B>, DataError> {
        let batches = (self.epoch)(epoch).enumerate().skip(skip);
        Ok(Box::new(
            batches.map(|(batch, made)| {
                made.map_err(|source| DataError::Source { batch, source: readable_error(source) })
            }),
        ))
    }
}

#[cfg(test)]
mod tests {
    use fulgurite_torch::tch::Tensor;

    use super::*;

    #[test]
    fn batches_are_shared_not_copied() {
        let batch = Tensor::from_slice(&[1.0f32]);
        let data = batch.data_ptr();
        let loader = vec![(batch, 7i64)].into_loader();
        for epoch in 0..2 {
            let (tensor, number) = loader.iter(epoch, 0).unwrap().next().unwrap().unwrap();
            assert_eq!((tensor.data_ptr(), number), (data, 7));
        }
        assert!(loader.iter(0, 1).unwrap().next().is_none());
    }

    #[test]
    fn a_failing_source_names_the_batch() {
        let loader = FnLoader::new(|_| [Ok(1i64), Err("the disk is gone".into())].into_iter());
        assert_eq!(loader.len(), None);
        let error = loader.iter(0, 1).unwrap().next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "batch 1 of the loader failed: the disk is gone");
    }
}
