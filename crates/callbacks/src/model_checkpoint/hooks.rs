//! The hooks of `ModelCheckpoint`: when checkpoints are written.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fulgurite_engine::config::{Maximum, ValCheckInterval};
use fulgurite_engine::{Callback, Checkpointer, Error, Loss, ModuleView, Result, TrainerFn, TrainerState};
use fulgurite_fabric::Commit;
use fulgurite_torch::Dict;

use super::loaded::Loaded;
use super::naming::Template;
use super::paths::absolute;
use super::{INTERRUPTED, ModelCheckpoint, SaveLast};

const NO_VALIDATION: &str = "it saves at the end of validation, and this run does not validate; leave save_on_train_epoch_end out, or give a validation loader with data";

impl Checkpointer for ModelCheckpoint {
    fn best_model_path(&self) -> Option<&Path> {
        ModelCheckpoint::best_model_path(self)
    }

    fn last_checkpoints(&self, trainer: &mut TrainerState) -> Vec<PathBuf> {
        let folder = self.dirpath.clone().unwrap_or_else(|| default_checkpoint_dir(trainer));
        self.find_last(trainer, &folder)
    }

    fn interrupted_checkpoint(&self) -> Option<PathBuf> {
        Some(self.checkpoint_dir()?.join(INTERRUPTED))
    }

    fn names_checkpoint(&self, path: &Path) -> bool {
        self.has_extension(path)
    }

    fn checkpoint_depth(&self) -> usize {
        self.depth_of_names()
    }
}

impl Callback for ModelCheckpoint {
    fn checkpointer(&self) -> Option<&dyn Checkpointer> {
        Some(self)
    }

    fn state_key(&self) -> String {
        self.lightning_state_key()
    }

    fn state_dict(&self) -> Result<Dict> {
        Ok(self.lightning_state())
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        self.before_loading.load(|| self.ledger.clone());
        self.load_lightning_state(state)
    }

    fn on_load_checkpoint(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        checkpoint: &mut Dict,
    ) -> Result<()> {
        self.loaded = trainer.loaded_from().map(|path| Loaded::new(path, checkpoint));
        Ok(())
    }

    fn setup(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        self.check_options()?;
        if let Some(before) = self.before_loading.setup(stage) {
            self.ledger = before;
            (self.is_restored, self.loaded, self.resumed_dirpath) = (false, None, None);
        }
        let folder = self.dirpath.get_or_insert_with(|| default_checkpoint_dir(trainer));
        let may_save = stage == TrainerFn::Fit && !self.options.keeps_none() && trainer.config().fast_dev_run == 0;
        if may_save && trainer.checkpoint_io().list(folder).is_ok_and(|files| !files.is_empty()) {
            trainer.warn(&format!("the checkpoint folder {} exists and is not empty", folder.display()));
        }
        Ok(())
    }

    fn teardown(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView, _: TrainerFn) -> Result<()> {
        self.before_loading.teardown();
        Ok(())
    }

