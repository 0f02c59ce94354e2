//! Evaluation: validation, within fit or on its own, and test.

use std::collections::BTreeMap;

use fulgurite_torch::Value;
use fulgurite_torch::grad::{InferenceModeGuard, NoGradGuard};
use fulgurite_torch::params::{self, SavedModes};

use super::Run;
use super::batches::{Batches, Numbered};
use crate::error::{Error, NotImplemented, Result};
use crate::hook::Hook;
use crate::module::LightningModule;
use crate::record::Activity;
use crate::scope::Scope;
use crate::stage::Stage;
use crate::state::TrainerState;

/// The values of one loader by name, as `validate` and `test` return them.
pub type EvalResults = BTreeMap<String, f64>;

/// Calls the hooks of test or validation.
macro_rules! eval_hook {
    ($run:ident, $hook:ident, $method:ident ( $($arg:expr),* )) => {
        paste::paste! {
            if $run.state().stage() == Stage::Test {
                $run.hook(
                    Hook::[<OnTest $hook>],
                    |c, t, m| c.[<on_test_ $method>](t, m $(, $arg)*),
                    |m, t| m.[<on_test_ $method>](t $(, $arg)*),
                )
            } else {
                $run.hook(
                    Hook::[<OnValidation $hook>],
                    |c, t, m| c.[<on_validation_ $method>](t, m $(, $arg)*),
                    |m, t| m.[<on_validation_ $method>](t $(, $arg)*),
                )
            }
        }
    };
}

/// A guard that disables gradients.
pub(crate) enum GradientsOff {
    Inference { _guard: InferenceModeGuard },
    NoGrad { _guard: NoGradGuard },
}

impl<M: LightningModule> Run<'_, '_, M> {
    /// Evaluates the module on the loaders, one after the other. Returns the logged values of each.
    pub(crate) fn evaluate(&mut self) -> Result<Vec<EvalResults>, Error> {
        let Some(eval) = &self.eval else { return Ok(Vec::new()) };
        let state = &self.engine.state;
        let limits = match state.stage() {
            Stage::SanityCheck => state.num_sanity_val_batches(),
            _ => eval.limits.clone(),
        };
        if state.evaluation().has_no_batches() {
            return Ok(Vec::new());
        }
        let _gradients_off = state.gradients_off();
        self.state().begin_evaluation()?;
        let activity = if self.state().stage() == Stage::Test { Activity::Test } else { Activity::Validation };
        let outcome = self.spending(activity, |run| run.evaluate_loaders(&limits));
        let ended = self.state().end_evaluation();
        outcome.and_then(|results| ended.map(|()| results))
    }

    fn evaluate_loaders(&mut self, limits: &[Option<usize>]) -> Result<Vec<EvalResults>, Error> {
        let modes = params::modes(self.module.vars());
        self.begin_eval_mode().inspect_err(|_| modes.restore())?;
        let evaluated = self.evaluate_in_eval_mode(limits);
        // Also after an error, because the next run may train the module.
        let switched = self.end_eval_mode(&modes);
        evaluated.and_then(|results| switched.map(|()| results))
    }

    fn begin_eval_mode(&mut self) -> Result<(), Error> {
        match self.state().stage() {
            Stage::Test => self.module_hook(Hook::OnTestModelEval, |m, t| m.on_test_model_eval(t)),
            _ => self.module_hook(Hook::OnValidationModelEval, |m, t| m.on_validation_model_eval(t)),
        }
    }

    fn end_eval_mode(&mut self, modes: &SavedModes) -> Result<(), Error> {
        match self.state().stage() {
            Stage::Test => self.module_hook(Hook::OnTestModelTrain, |m, t| {
                let called = m.on_test_model_train(t);
                switched_back(m, called, modes)
            }),
            _ => self.module_hook(Hook::OnValidationModelTrain, |m, t| {
                let called = m.on_validation_model_train(t);
                switched_back(m, called, modes)
            }),
        }
    }

    fn evaluate_in_eval_mode(&mut self, limits: &[Option<usize>]) -> Result<Vec<EvalResults>, Error> {
        eval_hook!(self, Start, start())?;
        eval_hook!(self, EpochStart, epoch_start())?;
        // After the hooks, because they may replace the weights by averages.
        self.engine.state.fabric.begin_evaluation(self.module.vars())?;

        let mut results = Vec::new();
        for (dataloader_idx, limit) in limits.iter().enumerate() {
            let has_step = self.evaluate_loader(dataloader_idx, *limit, limits.len() > 1)?;
            if !has_step {
                self.end_without_step()?;
                return Ok(Vec::new());
            }
            results.push(self.state().take_epoch_values()?);
        }

        self.state().metrics.end_loaders();
        self.state().position.end_batches();
        eval_hook!(self, EpochEnd, epoch_end())?;
        let of_epoch_end = self.state().take_epoch_values()?;
        results.iter_mut().for_each(|result| result.extend(of_epoch_end.clone()));
        let all: EvalResults = results.iter().flatten().map(|(name, value)| (name.clone(), *value)).collect();
        self.state().write_eval_metrics(&all)?;
        // A checkpoint written by the last hook resumes after the validation.
        drop(self.state().evaluation_mut().take_before());
        eval_hook!(self, End, end())?;
        Ok(results)
    }

