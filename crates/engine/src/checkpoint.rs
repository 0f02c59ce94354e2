//! Saving the state of a run to a checkpoint, and restoring it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;

use fulgurite_fabric::FabricError;
use fulgurite_torch::params::Parameters;
use fulgurite_torch::rng::{self, RngState};
use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, TorchError, Value, grad, params, runtime};

use crate::data_module::Source;
use crate::error::Error;
use crate::hook::Hook;
use crate::loops::Run;
use crate::module::LightningModule;
use crate::outline::Outline;
use crate::progress::Progress;
use crate::saved::{Missing, Saved, count, wrong_type};
use crate::scope::Scope;
use crate::state::{Owner, SavedData, TrainerState, Window};

/// The Lightning version whose checkpoint layout is used.
pub const LIGHTNING_VERSION: &str = "2.6.6";

impl<M: LightningModule> Run<'_, '_, M> {
    /// The state of the run as one value, under Lightning's keys.
    pub(crate) fn dump_checkpoint(&mut self, weights_only: bool) -> Result<Dict, Error> {
        let state = &mut self.engine.state;
        let mut checkpoint = Dict::new()
            .with("epoch", state.current_epoch())
            .with("global_step", state.global_step())
            .with("pytorch-lightning_version", LIGHTNING_VERSION)
            .with("state_dict", state.fabric.module_state_dict(self.module.vars())?)
            .with("loops", state.progress_to_resume().state_dict());
        if !weights_only {
            let callbacks = state.states_of(&self.engine.callbacks)?;
            let optimizers = state.optimizer_states()?;
            let schedulers = state.lr_schedulers().iter().map(|c| c.scheduler.state_dict().map(Value::Dict));
            checkpoint.set("callbacks", callbacks);
            checkpoint.set("optimizer_states", optimizers);
            checkpoint.set("lr_schedulers", schedulers.collect::<Result<Vec<_>, _>>()?);
            let precision = state.fabric.precision();
            let scaler = precision.state_dict()?;
            if !scaler.is_empty() {
                checkpoint.set(precision.state_key(), scaler);
            }
            let mut more = state.beyond_lightning()?;
            more.set("with_state", parameters_with_state(checkpoint.list("optimizer_states").unwrap_or_default()));
            let mut of_rank = state.of_this_rank()?;
            if let Some(loader) = Self::loader_state(self.train_loader.as_ref(), &state.training_data)? {
                of_rank.set("loader", loader);
            }
            if state.has_open_gradients() {
                of_rank.set("grads", gradients(self.module.vars()));
                more.set("grads_scale", state.fabric.loss_scale()?);
            }
            if state.is_distributed() {
                let mut of_ranks = state.fabric.strategy().all_gather_values(Value::Dict(of_rank.clone()))?;
                state.metrics.train.reduce_saved(&mut of_ranks)?;
                more.set("ranks", of_ranks);
            }
            of_rank.iter().for_each(|(name, value)| more.set(name.clone(), value.clone()));
            checkpoint.set("fulgurite", more);
        }
        let hparams = self.engine.state.hparams_of(self.module)?;
        if !hparams.is_empty() {
            checkpoint.set("hparams_name", "kwargs");
            checkpoint.set("hyper_parameters", hparams);
        }
        if let Source::DataModule(data) = &self.data {
            let action = |_: &TrainerState| format!("[LightningDataModule]{}.state_dict", data.name());
            let (hparams, data_state) =
                self.engine.state.profiled(action, |state| (state.hparams_of_data(&self.data), data.state_dict()));
            let (hparams, name) = (hparams?, || data.name().to_owned());
            let data_state = data_state
                .map_err(|error| self.engine.state.hook_error(Hook::StateDict, Owner::DataModule, &name, error))?;
            if !hparams.is_empty() {
                checkpoint.set("datamodule_hparams_name", "kwargs");
                checkpoint.set("datamodule_hyper_parameters", hparams);
            }
            if !data_state.is_empty() {
                checkpoint.set(data.name(), data_state);
            }
        }
        self.engine.on_callbacks(Hook::OnSaveCheckpoint, self.module, &mut |c, t, m| {
            c.on_save_checkpoint(t, m, &mut checkpoint)
        })?;
        self.engine.on_module(Hook::OnSaveCheckpoint, self.module, |m, t| m.on_save_checkpoint(t, &mut checkpoint))?;
        Ok(checkpoint)
    }