    fn on_fit_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.before_loading.fit_starts();
        if let (Some(before), Some(now)) = (self.resumed_dirpath.take(), &self.dirpath) {
            trainer.warn(&format!(
                "the run resumed from kept its checkpoints in {} and this one keeps them in {}, so the ranking starts anew: of the saved state only best_model_path was taken over",
                before.display(),
                now.display()
            ));
        }
        if std::mem::take(&mut self.is_restored) {
            self.take_over(trainer)?;
        }
        Ok(())
    }

    fn on_train_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.last_time_checked = Some(Instant::now());
        self.deferred = false;
        if let Some(why) = self.why_nothing_will_be_saved(trainer) {
            trainer.warn(&format!("ModelCheckpoint will save nothing in this run, because {why}"));
        }
        Ok(())
    }

    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &Loss,
        _: &dyn Any,
        _: usize,
    ) -> Result<()> {
        let n = self.every_n_train_steps_or_never();
        let is_step = n > 0 && trainer.global_step().is_multiple_of(n);
        if !is_step && self.options.train_time_interval.is_none()
            || trainer.is_accumulating()
            || self.must_not_save(trainer)
        {
            return Ok(());
        }
        if !is_step && !self.time_has_come(trainer)? {
            return Ok(());
        }
        if self.must_wait_for_monitor(trainer)? {
            self.deferred = true;
            return Ok(());
        }
        self.save_now(trainer)
    }

    fn on_validation_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if self.must_not_save(trainer) {
            return Ok(());
        }
        if self.deferred {
            self.save_now(trainer)
        } else if !self.saves_on_train_epoch_end(trainer) {
            self.save_epoch(trainer)
        } else {
            Ok(())
        }
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if self.must_not_save(trainer) {
            return Ok(());
        }
        if self.deferred && self.monitored_is_there(trainer)? {
            self.save_now(trainer)
        } else if self.saves_on_train_epoch_end(trainer) {
            self.save_epoch(trainer)
        } else {
            Ok(())
        }
    }

    fn on_train_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if trainer.config().fast_dev_run > 0 {
            return Ok(());
        }
        let saves_latest = self.has_default_trigger()
            && self.options.monitor.is_none()
            && !self.options.keeps_none()
            && self.options.save_on_train_epoch_end.is_none();
        let is_saved = trainer.global_step() == self.kept().last_step_saved;
        if !is_saved && (self.deferred || saves_latest) {
            return self.save_now(trainer);
        }
        let last_is_old = match self.options.save_last {
            Some(SaveLast::Copy) => !is_saved || self.kept().last_checkpoint_saved.is_none(),
            Some(SaveLast::Link) => self.kept().last_checkpoint_saved.is_none(),
            None => false,
        };
        if last_is_old {
            let candidate = self.candidate(trainer)?;
            let plan = self.with_last(trainer, &candidate, None)?;
            self.submit(trainer, plan);
        }
        if let Some(why) = self.why_nothing_was_saved(trainer) {
            trainer.warn(&format!("ModelCheckpoint saved nothing in this run, because {why}"));
        }
        Ok(())
    }

    fn on_exception(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView, error: &Error) -> Result<()> {
        if !self.options.save_on_exception || self.must_not_save(trainer) || !trainer.can_save_after(error) {
            return Ok(());
        }
        let candidate = self.candidate(trainer)?;
        let plan = self.save_anyway(trainer, &candidate)?;
        trainer.print(&format!("an error ends the run, so it is saved to {}: {error}", plan.request.path.display()));
        let plan = self.with_last(trainer, &candidate, Some(plan))?;
        self.submit(trainer, plan);
        Ok(())
    }

    fn on_checkpoint_failed(
        &mut self,
        _: &mut TrainerState,
        _: &mut dyn ModuleView,
        commit: &Commit,
        error: &Error,
    ) -> Result<()> {
        self.ledger.take_back(commit, error);
        Ok(())
    }
}

impl ModelCheckpoint {
    /// A save of a step or time trigger: `last` is written even if the checkpoint is not among the best.
    fn save_now(&mut self, trainer: &mut TrainerState) -> Result<()> {
        self.deferred = false;
        let candidate = self.candidate(trainer)?;
        let plan = self.save_if_top_k(trainer, &candidate)?;
        let plan = self.with_last(trainer, &candidate, plan)?;
        self.submit(trainer, plan);
        Ok(())
    }

    /// A save of the epoch trigger: `last` is written only with a checkpoint that is among the best.
    fn save_epoch(&mut self, trainer: &mut TrainerState) -> Result<()> {
        let n = self.every_n_epochs_or_never();
        if n == 0 || !(trainer.current_epoch() + 1).is_multiple_of(n) {
            return Ok(());
        }
        let candidate = self.candidate(trainer)?;
        if let Some(plan) = self.save_if_top_k(trainer, &candidate)? {
            let plan = self.with_last(trainer, &candidate, Some(plan))?;
            self.submit(trainer, plan);
        }
        Ok(())
    }

    /// Whether to skip the save: outside fit, in a dry run, or if this step is already saved.
    fn must_not_save(&self, trainer: &TrainerState) -> bool {
        trainer.config().fast_dev_run > 0
            || trainer.entry_point() != TrainerFn::Fit
            || trainer.is_sanity_checking()
            || trainer.global_step() == self.kept().last_step_saved
    }

    fn time_has_come(&mut self, trainer: &TrainerState) -> Result<bool, Error> {
        let Some(interval) = self.options.train_time_interval else { return Ok(false) };
        let has_come = self.last_time_checked.is_some_and(|last| last.elapsed() >= interval);
        let has_come = trainer.broadcast_decision(has_come)?;
        if has_come {
            self.last_time_checked = Some(Instant::now());
        }
        Ok(has_come)
    }

    /// Whether the monitored value is missing, or a validation is about to update it.
    fn must_wait_for_monitor(&self, trainer: &mut TrainerState) -> Result<bool, Error> {
        let renewed = self.options.save_on_train_epoch_end != Some(true) && trainer.validation_is_due();
        Ok(self.options.monitor.is_some() && (renewed || !self.monitored_is_there(trainer)?))
    }

    fn monitored_is_there(&self, trainer: &mut TrainerState) -> Result<bool, Error> {
        let Some(monitor) = self.options.monitor.as_deref() else { return Ok(true) };
        Ok(matches!(monitor, "epoch" | "step") || trainer.callback_metrics()?.contains_key(monitor))
    }

