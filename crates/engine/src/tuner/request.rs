//! [`TuneRequest`]: a trial that a callback asks for.

use std::sync::{Arc, Mutex, PoisonError};

use super::curve::LrFind;
use super::options::{BatchSizeFinderOptions, LearningRateFinderOptions};

/// A trial that a callback asks for with [`TrainerState::request_tuning`](crate::TrainerState::request_tuning); it runs
/// when the entry point is set up, before its loop begins.
#[derive(Debug, Clone)]
pub enum TuneRequest {
    /// A learning-rate range test, in `fit` alone. A run that is resumed continues with the learning rate it had.
    LearningRate {
        /// How it is done.
        options: LearningRateFinderOptions,
        /// Where its result goes.
        found: Reply<LrFind>,
    },
    /// The largest batch size that fits. A run that is resumed continues with the size that is in `size` already.
    BatchSize {
        /// How it is searched.
        options: BatchSizeFinderOptions,
        /// Where its result goes.
        size: Reply<u64>,
    },
}

/// A place for a result, shared by who asks and who answers.
#[derive(Debug)]
pub struct Reply<T>(Arc<Mutex<Option<T>>>);

impl<T> Reply<T> {
    /// Puts a result in the place of the one before.
    pub fn set(&self, value: Option<T>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    /// The result, once there is one.
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
