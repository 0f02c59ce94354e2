//! Trials: short runs after which the state is restored.

use std::mem;

use fulgurite_fabric::loggers::Logger;
use fulgurite_optim::LrSchedulerConfig;
use fulgurite_torch::params::SavedModes;
use fulgurite_torch::tch::no_grad;
use fulgurite_torch::{Dict, Value, catch_panic, params};

use crate::callback::Callback;
use crate::config::{Limit, Maximum, TrainerConfig};
use crate::data_module::Source;
use crate::error::Error;
use crate::hook::Hook;
use crate::logging::Metrics;
use crate::loops::Run;
use crate::module::LightningModule;
use crate::scope::Scope;
use crate::stage::{Stage, TrainerFn};
use crate::state::{Position, Snapshot};
use crate::tuner::{BatchSizeFinderOptions, Reply, TuneRequest};

/// The state that trials change and that is restored afterwards.
pub(super) struct Before {
    weights: Dict,
    modes: SavedModes,
    /// What the module adds to a checkpoint, for its own state.
    module: Dict,
    optimizers: Vec<Dict>,
    precision: Dict,
    schedulers: Vec<LrSchedulerConfig>,
    run: Snapshot,
    config: TrainerConfig,
    max_epochs: Maximum,
    validates: bool,
    callbacks: Vec<Box<dyn Callback>>,
    loggers: Vec<Box<dyn Logger>>,
    /// The logged values, including those of the run that was resumed.
    metrics: Metrics,
}

impl<M: LightningModule> Run<'_, '_, M> {
    /// Keeps what trials change, and leaves callbacks, loggers and schedulers out of them.
    fn set_aside(&mut self) -> Result<Before, Error> {
        let copy = |state: &Dict| state.map_tensors(&mut |tensor| tensor.detach().copy());
        let mut module = Dict::new();
        self.module_hook(Hook::OnSaveCheckpoint, |m, t| m.on_save_checkpoint(t, &mut module))?;
        let weights = no_grad(|| params::state_dict(self.module.vars()).map(|weights| copy(&weights)))?;
        let state = &mut self.engine.state;
        let run = state.snapshot()?;
        let trial_metrics = Metrics::new(state.config.barebones, !state.is_global_zero());
        let before = Before {
            weights,
            modes: params::modes(self.module.vars()),
            module: copy(&module),
            optimizers: state.optimizers().map(|o| Ok(copy(&o.state_dict()?))).collect::<Result<_, Error>>()?,
            precision: state.fabric.precision().state_dict()?,
            schedulers: state.fit.epoch.optimization.replace_schedulers(Vec::new()),
            run,
            config: state.config.clone(),
            max_epochs: state.max_epochs(),
            validates: state.evaluation().is_enabled(),
            callbacks: mem::take(&mut self.engine.callbacks),
            loggers: mem::take(&mut state.fabric.loggers),
            metrics: mem::replace(&mut state.metrics, trial_metrics),
        };
        state.is_trial = true;
        Ok(before)
    }

    /// Restores the model, optimizers, random number generators and counters, as after every trial. What the module or an
    /// optimizer refuses does not keep the rest from it.
    pub(super) fn rewind(&mut self, before: &Before) -> Result<(), Error> {
        let rewound = self.catching(|run| run.rewind_model(before));
        let state = &mut self.engine.state;
        drop(state.requests.take_stop());
        state.position = Position::at_start_of(state.entry_point());
        state.metrics.clear();
        state.restore(&before.run)?;
        rewound
    }

    fn rewind_model(&mut self, before: &Before) -> Result<(), Error> {
        before.modes.restore();
        no_grad(|| params::load_state_dict(self.module.vars(), &before.weights, true))?;
        let mut module = before.module.clone();
        self.module_hook(Hook::OnLoadCheckpoint, |m, t| m.on_load_checkpoint(Some(t), &mut module))?;
        let state = &mut self.engine.state;
        // A step that panicked did not reset it.
        state.fit.epoch.optimization.untoggle();
        for (optimizer, saved) in state.optimizers().zip(&before.optimizers) {
            optimizer.load_state_dict(saved)?;
        }
        if !before.precision.is_empty() {
            state.fabric.precision_mut().load_state_dict(&before.precision)?;
        }
        state.zero_grad()
    }

    /// Runs trials, and puts everything back after the last of them, however they end.
    pub(super) fn with_trials<T>(
        &mut self,
        trials: impl FnOnce(&mut Self, &Before) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let before = self.set_aside()?;
        let tried = self.catching(|run| trials(run, &before));
        let rewound = self.rewind(&before);
        self.put_back(before);
        tried.and_then(|tried| rewound.map(|()| tried))
    }