    /// Ends an evaluation by a module that has no step for it. Within fit the end hooks are called, because training continues
    /// and callbacks may have replaced the weights in the start hooks.
    fn end_without_step(&mut self) -> Result<(), Error> {
        self.engine.state.disable_validation(LightningModule::name(self.module));
        if !self.engine.state.position.is_fit() {
            return Ok(());
        }
        self.state().metrics.end_loaders();
        self.state().position.end_batches();
        eval_hook!(self, EpochEnd, epoch_end())?;
        drop(self.state().evaluation_mut().take_before());
        eval_hook!(self, End, end())
    }

    /// Evaluates one loader. `false`: the module has no such step.
    fn evaluate_loader(&mut self, dataloader_idx: usize, limit: Option<usize>, several: bool) -> Result<bool, Error> {
        let Some(eval) = &self.eval else { return Ok(true) };
        let state = &self.engine.state;
        let in_common = eval.in_common[dataloader_idx];
        let epoch = state.fit.epochs().current.processed;
        let stage = state.stage();
        let batches = Batches::new(eval.loaders[dataloader_idx].as_ref(), epoch, 0, limit);
        let noun = stage.info().noun;
        let mut batches = batches.map_err(|source| Error::Data { stage: noun, batch_idx: Some(0), source })?;
        while let Some(numbered) = self.state().fetch(&mut batches)? {
            let idx = numbered.idx;
            if !self.evaluate_batch(numbered, dataloader_idx, several)? {
                return Ok(false);
            }
            self.state().profiling.batch_end(stage)?;
            self.poll_saves()?;
            self.state().record_progress();
            self.state().check_signals_synced(idx < in_common)?;
        }
        Ok(true)
    }

    fn evaluate_batch(
        &mut self,
        numbered: Numbered<M::Batch>,
        dataloader_idx: usize,
        several: bool,
    ) -> Result<bool, Error> {
        let Numbered { batch, idx, .. } = numbered;
        let batch = self.engine.transfer(self.module, batch, dataloader_idx)?;
        self.state().evaluation_mut().batches_mut().ready();
        self.state().start_batch(&batch, idx, several.then_some(dataloader_idx));
        eval_hook!(self, BatchStart, batch_start(&batch, idx, dataloader_idx))?;
        self.state().evaluation_mut().batches_mut().started();

        let step = self.state().stage().info().step;
        let step_batch = fulgurite_data::Batch::shallow_clone(&batch);
        self.state().evaluation_mut().set_outputs(Value::None);
        let stepped = self.engine.on_step(step, self.module, |m, s| match step {
            Hook::TestStep => m.test_step(step_batch, s),
            _ => m.validation_step(step_batch, s),
        });
        match stepped {
            Err(error) if error.not_implemented() == Some(step.name()) => return Ok(false),
            stepped => stepped?,
        }
        self.state().evaluation_mut().batches_mut().processed();

        let outputs = self.state().evaluation_mut().take_outputs();
        eval_hook!(self, BatchEnd, batch_end(&outputs, &batch, idx, dataloader_idx))?;
        self.state().evaluation_mut().batches_mut().completed();
        self.state().write_eval_step_metrics(dataloader_idx)?;
        Ok(true)
    }
}

/// What the default of a module's hook stands for: every layer gets the mode back that it had.
fn switched_back(module: &mut impl LightningModule, called: Result<()>, modes: &SavedModes) -> Result<()> {
    match called {
        Err(error) if error.is::<NotImplemented>() => {
            // For what a module keeps itself.
            let switched = module.train(true);
            modes.restore();
            switched
        }
        called => called,
    }
}

impl TrainerState {
    /// Inference mode outside fit, unless it is turned off; within fit the same tensors are trained on later.
    pub(super) fn gradients_off(&self) -> GradientsOff {
        if self.config.inference_mode && !self.position.is_fit() {
            GradientsOff::Inference { _guard: InferenceModeGuard::new() }
        } else {
            GradientsOff::NoGrad { _guard: NoGradGuard::new() }
        }
    }

    fn begin_evaluation(&mut self) -> Result<(), Error> {
        self.metrics.begin_evaluation()?;
        self.position.begin_evaluation();
        self.evaluation_mut().begin();
        Ok(())
    }

    fn end_evaluation(&mut self) -> Result<(), Error> {
        let reset = self.metrics.end_evaluation();
        self.position.end_evaluation();
        if !self.is_sanity_checking() {
            self.evaluation_mut().end();
        }
        reset
    }

    /// The values that were logged per epoch, reduced over all ranks.
    fn take_epoch_values(&mut self) -> Result<EvalResults, Error> {
        self.reduce_over_ranks()?;
        self.metrics.take_eval_epoch()
    }

    fn write_eval_step_metrics(&mut self, dataloader_idx: usize) -> Result<(), Error> {
        if self.is_sanity_checking() {
            return Ok(());
        }
        let x = self.evaluation_mut().count_on_x_axis(dataloader_idx);
        self.write_metrics(true, x, None)
    }

    fn write_eval_metrics(&mut self, values: &EvalResults) -> Result<(), Error> {
        if self.is_sanity_checking() {
            return Ok(());
        }
        let (x, epoch) = (self.fit.epoch.batches_that_stepped() as i64, self.current_epoch());
        self.profiled(
            |_| "log_metrics".to_owned(),
            |state| state.metrics.write_eval_epoch(&mut state.fabric.loggers, values, x, Some(epoch)),
        )?;
        if !values.is_empty() {
            self.open_record();
        }
        Ok(())
    }

    fn disable_validation(&mut self, module: &str) {
        self.evaluation_mut().disable_without_step();
        if self.position.is_fit() {
            self.warn(&format!(
                "there is a validation loader, and `{module}` has no `validation_step`, so validation is skipped"
            ));
        }
    }
}
