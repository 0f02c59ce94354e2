//! One training epoch.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use fulgurite_optim::Interval;
use fulgurite_torch::rng::RngState;

use super::Run;
use super::batches::{Batches, Numbered};
use super::leave::SafePoint;
use crate::callbacks::Role;
use crate::config::ValCheckInterval;
use crate::error::Error;
use crate::hook::Hook;
use crate::loss::Loss;
use crate::mistakes::Phase;
use crate::module::{BatchFlow, LightningModule};
use crate::progress::ResumePoint;
use crate::state::{BeforeValidation, Stage, TrainerState, Window};

impl<M: LightningModule> Run<'_, '_, M> {
    /// One epoch; the rest of one, when resuming.
    pub(crate) fn train_epoch(&mut self, resume: Option<ResumePoint>) -> Result<(), Error> {
        self.reload_train_data()?;
        let resume = self.start_epoch(resume)?;
        let action = self.engine.state.begin_action(|| "run_training_epoch".to_owned());
        let trained = self.train_on_batches(resume);
        self.engine.state.end_action(action);
        trained?;
        self.end_epoch()
    }

    /// The epoch's batches, and validation between them.
    fn train_on_batches(&mut self, resume: ResumePoint) -> Result<(), Error> {
        if let Some(mut batches) = self.train_batches(&resume)? {
            if resume.validation_pending {
                self.validate_if_due()?;
            }
            if resume.batch_open {
                self.make_up_plateau_steps(Interval::Step)?;
                self.engine.state.close_batch();
            }
            while !self.engine.state.epoch_is_done() {
                let Some(numbered) = self.next_batch(&mut batches)? else {
                    self.end_without_batch()?;
                    break;
                };
                let began = self.engine.state.mistakes.wait.begin();
                let flow = self.train_batch(numbered)?;
                self.engine.state.mistakes.wait.end(Phase::Work, began);
                self.engine.state.report_data_wait(false);
                self.engine.state.profile_batch_end()?;
                self.poll_saves()?;
                self.engine.state.exchange_wishes()?;
                if flow == BatchFlow::EndEpoch {
                    break;
                }
                self.leave_if_asked(SafePoint::Batch)?;
                self.save_if_time_is_over()?;
                self.validate_if_due()?;
                self.step_schedulers(Interval::Step, true)?;
                self.engine.state.close_batch();
            }
        }
        Ok(())
    }

    /// The data ended where none of its batches said so: before the first, or, where they changed since the checkpoint, at or
    /// before the place that the run goes on from. What belongs to the end of the data is due all the same.
    fn end_without_batch(&mut self) -> Result<(), Error> {
        let state = &mut self.engine.state;
        let (epoch, done) = (state.current_epoch(), state.run.progress.batch.current.processed);
        if done == 0 {
            state.warn(&format!("the training loader gave no batch in epoch {epoch}, so nothing was learned in it"));
            return Ok(());
        }
        let left_out = state.run.window.batches;
        let window = match left_out {
            0 => String::new(),
            _ => format!(", without a step for the {left_out} batch(es) of the open accumulation window"),
        };
        state.warn(&format!(
            "the run goes on after batch {done} of epoch {epoch}, and the training loader has no further one, so the epoch ends here{window}"
        ));
        let was_validated = state.validation_is_due();
        state.run.progress.is_last_batch = true;
        self.step_schedulers(Interval::Epoch, false)?;
        if !was_validated && self.engine.state.validation_is_due_at_end() {
            self.validate()?;
        }
        Ok(())
    }

    /// The epoch's start hooks, unless the run was interrupted past them.
    fn start_epoch(&mut self, resume: Option<ResumePoint>) -> Result<ResumePoint, Error> {
        self.engine.state.stage = Stage::Train;
        let progress = &mut self.engine.state.run.progress;
        if let Some(resume) = resume.filter(|resume| resume.mid_epoch) {
            return Ok(resume);
        }
        progress.batch.restart_current();
        progress.scheduler.restart_current();
        progress.optimizer_step.restart_current();
        progress.zero_grad.restart_current();
        progress.val_batch.total = Default::default();
        progress.is_last_batch = false;
        progress.epoch.ready();
        // A callback may have unfrozen parameters.
        self.engine.state.fabric.setup_training(self.module.vars())?;
        // Of an epoch that the module ended early; its gradients are dropped with the first batch.
        self.engine.state.run.window = Window::default();
        self.hook(Hook::OnTrainEpochStart, |c, t, m| c.on_train_epoch_start(t, m), |m, t| m.on_train_epoch_start(t))?;
        self.engine.state.run.progress.epoch.started();
        Ok(ResumePoint::default())
    }

