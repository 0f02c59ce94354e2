//! A loader that is walked several times at once.

use std::sync::{Arc, Mutex, PoisonError};

use fulgurite_torch::Dict;

use crate::{Batch, BatchIter, BoxLoader, DataError, IntoLoader, Loader, SampleIter, Shard};

/// A loader that several walks hold.
pub(super) struct Shared<B>(Arc<Mutex<BoxLoader<B>>>);

impl<B: Batch> Shared<B> {
    pub(super) fn new(loader: impl IntoLoader<Batch = B>) -> Shared<B> {
        Shared(Arc::new(Mutex::new(loader.into_loader())))
    }

    fn with<T>(&self, f: impl FnOnce(&dyn Loader<Batch = B>) -> T) -> T {
        f(self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref())
    }

    /// The same data in dataset order, where it can be had, and else in the same order every epoch.
    pub(super) fn in_order(&self) -> Shared<B> {
        match self.sequential() {
            Some(sequential) => Shared::new(sequential),
            None if self.is_shuffled() => Shared::new(self.clone().repeat_epoch(0)),
            None => self.clone(),
        }
    }

    /// What one process sees of it, where it can be divided.
    pub(super) fn of_shard(&self, shard: Shard) -> Shared<B> {
        self.shard(shard).map_or_else(|| self.clone(), Shared::new)
    }
}

impl<B> Clone for Shared<B> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<B: Batch> Loader for Shared<B> {
    type Batch = B;

    fn len(&self) -> Option<usize> {
        self.with(|loader| loader.len())
    }

    fn len_is_exact(&self) -> bool {
        self.with(|loader| loader.len_is_exact())
    }

    fn iter(&self, epoch: u64, skip: usize) -> Result<BatchIter<B>, DataError> {
        self.with(|loader| loader.iter(epoch, skip))
    }

    fn state(&self) -> Result<Option<Dict>, DataError> {
        self.with(|loader| loader.state())
    }

    fn restore(&mut self, state: &Dict) -> Result<(), DataError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).restore(state)
    }

    fn batch_indices(&self, epoch: u64) -> Option<SampleIter<Vec<usize>>> {
        self.with(|loader| loader.batch_indices(epoch))
    }

    fn is_shuffled(&self) -> bool {
        self.with(|loader| loader.is_shuffled())
    }

    fn is_repeatable(&self) -> bool {
        self.with(|loader| loader.is_repeatable())
    }

    fn sequential(&self) -> Option<BoxLoader<B>> {
        self.with(|loader| loader.sequential())
    }

    fn shard(&self, shard: Shard) -> Option<BoxLoader<B>> {
        self.with(|loader| loader.shard(shard))
    }
}