    /// Reads a checkpoint: weights, data module and callbacks now; the rest with [`Run::restore_training`].
    pub(crate) fn restore_weights(&mut self, path: &Path) -> Result<(Dict, Missing), Error> {
        let wrong = |problem: String| Error::Checkpoint { path: path.into(), problem };
        self.wait_for_saves()?;
        let Value::Dict(mut checkpoint) = self.engine.state.load_checkpoint(path)? else {
            return Err(wrong("does not contain a dict, so it is not a Lightning checkpoint".into()));
        };
        if self.engine.state.position.is_fit() {
            self.engine.state.saves.set_run_id(Outline(&checkpoint).run_id().map(str::to_owned));
        }
        self.engine
            .on_module(Hook::OnLoadCheckpoint, self.module, |m, t| m.on_load_checkpoint(Some(t), &mut checkpoint))?;
        let weights =
            checkpoint.dict("state_dict").map_err(|error| wrong(format!("is not a Lightning checkpoint: {error}")))?;
        let fabric = &mut self.engine.state.fabric;
        fabric.load_module_state_dict(self.module.vars(), weights, true).map_err(|error| {
            let difference = self.engine.state.configuration.difference(&checkpoint);
            wrong(format!("does not fit {}: {}", self.module.name(), misfit(error, difference)))
        })?;
        let missing = Missing::of(&checkpoint);
        self.restore_data(missing.reader(&checkpoint)).map_err(wrong)?;
        self.restore_callbacks(&mut checkpoint, &missing, &wrong)?;
        Ok((checkpoint, missing))
    }

    fn restore_data(&mut self, checkpoint: Saved) -> Result<(), String> {
        let Source::DataModule(data) = &mut self.data else { return Ok(()) };
        let before = data.state_dict().map_err(text)?;
        let Some(saved) = checkpoint.dict_unless(data.name(), before.is_empty())? else { return Ok(()) };
        let loaded = self.engine.on_data_module(Hook::LoadStateDict, *data, |data, _| {
            // An error here is attributed to the file.
            Ok(data.load_state_dict(saved.entries).map_err(|error| error.to_string()))
        });
        let refused = loaded.map_err(text).flatten();
        refused.map_err(|error| format!("has a state that {} rejects: {error}", data.name()))?;
        saved.compare(&data.state_dict().map_err(text)?).map_err(|error| format!("cannot be loaded: {error}"))
    }

    fn restore_callbacks(
        &mut self,
        checkpoint: &mut Dict,
        missing: &Missing,
        wrong: &dyn Fn(String) -> Error,
    ) -> Result<(), Error> {
        if checkpoint.get("callbacks").is_none() {
            if !self.engine.state.states_of(&self.engine.callbacks)?.is_empty() {
                missing.note("callbacks".into());
            }
            return Ok(());
        }
        self.engine
            .on_callbacks(Hook::OnLoadCheckpoint, self.module, &mut |c, t, m| c.on_load_checkpoint(t, m, checkpoint))?;
        let Some(saved) = missing.reader(checkpoint).dict("callbacks").map_err(wrong)? else { return Ok(()) };
        for index in 0..self.engine.callbacks.len() {
            self.engine.on_callback(index, Hook::LoadStateDict, self.module, &mut |c, t, _| {
                let has_none = t.state_of(index, c)?.is_empty();
                let Some(saved) = saved.dict_unless(&c.state_key(), has_none)? else { return Ok(()) };
                c.load_state_dict(saved.entries)?;
                Ok(saved.compare(&t.state_of(index, c)?)?)
            })?;
        }
        let states = saved.entries;
        let here: Vec<String> = self.engine.callbacks.iter().map(|c| c.state_key()).collect();
        let absent: Vec<&str> = states.keys().filter(|key| !here.iter().any(|k| k == key)).collect();
        if !absent.is_empty() {
            let absent = absent.join(", ");
            self.engine
                .state
                .warn(&format!("the checkpoint contains state of callbacks that this run does not have: {absent}"));
        }
        Ok(())
    }