    fn train_batches(&self, resume: &ResumePoint) -> Result<Option<Batches<M::Batch>>, Error> {
        let state = &self.engine.state;
        let Some(loader) = &self.train_loader else { return Ok(None) };
        if resume.batches > 0 && !loader.is_repeatable() {
            state.warn(&format!(
                "the training loader reads a stream that is not the same each time, so the run cannot go on exactly where it was: {} batches of the stream are read and dropped",
                resume.batches
            ));
        }
        let epoch = state.run.progress.epoch.current.processed;
        let batches = Batches::new(loader.as_ref(), epoch, resume.batches, state.most_training_batches());
        batches.map(Some).map_err(|source| Error::Data { stage: "training", batch_idx: resume.batches, source })
    }

    fn next_batch(&mut self, batches: &mut Batches<M::Batch>) -> Result<Option<Numbered<M::Batch>>, Error> {
        let began = self.engine.state.mistakes.wait.begin();
        let next = self.engine.state.fetch(batches, "[_TrainingEpochLoop].train_dataloader_next");
        let next = next.and_then(|next| self.engine.state.end_together(next));
        self.engine.state.mistakes.wait.end(Phase::Wait, began);
        next
    }

    /// One batch: transfer, hooks, optimization, schedulers, step metrics.
    fn train_batch(&mut self, numbered: Numbered<M::Batch>) -> Result<BatchFlow, Error> {
        let Numbered { batch, idx, is_last } = numbered;
        self.engine.state.run.progress.is_last_batch = is_last;
        self.engine.state.run.step_skipped = false;
        let batch = self.engine.transfer(self.module, batch, 0)?;
        self.engine.state.run.progress.batch.ready();
        self.engine.start_batch(&batch, idx, None);

        let flow = self.hook(
            Hook::OnTrainBatchStart,
            |c, t, m| c.on_train_batch_start(t, m, &batch, idx),
            |m, t| m.on_train_batch_start(t, &batch, idx),
        )?;
        let outputs = if flow == BatchFlow::Continue {
            self.engine.state.run.progress.batch.started();
            let action = self.engine.state.begin_action(|| "run_training_batch".to_owned());
            let outputs = self.engine.optimize(self.module, &batch);
            self.engine.state.end_action(action);
            outputs?
        } else {
            self.engine.state.run.progress.is_last_batch = true;
            Loss::skip()
        };
        self.engine.state.run.progress.batch.processed();

        self.step_schedulers(Interval::Step, false)?;
        if self.engine.state.is_last_train_batch() {
            self.step_schedulers(Interval::Epoch, false)?;
        }
        if flow == BatchFlow::EndEpoch {
            return Ok(flow);
        }

        self.hook(
            Hook::OnTrainBatchEnd,
            |c, t, m| c.on_train_batch_end(t, m, &outputs, &batch, idx),
            |m, t| m.on_train_batch_end(t, &outputs, &batch, idx),
        )?;
        self.engine.state.run.progress.batch.completed();
        self.engine.state.write_step_metrics()?;
        Ok(flow)
    }

    fn validate_if_due(&mut self) -> Result<(), Error> {
        if self.engine.state.validation_is_due() { self.validate() } else { Ok(()) }
    }

    fn validate(&mut self) -> Result<(), Error> {
        if !self.engine.state.is_accumulating() {
            self.module_hook(Hook::OnValidationModelZeroGrad, |m, t| m.on_validation_model_zero_grad(t))?;
        }
        let in_batch = self.engine.state.metrics.in_batch;
        let batch_idx = self.engine.state.batch_idx;
        self.engine.state.stage = Stage::Validate;
        self.setup_eval_data(Stage::Validate)?;
        let run = &mut self.engine.state.run;
        let (rng, eval_batches) = (RngState::capture()?, run.eval_batches.clone());
        run.before_validation = Some(BeforeValidation { rng, eval_batches });
        let evaluated = self.evaluate_or_leave(SafePoint::Validation);
        self.engine.state.stage = Stage::Train;
        evaluated?;
        let state = &mut self.engine.state;
        state.run.before_validation = None;
        state.metrics.in_batch = in_batch;
        state.batch_idx = batch_idx;
        state.last_validation = Instant::now();
        state.agreement.validate = false;
        Ok(())
    }

