//! [`FitLoop`] and [`TrainingEpochLoop`]: the counters of the loops of `fit`, nested as in Lightning.

use crate::config::Maximum;
use crate::progress::{Counters, Progress};
use crate::state::evaluation_loop::EvaluationLoop;
use crate::state::optimization_loop::OptimizationLoop;

/// The loop over epochs.
#[derive(Default)]
pub(crate) struct FitLoop {
    /// The maximum number of epochs.
    max_epochs: Maximum,
    epochs: Counters,
    pub epoch: TrainingEpochLoop,
}

/// The loop over the batches of a training epoch.
#[derive(Default)]
pub(crate) struct TrainingEpochLoop {
    batches: Counters,
    is_last_batch: bool,
    batches_that_stepped: u64,
    scheduler_steps: Counters,
    pub optimization: OptimizationLoop,
    pub validation: EvaluationLoop,
}

impl FitLoop {
    /// Start of a fit. It continues the counters of an earlier one, as in Lightning.
    pub(crate) fn restart(&mut self, max_epochs: Maximum) {
        self.max_epochs = max_epochs;
        self.epoch.optimization.restart();
        self.epoch.validation.restart();
    }

    pub(crate) fn max_epochs(&self) -> Maximum {
        self.max_epochs
    }

    /// Replaces the limit. Returns the previous one.
    pub(crate) fn set_max_epochs(&mut self, max_epochs: Maximum) -> Maximum {
        std::mem::replace(&mut self.max_epochs, max_epochs)
    }

    pub(crate) fn epochs(&self) -> &Counters {
        &self.epochs
    }

    pub(crate) fn epochs_mut(&mut self) -> &mut Counters {
        &mut self.epochs
    }

    /// Start of an epoch, and of the loops inside.
    pub(crate) fn begin_epoch(&mut self) {
        self.epoch.begin();
        self.epochs.ready();
    }

    /// All counters.
    pub(crate) fn progress(&self) -> Progress {
        let mut progress = Progress {
            epoch: self.epochs,
            batch: self.epoch.batches,
            is_last_batch: self.epoch.is_last_batch,
            batches_that_stepped: self.epoch.batches_that_stepped,
            scheduler: self.epoch.scheduler_steps,
            ..Progress::default()
        };
        self.epoch.optimization.add_progress(&mut progress);
        self.epoch.validation.add_progress(&mut progress);
        progress
    }

    /// Restores all counters.
    pub(crate) fn set_progress(&mut self, progress: &Progress) {
        self.epochs = progress.epoch;
        self.epoch.batches = progress.batch;
        self.epoch.is_last_batch = progress.is_last_batch;
        self.epoch.batches_that_stepped = progress.batches_that_stepped;
        self.epoch.scheduler_steps = progress.scheduler;
        self.epoch.optimization.set_progress(progress);
        self.epoch.validation.set_progress(progress);
    }
}

impl TrainingEpochLoop {
    fn begin(&mut self) {
        self.batches.restart_current();
        self.scheduler_steps.restart_current();
        self.is_last_batch = false;
        self.optimization.begin_epoch();
        self.validation.begin_epoch();
    }

    /// A batch was fetched.
    pub(crate) fn begin_batch(&mut self, is_last: bool) {
        self.is_last_batch = is_last;
        self.optimization.begin_batch();
    }

    /// Whether the batch is the epoch's last.
    pub(crate) fn is_last_batch(&self) -> bool {
        self.is_last_batch
    }

    /// Marks this batch as the last of the epoch.
    pub(crate) fn end_with_this_batch(&mut self) {
        self.is_last_batch = true;
    }

    pub(crate) fn batches(&self) -> &Counters {
        &self.batches
    }

    pub(crate) fn batches_mut(&mut self) -> &mut Counters {
        &mut self.batches
    }

    pub(crate) fn scheduler_steps_mut(&mut self) -> &mut Counters {
        &mut self.scheduler_steps
    }

    /// Batches whose accumulation window closed: the x-axis of the loggers.
    pub(crate) fn batches_that_stepped(&self) -> u64 {
        self.batches_that_stepped
    }

    /// The accumulation window of the batch closed: advances the x-axis.
    pub(crate) fn count_window(&mut self) {
        self.batches_that_stepped += 1;
    }
}
