//! The fit loop.

use fulgurite_optim::Interval;
use fulgurite_torch::rng::RngState;

use super::{Run, SafePoint};
use crate::error::Error;
use crate::hook::Hook;
use crate::logging::Metrics;
use crate::module::LightningModule;
use crate::progress::ResumePoint;
use crate::state::{Stage, TrainerState};

impl<M: LightningModule> Run<'_, '_, M> {
    /// Fit, from the sanity check to the end of training.
    pub(crate) fn fit(&mut self) -> Result<(), Error> {
        let state = &self.engine.state;
        let is_resumed = state.resumed_from.is_some();
        // In the middle of an epoch, or of a number of steps, a run goes on without it.
        if !is_resumed || state.config.max_steps < 0 && !state.run.progress.epoch_is_open() {
            self.sanity_check()?;
        }
        let resume = if is_resumed { Some(self.resume()?) } else { None };
        if let Some(resume) = &resume {
            self.engine.state.continue_logging(resume)?;
        }
        self.setup_train_data()?;
        // It may have been asked for before a checkpoint said which epoch this is.
        self.engine.state.train_data.epoch = self.engine.state.current_epoch();
        self.engine.state.compare_with_saved_data(resume.as_ref());
        self.train(resume)
    }

    /// Training, between its two hooks.
    pub(crate) fn train(&mut self, mut resume: Option<ResumePoint>) -> Result<(), Error> {
        if self.nothing_to_train() || self.engine.state.fit_is_done() {
            return Ok(());
        }
        self.setup_eval_data(Stage::Validate)?;
        self.hook(Hook::OnTrainStart, |c, t, m| c.on_train_start(t, m), |m, t| m.on_train_start(t))?;
        self.engine.state.look_for_mistakes(self.module.vars());
        let mut at = SafePoint::Beginning;
        while !self.engine.state.fit_is_done() {
            self.leave_if_asked(at)?;
            self.train_epoch(resume.take())?;
            at = SafePoint::Epochs;
        }
        self.engine.state.report_dead_parameters(true);
        // The last step is saved again if its checkpoint failed.
        self.wait_for_saves()?;
        self.hook(Hook::OnTrainEnd, |c, t, m| c.on_train_end(t, m), |m, t| m.on_train_end(t))?;
        self.wait_for_saves()?;
        self.engine.state.renew_cut()
    }

    /// Where a checkpoint says that training goes on. One of the end of an epoch is written before schedulers on a plateau
    /// step and the epoch's values are dropped, so that is made up for.
    fn resume(&mut self) -> Result<ResumePoint, Error> {
        let epoch = self.engine.state.run.progress.epoch.current;
        if epoch.processed > epoch.completed && self.engine.state.is_last_train_batch() {
            self.make_up_plateau_steps(Interval::Epoch)?;
        }
        let state = &mut self.engine.state;
        let resume = state.run.progress.resume();
        if resume.mid_epoch {
            // The epoch's values so far are nobody's business before its end.
            state.metrics.in_batch = true;
        } else {
            state.metrics.train.reset();
        }
        Ok(resume)
    }

    /// A few validation batches before training, to find mistakes early. Nothing of it is kept.
    fn sanity_check(&mut self) -> Result<(), Error> {
        let state = &mut self.engine.state;
        if state.config.num_sanity_val_steps == 0 || !state.has_validation {
            return Ok(());
        }
        let rng = RngState::capture()?;
        let metrics = Metrics::new(state.config.barebones, !state.is_global_zero());
        let metrics = std::mem::replace(&mut state.metrics, metrics);
        state.stage = Stage::SanityCheck;
        self.callback_hook(Hook::OnSanityCheckStart, |c, t, m| c.on_sanity_check_start(t, m))?;
        self.setup_eval_data(Stage::SanityCheck)?;
        self.evaluate_or_leave(SafePoint::Beginning)?;
        self.callback_hook(Hook::OnSanityCheckEnd, |c, t, m| c.on_sanity_check_end(t, m))?;
        let state = &mut self.engine.state;
        state.stage = Stage::Train;
        state.metrics = metrics;
        state.run.progress.val_batch = Default::default();
        state.validation_ran = false;
        rng.restore()?;
        Ok(())
    }

    fn nothing_to_train(&self) -> bool {
        let nothing =
            self.engine.state.config.limit_train_batches.is_zero() || self.engine.state.num_training_batches == Some(0);
        if nothing {
            self.engine.state.print("`Trainer.fit` stopped: No training batches.");
        }
        nothing
    }
}

impl TrainerState {
    /// The training loader of a run that goes on: it is asked for again when it would have been, and a place within an epoch of
    /// other data is not the place where the run was.
    fn compare_with_saved_data(&mut self, resume: Option<&ResumePoint>) {
        let (Some(saved), Some(resume)) = (self.train_data.saved.take(), resume) else { return };
        let epoch = self.current_epoch();
        if epoch.saturating_sub(saved.epoch) < self.config.reload_dataloaders_every_n_epochs {
            self.train_data.epoch = saved.epoch.min(epoch);
        }
        let now = self.train_data.to_save(self.num_training_batches);
        let is_other = (saved.len, saved.batches) != (now.len, now.batches);
        if !resume.mid_epoch || self.is_last_train_batch() || !is_other {
            return;
        }
        self.warn(&format!(
            "the training data have changed: when the checkpoint was written after batch {done} of an epoch, there were {before}, and now there are {now}; the run goes on after as many batches of the new ones, which is not exactly where it was",
            done = resume.batches,
            before = saved.describe(),
            now = now.describe(),
        ));
    }

    /// Whether a limit of the run is reached, or someone's wish to stop can be granted.
    pub(crate) fn fit_is_done(&self) -> bool {
        let reached = |count: u64, limit: i64| limit >= 0 && count >= limit.unsigned_abs();
        if reached(self.global_step(), self.config.max_steps) {
            self.say(&format!("`Trainer.fit` stopped: `max_steps={}` reached.", self.config.max_steps));
            return true;
        }
        if reached(self.run.progress.epoch.current.processed, self.max_epochs) {
            self.say(&format!("`Trainer.fit` stopped: `max_epochs={}` reached.", self.max_epochs));
            return true;
        }
        self.should_stop() && self.can_stop_early()
    }

    fn say(&self, why: &str) {
        if !self.quiet {
            self.print(why);
        }
    }

    /// Whether `min_epochs` and `min_steps` are met.
    pub(crate) fn can_stop_early(&self) -> bool {
        let min_epochs = self.config.min_epochs.unwrap_or(u64::from(self.config.min_steps.is_some()));
        let met = self.run.progress.epoch.current.processed >= min_epochs
            && self.config.min_steps.is_none_or(|min| self.global_step() >= min);
        if !met && self.should_stop() {
            let min_steps = self.config.min_steps.map_or("none".to_owned(), |n| n.to_string());
            self.warn(&format!(
                "the run was asked to stop before min_epochs={min_epochs} and min_steps={min_steps} were met; training goes on until they are"
            ));
        }
        met
    }
}