    /// The epoch's end hooks, plateau schedulers and epoch metrics.
    fn end_epoch(&mut self) -> Result<(), Error> {
        // The last values of steps stay known to callbacks.
        self.engine.state.metrics.refresh()?;
        self.engine.state.metrics.in_batch = false;
        self.engine.state.batch_idx = None;
        self.engine.state.run.progress.epoch.processed();
        self.engine.state.reduce_over_ranks()?;

        let hook = Hook::OnTrainEpochEnd;
        // They look at what the module logs here.
        let monitors =
            |c: &dyn crate::Callback| matches!(c.role(), Role::Monitor | Role::Checkpoint | Role::ProgressBar);
        self.engine.on_some_callbacks(hook, self.module, |c| !monitors(c), |c, t, m| c.on_train_epoch_end(t, m))?;
        self.serve_requests()?;
        self.module_hook(hook, |m, t| m.on_train_epoch_end(t))?;
        self.engine.state.reduce_over_ranks()?;
        self.engine.on_some_callbacks(hook, self.module, monitors, |c, t, m| c.on_train_epoch_end(t, m))?;
        self.serve_requests()?;

        self.engine.state.metrics.refresh()?;
        if self.engine.state.is_last_train_batch() {
            self.step_schedulers(Interval::Epoch, true)?;
        }
        self.engine.state.write_epoch_metrics()?;
        self.engine.state.report_dead_parameters(false);
        self.engine.state.report_data_wait(true);
        self.engine.state.run.progress.epoch.completed();
        self.engine.state.settle_wishes()
    }

    /// Steps the schedulers of an interval: those on a plateau after validation, the others before it. Where optimizers
    /// take turns, a scheduler counts the steps of its own. A step that was skipped moves none.
    fn step_schedulers(&mut self, interval: Interval, on_plateau: bool) -> Result<(), Error> {
        let state = &mut self.engine.state;
        let by_hand = state.run.manual || state.run.schedulers.is_empty();
        if by_hand || interval == Interval::Step && (state.is_accumulating() || state.run.step_skipped) {
            return Ok(());
        }
        for index in 0..state.run.schedulers.len() {
            let state = &mut self.engine.state;
            let config = &state.run.schedulers[index];
            let (count, advanced) = match interval {
                Interval::Step => state.steps_of_optimizer(config.optimizer),
                Interval::Epoch => (state.current_epoch() + 1, true),
            };
            let due = config.interval == interval
                && config.scheduler.needs_metric() == on_plateau
                && advanced
                && count.is_multiple_of(config.frequency.max(1));
            if due && let Some(metric) = state.plateau_metric(index)? {
                self.step_scheduler(index, metric)?;
            }
        }
        Ok(())
    }

    /// The plateau schedulers' step that a checkpoint was written before. A file of Lightning's holds no metrics to step by.
    pub(crate) fn make_up_plateau_steps(&mut self, interval: Interval) -> Result<(), Error> {
        if self.engine.state.callback_metrics()?.is_empty() { Ok(()) } else { self.step_schedulers(interval, true) }
    }

    fn step_scheduler(&mut self, index: usize, metric: Option<f64>) -> Result<(), Error> {
        let run = &mut self.engine.state.run;
        run.progress.scheduler.ready();
        let optimizer = run.schedulers[index].optimizer;
        let module = &mut *self.module;
        self.engine.lend_optimizer(optimizer, |engine, optimizer| {
            let mut config = engine.state.run.schedulers.remove(index);
            let scheduler = config.scheduler.as_mut();
            let stepped = catch_unwind(AssertUnwindSafe(|| {
                let hook = Hook::LrSchedulerStep;
                engine.on_module(hook, module, |m, t| m.lr_scheduler_step(t, scheduler, optimizer, metric))
            }));
            engine.state.run.schedulers.insert(index, config);
            stepped.unwrap_or_else(|panic| resume_unwind(panic))
        })??;
        self.engine.state.run.progress.scheduler.completed();
        Ok(())
    }
}

impl TrainerState {
    pub(crate) fn epoch_is_done(&self) -> bool {
        let max_steps = self.config.max_steps;
        (max_steps >= 0 && self.global_step() >= max_steps.unsigned_abs())
            || self.is_last_train_batch()
            || self.should_stop() && self.can_stop_early()
    }

    pub(crate) fn is_last_train_batch(&self) -> bool {
        self.run.progress.is_last_batch
    }

    /// Whether the accumulation window stays open after the batch in hand.
    pub(crate) fn is_accumulating(&self) -> bool {
        let ready = self.run.progress.batch.current.ready;
        let closes = self.run.batch_norm.is_none() && ready.is_multiple_of(self.accumulate_grad_batches());
        !closes && !self.is_last_train_batch()
    }

    /// The batch in hand is over for the loggers' x-axis.
    fn close_batch(&mut self) {
        if !self.is_accumulating() {
            self.run.progress.batches_that_stepped += 1;
        }
    }