    /// Restores everything else: progress, optimizers, schedulers, metric accumulators and random number generators.
    /// Reports what was missing.
    pub(crate) fn restore_training(&mut self, path: &Path, checkpoint: &Dict, missing: &Missing) -> Result<(), Error> {
        let wrong = |problem: String| Error::Checkpoint { path: path.into(), problem };
        let unusable = |problem: String| wrong(format!("cannot be resumed from: {problem}"));
        let incomplete =
            |error| wrong(format!("cannot be resumed from, because {error}; it was saved with weights_only"));
        let saved = missing.reader(checkpoint);
        checkpoint.require("optimizer_states").map_err(incomplete)?;
        checkpoint.require("lr_schedulers").map_err(incomplete)?;
        checkpoint.require("loops").map_err(incomplete)?;
        let loops = saved.required_dict("loops").map_err(unusable)?;
        let state = &mut self.engine.state;
        let mut progress = Progress::default();
        progress.load_state_dict(&loops).map_err(unusable)?;
        state.fit.set_progress(&progress);
        state.restore_optimizers(&saved, &wrong)?;
        let epoch = progress.epoch.current.processed;
        if let Some(max_epochs) = state.max_epochs().finite().filter(|max| epoch > *max) {
            return Err(wrong(format!("is at epoch {epoch}, beyond max_epochs={max_epochs}; raise max_epochs")));
        }
        state.restore_precision(&saved).map_err(unusable)?;
        if checkpoint.get("fulgurite").is_some()
            && let Some(more) = saved.dict("fulgurite").map_err(unusable)?
        {
            self.restore_beyond(&saved, &more).map_err(unusable)?;
        }
        let state = &mut self.engine.state;
        if let Some(warning) = missing.warning(state.is_global_zero()) {
            state.console.warn(&warning);
        }
        state.saves.set_resumed_from(path);
        Ok(())
    }

    fn restore_beyond(&mut self, saved: &Saved, more: &Saved) -> Result<(), String> {
        let state = &mut self.engine.state;
        state.restore_beyond_lightning(more)?;
        check_parameters_with_state(saved, more)?;
        let Some(of_rank) = state.saved_of_this_rank(more)? else { return state.restore_metrics_of_all(more) };
        state.restore_of_this_rank(&of_rank)?;
        let Some(grads) = of_rank.dict_unless("grads", !state.has_open_gradients())? else { return Ok(()) };
        let saved_scale = more.float("grads_scale")?.unwrap_or(1.0);
        let scale = state.fabric.loss_scale().map_err(text)?;
        restore_gradients(self.module.vars(), &grads, scale / saved_scale)
    }
}

/// Why weights do not fit a module, whose hyper-parameters differ from the checkpoint's in this.
fn misfit(error: FabricError, difference: Option<String>) -> String {
    let FabricError::Torch(TorchError::StateDict(mismatch)) = error else { return error.to_string() };
    let difference = difference.map(|difference| format!("\n\tThe checkpoint was written with {difference}."));
    format!(
        "{mismatch}{}\n\tNothing was loaded. Make the module of the checkpoint's class and hyper-parameters \
         (`Checkpoint::load`); to begin a new run with the weights that fit, copy them with `Checkpoint::open(path)?\
         .strict(false).ignore_mismatched_sizes(true).load_into(module.vars())`, and leave ckpt_path out",
        difference.unwrap_or_default()
    )
}

impl TrainerState {
    /// The counters as needed for resuming: an unfinished validation starts again.
    fn progress_to_resume(&self) -> Progress {
        let mut progress = self.fit.progress();
        if self.fit.epoch.validation.is_unfinished() {
            progress.batch.reopen();
        }
        progress
    }

    /// Whether gradients are kept between batches: in an open accumulation window, or by the module.
    fn has_open_gradients(&self) -> bool {
        self.fit.epoch.optimization.window().batches > 0 || !self.automatic_optimization()
    }

    /// The optimizer states, in the form that the strategy saves.
    fn optimizer_states(&mut self) -> Result<Vec<Value>, Error> {
        let (fabric, optimizers) = (&mut self.fabric, self.fit.epoch.optimization.optimizers());
        optimizers.map(|optimizer| Ok(Value::Dict(fabric.optimizer_state_dict(optimizer)?))).collect()
    }

