//! [`Position`]: the position of a run.

use crate::stage::{Stage, TrainerFn};

/// The position of a run: entry point, stage and batch.
#[derive(Debug)]
pub(crate) struct Position {
    entry: TrainerFn,
    stage: Stage,
    batch: Batch,
    /// The batch of the training that an evaluation interrupts.
    interrupted: Option<Batch>,
}

#[derive(Debug, Clone, Default)]
struct Batch {
    idx: Option<usize>,
    dataloader_idx: usize,
    /// The items of a prediction batch.
    indices: Option<Vec<usize>>,
}

impl Position {
    /// The start of an entry point.
    pub(crate) fn at_start_of(entry: TrainerFn) -> Position {
        Position { entry, stage: entry.stage(), batch: Batch::default(), interrupted: None }
    }

    pub(crate) fn entry(&self) -> TrainerFn {
        self.entry
    }

    pub(crate) fn is_fit(&self) -> bool {
        self.entry == TrainerFn::Fit
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// The batch of its loader, 0-based; `None` between batches.
    pub(crate) fn batch_idx(&self) -> Option<usize> {
        self.batch.idx
    }

    pub(crate) fn dataloader_idx(&self) -> usize {
        self.batch.dataloader_idx
    }

    pub(crate) fn batch_indices(&self) -> Option<&[usize]> {
        self.batch.indices.as_deref()
    }

    /// Switches to another stage. Returns the previous one.
    pub(crate) fn enter_stage(&mut self, stage: Stage) -> Stage {
        std::mem::replace(&mut self.stage, stage)
    }

    /// Start of a batch.
    pub(crate) fn start_batch(&mut self, idx: usize, dataloader_idx: usize) {
        self.batch.idx = Some(idx);
        self.batch.dataloader_idx = dataloader_idx;
    }

    /// The items of the next batch.
    pub(crate) fn set_batch_indices(&mut self, indices: Option<Vec<usize>>) {
        self.batch.indices = indices;
    }

    /// End of the last batch of an epoch or of all loaders.
    pub(crate) fn end_batches(&mut self) {
        self.batch = Batch::default();
    }

    /// Start of an evaluation, possibly between two training batches.
    pub(crate) fn begin_evaluation(&mut self) {
        self.interrupted = Some(self.batch.clone());
    }

    /// End of the evaluation: restores the previous position.
    pub(crate) fn end_evaluation(&mut self) {
        self.batch = self.interrupted.take().unwrap_or_default();
    }
}
