//! One training epoch.

use fulgurite_optim::Interval;

use super::batches::{Batches, Numbered};
use super::{Run, SafePoint};
use crate::callback::Callback;
use crate::config::ValCheckInterval;
use crate::diagnostics::Phase;
use crate::error::Error;
use crate::hook::Hook;
use crate::loss::Loss;
use crate::module::{BatchFlow, LightningModule};
use crate::progress::ResumePoint;
use crate::record::Activity;
use crate::scope::Scope;
use crate::stage::Stage;
use crate::state::TrainerState;

impl<M: LightningModule> Run<'_, '_, M> {
    /// Runs one epoch, or the rest of one when resuming.
    pub(crate) fn train_epoch(&mut self, resume: Option<ResumePoint>) -> Result<(), Error> {
        self.reload_train_data()?;
        self.note_loader_state()?;
        let resume = match resume.filter(|resume| resume.mid_epoch) {
            Some(resume) => resume,
            None => self.start_epoch()?,
        };
        // A callback may have unfrozen parameters in a start hook, of the epoch or of the run that is resumed.
        self.engine.state.fabric.setup_training(self.module.vars())?;
        self.profiled(|_| "run_training_epoch".to_owned(), |run| run.train_on_batches(resume))?;
        self.note_next_loader_state()?;
        self.end_epoch()
    }

    /// The epoch's batches, and validation between them.
    fn train_on_batches(&mut self, resume: ResumePoint) -> Result<(), Error> {
        let batches = self.spending(Activity::Data, |run| run.train_batches(&resume))?;
        let Some(mut batches) = batches else { return Ok(()) };
        self.make_up_for(&resume)?;
        while !self.state().epoch_is_done() {
            let Some(batch) = self.next_batch(&mut batches)? else { return self.end_without_batch() };
            let timer = self.state().diagnostics.start_timer();
            let flow = self.train_batch(batch)?;
            self.state().diagnostics.stop_timer(Phase::Work, timer);
            self.state().report_data_wait(false);
            self.state().profiling.batch_end(Stage::Train)?;
            self.poll_saves()?;
            self.state().record_progress();
            self.state().sync_requests()?;
            if flow == BatchFlow::EndEpoch {
                break;
            }
            self.shut_down_if_requested(SafePoint::Batch)?;
            self.save_if_time_is_over()?;
            self.validate_if_due()?;
            self.step_schedulers(Interval::Step, true)?;
            self.state().close_batch();
        }
        Ok(())
    }

    /// The epoch's start hooks.
    fn start_epoch(&mut self) -> Result<ResumePoint, Error> {
        self.state().fit.begin_epoch();
        // Gradients of an epoch that the module ended early are dropped with the first batch.
        self.state().fit.epoch.optimization.restart_window();
        self.hook(Hook::OnTrainEpochStart, |c, t, m| c.on_train_epoch_start(t, m), |m, t| m.on_train_epoch_start(t))?;
        self.state().fit.epochs_mut().started();
        Ok(ResumePoint::default())
    }

    fn train_batches(&self, resume: &ResumePoint) -> Result<Option<Batches<M::Batch>>, Error> {
        let state = &self.engine.state;
        let Some(loader) = &self.train_loader else { return Ok(None) };
        if resume.batches > 0 && !loader.is_repeatable() {
            state.warn(&format!(
                "the training loader reads a stream that is not the same each time, so the run cannot resume exactly where it was: {} batches of the stream are read and dropped",
                resume.batches
            ));
        }
        let epoch = state.fit.epochs().current.processed;
        let batches = Batches::new(loader.as_ref(), epoch, resume.batches, state.most_training_batches());
        let stage = Stage::Train.info().noun;
        batches.map(Some).map_err(|source| Error::Data { stage, batch_idx: Some(resume.batches), source })
    }

    /// Performs the actions that were due after the batch at which a checkpoint was written.
    fn make_up_for(&mut self, resume: &ResumePoint) -> Result<(), Error> {
        if resume.validation_pending {
            self.validate_if_due()?;
        }
        if resume.batch_open {
            self.make_up_plateau_steps(Interval::Step)?;
            self.state().close_batch();
        }
        Ok(())
    }