    /// The per-rank state needed for exact resume.
    fn of_this_rank(&self) -> Result<Dict, Error> {
        let before = self.fit.epoch.validation.before();
        let rng = before.map_or_else(|| RngState::capture().map(|rng| rng.to_value()), |b| Ok(b.rng.to_value()))?;
        Ok(Dict::new().with("rng", rng).with("metrics", self.metrics.train.state_dict()?))
    }

    /// The state needed for exact resume that Lightning does not save.
    fn beyond_lightning(&mut self) -> Result<Dict, Error> {
        let validation = &self.fit.epoch.validation;
        let evaluated = validation.before().map_or(validation.evaluated(), |before| &before.evaluated);
        let evaluated: Vec<Value> = evaluated.iter().map(|&count| count.into()).collect();
        let window = self.fit.epoch.optimization.window();
        // An accepted stop request is restored by its requester when the run is resumed.
        let stop = self.requests.stop_reason().filter(|_| !self.can_stop_early()).map(str::to_owned);
        let callback_metrics = self.metrics.callback_state()?;
        let run_id = self.id_of_run()?;
        let logged_names: Vec<Value> = callback_metrics.keys().map(|name| name.into()).collect();
        Ok(Dict::new()
            .with("logged_names", logged_names)
            .with("callback_metrics", callback_metrics)
            // Bit by bit: a checkpoint has signed integers.
            .with("global_seed", rng::global_seed() as i64)
            .with("num_threads", runtime::num_threads())
            .with("window", Dict::new().with("batches", window.batches).with("weight", window.weight))
            .with("eval_batches", evaluated)
            .with("stop", stop)
            .with("step_skipped", self.fit.epoch.optimization.step_skipped())
            .with("train_data", self.training_data.to_save().to_dict())
            .with("world_size", self.fabric.world_size())
            .with("log_versions", self.log_versions())
            .with("log_classes", self.log_classes())
            .with("configuration", self.configuration.to_value())
            .with("run_id", run_id))
    }

    /// The identifier of the run in its checkpoints, the same on all ranks.
    fn id_of_run(&mut self) -> Result<String, Error> {
        if let Some(id) = self.run_id() {
            return Ok(id.to_owned());
        }
        let id = self.fabric.strategy().broadcast(new_run_id().into(), 0)?;
        let id = id.as_str().unwrap_or_default().to_owned();
        self.saves.set_run_id(Some(id.clone()));
        Ok(id)
    }