    /// Runs `work`; a panic is an error.
    fn catching<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let done = catch_panic(|| work(self));
        done.unwrap_or_else(|message| Err(self.engine.panic_error(self.module.name(), message)))
    }

    /// Puts back what is not part of every trial's rewinding.
    fn put_back(&mut self, mut before: Before) {
        let state = &mut self.engine.state;
        drop(state.fit.epoch.optimization.replace_schedulers(mem::take(&mut before.schedulers)));
        state.config = before.config;
        state.set_max_epochs(before.max_epochs);
        state.evaluation_mut().set_enabled(before.validates);
        state.fabric.loggers = before.loggers;
        state.metrics = before.metrics;
        state.is_trial = false;
        self.engine.callbacks = before.callbacks;
    }

    /// Trains for some optimizer steps, or evaluates as many batches, depending on the entry point. A panic is an
    /// error.
    pub(super) fn trial(&mut self, steps: u64) -> Result<(), Error> {
        let state = &mut self.engine.state;
        let steps_from_here = state.global_step() + steps;
        state.config.max_steps = Maximum::Of(steps_from_here);
        state.set_max_epochs(Maximum::Unlimited);
        (state.config.min_epochs, state.config.min_steps) = (None, None);
        state.config.log_every_n_steps = 0;
        let entry = state.entry_point();
        self.catching(|run| match entry {
            TrainerFn::Fit => {
                run.state().fit.epoch.validation.set_enabled(false);
                run.setup_train_data()?;
                run.keeping_loader_states(|run| run.train(None))
            }
            TrainerFn::Validate | TrainerFn::Test => {
                run.setup_eval_trial(entry.stage(), steps)?;
                run.keeping_loader_states(|run| run.evaluate()).map(drop)
            }
            TrainerFn::Predict => {
                run.setup_eval_trial(entry.stage(), steps)?;
                run.keeping_loader_states(|run| run.predict(false)).map(drop)
            }
        })
    }

    fn setup_eval_trial(&mut self, stage: Stage, batches: u64) -> Result<(), Error> {
        stage.set_limit(&mut self.engine.state.config, Limit::Batches(batches));
        self.setup_eval_data(stage)
    }

    /// The value of a hyper-parameter, of the data module or the module.
    pub(super) fn hparam(&self, name: &str) -> Result<Option<Value>, Error> {
        let state = &self.engine.state;
        match state.hparams_of_data(&self.data)?.remove(name) {
            Some(of_data) => Ok(Some(of_data)),
            None => Ok(state.hparams_of(self.module)?.remove(name)),
        }
    }

    /// Sets a hyper-parameter of the module, the data module, or both. `false`: neither has it.
    pub(super) fn set_hparam(&mut self, name: &str, value: &Value) -> Result<bool, Error> {
        let mut set = self.module_hook(Hook::SetHparam, |m, _| m.set_hparam(name, value))?;
        if let Source::DataModule(_) = &self.data {
            self.data_hook(Hook::SetHparam, |data, _| {
                set |= data.set_hparam(name, value)?;
                Ok(())
            })?;
        }
        Ok(set)
    }
}

impl<M: LightningModule> Run<'_, '_, M> {
    /// Runs the trials that callbacks requested, and passes them the results.
    pub(crate) fn serve_tuning(&mut self) -> Result<(), Error> {
        let is_resumed = self.state().resumed_from().is_some();
        for request in mem::take(&mut self.engine.state.tune_requests) {
            match request {
                TuneRequest::BatchSize { options, size } if is_resumed => {
                    self.take_batch_size_of_checkpoint(&options, &size)?;
                }
                TuneRequest::BatchSize { options, size } => size.set(self.scale_batch_size(&options)?),
                TuneRequest::LearningRate { .. } if is_resumed => {
                    self.state().print("the learning-rate finder is left out: the checkpoint's learning rate holds");
                }
                TuneRequest::LearningRate { options, found } => found.set(self.lr_find(&options, false)?),
            }
        }
        Ok(())
    }

    /// A place in the data is one of batches of some size, so a run that is resumed continues with the size that was
    /// found.
    fn take_batch_size_of_checkpoint(
        &mut self,
        options: &BatchSizeFinderOptions,
        size: &Reply<u64>,
    ) -> Result<(), Error> {
        let Some(size) = size.get() else {
            self.engine.state.warn(
                "the batch-size finder is left out: a run that is resumed continues with batches of the size it had, and the checkpoint does not know one that was found; set it, or start afresh",
            );
            return Ok(());
        };
        self.set_batch_size(options, size)?;
        self.forget_loaders();
        self.engine.state.print(&format!("the batch-size finder is left out: the checkpoint's size {size} holds"));
        Ok(())
    }
}
