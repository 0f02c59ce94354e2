//! [`TrainingData`]: the training loader, and the number of batches per epoch.

use std::cell::Cell;

use fulgurite_data::{Batch, BoxLoader};
use fulgurite_torch::Dict;

/// The training loader, before and after it was requested.
#[derive(Debug, Default)]
pub(crate) struct TrainingData {
    is_ready: bool,
    /// Whether its length was requested before the loader was available.
    is_wanted: Cell<bool>,
    /// The epoch in which it was requested.
    epoch: u64,
    /// The minimum length over all processes, and whether all lengths are exact.
    len: Length,
    /// The number of batches per epoch, after limits.
    num_batches: Option<usize>,
    /// The training data of the run that was resumed.
    saved: Option<SavedData>,
    loader_state: LoaderState,
    /// The loader's own states of the run that is resumed.
    saved_loader: Option<Dict>,
}

/// The loader's own state, if it has one.
#[derive(Debug, Default)]
pub(crate) struct LoaderState {
    /// When the pass over it began.
    pub began: Option<Dict>,
    /// When that was over.
    pub next: Option<Dict>,
}

/// The length of a loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Length {
    /// The reported length, if any.
    pub said: Option<usize>,
    /// Whether the reported length is exact.
    pub is_exact: bool,
}

/// The state of the training loader in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SavedData {
    /// The epoch in which it was requested.
    pub epoch: u64,
    /// The reported number of batches.
    pub len: Option<usize>,
    /// The number of batches per epoch.
    pub batches: Option<usize>,
}

impl TrainingData {
    /// Marks the loader as requested. Returns whether it was before.
    pub(crate) fn ask(&mut self) -> bool {
        std::mem::replace(&mut self.is_ready, true)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Marks the loader to be requested again.
    pub(crate) fn renew(&mut self) {
        self.is_ready = false;
    }

    /// The loader was replaced, so its length and state are unknown.
    pub(crate) fn forget(&mut self) {
        let (saved, saved_loader) = (self.saved, self.saved_loader.take());
        *self = TrainingData { saved, saved_loader, ..TrainingData::default() };
    }

    /// Records a request for the length of a loader that is not available yet.
    pub(crate) fn want(&self) {
        self.is_wanted.set(true);
    }

    /// Whether the length was requested since the last call.
    pub(crate) fn take_wanted(&self) -> bool {
        self.is_wanted.take()
    }

    /// The epoch in which the loader was requested.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    pub(crate) fn len(&self) -> Length {
        self.len
    }

    pub(crate) fn num_batches(&self) -> Option<usize> {
        self.num_batches
    }

    /// Sets the length of the loader, and the number of batches per epoch.
    pub(crate) fn set_len(&mut self, len: Length, num_batches: Option<usize>) {
        (self.len, self.num_batches) = (len, num_batches);
    }

    /// There is no batch to train on.
    pub(crate) fn set_empty(&mut self) {
        self.num_batches = Some(0);
    }

    /// The training data of the run that was resumed.
    pub(crate) fn set_saved(&mut self, saved: Option<SavedData>) {
        self.saved = saved;
    }

    pub(crate) fn take_saved(&mut self) -> Option<SavedData> {
        self.saved.take()
    }

    pub(crate) fn loader_state(&self) -> &LoaderState {
        &self.loader_state
    }

    pub(crate) fn loader_state_mut(&mut self) -> &mut LoaderState {
        &mut self.loader_state
    }

    /// The loader's own states of the run that is resumed.
    pub(crate) fn set_saved_loader(&mut self, saved: Option<Dict>) {
        self.saved_loader = saved;
    }

    pub(crate) fn take_saved_loader(&mut self) -> Option<Dict> {
        self.saved_loader.take()
    }

    /// For a checkpoint.
    pub(crate) fn to_save(&self) -> SavedData {
        SavedData { epoch: self.epoch, len: self.len.said, batches: self.num_batches }
    }
}

impl Length {
    pub(crate) fn of<B: Batch>(loader: &BoxLoader<B>) -> Length {
        let said = loader.len();
        Length { said, is_exact: said.is_some() && loader.len_is_exact() }
    }

    pub(crate) fn exact(self) -> Option<usize> {
        self.said.filter(|_| self.is_exact)
    }
}

impl SavedData {
    /// The state for a checkpoint.
    pub(crate) fn to_dict(self) -> Dict {
        Dict::new().with("epoch", self.epoch).with("len", self.len).with("batches", self.batches)
    }

    /// Describes it in a sentence.
    pub(crate) fn describe(self) -> String {
        let number = |count: Option<usize>| count.map_or("an unknown number of".to_owned(), |count| count.to_string());
        match self.len == self.batches {
            true => format!("{} batches", number(self.len)),
            false => format!("{} batches of {}", number(self.batches), number(self.len)),
        }
    }
}
