//! Checkpoints: gathering a run into one value, and bringing it back.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;

use fulgurite_fabric::FabricError;
use fulgurite_torch::rng::{self, RngState};
use fulgurite_torch::tch::{Tensor, nn, no_grad};
use fulgurite_torch::{Dict, Value, grad, params, runtime};

use crate::data_module::Source;
use crate::error::Error;
use crate::hook::Hook;
use crate::loops::Run;
use crate::module::LightningModule;
use crate::outline::Outline;
use crate::progress::Progress;
use crate::state::{Owner, SavedData, TrainerFn, TrainerState, Window};

/// The version of Lightning whose layout the checkpoints have.
pub(crate) const LIGHTNING_VERSION: &str = "2.6.6";

impl<M: LightningModule> Run<'_, '_, M> {
    /// The run as one value, under Lightning's keys.
    pub(crate) fn dump_checkpoint(&mut self, weights_only: bool) -> Result<Dict, Error> {
        let (hook, owner) = (self.engine.state.hook, self.engine.state.owner);
        let state = &mut self.engine.state;
        let mut checkpoint = Dict::new()
            .with("epoch", state.current_epoch())
            .with("global_step", state.global_step())
            .with("pytorch-lightning_version", LIGHTNING_VERSION)
            .with("state_dict", params::state_dict(self.module.vars())?)
            .with("loops", state.progress_to_resume().state_dict());
        if !weights_only {
            let with_state = self.engine.callbacks.iter().map(|c| (c.state_key(), c.state_dict()));
            let callbacks: Dict =
                with_state.filter(|(_, s)| !s.is_empty()).map(|(k, s)| (k.into(), s.into())).collect();
            let optimizers = state.run.optimizers.iter().flatten().map(|o| Value::Dict(o.state_dict()));
            let schedulers = state.run.schedulers.iter().map(|c| Value::Dict(c.scheduler.state_dict()));
            checkpoint.set("callbacks", callbacks);
            checkpoint.set("optimizer_states", optimizers.collect::<Vec<_>>());
            checkpoint.set("lr_schedulers", schedulers.collect::<Vec<_>>());
            let precision = state.fabric.precision();
            let scaler = precision.state_dict()?;
            if !scaler.is_empty() {
                checkpoint.set(precision.state_key(), scaler);
            }
            let mut more = state.beyond_lightning()?;
            let mut of_rank = state.of_this_rank()?;
            if state.run.window.batches > 0 || state.run.manual {
                of_rank.set("grads", gradients(self.module.vars()));
                more.set("grads_scale", state.fabric.loss_scale()?);
            }
            if state.is_distributed() {
                more.set("ranks", state.fabric.strategy().all_gather_values(Value::Dict(of_rank.clone()))?);
            }
            of_rank.iter().for_each(|(name, value)| more.set(name.clone(), value.clone()));
            checkpoint.set("fulgurite", more);
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

    /// Reads a checkpoint: weights, data module and callbacks now; the rest with [`Run::restore_training`].
    pub(crate) fn restore_weights(&mut self, path: &Path) -> Result<Dict, Error> {
        let wrong = |problem: String| Error::Checkpoint { path: path.into(), problem };
        self.wait_for_saves()?;
        let Value::Dict(mut checkpoint) = self.engine.state.load_checkpoint(path)? else {
            return Err(wrong("holds no dict, so it is not a Lightning checkpoint".into()));
        };
        if self.engine.state.entry == TrainerFn::Fit {
            self.engine.state.run_id = Outline(&checkpoint).run_id().map(str::to_owned);
        }
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
        state.restore_precision(checkpoint).map_err(|error| wrong(format!("cannot be resumed from: {error}")))?;
        if let Ok(more) = checkpoint.dict("fulgurite") {
            state.restore_beyond_lightning(more)?;
            let of_rank = state.saved_of_this_rank(more).map_err(wrong)?;
            state.restore_of_this_rank(of_rank)?;
            if let Ok(grads) = of_rank.dict("grads") {
                let scaled = state.fabric.loss_scale()? / more.float("grads_scale").unwrap_or(1.0);
                restore_gradients(self.module.vars(), grads, scaled)?;
            }
        }
        state.resumed_from = Some(path.into());
        Ok(())
    }
}

impl TrainerState {
    /// The counters, as a run that resumes needs them: a validation in hand is begun again.
    fn progress_to_resume(&self) -> Progress {
        let mut progress = self.run.progress;
        if self.run.before_validation.is_some() {
            progress.batch.reopen();
        }
        progress
    }

    /// What exact resume needs of each rank by itself: it differs from rank to rank.
    fn of_this_rank(&self) -> Result<Dict, Error> {
        let before = self.run.before_validation.as_ref();
        let rng = before.map_or_else(|| RngState::capture().map(|rng| rng.to_value()), |b| Ok(b.rng.to_value()))?;
        Ok(Dict::new().with("rng", rng).with("metrics", self.metrics.train.state_dict()))
    }

    /// What exact resume needs and Lightning does not save.
    fn beyond_lightning(&mut self) -> Result<Dict, Error> {
        let before = self.run.before_validation.as_ref();
        let eval_batches = before.map_or(&self.run.eval_batches, |before| &before.eval_batches);
        let eval_batches: Vec<Value> = eval_batches.iter().map(|&count| count.into()).collect();
        let window = self.run.window;
        // Of a stop that is granted, whoever asked for it tells when the run is resumed.
        let stop = self.stop.clone().filter(|_| !self.can_stop_early());
        Ok(Dict::new()
            .with("callback_metrics", self.metrics.callback_state()?)
            // Bit by bit: a checkpoint has signed integers.
            .with("global_seed", rng::global_seed() as i64)
            .with("num_threads", runtime::num_threads())
            .with("window", Dict::new().with("batches", window.batches).with("weight", window.weight))
            .with("eval_batches", eval_batches)
            .with("stop", stop)
            .with("step_skipped", self.run.step_skipped)
            .with("train_data", self.train_data.to_save(self.num_training_batches).to_dict())
            .with("world_size", self.fabric.world_size())
            .with("log_versions", self.log_versions())
            .with("configuration", self.configuration.to_value())
            .with("run_id", self.run_id.get_or_insert_with(new_run_id).as_str()))
    }

    /// What a checkpoint holds of this rank; of the only one, where it was written by one and is read by one.
    ///
    /// With another number of ranks, an epoch can be begun, and not be continued: the parts of the data are other ones.
    fn saved_of_this_rank<'c>(&self, more: &'c Dict) -> Result<&'c Dict, String> {
        const NOTHING: &Dict = &Dict::new();
        let of_ranks = more.list("ranks").unwrap_or_default();
        let (before, now) = (of_ranks.len().max(1), self.fabric.world_size());
        if before == now {
            return Ok(of_ranks.get(self.fabric.global_rank()).and_then(Value::as_dict).unwrap_or(more));
        }
        let mut progress = self.run.progress;
        if progress.resume().mid_epoch && !progress.is_last_batch {
            return Err(format!(
                "was written by {before} process(es) in the middle of an epoch, and this run has {now}, which would read other parts of the data; resume with {before}, or from a checkpoint of the end of an epoch"
            ));
        }
        self.warn(&format!(
            "the checkpoint was written by {before} process(es), and this run has {now}: the next epoch begins with new random numbers, and batches of {now} instead of {before} processes"
        ));
        Ok(NOTHING)
    }

