//! Where the run is, and how far it is to its end.

use super::{Stage, TrainerFn, TrainerState};
use crate::error::Error;
use crate::progress::Progress;

impl TrainerState {
    /// Epochs completed: the epoch in hand, 0-based.
    pub fn current_epoch(&self) -> u64 {
        self.run.progress.epoch.current.completed
    }

    /// Optimizer steps taken, over restarts.
    pub fn global_step(&self) -> u64 {
        self.run.progress.optimizer_step.total.completed + self.run.progress.manual_step.total.completed
    }

    /// How far the run has come, in every unit.
    pub fn progress(&self) -> &Progress {
        &self.run.progress
    }

    /// What the run is doing.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The entry point it began with.
    pub fn entry_point(&self) -> TrainerFn {
        self.entry
    }

    /// Whether this is the validation before training.
    pub fn is_sanity_checking(&self) -> bool {
        self.stage == Stage::SanityCheck
    }

    /// Whether the training batch in hand is the epoch's last.
    pub fn is_last_batch(&self) -> bool {
        self.run.progress.is_last_batch
    }

    /// Training batches per epoch after limits; `None` when the loader does not know.
    pub fn num_training_batches(&self) -> Option<usize> {
        self.num_training_batches
    }

    /// Batches per loader after limits: of validation within fit, of the evaluation or prediction in hand outside it.
    /// `None` for a loader that does not know.
    pub fn num_eval_batches(&self) -> &[Option<usize>] {
        &self.num_eval_batches
    }

    /// Validation batches per loader of the check before training.
    pub fn num_sanity_val_batches(&self) -> Vec<Option<usize>> {
        let steps = usize::try_from(self.config.num_sanity_val_steps).unwrap_or(usize::MAX);
        let limit = |batches: &Option<usize>| match batches {
            None if steps == usize::MAX => None,
            batches => Some(batches.map_or(steps, |batches| batches.min(steps))),
        };
        self.num_eval_batches.iter().map(limit).collect()
    }

    /// Which items of the dataset the prediction batch in hand holds; `None` outside prediction, and where the loader
    /// cannot know.
    pub fn batch_indices(&self) -> Option<&[usize]> {
        self.batch_indices.as_deref()
    }

    /// The epoch limit in force; -1 for none.
    pub fn max_epochs(&self) -> i64 {
        self.max_epochs
    }

    /// How many batches make an optimizer step in the epoch in hand.
    pub fn accumulate_grad_batches(&self) -> u64 {
        let scheduled = self.run.accumulation.range(..=self.current_epoch()).next_back();
        scheduled.map_or(self.config.accumulate_grad_batches, |(_, factor)| *factor)
    }

    /// Optimizer steps that fit will take, with the changes of a
    /// [`GradientAccumulationScheduler`](crate::callbacks::GradientAccumulationScheduler); `None` when nobody can know.
    /// Lightning returns -1 or infinity then.
    ///
    /// # Errors
    ///
    /// In `configure_optimizers`, that the training loader was not asked for yet. Return the error: the trainer asks for
    /// the loader, and calls `configure_optimizers` again. Elsewhere it is known from `on_train_start` on.
    pub fn estimated_stepping_batches(&self) -> Result<Option<u64>, Error> {
        if !self.train_data.ready && self.max_epochs >= 0 {
            self.train_data.wanted.set(true);
            return Err(Error::TrainDataNeeded);
        }
        Ok(self.stepping_batches())
    }

    pub(crate) fn stepping_batches(&self) -> Option<u64> {
        let max_steps = u64::try_from(self.config.max_steps).ok();
        let by_epochs = u64::try_from(self.max_epochs)
            .ok()
            .and_then(|epochs| Some(self.steps_of_epochs(epochs.max(1), self.num_training_batches? as u64)));
        match (by_epochs, max_steps) {
            (Some(steps), Some(max)) => Some(steps.min(max)),
            (steps, max) => steps.or(max),
        }
    }

    /// The optimizer steps of so many epochs. Each value of `accumulate_grad_batches` holds until the next begins.
    fn steps_of_epochs(&self, epochs: u64, batches: u64) -> u64 {
        let scheduled = self.run.accumulation.iter().map(|(epoch, factor)| (*epoch, *factor));
        let mut steps = 0_u64;
        let (mut since, mut factor) = (0, self.config.accumulate_grad_batches);
        for (next, next_factor) in scheduled.chain([(epochs, 1)]) {
            let next = next.min(epochs);
            steps = steps.saturating_add((next - since).saturating_mul(batches.div_ceil(factor)));
            (since, factor) = (next, next_factor);
        }
        steps
    }

    /// Whether fit validates at all.
    pub fn enable_validation(&self) -> bool {
        self.has_validation
    }

    /// Whether fit validates on at least one batch.
    pub(crate) fn validates(&self) -> bool {
        self.enable_validation() && self.num_eval_batches().iter().any(|batches| *batches != Some(0))
    }

    /// Whether a fit has no validation batch: there are none, or the last validation found none.
    pub(crate) fn validated_nothing(&self) -> bool {
        let found_none = self.validation_ran && self.run.progress.val_batch.current.processed == 0;
        self.entry == TrainerFn::Fit && (!self.validates() || found_none)
    }
}
