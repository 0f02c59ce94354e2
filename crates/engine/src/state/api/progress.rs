//! The position of the run, and its limits.

use crate::config::{Maximum, ValCheckInterval};
use crate::error::TrainDataNeeded;
use crate::progress::Progress;
use crate::stage::{Stage, TrainerFn};
use crate::state::{EvaluationLoop, TrainerState};

impl TrainerState {
    /// Epochs completed: this epoch, 0-based.
    pub fn current_epoch(&self) -> u64 {
        self.fit.epochs().current.completed
    }

    /// Optimizer steps taken, over restarts.
    pub fn global_step(&self) -> u64 {
        self.fit.epoch.optimization.global_step()
    }

    /// The progress of the run, in every unit.
    pub fn progress(&self) -> Progress {
        let mut progress = self.fit.progress();
        progress.val_batch = *self.evaluation().batches();
        progress
    }

    /// The current stage.
    pub fn stage(&self) -> Stage {
        self.position.stage()
    }

    /// The entry point of the run.
    pub fn entry_point(&self) -> TrainerFn {
        self.position.entry()
    }

    /// Whether this is the validation before training.
    pub fn is_sanity_checking(&self) -> bool {
        self.position.stage() == Stage::SanityCheck
    }

    /// The batch of its loader, 0-based; `None` between batches.
    pub fn batch_idx(&self) -> Option<usize> {
        self.position.batch_idx()
    }

    /// Whether this training batch is the epoch's last.
    pub fn is_last_batch(&self) -> bool {
        self.fit.epoch.is_last_batch()
    }

    /// Training batches per epoch after limits; `None` when the loader does not know.
    pub fn num_training_batches(&self) -> Option<usize> {
        self.training_data.num_batches()
    }

    /// Batches per loader after limits: of validation within fit, of the evaluation or prediction outside it. `None`
    /// for a loader that does not know.
    pub fn num_eval_batches(&self) -> &[Option<usize>] {
        self.evaluation().num_batches()
    }

    /// Validation batches per loader of the check before training.
    pub fn num_sanity_val_batches(&self) -> Vec<Option<usize>> {
        let steps = self.config.num_sanity_val_steps.finite();
        let steps = steps.map(|steps| usize::try_from(steps).unwrap_or(usize::MAX));
        let limit = |batches: &Option<usize>| batches.iter().chain(&steps).min().copied();
        self.num_eval_batches().iter().map(limit).collect()
    }

    /// Which items of the dataset this prediction batch holds; `None` outside prediction, and where the loader cannot
    /// know.
    pub fn batch_indices(&self) -> Option<&[usize]> {
        self.position.batch_indices()
    }

    /// The epoch limit in force.
    pub fn max_epochs(&self) -> Maximum {
        self.fit.max_epochs()
    }

    /// Sets the epoch limit.
    pub fn set_max_epochs(&mut self, max_epochs: impl Into<Maximum>) {
        self.fit.set_max_epochs(max_epochs.into());
    }

    /// Optimizer steps that fit will take, with the changes of a
    /// `GradientAccumulationScheduler`; `None` when it cannot be known.
    /// Lightning returns -1 or infinity then.
    ///
    /// # Errors
    ///
    /// Fails in `configure_optimizers` if the training loader is not available yet. Return the error: the trainer
    /// requests for the loader, and calls `configure_optimizers` again. Elsewhere it is known from `on_train_start` on.
    pub fn estimated_stepping_batches(&self) -> Result<Option<u64>, TrainDataNeeded> {
        if !self.training_data.is_ready() && self.max_epochs() != Maximum::Unlimited {
            self.training_data.want();
            return Err(TrainDataNeeded);
        }
        Ok(self.stepping_batches())
    }