    pub(crate) fn validation_is_due(&self) -> bool {
        let every = self.config.check_val_every_n_epoch;
        if !self.has_validation || every.is_some_and(|n| !(self.current_epoch() + 1).is_multiple_of(n)) {
            return false;
        }
        if self.should_stop() && self.can_stop_early() {
            return true;
        }
        let batches = &self.run.progress.batch;
        match (self.config.val_check_interval, self.num_training_batches) {
            (ValCheckInterval::Time(interval), _) => self.validation_time_has_come(interval),
            (ValCheckInterval::Batches(n), _) if every.is_none() => batches.total.ready.is_multiple_of(n),
            (ValCheckInterval::Batches(n), total) => self.interval_is_over(n, total),
            (ValCheckInterval::Fraction(fraction), Some(total)) if fraction < 1.0 => {
                self.interval_is_over(((total as f64 * fraction) as u64).max(1), Some(total))
            }
            // Once per epoch is at its end, wherever that is.
            (ValCheckInterval::Fraction(_), _) => self.is_last_train_batch(),
        }
    }

    /// Whether the batch in hand is an epoch's `n`-th, `2n`-th, … An epoch that ends before the batch it was to have makes up
    /// at its end for what was still to come.
    fn interval_is_over(&self, n: u64, total: Option<usize>) -> bool {
        let batch = self.run.progress.batch.current.ready;
        let is_cut_short = || self.is_last_train_batch() && total.is_some_and(|total| batch / n < total as u64 / n);
        batch.is_multiple_of(n) || is_cut_short()
    }

    /// Whether an epoch that ends without a batch of its own to say so ends with a validation, as it would have done.
    fn validation_is_due_at_end(&self) -> bool {
        let every = self.config.check_val_every_n_epoch;
        let counts_in_epochs = every.is_some_and(|n| (self.current_epoch() + 1).is_multiple_of(n));
        self.has_validation && counts_in_epochs && !matches!(self.config.val_check_interval, ValCheckInterval::Time(_))
    }

    fn write_step_metrics(&mut self) -> Result<(), Error> {
        if !self.step_metrics_are_due() {
            return Ok(());
        }
        self.metrics.reduce_step_over_ranks(self.fabric.strategy())?;
        let (x, epoch) = (self.run.progress.batches_that_stepped, self.current_epoch());
        self.write_metrics(true, x as i64, Some(epoch))
    }

    fn step_metrics_are_due(&self) -> bool {
        let is_time = || self.should_update_logs() || self.config.fast_dev_run > 0;
        !self.is_accumulating() && !self.fabric.loggers.is_empty() && is_time()
    }

    /// Writes the values in demand to every logger.
    pub(crate) fn write_metrics(&mut self, on_step: bool, x: i64, epoch: Option<u64>) -> Result<(), Error> {
        let action = self.begin_action(|| "log_metrics".to_owned());
        let written = self.metrics.write(&mut self.fabric.loggers, on_step, x, epoch);
        self.end_action(action);
        written
    }

    fn write_epoch_metrics(&mut self) -> Result<(), Error> {
        let x = self.run.progress.batches_that_stepped as i64 - 1;
        let epoch = self.current_epoch();
        self.write_metrics(false, x, Some(epoch))?;
        self.metrics.train.reset();
        Ok(())
    }

    /// Before a checkpoint: what the batch or epoch in hand logged. It is over in the checkpoint, so a run that goes on from
    /// there does not write it.
    pub(crate) fn write_metrics_ahead(&mut self) -> Result<(), Error> {
        let (stepped, epoch) = (self.run.progress.batches_that_stepped as i64, Some(self.current_epoch()));
        let (on_step, x) = match self.hook {
            Hook::OnTrainBatchEnd if self.step_metrics_are_due() => (true, stepped),
            Hook::OnTrainEpochEnd => (false, stepped - 1),
            _ => return Ok(()),
        };
        if on_step {
            self.metrics.reduce_step_over_ranks(self.fabric.strategy())?;
        }
        self.metrics.write_early(&mut self.fabric.loggers, on_step, x, epoch)
    }

    /// What a scheduler on a plateau waits for: outer `None` when it must not step now.
    fn plateau_metric(&mut self, index: usize) -> Result<Option<Option<f64>>, Error> {
        let config = &self.run.schedulers[index];
        if !config.scheduler.needs_metric() {
            return Ok(Some(None));
        }
        let who = config.scheduler.name();
        let strict = config.strict;
        let Some(monitor) = config.monitor.clone() else {
            return Err(Error::Config(format!(
                "{who} needs a value to watch; name one with `LrSchedulerConfig::monitor(\"val_loss\")`"
            )));
        };
        let metrics = self.metrics.callback_metrics()?;
        if let Some(value) = metrics.get(&monitor).map(|value| value.to_f64()) {
            return Ok(Some(Some(self.of_rank_zero(value)?)));
        }
        let available = metrics.keys().cloned().collect();
        let missing = Error::MissingMonitor {
            who: who.to_owned(),
            monitor,
            available,
            without_validation: self.validated_nothing(),
        };
        if strict {
            return Err(missing);
        }
        self.warn(&format!("{missing} (strict is off, so the scheduler waits)"));
        Ok(None)
    }
}
