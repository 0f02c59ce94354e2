//! The fit loop.

use fulgurite_optim::Interval;
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::Tensor;

use super::optimization::torch;
use super::{Run, SafePoint};
use crate::config::Maximum;
use crate::diagnostics::{Diagnostics, Place};
use crate::error::Error;
use crate::hook::Hook;
use crate::logging::Metrics;
use crate::module::LightningModule;
use crate::progress::ResumePoint;
use crate::record::Activity;
use crate::scope::Scope;
use crate::stage::Stage;
use crate::state::TrainerState;

impl<M: LightningModule> Run<'_, '_, M> {
    /// Runs fit, from the sanity check to the end of training.
    pub(crate) fn fit(&mut self) -> Result<(), Error> {
        let is_resumed = self.state().resumed_from().is_some();
        if self.sanity_check_is_due(is_resumed) {
            self.sanity_check()?;
        }
        let resume = if is_resumed { Some(self.resume()?) } else { None };
        if let Some(resume) = &resume {
            self.state().continue_logging(resume)?;
        }
        self.setup_train_data()?;
        self.state().compare_with_saved_data(resume.as_ref());
        self.restore_loader(resume.as_ref())?;
        self.train(resume)
    }

    /// Training, between its two hooks.
    pub(crate) fn train(&mut self, mut resume: Option<ResumePoint>) -> Result<(), Error> {
        if self.state().has_nothing_to_train() || self.state().fit_is_done() {
            return Ok(());
        }
        self.setup_eval_data(Stage::Validate)?;
        self.engine.state.warn_of_eval_mode(self.module.vars());
        self.hook(Hook::OnTrainStart, |c, t, m| c.on_train_start(t, m), |m, t| m.on_train_start(t))?;
        self.engine.state.diagnostics = Diagnostics::start(self.module.vars());
        self.state().record_training();
        self.state().spend_on(Activity::Training);
        let mut at = SafePoint::Beginning;
        while !self.state().fit_is_done() {
            self.shut_down_if_requested(at)?;
            self.train_epoch(resume.take())?;
            at = SafePoint::Epochs;
        }
        self.state().report_dead_parameters(true);
        self.state().report_losses_at_end()?;
        // The last step is saved again if its checkpoint failed.
        self.wait_for_saves()?;
        self.hook(Hook::OnTrainEnd, |c, t, m| c.on_train_end(t, m), |m, t| m.on_train_end(t))?;
        self.wait_for_saves()?;
        self.state().renew_cut()
    }

    /// Resumes at the position of a checkpoint. One of the end of an epoch is written before plateau schedulers step
    /// and the epoch's values are dropped, so this is done here.
    fn resume(&mut self) -> Result<ResumePoint, Error> {
        let epochs = self.state().fit.epochs().current;
        if epochs.processed > epochs.completed && self.state().is_last_batch() {
            self.make_up_plateau_steps(Interval::Epoch)?;
        }
        self.state().go_on_where_counters_say()
    }

    /// In the middle of an epoch, or of a number of steps, a run continues without a sanity check.
    fn sanity_check_is_due(&mut self, is_resumed: bool) -> bool {
        let state = self.state();
        let is_wanted = state.config.num_sanity_val_steps != Maximum::Of(0) && state.enable_validation();
        let is_between_epochs = state.config.max_steps == Maximum::Unlimited && !state.fit.progress().epoch_is_open();
        is_wanted && (!is_resumed || is_between_epochs)
    }

    /// Runs a few validation batches before training, to find bugs early. All effects are discarded.
    fn sanity_check(&mut self) -> Result<(), Error> {
        // Whether the module has validation loaders beside a training loader that was given is known once they are
        // requested.
        if self.data.is_handed_over(false) && !self.data.is_handed_over(true) {
            self.setup_eval_data(Stage::SanityCheck)?;
            if !self.state().enable_validation() {
                return Ok(());
            }
        }
        let state = self.state();
        let before = state.snapshot()?;
        let metrics = Metrics::new(state.config.barebones, !state.is_global_zero());
        let metrics = std::mem::replace(&mut state.metrics, metrics);
        // After an error the stage stays the sanity check, so that callbacks save nothing.
        let stage = state.position.enter_stage(Stage::SanityCheck);
        self.callback_hook(Hook::OnSanityCheckStart, |c, t, m| c.on_sanity_check_start(t, m))?;
        self.setup_eval_data(Stage::SanityCheck)?;
        self.evaluate_or_shut_down(SafePoint::Beginning)?;
        self.callback_hook(Hook::OnSanityCheckEnd, |c, t, m| c.on_sanity_check_end(t, m))?;
        let state = self.state();
        state.position.enter_stage(stage);
        state.metrics = metrics;
        let loaders = state.evaluation().evaluated().to_vec();
        state.restore(&before)?;
        state.fit.epoch.validation.forget_run(loaders);
        Ok(())
    }
}

impl TrainerState {
    fn has_nothing_to_train(&self) -> bool {
        let nothing = self.config.limit_train_batches.is_zero() || self.num_training_batches() == Some(0);
        if nothing {
            self.print("`Trainer.fit` stopped: No training batches.");
        }
        nothing
    }

