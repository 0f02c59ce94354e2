//! [`EvaluationLoop`]: counters and limits of an evaluation.

use std::time::{Duration, Instant};

use fulgurite_torch::Value;

use crate::progress::{Counters, Progress};
use crate::state::snapshot::Snapshot;

/// The loop over evaluation loaders: validation within fit, or the evaluation or prediction of an entry point.
pub(crate) struct EvaluationLoop {
    batches: Counters,
    /// Batches per loader after limits, as far as loaders know.
    num_batches: Vec<Option<usize>>,
    /// Batches evaluated per loader over the whole run: the x-axis of their step metrics.
    evaluated: Vec<i64>,
    /// Whether fit validates.
    is_enabled: bool,
    /// Whether an evaluation of this fit was completed.
    has_run: bool,
    /// Whether the module has no step for its loaders.
    step_missing: bool,
    /// When the last validation ended.
    last: Instant,
    /// Whether a checkpoint written now resumes before the validation that is due.
    is_due: bool,
    /// The snapshot of the run from the start of the current validation.
    before: Option<Snapshot>,
    /// The outputs of the step for the hooks after the batch.
    outputs: Value,
}

impl Default for EvaluationLoop {
    fn default() -> EvaluationLoop {
        EvaluationLoop {
            batches: Counters::default(),
            num_batches: Vec::new(),
            evaluated: Vec::new(),
            is_enabled: false,
            has_run: false,
            step_missing: false,
            last: Instant::now(),
            is_due: false,
            before: None,
            outputs: Value::None,
        }
    }
}

impl EvaluationLoop {
    /// Start of a fit: everything but the counters is reset.
    pub(crate) fn restart(&mut self) {
        let EvaluationLoop { batches, num_batches, is_enabled, .. } = std::mem::take(self);
        *self = EvaluationLoop { batches, num_batches, is_enabled, ..EvaluationLoop::default() };
    }

    // Loaders ---------------------------------------------------------------------------------------------------------

    pub(crate) fn num_batches(&self) -> &[Option<usize>] {
        &self.num_batches
    }

    /// Whether no loader has a batch.
    pub(crate) fn has_no_batches(&self) -> bool {
        self.num_batches.iter().all(|batches| *batches == Some(0))
    }

    pub(crate) fn set_num_batches(&mut self, num_batches: Vec<Option<usize>>) {
        self.num_batches = num_batches;
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Switches validation on or off. Returns what it was.
    pub(crate) fn set_enabled(&mut self, enabled: bool) -> bool {
        std::mem::replace(&mut self.is_enabled, enabled)
    }

    /// The module has no step for its loaders, so there is no validation.
    pub(crate) fn disable_without_step(&mut self) {
        self.is_enabled = false;
        self.step_missing = true;
    }

    pub(crate) fn is_step_missing(&self) -> bool {
        self.step_missing
    }

    /// Called when an entry point begins.
    pub(crate) fn expect_step(&mut self) {
        self.step_missing = false;
    }

    // Batches ---------------------------------------------------------------------------------------------------------

    pub(crate) fn evaluated(&self) -> &[i64] {
        &self.evaluated
    }

    /// Batches of so many loaders are counted, from where each is.
    pub(crate) fn set_evaluated(&mut self, evaluated: Vec<i64>) {
        self.evaluated = evaluated;
    }

    /// The x-axis of a batch of a loader; the next batch has the next.
    pub(crate) fn count_on_x_axis(&mut self, dataloader_idx: usize) -> i64 {
        let Some(next) = self.evaluated.get_mut(dataloader_idx) else { return 0 };
        *next += 1;
        *next - 1
    }

    pub(crate) fn batches(&self) -> &Counters {
        &self.batches
    }

    pub(crate) fn batches_mut(&mut self) -> &mut Counters {
        &mut self.batches
    }

    /// The outputs of the step for the hooks after the batch.
    pub(crate) fn set_outputs(&mut self, outputs: Value) {
        self.outputs = outputs;
    }

    pub(crate) fn take_outputs(&mut self) -> Value {
        std::mem::take(&mut self.outputs)
    }

    /// Start of a training epoch: the counters of validations within it are reset.
    pub(crate) fn begin_epoch(&mut self) {
        self.batches.total = Default::default();
    }

    /// Start of an evaluation.
    pub(crate) fn begin(&mut self) {
        self.batches.restart_current();
    }

    /// End of an evaluation.
    pub(crate) fn end(&mut self) {
        self.has_run = true;
    }

    /// Resets the counters after the sanity check.
    pub(crate) fn forget_run(&mut self, evaluated: Vec<i64>) {
        self.batches = Counters::default();
        self.has_run = false;
        self.evaluated = evaluated;
    }

    pub(crate) fn has_run(&self) -> bool {
        self.has_run
    }

    // Validation within fit -------------------------------------------------------------------------------------------

    /// Whether so much time has passed since the last validation ended.
    pub(crate) fn time_has_passed(&self, interval: Duration) -> bool {
        self.last.elapsed() >= interval
    }

    /// Start of a validation, which can be repeated from the snapshot `before`.
    pub(crate) fn keep(&mut self, before: Snapshot) {
        self.before = Some(before);
    }

    /// The snapshot of the run from the start of the current validation.
    pub(crate) fn before(&self) -> Option<&Snapshot> {
        self.before.as_ref()
    }

    /// The values of the validation are complete: a checkpoint written now resumes after it.
    pub(crate) fn take_before(&mut self) -> Option<Snapshot> {
        self.before.take()
    }

    /// End of a validation.
    pub(crate) fn note_time(&mut self) {
        self.last = Instant::now();
    }

    /// Whether the resumed run starts with a validation.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.is_due || self.before.is_some()
    }

    /// Sets whether checkpoints from now on resume before a validation that is due.
    pub(crate) fn set_due(&mut self, due: bool) {
        self.is_due = due;
    }

    pub(crate) fn add_progress(&self, progress: &mut Progress) {
        progress.val_batch = self.batches;
    }

    pub(crate) fn set_progress(&mut self, progress: &Progress) {
        self.batches = progress.val_batch;
    }
}
