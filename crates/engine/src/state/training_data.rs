//! [`TrainingData`]: what is known of the training loader, and how many of its batches make an epoch.

use std::cell::Cell;

use fulgurite_data::{Batch, BoxLoader};
use fulgurite_torch::Dict;

/// The training loader, before and after it was asked for.
#[derive(Debug, Default)]
pub(crate) struct TrainingData {
    is_ready: bool,
    /// Its length was asked for before it was there.
    is_wanted: Cell<bool>,
    /// The epoch in which it was asked for.
    epoch: u64,
    /// The least that it has in any process, and whether all are sure of theirs.
    len: Length,
    /// How many of its batches make an epoch, after limits.
    num_batches: Option<usize>,
    /// What the run that is resumed had.
    saved: Option<SavedData>,
    loader_state: LoaderState,
    /// The loader's own states of the run that is resumed.
    saved_loader: Option<Dict>,
}

/// What the loader says of its own state, if it has one.
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
    /// What it says, if it does.
    pub said: Option<usize>,
    /// It cannot have another.
    pub is_exact: bool,
}

/// What a checkpoint remembers of the training loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SavedData {
    /// The epoch in which it was asked for.
    pub epoch: u64,
    /// How many batches it said it had.
    pub len: Option<usize>,
    /// How many of them made an epoch.
    pub batches: Option<usize>,
}

impl TrainingData {
    /// The loader is asked for. Returns whether it was before.
    pub(crate) fn ask(&mut self) -> bool {
        std::mem::replace(&mut self.is_ready, true)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// The loader is to be asked for again.
    pub(crate) fn renew(&mut self) {
        self.is_ready = false;
    }

    /// The loader is another one from now on, of which nothing is known.
    pub(crate) fn forget(&mut self) {
        let (saved, saved_loader) = (self.saved, self.saved_loader.take());
        *self = TrainingData { saved, saved_loader, ..TrainingData::default() };
    }

    /// Somebody asks for the length of a loader that is not there.
    pub(crate) fn want(&self) {
        self.is_wanted.set(true);
    }

    /// Whether somebody asked since the last time this was asked.
    pub(crate) fn take_wanted(&self) -> bool {
        self.is_wanted.take()
    }

    /// The epoch in which the loader was asked for.
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

    /// How long the loader is, and how many of its batches make an epoch.
    pub(crate) fn set_len(&mut self, len: Length, num_batches: Option<usize>) {
        (self.len, self.num_batches) = (len, num_batches);
    }

    /// There is no batch to train on.
    pub(crate) fn set_empty(&mut self) {
        self.num_batches = Some(0);
    }

    /// What the run that is resumed had.
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
    /// For a checkpoint.
    pub(crate) fn to_dict(self) -> Dict {
        Dict::new().with("epoch", self.epoch).with("len", self.len).with("batches", self.batches)
    }

    /// In a sentence.
    pub(crate) fn describe(self) -> String {
        let number = |count: Option<usize>| count.map_or("an unknown number of".to_owned(), |count| count.to_string());
        match self.len == self.batches {
            true => format!("{} batches", number(self.len)),
            false => format!("{} batches of {}", number(self.batches), number(self.len)),
        }
    }
}