    /// This rank's part of a checkpoint, or the only part, if one process wrote it and one process reads it.
    ///
    /// With a different number of ranks, training can resume only between epochs, because the data is partitioned
    /// differently.
    fn saved_of_this_rank<'c>(&self, more: &Saved<'c>) -> Result<Option<Saved<'c>>, String> {
        let (before, now) = (more.count("world_size")?.unwrap_or(1), self.fabric.world_size() as u64);
        if before == 1 && now == 1 {
            return Ok(Some(more.clone()));
        }
        if before == now {
            let rank = self.fabric.global_rank();
            return more.dict_at("ranks", rank);
        }
        let mut progress = self.fit.progress();
        if progress.resume().mid_epoch && !progress.is_last_batch {
            return Err(format!(
                "it was written by {before} process(es) in the middle of an epoch, and this run has {now}, which would read other parts of the data; resume with {before}, or from a checkpoint of the end of an epoch"
            ));
        }
        self.warn(&format!(
            "the checkpoint was written by {before} process(es), and this run has {now}: the next epoch starts with new random numbers, and batches of {now} instead of {before} processes"
        ));
        Ok(None)
    }

    /// The values logged by all ranks in the epoch that is about to end, after the number of ranks changed; rank zero
    /// provides them.
    fn restore_metrics_of_all(&mut self, more: &Saved) -> Result<(), String> {
        if !self.is_global_zero() {
            return Ok(());
        }
        let ranks = more.count("world_size")?.unwrap_or(1) as usize;
        let mut of_ranks = Vec::new();
        for rank in 0..ranks {
            let of_rank = if ranks == 1 { Some(more.clone()) } else { more.dict_at("ranks", rank)? };
            let Some(of_rank) = of_rank else { continue };
            of_ranks.extend(of_rank.list("metrics")?);
        }
        self.metrics.train.restore_of_all(&of_ranks).map_err(|error| format!("the metrics of its ranks: {error}"))
    }

    fn restore_of_this_rank(&mut self, of_rank: &Saved) -> Result<(), String> {
        if let Some(rng) = of_rank.value("rng") {
            let restored = RngState::from_value(rng).and_then(|state| state.restore());
            restored.map_err(|error| format!("entry `{}`: {error}", of_rank.name("rng")))?;
        }
        // Most loaders have no state.
        let of_loader = of_rank.entries.get("loader").and_then(Value::as_dict);
        self.training_data.set_saved_loader(of_loader.cloned());
        if let Some(metrics) = of_rank.list("metrics")? {
            let restored = self.metrics.train.restore(metrics);
            restored.map_err(|(at, error)| format!("entry `{}[{at}]`: {error}", of_rank.name("metrics")))?;
        }
        Ok(())
    }

    fn restore_optimizers(&mut self, saved: &Saved, wrong: &dyn Fn(String) -> Error) -> Result<(), Error> {
        let unusable = |problem: String| wrong(format!("cannot be resumed from: {problem}"));
        for (what, key, here) in [
            ("optimizers", "optimizer_states", self.num_optimizers()),
            ("schedulers", "lr_schedulers", self.lr_schedulers().len()),
        ] {
            let saved = saved.list(key).map_err(unusable)?.map_or(0, <[_]>::len);
            if saved != here {
                return Err(wrong(format!("holds {saved} {what}, and configure_optimizers returned {here}")));
            }
        }
        let fabric = &mut self.fabric;
        for (at, optimizer) in self.fit.epoch.optimization.optimizers_mut().enumerate() {
            let Some(saved) = saved.dict_at("optimizer_states", at).map_err(unusable)? else { continue };
            let device = optimizer.param_groups().iter().flat_map(|g| &g.params).next().map(|p| p.device());
            let on_device = device.map(|device| on_device(saved.entries, device));
            let state = on_device.as_ref().unwrap_or(saved.entries);
            fabric.load_optimizer_state_dict(optimizer, state)?;
            saved.compare(&fabric.optimizer_state_dict(optimizer)?).map_err(unusable)?;
        }
        for (at, config) in self.fit.epoch.optimization.schedulers_mut().iter_mut().enumerate() {
            let Some(saved) = saved.dict_at("lr_schedulers", at).map_err(unusable)? else { continue };
            config.scheduler.load_state_dict(saved.entries)?;
            saved.compare(&config.scheduler.state_dict()?).map_err(unusable)?;
        }
        Ok(())
    }

    /// The gradient scaler's state.
    fn restore_precision(&mut self, checkpoint: &Saved) -> Result<(), String> {
        let precision = self.fabric.precision_mut();
        let has_none = precision.state_dict().map_err(text)?.is_empty();
        let Some(saved) = checkpoint.dict_unless(precision.state_key(), has_none)? else { return Ok(()) };
        precision.load_state_dict(saved.entries).map_err(text)?;
        saved.compare(&precision.state_dict().map_err(text)?)
    }

    fn restore_beyond_lightning(&mut self, more: &Saved) -> Result<(), String> {
        if let Some(seed) = more.int("global_seed")? {
            rng::seed_everything(seed as u64).map_err(text)?;
        }
        if let Some(metrics) = more.dict("callback_metrics")? {
            for name in more.texts("logged_names")? {
                metrics.value(name);
            }
            self.metrics.restore_callback_state(metrics.entries).map_err(|name| {
                wrong_type(&metrics.name(name), metrics.entries.get(name).unwrap_or(&Value::None), "a number")
            })?;
        }
        if let Some(threads) = more.int("num_threads")?
            && threads != runtime::num_threads() as i64
        {
            self.warn(&format!(
                "the checkpoint was written with {threads} threads and this run has {}, so results may differ in their last bits",
                runtime::num_threads()
            ));
        }
        if let Some(window) = more.dict("window")? {
            let (batches, weight) = (window.count("batches")?, window.float("weight")?);
            let window = Window { batches: batches.unwrap_or(0), weight: weight.unwrap_or(0.0) };
            self.fit.epoch.optimization.set_window(window);
        }
        if let Some(counts) = more.list("eval_batches")? {
            let count = |(at, value)| count(&format!("{}[{at}]", more.name("eval_batches")), value).map(|n| n as i64);
            let evaluated = counts.iter().enumerate().map(count).collect::<Result<_, _>>()?;
            self.fit.epoch.validation.set_evaluated(evaluated);
        }
        let step_skipped = more.bool("step_skipped")?.unwrap_or(false);
        self.fit.epoch.optimization.set_step_skipped(step_skipped);
        if let Some(reason) = more.optional_text("stop")? {
            self.request_stop(reason);
        }
        self.training_data.set_saved(saved_data(more)?);
        // They were read before, to find the run's logs and files.
        more.optional_text("run_id")?;
        more.texts("log_versions")?;
        more.texts("log_classes").map(drop)
    }
}