    fn next_batch(&mut self, batches: &mut Batches<M::Batch>) -> Result<Option<Numbered<M::Batch>>, Error> {
        let state = self.state();
        let timer = state.diagnostics.start_timer();
        let next = state.fetch(batches).and_then(|next| state.end_together(next));
        state.diagnostics.stop_timer(Phase::Wait, timer);
        next
    }

    /// One batch: transfer, hooks, optimization, schedulers, step metrics.
    fn train_batch(&mut self, Numbered { batch, idx, is_last }: Numbered<M::Batch>) -> Result<BatchFlow, Error> {
        self.state().fit.epoch.begin_batch(is_last);
        let batch = self.engine.transfer(self.module, batch, 0)?;
        self.state().fit.epoch.batches_mut().ready();
        self.state().start_batch(&batch, idx, None);

        let flow = self.hook(
            Hook::OnTrainBatchStart,
            |c, t, m| c.on_train_batch_start(t, m, &batch, idx),
            |m, t| m.on_train_batch_start(t, &batch, idx),
        )?;
        let outputs = if flow == BatchFlow::Continue {
            self.state().fit.epoch.batches_mut().started();
            self.profiled(|_| "run_training_batch".to_owned(), |run| run.engine.optimize(run.module, &batch))?
        } else {
            self.state().fit.epoch.end_with_this_batch();
            Loss::skip()
        };
        self.state().fit.epoch.batches_mut().processed();

        self.step_schedulers(Interval::Step, false)?;
        if self.state().is_last_batch() {
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
        self.state().fit.epoch.batches_mut().completed();
        self.state().check_losses(false)?;
        self.state().write_step_metrics()?;
        Ok(flow)
    }

    /// The data ended without a last batch: before the first or, if they changed since the checkpoint, at or before the
    /// position that the run resumes from. The actions of the end of the data are due nevertheless.
    fn end_without_batch(&mut self) -> Result<(), Error> {
        let state = self.state();
        let (epoch, done) = (state.current_epoch(), state.fit.epoch.batches().current.processed);
        if done == 0 {
            state.warn(&format!("the training loader yielded no batch in epoch {epoch}, so nothing was trained in it"));
            return Ok(());
        }
        let window = match state.fit.epoch.optimization.window().batches {
            0 => String::new(),
            left_out => format!(", without a step for the {left_out} batch(es) of the open accumulation window"),
        };
        state.warn(&format!(
            "the run resumes after batch {done} of epoch {epoch}, and the training loader has no further one, so the epoch ends here{window}"
        ));
        let was_validated = state.validation_is_due();
        state.fit.epoch.end_with_this_batch();
        self.step_schedulers(Interval::Epoch, false)?;
        if !was_validated && self.state().validation_is_due_at_end() {
            self.validate()?;
        }
        Ok(())
    }

    fn validate_if_due(&mut self) -> Result<(), Error> {
        if self.state().validation_is_due() { self.validate() } else { Ok(()) }
    }

    fn validate(&mut self) -> Result<(), Error> {
        if !self.state().is_accumulating() {
            self.module_hook(Hook::OnValidationModelZeroGrad, |m, t| m.on_validation_model_zero_grad(t))?;
        }
        self.spending(Activity::Validation, |run| run.in_stage(Stage::Validate, Self::validate_in_stage))?;
        let state = self.state();
        drop(state.fit.epoch.validation.take_before());
        state.fit.epoch.validation.note_time();
        state.requests.validated();
        Ok(())
    }

    fn validate_in_stage(&mut self) -> Result<(), Error> {
        self.setup_eval_data(Stage::Validate)?;
        let before = self.state().snapshot()?;
        self.state().fit.epoch.validation.keep(before);
        self.evaluate_or_shut_down(SafePoint::Validation).map(drop)
    }

    /// The epoch's end hooks, plateau schedulers and epoch metrics.
    fn end_epoch(&mut self) -> Result<(), Error> {
        let state = self.state();
        // Callbacks can still read the last values of steps.
        state.metrics.refresh()?;
        state.metrics.end_batches();
        state.position.end_batches();
        state.fit.epochs_mut().processed();
        state.reduce_over_ranks()?;

        let hook = Hook::OnTrainEpochEnd;
        // They read what the module logs here.
        let monitors = |c: &dyn Callback| c.reads_epoch_end_of_module() || c.checkpointer().is_some();
        self.engine
            .on_some_callbacks(hook, self.module, &|c| !monitors(c), &mut |c, t, m| c.on_train_epoch_end(t, m))?;
        self.serve_save_requests()?;
        self.module_hook(hook, |m, t| m.on_train_epoch_end(t))?;
        self.state().reduce_over_ranks()?;
        self.engine.on_some_callbacks(hook, self.module, &monitors, &mut |c, t, m| c.on_train_epoch_end(t, m))?;
        self.serve_save_requests()?;

        self.state().metrics.refresh()?;
        if self.state().is_last_batch() {
            self.step_schedulers(Interval::Epoch, true)?;
        }
        let state = self.state();
        state.write_epoch_metrics()?;
        state.report_dead_parameters(false);
        state.check_losses(true)?;
        state.report_data_wait(true);
        state.fit.epochs_mut().completed();
        state.settle_requests()
    }

    /// Steps the schedulers of an interval: plateau schedulers after validation, the others before it. If optimizers
    /// take turns, a scheduler counts the steps of its optimizer. A skipped step advances none.
    fn step_schedulers(&mut self, interval: Interval, on_plateau: bool) -> Result<(), Error> {
        let state = self.state();
        let optimization = &state.fit.epoch.optimization;
        let by_hand = optimization.is_manual() || optimization.schedulers().is_empty();
        if by_hand || interval == Interval::Step && (state.is_accumulating() || optimization.step_skipped()) {
            return Ok(());
        }
        for index in 0..self.state().lr_schedulers().len() {
            let state = self.state();
            if state.scheduler_is_due(index, interval, on_plateau)
                && let Some(metric) = state.plateau_metric(index)?
            {
                self.step_scheduler(index, metric)?;
            }
        }
        Ok(())
    }

    /// The plateau schedulers' step that a checkpoint was written before. A file of Lightning's holds no metrics to
    /// step by.
    pub(crate) fn make_up_plateau_steps(&mut self, interval: Interval) -> Result<(), Error> {
        if self.state().callback_metrics()?.is_empty() { Ok(()) } else { self.step_schedulers(interval, true) }
    }

    fn step_scheduler(&mut self, index: usize, metric: Option<f64>) -> Result<(), Error> {
        let Run { engine, module, .. } = self;
        let epoch = &mut engine.state.fit.epoch;
        epoch.scheduler_steps_mut().ready();
        let Some(config) = epoch.optimization.take_scheduler(index) else { return Ok(()) };
        let (optimizer, hook) = (config.optimizer, Hook::LrSchedulerStep);
        engine.lend(
            config,
            |engine, config| engine.state.fit.epoch.optimization.put_scheduler(index, config),
            |engine, config| {
                engine.lend_optimizer(optimizer, |engine, optimizer| {
                    let scheduler = config.scheduler.as_mut();
                    engine.on_module(hook, *module, |m, t| m.lr_scheduler_step(t, scheduler, optimizer, metric))
                })
            },
        )??;
        engine.state.fit.epoch.scheduler_steps_mut().completed();
        Ok(())
    }
}

impl TrainerState {
    pub(super) fn epoch_is_done(&self) -> bool {
        self.config.max_steps.is_reached_by(self.global_step())
            || self.is_last_batch()
            || self.should_stop() && self.can_stop_early()
    }

