//! Checkpoints: gathering a run into one value, and bringing it back.

use std::path::{Path, PathBuf};

use fulgurite_torch::rng::{self, RngState};
use fulgurite_torch::tch::no_grad;
use fulgurite_torch::{Dict, Value, params, runtime};

use crate::callbacks::Role;
use crate::data_module::Source;
use crate::error::Error;
use crate::hook::Hook;
use crate::loops::Run;
use crate::module::LightningModule;
use crate::state::{Owner, SaveRequest, TrainerState};

/// The version of Lightning whose layout the checkpoints have.
pub(crate) const LIGHTNING_VERSION: &str = "2.6.6";

impl<M: LightningModule> Run<'_, '_, M> {
    /// Writes the checkpoints that were asked for.
    pub(crate) fn serve_requests(&mut self) -> Result<(), Error> {
        let requests = std::mem::take(&mut self.engine.state.requests);
        requests.iter().try_for_each(|request| self.save(request))
    }

    pub(crate) fn save(&mut self, request: &SaveRequest) -> Result<(), Error> {
        let action = self.engine.state.begin_action(|| "save_checkpoint".to_owned());
        let saved = self.write_checkpoint(request);
        self.engine.state.end_action(action);
        saved
    }

    fn write_checkpoint(&mut self, request: &SaveRequest) -> Result<(), Error> {
        let checkpoint = Value::Dict(self.dump_checkpoint(request.weights_only)?);
        let state = &mut self.engine.state;
        if !state.is_global_zero() {
            return Ok(());
        }
        Ok(state.fabric.checkpoint_io().commit(&checkpoint, &request.commit())?)
    }

    /// The run as one value, under Lightning's keys.
    fn dump_checkpoint(&mut self, weights_only: bool) -> Result<Dict, Error> {
        let (hook, owner) = (self.engine.state.hook, self.engine.state.owner);
        let state = &mut self.engine.state;
        let mut checkpoint = Dict::new()
            .with("epoch", state.current_epoch())
            .with("global_step", state.global_step())
            .with("pytorch-lightning_version", LIGHTNING_VERSION)
            .with("state_dict", params::state_dict(self.module.vars())?)
            .with("loops", state.run.progress.state_dict());
        if !weights_only {
            let with_state = self.engine.callbacks.iter().map(|c| (c.state_key(), c.state_dict()));
            let callbacks: Dict =
                with_state.filter(|(_, s)| !s.is_empty()).map(|(k, s)| (k.into(), s.into())).collect();
            let optimizers = state.run.optimizers.iter().flatten().map(|o| Value::Dict(o.state_dict()));
            let schedulers = state.run.schedulers.iter().map(|c| Value::Dict(c.scheduler.state_dict()));
            checkpoint.set("callbacks", callbacks);
            checkpoint.set("optimizer_states", optimizers.collect::<Vec<_>>());
            checkpoint.set("lr_schedulers", schedulers.collect::<Vec<_>>());
            checkpoint.set("fulgurite", state.beyond_lightning()?);
        }
        let hparams = self.module.hparams();
        if !hparams.is_empty() {
            checkpoint.set("hparams_name", "kwargs");
            checkpoint.set("hyper_parameters", hparams);
        }
        if let Source::DataModule(data) = &self.data {
            let action = self.engine.state.begin_action(|| format!("[LightningDataModule]{}.state_dict", data.name()));
            let (hparams, data_state) = (data.hparams(), data.state_dict());
            self.engine.state.end_action(action);
            if !hparams.is_empty() {
                checkpoint.set("datamodule_hparams_name", "kwargs");
                checkpoint.set("datamodule_hyper_parameters", hparams);
            }
            if !data_state.is_empty() {
                checkpoint.set(data.name(), data_state);
            }
        }
        if !weights_only {
            self.engine.on_callbacks(Hook::OnSaveCheckpoint, self.module, |c, t, m| {
                c.on_save_checkpoint(t, m, &mut checkpoint)
            })?;
        }
        self.engine.on_module(Hook::OnSaveCheckpoint, self.module, |m, _| m.on_save_checkpoint(&mut checkpoint))?;
        self.engine.state.enter(hook, owner);
        Ok(checkpoint)
    }

