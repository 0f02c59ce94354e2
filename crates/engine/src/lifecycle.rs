//! Set-up before and teardown after every entry point.

use std::path::PathBuf;

use fulgurite_fabric::loggers::RunStatus;
use fulgurite_torch::tch::Cuda;
use fulgurite_torch::{catch_panic, grad, params};

use crate::callback::{Callback, DefaultCallback};
use crate::config::{Deterministic, Maximum};
use crate::engine::Engine;
use crate::error::Error;
use crate::hook::Hook;
use crate::loops::{Run, SafePoint};
use crate::module::LightningModule;
use crate::module_view::ModuleView;
use crate::outcome::status_of;
use crate::profilers::ProfiledRun;
use crate::record::Activity;
use crate::scope::Scope;
use crate::stage::TrainerFn;
use crate::state::{Owner, Position, TrainerState};

impl Engine {
    /// Resets the state at the start of an entry point; values that the last one logged are dropped.
    pub(crate) fn prepare(&mut self, entry: TrainerFn) -> Result<(), Error> {
        let state = &mut self.state;
        state.position = Position::at_start_of(entry);
        state.evaluation_mut().expect_step();
        state.saves.begin();
        state.shutdown.begin();
        state.begin_requests();
        state.tune_requests.clear();
        state.metrics.clear();
        if entry == TrainerFn::Fit {
            let max_epochs = self.epoch_limit();
            self.state.fit.restart(max_epochs);
            self.state.training_data = Default::default();
        }
        Ok(())
    }

    /// The epoch limit of a fit. Lightning's default applies if nothing else limits the run.
    fn epoch_limit(&self) -> Maximum {
        let config = &self.state.config;
        let is_unlimited = config.max_epochs.is_none()
            && config.max_steps == Maximum::Unlimited
            && !self.callbacks.iter().any(|callback| callback.stands_for() == Some(DefaultCallback::Timer));
        if is_unlimited {
            self.state.warn("neither max_epochs, max_steps nor max_time is set: training for 1000 epochs; for no limit set max_epochs to `Maximum::Unlimited`, or -1 in files");
            return Maximum::Of(1000);
        }
        config.max_epochs.unwrap_or(Maximum::Unlimited)
    }

    /// Adds the module's callbacks, which replace those of the same class, and sorts all.
    fn merge_callbacks(&mut self, more: Vec<Box<dyn Callback>>) -> Result<(), Error> {
        let replaced = |old: &dyn Callback| more.iter().any(|new| new.identity() == old.identity());
        let names: Vec<String> =
            self.callbacks.iter().filter(|c| replaced(c.as_ref())).map(|c| c.state_key()).collect();
        let is_first = more.is_empty() || !std::mem::replace(&mut self.module_callbacks_merged, true);
        if !names.is_empty() && is_first {
            let names = names.join(", ");
            self.state.print(&format!("the module's `configure_callbacks` replaces the trainer's {names}"));
        }
        self.callbacks.retain(|old| !replaced(old.as_ref()));
        self.callbacks.extend(more);
        self.callbacks.sort_by_key(|callback| callback.checkpointer().is_some());
        for (index, callback) in self.callbacks.iter().enumerate() {
            let key = callback.state_key();
            let twin = self.callbacks[..index].iter().find(|other| other.state_key() == key);
            let state_of = |callback: &dyn Callback| self.state.state_of(index, callback);
            if let Some(twin) = twin
                && !(state_of(callback.as_ref())?.is_empty() && state_of(twin.as_ref())?.is_empty())
            {
                return Err(Error::Config(format!(
                    "two callbacks have the state key `{key}`, so a checkpoint could not distinguish them; give them different arguments, or implement `Callback::state_key`"
                )));
            }
        }
        Ok(())
    }
}