    /// The same as far as it is known now, without requesting the loader.
    pub fn stepping_batches(&self) -> Option<u64> {
        let otherwise = self.config.accumulate_grad_batches;
        let of_epochs = |epochs: u64, batches: usize| {
            self.fit.epoch.optimization.steps_of_epochs(epochs.max(1), batches as u64, otherwise)
        };
        let epochs = self.max_epochs().finite().zip(self.num_training_batches());
        match (epochs.map(|(epochs, batches)| of_epochs(epochs, batches)), self.config.max_steps.finite()) {
            (Some(steps), Some(max)) => Some(steps.min(max)),
            (steps, max) => steps.or(max),
        }
    }

    /// The loop whose loaders, limits and counters are those of this entry point's evaluation.
    pub(crate) fn evaluation(&self) -> &EvaluationLoop {
        if self.position.is_fit() { &self.fit.epoch.validation } else { &self.evaluation }
    }

    pub(crate) fn evaluation_mut(&mut self) -> &mut EvaluationLoop {
        if self.position.is_fit() { &mut self.fit.epoch.validation } else { &mut self.evaluation }
    }

    /// Whether fit validates at all.
    pub fn enable_validation(&self) -> bool {
        self.evaluation().is_enabled()
    }

    /// Whether an evaluation of this fit, or of this entry point, came to its end.
    pub fn has_validated(&self) -> bool {
        self.evaluation().has_run()
    }

    /// Whether fit validates on at least one batch.
    pub fn validates(&self) -> bool {
        self.enable_validation() && self.num_eval_batches().iter().any(|batches| *batches != Some(0))
    }

    /// Whether a fit has no validation batch: there are none, or the last validation found none.
    pub fn validated_nothing(&self) -> bool {
        let found_none = self.has_validated() && self.evaluation().batches().current.processed == 0;
        self.position.is_fit() && (!self.validates() || found_none)
    }

    /// Whether a validation follows this training batch.
    pub fn validation_is_due(&self) -> bool {
        let every = self.config.check_val_every_n_epoch;
        if !self.enable_validation() || every.is_some_and(|n| !(self.current_epoch() + 1).is_multiple_of(n)) {
            return false;
        }
        if self.should_stop() && self.can_stop_early() {
            return true;
        }
        match (self.config.val_check_interval, self.num_training_batches()) {
            // By the clock of rank zero.
            (ValCheckInterval::Time(_), _) if self.requests.needs_consensus() => self.requests.validation_is_called(),
            (ValCheckInterval::Time(interval), _) => self.fit.epoch.validation.time_has_passed(interval),
            (ValCheckInterval::Batches(n), _) if every.is_none() => {
                self.fit.epoch.batches().total.ready.is_multiple_of(n)
            }
            (ValCheckInterval::Batches(n), total) => self.interval_is_over(n, total),
            (ValCheckInterval::Fraction(fraction), Some(total)) if fraction < 1.0 => {
                self.interval_is_over(((total as f64 * fraction) as u64).max(1), Some(total))
            }
            // Once per epoch means at its end.
            (ValCheckInterval::Fraction(_), _) => self.is_last_batch(),
        }
    }

    /// Whether this batch is an epoch's `n`-th, `2n`-th, … An epoch that ends before the batch it was to have makes up
    /// at its end for what was still to come.
    fn interval_is_over(&self, n: u64, total: Option<usize>) -> bool {
        let batch = self.fit.epoch.batches().current.ready;
        let is_cut_short = || self.is_last_batch() && total.is_some_and(|total| batch / n < total as u64 / n);
        batch.is_multiple_of(n) || is_cut_short()
    }

    /// Whether `min_epochs` and `min_steps` are met.
    pub(crate) fn can_stop_early(&self) -> bool {
        let min_epochs = self.config.min_epochs.unwrap_or(u64::from(self.config.min_steps.is_some()));
        let met = self.fit.epochs().current.processed >= min_epochs
            && self.config.min_steps.is_none_or(|min| self.global_step() >= min);
        if !met && self.should_stop() {
            let min_steps = self.config.min_steps.map_or("none".to_owned(), |n| n.to_string());
            self.warn(&format!(
                "the run was asked to stop before min_epochs={min_epochs} and min_steps={min_steps} were met; training continues until they are"
            ));
        }
        met
    }
}