    /// Leaves a checkpoint of the batch in hand where the callbacks that write checkpoints want it, for a run that was
    /// interrupted.
    pub(crate) fn save_interrupted(&mut self, validation_pending: bool) -> Result<(), Error> {
        let writers = self.engine.callbacks.iter().filter(|c| c.role() == Role::Checkpoint);
        let mut paths: Vec<PathBuf> = writers.filter_map(|c| c.interrupted_checkpoint()).collect();
        paths.dedup();
        let before = self.engine.state.run.progress;
        if validation_pending {
            let batch = &mut self.engine.state.run.progress.batch;
            batch.total.completed = batch.total.processed.saturating_sub(1);
            batch.current.completed = batch.current.processed.saturating_sub(1);
        }
        let saved = paths.iter().try_for_each(|path| self.save(&SaveRequest::new(path)));
        self.engine.state.run.progress = before;
        saved?;
        self.engine.state.interrupted_checkpoint = paths.into_iter().next();
        Ok(())
    }

    /// Reads a checkpoint: weights, data module and callbacks now; the rest with [`Run::restore_training`].
    pub(crate) fn restore_weights(&mut self, path: &Path) -> Result<Dict, Error> {
        let wrong = |problem: String| Error::Checkpoint { path: path.into(), problem };
        let Value::Dict(mut checkpoint) = self.engine.state.fabric.checkpoint_io().load(path)? else {
            return Err(wrong("holds no dict, so it is not a Lightning checkpoint".into()));
        };
        self.engine.on_module(Hook::OnLoadCheckpoint, self.module, |m, _| m.on_load_checkpoint(&mut checkpoint))?;
        let weights =
            checkpoint.dict("state_dict").map_err(|error| wrong(format!("is not a Lightning checkpoint: {error}")))?;
        no_grad(|| params::load_state_dict(self.module.vars(), weights, true))
            .map_err(|error| wrong(format!("does not fit {}: {error}", self.module.name())))?;
        if let Source::DataModule(data) = &mut self.data
            && let Ok(saved) = checkpoint.dict(data.name())
        {
            let state = &mut self.engine.state;
            let action = state.begin_action(|| format!("[LightningDataModule]{}.load_state_dict", data.name()));
            state.enter(Hook::LoadStateDict, Owner::DataModule);
            let loaded = data.load_state_dict(saved);
            state.end_action(action);
            loaded.map_err(|error| wrong(format!("has a state that {} refuses: {error}", data.name())))?;
        }
        self.restore_callbacks(&mut checkpoint)?;
        Ok(checkpoint)
    }

    fn restore_callbacks(&mut self, checkpoint: &mut Dict) -> Result<(), Error> {
        if checkpoint.get("callbacks").is_none() {
            return Ok(());
        }
        self.engine
            .on_callbacks(Hook::OnLoadCheckpoint, self.module, |c, t, m| c.on_load_checkpoint(t, m, checkpoint))?;
        let Ok(states) = checkpoint.dict("callbacks") else { return Ok(()) };
        self.engine.on_callbacks(Hook::LoadStateDict, self.module, |c, _, _| match states.dict(&c.state_key()) {
            Ok(saved) => c.load_state_dict(saved),
            Err(_) => Ok(()),
        })?;
        let here: Vec<String> = self.engine.callbacks.iter().map(|c| c.state_key()).collect();
        let absent: Vec<&str> = states.keys().filter(|key| !here.iter().any(|k| k == key)).collect();
        if !absent.is_empty() {
            let absent = absent.join(", ");
            self.engine
                .state
                .warn(&format!("the checkpoint holds state of callbacks that this run does not have: {absent}"));
        }
        Ok(())
    }