    fn restore_of_this_rank(&mut self, of_rank: &Dict) -> Result<(), Error> {
        if let Some(rng) = of_rank.get("rng") {
            RngState::from_value(rng)?.restore()?;
        }
        if let Ok(metrics) = of_rank.list("metrics") {
            self.metrics.train.restore(metrics);
        }
        Ok(())
    }

    /// The gradient scaler's state, where both runs have one.
    fn restore_precision(&mut self, checkpoint: &Dict) -> Result<(), FabricError> {
        let precision = self.fabric.precision_mut();
        match checkpoint.dict(precision.state_key()) {
            Ok(saved) => precision.load_state_dict(saved),
            Err(_) => Ok(()),
        }
    }

    fn restore_beyond_lightning(&mut self, more: &Dict) -> Result<(), Error> {
        if let Ok(seed) = more.int("global_seed") {
            rng::seed_everything(seed as u64)?;
        }
        if let Ok(metrics) = more.dict("callback_metrics") {
            self.metrics.restore_callback_state(metrics);
        }
        if let Ok(threads) = more.int("num_threads")
            && threads != runtime::num_threads() as i64
        {
            self.warn(&format!(
                "the checkpoint was written with {threads} threads and this run has {}, so results may differ in their last bits",
                runtime::num_threads()
            ));
        }
        if let Ok(window) = more.dict("window") {
            let batches = window.int("batches").ok().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
            self.run.window = Window { batches, weight: window.float("weight").unwrap_or(0.0) };
        }
        if let Ok(counts) = more.list("eval_batches") {
            self.run.eval_batches = counts.iter().filter_map(Value::as_int).collect();
        }
        self.run.step_skipped = more.bool("step_skipped").unwrap_or(false);
        self.train_data.saved = more.dict("train_data").ok().map(SavedData::from_dict);
        if let Ok(reason) = more.str("stop") {
            self.request_stop(reason);
        }
        Ok(())
    }
}

/// Tells runs apart, also those that begin at the same moment with the same seed.
fn new_run_id() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

/// The gradients there are, by the names of their parameters.
fn gradients(vars: &nn::VarStore) -> Dict {
    let of = |(name, parameter): (String, Tensor)| (name, parameter.grad());
    let there = params::named_parameters(vars).into_iter().map(of).filter(|(_, grad)| grad.defined());
    there.map(|(name, grad)| (name.into(), grad.into())).collect()
}

/// Puts gradients back, `scaled` from the loss scale they were saved with to the one of this run.
fn restore_gradients(vars: &nn::VarStore, saved: &Dict, scaled: f64) -> Result<(), Error> {
    let parameters = params::named_parameters(vars);
    for (name, parameter) in &parameters {
        if let Ok(grad) = saved.tensor(name) {
            grad::set_grad(parameter, grad)?;
        }
    }
    if scaled != 1.0 {
        grad::scale_grads(parameters.iter().map(|(_, parameter)| parameter), scaled)?;
    }
    Ok(())
}

fn on_device(state: &Dict, device: fulgurite_torch::tch::Device) -> Dict {
    // PyTorch keeps `step` on the CPU; `load_state_dict` puts each state where it belongs.
    state.map_tensors(&mut |t| if t.dim() == 0 { t.shallow_clone() } else { t.to_device(device) })
}
