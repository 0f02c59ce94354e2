//! [`Progress`]: the counters of a run, as in Lightning's checkpoints.

use fulgurite_torch::Dict;

use crate::saved::Saved;

/// Counts how often something was ready, started, processed and completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counter {
    /// Ready: it is about to start.
    pub ready: u64,
    /// Started: its start hook has run.
    pub started: u64,
    /// Processed: its work is done.
    pub processed: u64,
    /// Completed: its end hook has run.
    pub completed: u64,
}

/// A [`Counter`] of the whole run, and one of the current epoch or evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Since the start of fit, over restarts.
    pub total: Counter,
    /// Since the enclosing loop began.
    pub current: Counter,
}

/// The progress of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Progress {
    /// Epochs.
    pub epoch: Counters,
    /// Training batches.
    pub batch: Counters,
    /// Optimizer steps.
    pub optimizer_step: Counters,
    /// Optimizer steps that the module took itself.
    pub manual_step: Counters,
    /// Calls of `zero_grad`.
    pub zero_grad: Counters,
    /// Scheduler steps.
    pub scheduler: Counters,
    /// Validation batches.
    pub val_batch: Counters,
    /// Whether the current training batch is the epoch's last.
    pub is_last_batch: bool,
    /// Batches whose accumulation window closed: the x-axis of the loggers.
    pub batches_that_stepped: u64,
}

/// The position at which a restored run resumes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ResumePoint {
    /// Within an epoch, whose start hooks are not called again.
    pub mid_epoch: bool,
    /// Batches of it that were trained on.
    pub batches: usize,
    /// Whether the validation after the last of them is still due.
    pub validation_pending: bool,
    /// Whether the actions after that validation are due too.
    pub batch_open: bool,
}

impl Counters {
    pub(crate) fn ready(&mut self) {
        self.total.ready += 1;
        self.current.ready += 1;
    }

    pub(crate) fn started(&mut self) {
        self.total.started += 1;
        self.current.started += 1;
    }

    pub(crate) fn processed(&mut self) {
        self.total.processed += 1;
        self.current.processed += 1;
    }

    pub(crate) fn completed(&mut self) {
        self.total.completed += 1;
        self.current.completed += 1;
    }

    /// What was worked through last has not ended yet.
    pub(crate) fn reopen(&mut self) {
        self.total.completed = self.total.processed.saturating_sub(1);
        self.current.completed = self.current.processed.saturating_sub(1);
    }

    /// The enclosing loop starts again.
    pub(crate) fn restart_current(&mut self) {
        self.current = Counter::default();
    }

    fn state_dict(&self, fields: &[Field]) -> Dict {
        Dict::new().with("total", self.total.state_dict(fields)).with("current", self.current.state_dict(fields))
    }

    fn load(&mut self, fields: &[Field], state: &Saved) -> Result<(), String> {
        self.total.load(fields, &state.required_dict("total")?)?;
        self.current.load(fields, &state.required_dict("current")?)
    }
}

#[derive(Clone, Copy)]
enum Field {
    Ready,
    Completed,
    Started,
    Processed,
}

impl Field {
    fn name(self) -> &'static str {
        match self {
            Field::Ready => "ready",
            Field::Completed => "completed",
            Field::Started => "started",
            Field::Processed => "processed",
        }
    }
}

const ALL: &[Field] = &[Field::Ready, Field::Completed, Field::Started, Field::Processed];
const READY_COMPLETED: &[Field] = &[Field::Ready, Field::Completed];
const READY_COMPLETED_STARTED: &[Field] = &[Field::Ready, Field::Completed, Field::Started];

impl Counter {
    fn field(&mut self, field: Field) -> &mut u64 {
        match field {
            Field::Ready => &mut self.ready,
            Field::Completed => &mut self.completed,
            Field::Started => &mut self.started,
            Field::Processed => &mut self.processed,
        }
    }

    fn state_dict(mut self, fields: &[Field]) -> Dict {
        fields.iter().map(|&field| (field.name().into(), (*self.field(field)).into())).collect()
    }

    fn load(&mut self, fields: &[Field], state: &Saved) -> Result<(), String> {
        *self = Counter::default();
        for &field in fields {
            *self.field(field) = state.required_count(field.name())?;
        }
        Ok(())
    }
}