    /// Brings back everything else: progress, optimizers, schedulers, metric accumulators and random numbers.
    pub(crate) fn restore_training(&mut self, path: &Path, checkpoint: &Dict) -> Result<(), Error> {
        let wrong = |problem: String| Error::Checkpoint { path: path.into(), problem };
        let state = &mut self.engine.state;
        let incomplete =
            |error| wrong(format!("cannot be resumed from, because {error}; it was saved with weights alone"));
        let optimizers = checkpoint.list("optimizer_states").map_err(incomplete)?;
        let schedulers = checkpoint.list("lr_schedulers").map_err(incomplete)?;
        state.run.progress.load_state_dict(checkpoint.dict("loops").map_err(incomplete)?).map_err(incomplete)?;
        for (what, saved, here) in [
            ("optimizers", optimizers.len(), state.run.optimizers.len()),
            ("schedulers", schedulers.len(), state.run.schedulers.len()),
        ] {
            if saved != here {
                return Err(wrong(format!("holds {saved} {what}, and configure_optimizers returned {here}")));
            }
        }
        let dict = |value: &'_ Value| value.as_dict().cloned().unwrap_or_default();
        for (optimizer, saved) in state.optimizers().zip(optimizers) {
            let device = optimizer.param_groups().iter().flat_map(|g| &g.params).next().map(|p| p.device());
            let saved = dict(saved);
            let saved = match device {
                Some(device) => on_device(&saved, device),
                None => saved,
            };
            optimizer.load_state_dict(&saved)?;
        }
        for (config, saved) in state.run.schedulers.iter_mut().zip(schedulers) {
            config.scheduler.load_state_dict(&dict(saved))?;
        }
        let epoch = state.run.progress.epoch.current.processed;
        if state.max_epochs >= 0 && epoch > state.max_epochs.unsigned_abs() {
            return Err(wrong(format!(
                "is at epoch {epoch}, beyond max_epochs={}; raise max_epochs",
                state.max_epochs
            )));
        }
        if let Ok(more) = checkpoint.dict("fulgurite") {
            state.restore_beyond_lightning(more)?;
        }
        state.resumed_from = Some(path.into());
        Ok(())
    }
}

impl TrainerState {
    /// What exact resume needs and Lightning does not save.
    fn beyond_lightning(&mut self) -> Result<Dict, Error> {
        Ok(Dict::new()
            .with("callback_metrics", self.metrics.callback_state()?)
            // Bit by bit: a checkpoint has signed integers.
            .with("global_seed", rng::global_seed() as i64)
            .with("rng", RngState::capture()?.to_value())
            .with("num_threads", runtime::num_threads())
            .with("window_batches", self.run.window.batches)
            .with("metrics", self.metrics.train.state_dict()))
    }

    fn restore_beyond_lightning(&mut self, more: &Dict) -> Result<(), Error> {
        if let Ok(seed) = more.int("global_seed") {
            rng::seed_everything(seed as u64)?;
        }
        if let Some(rng) = more.get("rng") {
            RngState::from_value(rng)?.restore()?;
        }
        if let Ok(metrics) = more.dict("callback_metrics") {
            self.metrics.restore_callback_state(metrics);
        }
        if let Ok(metrics) = more.list("metrics") {
            self.metrics.train.restore(metrics);
        }
        if let Ok(threads) = more.int("num_threads")
            && threads != runtime::num_threads() as i64
        {
            self.warn(&format!(
                "the checkpoint was written with {threads} threads and this run has {}, so results may differ in their last bits",
                runtime::num_threads()
            ));
        }
        if more.int("window_batches").is_ok_and(|batches| batches > 0) {
            self.warn("the checkpoint was written inside an accumulation window, whose gradients so far are lost");
        }
        Ok(())
    }
}

fn on_device(state: &Dict, device: fulgurite_torch::tch::Device) -> Dict {
    // PyTorch keeps `step` on the CPU; `load_state_dict` puts each state where it belongs.
    state.map_tensors(&mut |t| if t.dim() == 0 { t.shallow_clone() } else { t.to_device(device) })
}