    fn saves_on_train_epoch_end(&self, trainer: &TrainerState) -> bool {
        let config = trainer.config();
        let by_schedule = || match config.val_check_interval {
            // Lightning would wait for a validation that never runs.
            _ if !trainer.validates() => true,
            ValCheckInterval::Time(_) => false,
            interval => config.check_val_every_n_epoch == Some(1) && interval == ValCheckInterval::Fraction(1.0),
        };
        self.options.save_on_train_epoch_end.unwrap_or_else(by_schedule)
    }

    /// Why no trigger can fire, as far as that is known before training.
    fn why_nothing_will_be_saved(&self, trainer: &TrainerState) -> Option<String> {
        let (n_steps, n_epochs) = (self.every_n_train_steps_or_never(), self.every_n_epochs_or_never());
        if self.is_meant_to_save_nothing(trainer) || self.options.save_last.is_some() {
            return None;
        }
        let comes = |n: u64, from: u64, to: u64| to / n > from / n;
        if n_steps > 0 {
            // With manual optimization a batch may take several steps.
            let steps = trainer
                .stepping_batches()
                .filter(|_| trainer.automatic_optimization())
                .filter(|to| !comes(n_steps, trainer.global_step(), *to))?;
            return Some(format!("every_n_train_steps={n_steps} does not occur in a run of {steps} steps; lower it"));
        }
        if n_epochs == 0 {
            return None;
        }
        let epochs = trainer.max_epochs().finite().filter(|to| !comes(n_epochs, trainer.current_epoch(), *to));
        if let Some(epochs) = epochs.filter(|_| !self.has_default_trigger()) {
            return Some(format!("every_n_epochs={n_epochs} does not occur in a run of {epochs} epochs; lower it"));
        }
        let waits = !self.saves_on_train_epoch_end(trainer) && !trainer.validates();
        waits.then(|| NO_VALIDATION.into())
    }

    /// Why no trigger fired, as far as that is known at the end.
    fn why_nothing_was_saved(&self, trainer: &TrainerState) -> Option<String> {
        let has_saved = self.kept().last_checkpoint_saved.is_some();
        if has_saved || self.is_meant_to_save_nothing(trainer) || trainer.global_step() == 0 {
            return None;
        }
        if let Some(interval) = self.options.train_time_interval {
            return Some(format!("it ended before train_time_interval={interval:?} was over; make that shorter"));
        }
        let waits = self.every_n_epochs_or_never() > 0 && !self.saves_on_train_epoch_end(trainer);
        (waits && trainer.validates() && !trainer.has_validated()).then(|| {
            "it saves at the end of validation, and none ran; validate more often, or set save_on_train_epoch_end(true)"
                .into()
        })
    }

    fn is_meant_to_save_nothing(&self, trainer: &TrainerState) -> bool {
        trainer.config().fast_dev_run > 0 || self.options.keeps_none()
    }

    /// Validates the options, each alone and in combination.
    fn check_options(&self) -> Result<(), Error> {
        if self.options.monitor.is_none()
            && let Maximum::Of(k @ 2..) = self.options.save_top_k
        {
            return Err(Error::Config(format!(
                "ModelCheckpoint::save_top_k({k}) ranks checkpoints, and there is nothing to rank them by; name a value with `ModelCheckpoint::monitor(\"val_loss\")`, or keep 0, 1 or all (`Maximum::Unlimited`, -1 in files)"
            )));
        }
        let triggers = [
            ("every_n_train_steps", self.options.every_n_train_steps.is_some_and(|n| n > 0)),
            ("train_time_interval", self.options.train_time_interval.is_some()),
            ("every_n_epochs", self.options.every_n_epochs.is_some_and(|n| n > 0)),
        ];
        let on: Vec<&str> = triggers.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        if on.len() > 1 {
            return Err(Error::Config(format!(
                "ModelCheckpoint was given {}, which exclude each other; use one callback for each",
                on.join(" and ")
            )));
        }
        Template::parse(&self.options.filename).map_err(Error::Config)?;
        Template::parse(&self.options.checkpoint_name_last).map_err(Error::Config)?;
        Ok(())
    }
}

/// The default checkpoint folder.
fn default_checkpoint_dir(trainer: &TrainerState) -> PathBuf {
    let root = trainer.default_root_dir();
    let run = match trainer.fabric().loggers.first() {
        None => root,
        Some(logger) => match logger.log_dir() {
            Some(folder) => folder.to_path_buf(),
            None => root.join(logger.name()).join(logger.version()),
        },
    };
    absolute(&run.join("checkpoints"))
}