    /// Advances the x-axis of the loggers after the batch.
    fn close_batch(&mut self) {
        if !self.is_accumulating() {
            self.fit.epoch.count_window();
        }
    }

    /// Whether an epoch that ends without a last batch ends with a validation, as it would have otherwise.
    fn validation_is_due_at_end(&self) -> bool {
        let every = self.config.check_val_every_n_epoch;
        let counts_in_epochs = every.is_some_and(|n| (self.current_epoch() + 1).is_multiple_of(n));
        let is_by_time = matches!(self.config.val_check_interval, ValCheckInterval::Time(_));
        self.enable_validation() && counts_in_epochs && !is_by_time
    }

    fn write_step_metrics(&mut self) -> Result<(), Error> {
        if !self.step_metrics_are_due() {
            return Ok(());
        }
        self.metrics.reduce_step_over_ranks(self.fabric.strategy())?;
        let (x, epoch) = (self.fit.epoch.batches_that_stepped(), self.current_epoch());
        self.write_metrics(true, x as i64, Some(epoch))
    }

    fn step_metrics_are_due(&self) -> bool {
        let is_time = || self.should_update_logs() || self.config.fast_dev_run > 0;
        !self.is_accumulating() && !self.fabric.loggers.is_empty() && is_time()
    }

    /// Writes the current values to every logger.
    pub(super) fn write_metrics(&mut self, on_step: bool, x: i64, epoch: Option<u64>) -> Result<(), Error> {
        self.profiled(
            |_| "log_metrics".to_owned(),
            |state| state.metrics.write(&mut state.fabric.loggers, on_step, x, epoch),
        )
    }