    /// The position at which restored counters resume.
    fn go_on_where_counters_say(&mut self) -> Result<ResumePoint, Error> {
        let mut progress = self.fit.progress();
        let resume = progress.resume();
        self.fit.set_progress(&progress);
        if resume.mid_epoch {
            // The epoch's values so far are needed at its end only.
            self.metrics.resume_in_batch();
        } else {
            self.metrics.train.reset()?;
        }
        Ok(resume)
    }

    /// The training loader of a resumed run: it is reloaded if that was due, and a position within an epoch of
    /// different data is not the position of the run.
    fn compare_with_saved_data(&mut self, resume: Option<&ResumePoint>) {
        // It may have been requested before a checkpoint determined the epoch.
        let epoch = self.current_epoch();
        self.training_data.set_epoch(epoch);
        let (Some(saved), Some(resume)) = (self.training_data.take_saved(), resume) else { return };
        if epoch.saturating_sub(saved.epoch) < self.config.reload_dataloaders_every_n_epochs {
            self.training_data.set_epoch(saved.epoch.min(epoch));
        }
        let now = self.training_data.to_save();
        let is_other = (saved.len, saved.batches) != (now.len, now.batches);
        if !resume.mid_epoch || self.is_last_batch() || !is_other {
            return;
        }
        self.warn(&format!(
            "the training data have changed: when the checkpoint was written after batch {done} of an epoch, there were {before}, and now there are {now}; the run resumes after as many batches of the new ones, which is not exactly where it was",
            done = resume.batches,
            before = saved.describe(),
            now = now.describe(),
        ));
    }

    /// Whether a limit of the run is reached, or a stop request can be honoured.
    pub(crate) fn fit_is_done(&self) -> bool {
        if let Some(max) = self.config.max_steps.finite().filter(|max| self.global_step() >= *max) {
            self.say(&format!("`Trainer.fit` stopped: `max_steps={max}` reached."));
            return true;
        }
        if let Some(max) = self.max_epochs().finite().filter(|max| self.fit.epochs().current.processed >= *max) {
            self.say(&format!("`Trainer.fit` stopped: `max_epochs={max}` reached."));
            return true;
        }
        self.should_stop() && self.can_stop_early()
    }

    /// Lightning says so too: a layer in evaluation mode is frozen, or was forgotten.
    fn warn_of_eval_mode(&self, vars: &dyn Parameters) {
        let named = vars.named_tensors();
        let in_eval_mode = named.modes().filter(|(name, mode)| !name.is_empty() && !mode.is_training());
        let names: Vec<&str> = in_eval_mode.map(|(name, _)| name).collect();
        if let Some(first) = names.first().filter(|_| !self.is_trial) {
            self.warn(&format!(
                "{} layer(s) are in evaluation mode at the start of training, such as `{first}`, and stay in it; if that is not meant, call `train(true)` of the `VarStore` before",
                names.len()
            ));
        }
    }

    fn say(&self, why: &str) {
        if !self.is_trial {
            self.print(why);
        }
    }

    /// Notes the loss of a backward pass. Trials of the tuner are meant to diverge.
    pub(super) fn note_loss(&mut self, loss: &Tensor) -> Result<(), Error> {
        if self.is_trial {
            return Ok(());
        }
        let batch_idx = self.batch_idx().unwrap_or_default();
        let place = Place { epoch: self.current_epoch(), batch_idx, global_step: self.global_step() };
        self.diagnostics.losses.note(loss, place).map_err(torch)
    }

    /// Warns of the first loss that is not finite, once a batch is over, or an epoch (`all`). A callback that ends the run for it
    /// has said so.
    pub(super) fn check_losses(&mut self, all: bool) -> Result<(), Error> {
        if !all {
            self.diagnostics.losses.end_batch(self.fit.epoch.optimization.step_skipped());
        }
        self.diagnostics.losses.read(all)?;
        let is_known = self.should_stop();
        match self.diagnostics.losses.report(is_known, |loss| self.metrics.train.name_of(loss)) {
            None => {}
            // The first may be that of another.
            Some(_) if self.requests.needs_consensus() => self.requests.note_lost_loss(),
            Some(lost) => self.warn(&lost.to_string()),
        }
        Ok(())
    }

    fn report_losses_at_end(&self) -> Result<(), Error> {
        let warning = match self.requests.needs_consensus() {
            true => self.first_lost_loss()?.map(|lost| lost.at_end()),
            false => self.diagnostics.losses.report_at_end(),
        };
        if let Some(warning) = warning {
            self.warn(&warning);
        }
        Ok(())
    }

    /// Reports parameters without gradient, once each optimizer was active or training is over.
    pub(super) fn report_dead_parameters(&mut self, training_is_over: bool) {
        if !training_is_over && self.global_step() < self.fit.epoch.optimization.cycle() {
            return;
        }
        let epoch = self.fit.epochs().current.processed.saturating_sub(1);
        if let Some(warning) = self.diagnostics.report_dead_parameters(epoch) {
            self.warn(&warning);
        }
    }
}
