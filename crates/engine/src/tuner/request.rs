//! [`TuneRequest`]: a trial requested by a callback.

use std::sync::{Arc, Mutex, PoisonError};

use super::curve::LrFind;
use super::options::{BatchSizeFinderOptions, LearningRateFinderOptions};

/// A trial that a callback requests with [`TrainerState::request_tuning`](crate::TrainerState::request_tuning). It runs
/// during set-up of the entry point, before its loop begins.
#[derive(Debug, Clone)]
pub enum TuneRequest {
    /// A learning-rate range test, in `fit` alone. A run that is resumed continues with the learning rate it had.
    LearningRate {
        /// The options of the test.
        options: LearningRateFinderOptions,
        /// Where the result is stored.
        found: Reply<LrFind>,
    },
    /// The largest batch size that fits. A run that is resumed continues with the size that is in `size` already.
    BatchSize {
        /// The options of the search.
        options: BatchSizeFinderOptions,
        /// Where the result is stored.
        size: Reply<u64>,
    },
}

/// A result slot, shared by the requester and the tuner.
#[derive(Debug)]
pub struct Reply<T>(Arc<Mutex<Option<T>>>);

impl<T> Reply<T> {
    /// Stores a result, replacing the previous one.
    pub fn set(&self, value: Option<T>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    /// The result; `None` until the trial is done.
    pub fn get(&self) -> Option<T>
    where
        T: Clone,
    {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<T> Default for Reply<T> {
    fn default() -> Reply<T> {
        Reply(Arc::default())
    }
}

impl<T> Clone for Reply<T> {
    fn clone(&self) -> Reply<T> {
        Reply(Arc::clone(&self.0))
    }
}