/// Distinguishes runs, also those that start at the same moment with the same seed.
fn new_run_id() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

/// The error of a nested operation, as a sentence.
fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn saved_data(more: &Saved) -> Result<Option<SavedData>, String> {
    let Some(data) = more.dict("train_data")? else { return Ok(None) };
    let count = |key| Ok::<_, String>(data.optional_count(key)?.map(|count| count as usize));
    Ok(Some(SavedData { epoch: data.count("epoch")?.unwrap_or(0), len: count("len")?, batches: count("batches")? }))
}

/// The parameters that each optimizer has a state of: some may have none, because they were never updated.
fn parameters_with_state(optimizers: &[Value]) -> Vec<Value> {
    let keys = |optimizer: &Value| {
        let state = optimizer.as_dict().and_then(|optimizer| optimizer.dict("state").ok());
        Value::List(state.into_iter().flat_map(Dict::iter).map(|(key, _)| key.clone()).collect())
    };
    optimizers.iter().map(keys).collect()
}

/// Records the states that existed when the checkpoint was written.
fn check_parameters_with_state(saved: &Saved, more: &Saved) -> Result<(), String> {
    let Some(of_optimizers) = more.list("with_state")? else { return Ok(()) };
    for (at, keys) in of_optimizers.iter().enumerate() {
        let name = format!("{}[{at}]", more.name("with_state"));
        let keys = keys.as_list().ok_or_else(|| wrong_type(&name, keys, "list"))?;
        let Some(optimizer) = saved.dict_at("optimizer_states", at)? else { continue };
        let Some(states) = optimizer.dict("state")? else { continue };
        for (place, key) in keys.iter().enumerate() {
            let shown = match key {
                // A custom optimizer may name its states freely.
                Value::Str(text) => text.clone(),
                key => count(&format!("{name}[{place}]"), key)?.to_string(),
            };
            if states.entries.get_value(key).is_none() {
                states.lacks(&shown);
            }
        }
    }
    Ok(())
}

/// The gradients by parameter name; `None` for a parameter without one.
fn gradients(vars: &dyn Parameters) -> Dict {
    let of = |(name, parameter): (String, Tensor)| -> (Value, Value) {
        let grad = parameter.grad();
        (name.into(), if grad.defined() { grad.into() } else { Value::None })
    };
    params::named_parameters(vars).into_iter().map(of).collect()
}

/// Restores gradients, rescaled from the loss scale they were saved with to that of this run.
fn restore_gradients(vars: &dyn Parameters, saved: &Saved, scaled: f64) -> Result<(), String> {
    let parameters = params::named_parameters(vars);
    for (name, parameter) in &parameters {
        match saved.value(name) {
            None | Some(Value::None) => {}
            Some(Value::Tensor(grad)) => grad::set_grad(parameter, grad).map_err(text)?,
            Some(other) => return Err(wrong_type(&saved.name(name), other, "tensor")),
        }
    }
    if scaled != 1.0 {
        grad::scale_grads(parameters.iter().map(|(_, parameter)| parameter), scaled).map_err(text)?;
    }
    Ok(())
}

fn on_device(state: &Dict, device: fulgurite_torch::tch::Device) -> Dict {
    // PyTorch keeps `step` on the CPU; `load_state_dict` puts each state where it belongs.
    state.map_tensors(&mut |t| if t.dim() == 0 { t.shallow_clone() } else { t.to_device(device) })
}