    fn write_epoch_metrics(&mut self) -> Result<(), Error> {
        let x = self.fit.epoch.batches_that_stepped() as i64 - 1;
        let epoch = self.current_epoch();
        self.write_metrics(false, x, Some(epoch))?;
        self.metrics.train.reset()
    }

    /// Before a checkpoint: what this batch or epoch logged. It is over in the checkpoint, so a run that resumes from
    /// there does not write it.
    pub(crate) fn write_metrics_ahead(&mut self) -> Result<(), Error> {
        let (stepped, epoch) = (self.fit.epoch.batches_that_stepped() as i64, Some(self.current_epoch()));
        let (on_step, x) = match self.caller.hook() {
            Hook::OnTrainBatchEnd if self.step_metrics_are_due() => (true, stepped),
            Hook::OnTrainEpochEnd => (false, stepped - 1),
            _ => return Ok(()),
        };
        if on_step {
            self.metrics.reduce_step_over_ranks(self.fabric.strategy())?;
        }
        self.metrics.write_early(&mut self.fabric.loggers, on_step, x, epoch)
    }

    /// The same, before the checkpoint that a callback may ask for when an error ends the run: in that, too, the batch or
    /// epoch whose last hook failed is over.
    pub(crate) fn write_metrics_before_error(&mut self, error: &Error) -> Result<(), Error> {
        let batches = self.fit.epoch.batches().current;
        let is_open = match self.caller.hook() {
            Hook::OnTrainBatchEnd => batches.processed > batches.completed,
            hook => hook == Hook::OnTrainEpochEnd,
        };
        // With several processes nothing is saved then, and one alone reduces nothing.
        if !is_open || self.is_distributed() || matches!(error, Error::Logger(_)) {
            return Ok(());
        }
        self.write_metrics_ahead()
    }

    /// Warns if training waits for data, once enough batches were measured.
    fn report_data_wait(&mut self, epoch_is_over: bool) {
        let device = self.device();
        if let Some(warning) = self.diagnostics.report_data_wait(device, epoch_is_over) {
            self.warn(&warning);
        }
    }

    fn scheduler_is_due(&self, index: usize, interval: Interval, on_plateau: bool) -> bool {
        let config = &self.lr_schedulers()[index];
        let (count, advanced) = match interval {
            Interval::Step => self.fit.epoch.optimization.steps_of_optimizer(config.optimizer),
            Interval::Epoch => (self.current_epoch() + 1, true),
        };
        config.interval == interval
            && config.scheduler.needs_metric() == on_plateau
            && advanced
            && count.is_multiple_of(config.frequency.max(1))
    }

    /// The metric of a plateau scheduler; outer `None` if it must not step now.
    fn plateau_metric(&mut self, index: usize) -> Result<Option<Option<f64>>, Error> {
        let config = &self.lr_schedulers()[index];
        if !config.scheduler.needs_metric() {
            return Ok(Some(None));
        }
        let (who, strict) = (config.scheduler.name().to_owned(), config.strict);
        let Some(monitor) = config.monitor.clone() else {
            return Err(Error::Config(format!(
                "{who} needs a value to monitor; name one with `LrSchedulerConfig::monitor(\"val_loss\")`"
            )));
        };
        let metrics = self.metrics.callback_metrics()?;
        if let Some(value) = metrics.get(&monitor).map(|value| value.to_f64()) {
            return Ok(Some(Some(self.broadcast_number(value)?)));
        }
        let available = metrics.keys().cloned().collect();
        let without_validation = self.validated_nothing();
        let missing = Error::MissingMonitor { who, monitor, available, without_validation };
        if strict {
            return Err(missing);
        }
        self.warn(&format!("{missing} (strict is off, so the scheduler waits)"));
        Ok(None)
    }
}