impl<M: LightningModule> Run<'_, '_, M> {
    /// Set-up: everything before the stage runs.
    pub(crate) fn begin(&mut self, ckpt_path: Option<PathBuf>) -> Result<(), Error> {
        let stage = self.state().entry_point();
        let is_fit = stage == TrainerFn::Fit;
        let callbacks = self.module_hook(Hook::ConfigureCallbacks, |m, _| m.configure_callbacks())?;
        self.engine.merge_callbacks(callbacks)?;
        self.shut_down_if_requested(SafePoint::Beginning)?;
        self.state().set_determinism()?;
        self.prepare_data()?;
        self.state().settle_requests()?;
        self.shut_down_if_requested(SafePoint::Beginning)?;
        self.data_hook(Hook::Setup, |data, t| data.setup(t, stage))?;
        self.hook(Hook::Setup, |c, t, m| c.setup(t, m, stage), |m, t| m.setup(t, stage))?;
        let init_context = self.engine.state.fabric.model_init_context()?;
        self.module_hook(Hook::ConfigureModel, |m, t| m.configure_model(t))?;
        drop(init_context);
        params::check_names(self.module.vars()).map_err(Error::Torch)?;
        let checkpoint = ckpt_path.map(|path| self.restore_weights(&path).map(|restored| (path, restored)));
        let checkpoint = checkpoint.transpose()?;
        self.engine.state.fabric.setup_module(self.module.vars())?;
        self.engine.state.seed_rank()?;
        if is_fit {
            self.engine.state.fabric.setup_training(self.module.vars())?;
            let may_validate = self.may_validate();
            self.state().fit.epoch.validation.set_enabled(may_validate);
            self.configure_optimizers()?;
            self.hook(Hook::OnFitStart, |c, t, m| c.on_fit_start(t, m), |m, t| m.on_fit_start(t))?;
        }
        self.log_hyperparams()?;
        if is_fit {
            self.state().open_record();
        }
        self.engine.state.zero_grad()?;
        if is_fit && let Some((path, (checkpoint, missing))) = checkpoint {
            self.restore_training(&path, &checkpoint, &missing)?;
            self.engine.state.print(&format!("resumed from {}", path.display()));
        }
        self.state().settle_requests()?;
        self.shut_down_if_requested(SafePoint::Beginning)?;
        self.serve_tuning()
    }

    /// Once on each machine: the first process prepares, and the others wait for it.
    fn prepare_data(&mut self) -> Result<(), Error> {
        let state = &self.engine.state;
        if state.fabric.local_rank() == 0 {
            self.data_hook(Hook::PrepareData, |data, t| data.prepare_data(t))?;
            self.module_hook(Hook::PrepareData, |m, t| m.prepare_data(t))?;
        }
        Ok(self.engine.state.fabric.strategy().barrier("prepare_data")?)
    }

    /// Teardown: everything after the stage, also after an error. Its own error is returned only if there was none
    /// before.
    pub(crate) fn end<T>(&mut self, outcome: Result<T, Error>) -> Result<T, Error> {
        self.state().spend_on(Activity::Teardown);
        let ended = self.run_teardown(outcome.as_ref().err(), status_of(&outcome));
        match (outcome, ended) {
            (Ok(_), Err(error)) => Err(error),
            (Err(error), Err(later)) => {
                self.engine.state.warn(&format!("teardown failed too: {later}"));
                Err(error)
            }
            (outcome, Ok(())) => outcome,
        }
    }

    /// Every step is taken, even if an earlier one failed or panicked; the first error is returned.
    fn run_teardown(&mut self, error: Option<&Error>, status: RunStatus) -> Result<(), Error> {
        let stage = self.state().entry_point();
        let is_fit = stage == TrainerFn::Fit;
        let mut results = Vec::new();
        // It is not reset by a step that panicked.
        self.state().fit.epoch.optimization.untoggle();
        if let Some(error) = error.filter(|error| error.signal().is_none()) {
            // The other processes may not have failed, and may be waiting for this one elsewhere.
            self.engine.state.fabric.abandon();
            results.push(self.attempt(&mut |run| run.state().write_metrics_before_error(error)));
            // Callbacks save what is unsaved, so they need the error.
            results.push(self.attempt(&mut Self::wait_for_saves));
            self.on_every_callback(Hook::OnException, &mut results, |c, t, m| c.on_exception(t, m, error));
            results
                .push(self.attempt(&mut |run| run.data_hook(Hook::OnException, |data, t| data.on_exception(t, error))));
        }
        results.push(self.attempt(&mut Self::wait_for_saves));
        // Callbacks can still read the last values of steps.
        results.push(self.attempt(&mut |run| run.engine.state.metrics.refresh()));
        self.state().metrics.end_batches();
        self.engine.state.fabric.end_training();
        results.push(self.attempt(&mut |run| Ok(run.engine.state.fabric.teardown()?)));
        if is_fit && error.is_none() {
            results.push(
                self.attempt(&mut |run| run.hook(Hook::OnFitEnd, |c, t, m| c.on_fit_end(t, m), |m, t| m.on_fit_end(t))),
            );
        }
        results.push(self.attempt(&mut |run| run.data_hook(Hook::Teardown, |data, t| data.teardown(t, stage))));
        self.on_every_callback(Hook::Teardown, &mut results, |c, t, m| c.teardown(t, m, stage));
        results.push(self.attempt(&mut |run| run.module_hook(Hook::Teardown, |m, t| m.teardown(t, stage))));
        results.push(self.attempt(&mut Self::wait_for_saves));
        let status = match status {
            RunStatus::Success if results.iter().any(Result::is_err) => RunStatus::Failed,
            status => status,
        };
        for index in 0..self.engine.state.fabric.loggers.len() {
            results.push(self.attempt(&mut |run| Ok(run.engine.state.fabric.loggers[index].finalize(status)?)));
        }
        self.state().warn_for_loggers();
        results.push(self.attempt(&mut |run| run.state().report_profile()));
        results.push(self.attempt(&mut |run| run.state().profiling.teardown()));
        results.into_iter().collect()
    }