impl Progress {
    /// The position at which restored counters continue; adjusts the counters to it.
    ///
    /// A checkpoint written in `on_train_batch_end` counts its batch as processed and not completed; one written in
    /// `on_train_epoch_end` counts its epoch so.
    pub(crate) fn resume(&mut self) -> ResumePoint {
        let finish = |counters: &mut Counters| {
            let pending = counters.current.processed > counters.current.completed;
            counters.total.completed = counters.total.processed;
            counters.current.completed = counters.current.processed;
            pending
        };
        // What was begun and not worked through is begun again.
        let begin_again = |Counters { total, current }: &mut Counters| {
            for counter in [total, current] {
                (counter.ready, counter.started) = (counter.processed, counter.processed);
            }
        };
        finish(&mut self.epoch);
        if self.epoch.current.started <= self.epoch.current.processed {
            begin_again(&mut self.epoch);
            return ResumePoint::default();
        }
        let validation_pending = finish(&mut self.batch);
        let batch_open = self.batch.current.processed > 0 && self.batch.current.ready == self.batch.current.processed;
        begin_again(&mut self.batch);
        ResumePoint { mid_epoch: true, batches: self.batch.current.processed as usize, validation_pending, batch_open }
    }

    /// Whether an epoch has started, and its end hooks were not called.
    pub(crate) fn epoch_is_open(&self) -> bool {
        let epoch = self.epoch.current;
        epoch.ready != epoch.processed || epoch.started != epoch.processed
    }

    /// The `loops` entry of a checkpoint, in Lightning's layout.
    pub(crate) fn state_dict(&self) -> Dict {
        let optimizer = Dict::new()
            .with("step", self.optimizer_step.state_dict(READY_COMPLETED))
            .with("zero_grad", self.zero_grad.state_dict(READY_COMPLETED_STARTED));
        let fit = Dict::new()
            .with("state_dict", Dict::new())
            .with("epoch_loop.state_dict", Dict::new().with("_batches_that_stepped", self.batches_that_stepped))
            .with("epoch_loop.batch_progress", self.batch.state_dict(ALL).with("is_last_batch", self.is_last_batch))
            .with("epoch_loop.scheduler_progress", self.scheduler.state_dict(READY_COMPLETED))
            .with("epoch_loop.automatic_optimization.state_dict", Dict::new())
            .with("epoch_loop.automatic_optimization.optim_progress", Dict::new().with("optimizer", optimizer))
            .with("epoch_loop.manual_optimization.state_dict", Dict::new())
            .with("epoch_loop.manual_optimization.optim_step_progress", self.manual_step.state_dict(READY_COMPLETED))
            .with("epoch_loop.val_loop.state_dict", Dict::new())
            .with("epoch_loop.val_loop.batch_progress", self.val_batch.state_dict(ALL).with("is_last_batch", false))
            .with("epoch_progress", self.epoch.state_dict(ALL));
        let idle = || Counters::default().state_dict(ALL);
        let of = |batches: Dict| Dict::new().with("state_dict", Dict::new()).with("batch_progress", batches);
        let eval = || of(idle().with("is_last_batch", false));
        Dict::new()
            .with("fit_loop", fit)
            .with("validate_loop", eval())
            .with("test_loop", eval())
            .with("predict_loop", of(idle()))
    }

    /// Restores the `loops` entry of a checkpoint.
    pub(crate) fn load_state_dict(&mut self, loops: &Saved) -> Result<(), String> {
        let fit = loops.required_dict("fit_loop")?;
        let of = |name: &str| fit.required_dict(name);
        let batches = of("epoch_loop.batch_progress")?;
        let optimizer = of("epoch_loop.automatic_optimization.optim_progress")?.required_dict("optimizer")?;
        self.batch.load(ALL, &batches)?;
        self.is_last_batch = batches.bool("is_last_batch")?.unwrap_or(false);
        self.epoch.load(ALL, &of("epoch_progress")?)?;
        self.optimizer_step.load(READY_COMPLETED, &optimizer.required_dict("step")?)?;
        self.zero_grad.load(READY_COMPLETED_STARTED, &optimizer.required_dict("zero_grad")?)?;
        self.manual_step.load(READY_COMPLETED, &of("epoch_loop.manual_optimization.optim_step_progress")?)?;
        self.scheduler.load(READY_COMPLETED, &of("epoch_loop.scheduler_progress")?)?;
        self.val_batch.load(ALL, &of("epoch_loop.val_loop.batch_progress")?)?;
        self.batches_that_stepped = of("epoch_loop.state_dict")?.count("_batches_that_stepped")?.unwrap_or(0);
        Ok(())
    }
}