    fn attempt(&mut self, step: &mut dyn FnMut(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        catch_panic(|| step(self)).unwrap_or_else(|message| Err(self.panic_error(message)))
    }

    /// Calls a hook on every callback, even if another one fails, and writes the checkpoints that they requested.
    fn on_every_callback(
        &mut self,
        hook: Hook,
        results: &mut Vec<Result<(), Error>>,
        mut call: impl FnMut(&mut dyn Callback, &mut TrainerState, &mut dyn ModuleView) -> crate::error::Result<()>,
    ) {
        for index in 0..self.engine.callbacks.len() {
            results.push(self.attempt(&mut |run| run.engine.on_callback(index, hook, run.module, &mut call)));
        }
        results.push(self.attempt(&mut Self::serve_save_requests));
    }

    fn log_hyperparams(&mut self) -> Result<(), Error> {
        if !self.engine.state.config.enable_autolog_hparams {
            return Ok(());
        }
        let mut hparams = self.engine.state.hparams_of(self.module)?;
        for (name, value) in self.engine.state.hparams_of_data(&self.data)? {
            let Some(name) = name.as_str().map(str::to_owned) else { continue };
            if hparams.get(&name).is_some_and(|held| *held != value) {
                return Err(Error::Config(format!(
                    "hyper-parameter `{name}` has one value in the module and another in the data module; rename one of them"
                )));
            }
            hparams.set(name, value);
        }
        for logger in &mut self.engine.state.fabric.loggers {
            if !hparams.is_empty() || self.engine.state.position.is_fit() {
                logger.log_hyperparams(&hparams)?;
            }
            logger.save()?;
        }
        Ok(())
    }

    pub(crate) fn panic_error(&self, message: String) -> Error {
        self.engine.panic_error(LightningModule::name(self.module), message)
    }
}

impl Engine {
    /// The error for a panic outside of user hooks.
    pub(crate) fn panic_error(&self, module: &str, message: String) -> Error {
        let owner = match self.state.caller.owner() {
            Owner::Callback(index) => self.callbacks.get(index).map(|callback| callback.state_key()),
            Owner::Module => Some(module.to_owned()),
            Owner::DataModule => Some("LightningDataModule".to_owned()),
            Owner::Trainer => Some("Trainer".to_owned()),
        };
        self.state.panic_error(self.state.caller.hook(), owner.unwrap_or_default(), message)
    }
}

impl TrainerState {
    /// Describes the run to the profiler.
    pub(crate) fn start_profiler(&mut self) -> Result<(), Error> {
        if !self.profiling.is_on() {
            return Ok(());
        }
        let ranks = self.fabric.ranks();
        let rank = (ranks.world_size > 1).then_some(ranks.local);
        let (entry_point, log_dir, device) = (self.entry_point(), self.log_dir(), self.device());
        self.profiling.setup(&ProfiledRun { entry_point, log_dir, rank, device })
    }

    /// End of an entry point, also after an error: the profiler's report is written to its file, or to the console.
    fn report_profile(&mut self) -> Result<(), Error> {
        if let Some(report) = self.profiling.report()? {
            self.print(&report);
        }
        Ok(())
    }

    fn set_determinism(&self) -> Result<(), Error> {
        grad::set_deterministic_algorithms(match self.config.deterministic {
            Deterministic::False => grad::Deterministic::False,
            Deterministic::Warn => grad::Deterministic::WarnOnly,
            Deterministic::True => grad::Deterministic::True,
        })?;
        let is_deterministic = self.config.deterministic != Deterministic::False;
        if let Some(benchmark) = self.config.benchmark.or(is_deterministic.then_some(false)) {
            Cuda::cudnn_set_benchmark(benchmark);
        }
        Ok(())
    }
}
