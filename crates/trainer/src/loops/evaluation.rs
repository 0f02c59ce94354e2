//! Evaluation: validation, within fit or alone, and test.

use std::collections::BTreeMap;

use fulgurite_torch::grad::{InferenceModeGuard, NoGradGuard};

use super::Run;
use super::batches::{Batches, Numbered};
use crate::error::Error;
use crate::hook::Hook;
use crate::module::LightningModule;
use crate::state::{Stage, TrainerFn, TrainerState};

/// The values of one loader by name, as `validate` and `test` return them.
pub type EvalResults = BTreeMap<String, f64>;

/// Picks the hooks of test or of validation.
macro_rules! eval_hook {
    ($run:ident, $hook:ident, $method:ident ( $($arg:expr),* )) => {
        paste::paste! {
            if $run.engine.state.stage == Stage::Test {
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

/// Gradients are off while this lives.
pub(crate) enum GradientsOff {
    Inference { _guard: InferenceModeGuard },
    NoGrad { _guard: NoGradGuard },
}

impl TrainerState {
    /// Inference mode outside fit, unless it is turned off; within fit the same tensors are trained on later.
    pub(crate) fn gradients_off(&self) -> GradientsOff {
        if self.config.inference_mode && self.entry != TrainerFn::Fit {
            GradientsOff::Inference { _guard: InferenceModeGuard::new() }
        } else {
            GradientsOff::NoGrad { _guard: NoGradGuard::new() }
        }
    }
}

impl<M: LightningModule> Run<'_, '_, M> {
    /// Evaluates the module on the loaders at hand, one after the other. Returns the logged values of each.
    pub(crate) fn evaluate(&mut self) -> Result<Vec<EvalResults>, Error> {
        let Some(eval) = &self.eval else { return Ok(Vec::new()) };
        let state = &self.engine.state;
        let limits = match state.stage {
            Stage::SanityCheck => state.num_sanity_val_batches(),
            _ => eval.limits.clone(),
        };
        if state.num_eval_batches.iter().all(|batches| *batches == Some(0)) {
            return Ok(Vec::new());
        }
        let _gradients_off = self.engine.state.gradients_off();
        self.engine.state.begin_evaluation()?;
        let outcome = self.evaluate_loaders(&limits);
        self.engine.state.end_evaluation();
        outcome
    }

    fn evaluate_loaders(&mut self, limits: &[Option<usize>]) -> Result<Vec<EvalResults>, Error> {
        let is_test = self.engine.state.stage == Stage::Test;
        if is_test {
            self.module_hook(Hook::OnTestModelEval, |m, t| m.on_test_model_eval(t))?;
        } else {
            self.module_hook(Hook::OnValidationModelEval, |m, t| m.on_validation_model_eval(t))?;
        }
        eval_hook!(self, Start, start())?;
        eval_hook!(self, EpochStart, epoch_start())?;
        // After the hooks, because they may put averages in the module's place.
        self.engine.state.fabric.begin_evaluation(self.module.vars())?;

        let mut results = Vec::new();
        for (dataloader_idx, limit) in limits.iter().enumerate() {
            let has_step = self.evaluate_loader(dataloader_idx, *limit, limits.len() > 1)?;
            if !has_step {
                self.engine.state.disable_validation(self.module.name());
                return Ok(Vec::new());
            }
            self.engine.state.reduce_over_ranks()?;
            results.push(self.engine.state.metrics.take_eval_epoch()?);
        }

        self.engine.state.finish_eval_loaders();
        eval_hook!(self, EpochEnd, epoch_end())?;
        self.engine.state.reduce_over_ranks()?;
        let of_epoch_end = self.engine.state.metrics.take_eval_epoch()?;
        results.iter_mut().for_each(|result| result.extend(of_epoch_end.clone()));
        let all: EvalResults = results.iter().flatten().map(|(name, value)| (name.clone(), *value)).collect();
        self.engine.state.write_eval_metrics(&all)?;
        // A checkpoint of the last hook is one of after the validation.
        self.engine.state.run.before_validation = None;
        eval_hook!(self, End, end())?;

        if is_test {
            self.module_hook(Hook::OnTestModelTrain, |m, t| m.on_test_model_train(t))?;
        } else {
            self.module_hook(Hook::OnValidationModelTrain, |m, t| m.on_validation_model_train(t))?;
        }
        Ok(results)
    }

    /// Evaluates one loader. `false`: the module has no such step.
    fn evaluate_loader(&mut self, dataloader_idx: usize, limit: Option<usize>, several: bool) -> Result<bool, Error> {
        let Some(eval) = &self.eval else { return Ok(true) };
        let in_common = eval.in_common[dataloader_idx];
        let epoch = self.engine.state.run.progress.epoch.current.processed;
        let stage = self.engine.state.stage.describe();
        let mut batches = Batches::new(eval.loaders[dataloader_idx].as_ref(), epoch, 0, limit)
            .map_err(|source| Error::Data { stage, batch_idx: 0, source })?;
        let action = if self.engine.state.stage == Stage::Test {
            "[_EvaluationLoop].test_next"
        } else {
            "[_EvaluationLoop].val_next"
        };
        while let Some(numbered) = self.engine.state.fetch(&mut batches, action)? {
            let idx = numbered.idx;
            if !self.evaluate_batch(numbered, dataloader_idx, several)? {
                return Ok(false);
            }
            self.engine.state.profile_batch_end()?;
            self.poll_saves()?;
            self.engine.state.heed_signals_together(idx < in_common)?;
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
        self.engine.state.run.progress.val_batch.ready();
        self.engine.start_batch(&batch, idx, several.then_some(dataloader_idx));
        eval_hook!(self, BatchStart, batch_start(&batch, idx, dataloader_idx))?;
        self.engine.state.run.progress.val_batch.started();

        let step_batch = fulgurite_data::Batch::shallow_clone(&batch);
        let stepped = if self.engine.state.stage == Stage::Test {
            self.engine.on_step(Hook::TestStep, self.module, |m, step| m.test_step(step_batch, step))
        } else {
            self.engine.on_step(Hook::ValidationStep, self.module, |m, step| m.validation_step(step_batch, step))
        };
        match stepped {
            Err(Error::NotImplemented("validation_step" | "test_step")) => return Ok(false),
            stepped => stepped?,
        }
        self.engine.state.run.progress.val_batch.processed();

        eval_hook!(self, BatchEnd, batch_end(&batch, idx, dataloader_idx))?;
        self.engine.state.run.progress.val_batch.completed();
        let state = &mut self.engine.state;
        if state.stage != Stage::SanityCheck {
            let x = state.run.eval_batches[dataloader_idx];
            state.run.eval_batches[dataloader_idx] += 1;
            state.write_metrics(true, x, None)?;
        }
        Ok(true)
    }
}

impl TrainerState {
    fn begin_evaluation(&mut self) -> Result<(), Error> {
        // Callbacks of the evaluation see what training logged before it.
        self.metrics.refresh()?;
        self.metrics.evaluating = true;
        self.metrics.in_batch = false;
        self.run.progress.val_batch.restart_current();
        Ok(())
    }

    fn finish_eval_loaders(&mut self) {
        self.metrics.eval.dataloader_idx = None;
        self.batch_idx = None;
    }

    fn end_evaluation(&mut self) {
        self.validation_ran |= self.stage != Stage::SanityCheck;
        self.metrics.eval.reset();
        self.metrics.evaluating = false;
        self.metrics.in_batch = false;
        self.batch_idx = None;
        self.dataloader_idx = 0;
    }

    fn write_eval_metrics(&mut self, values: &EvalResults) -> Result<(), Error> {
        if self.stage == Stage::SanityCheck {
            return Ok(());
        }
        let (x, epoch) = (self.run.progress.batches_that_stepped as i64, self.current_epoch());
        let action = self.begin_action(|| "log_metrics".to_owned());
        let written = self.metrics.write_eval_epoch(&mut self.fabric.loggers, values, x, Some(epoch));
        self.end_action(action);
        written
    }

    fn disable_validation(&mut self, module: &str) {
        self.has_validation = false;
        self.step_missing = true;
        if self.entry != TrainerFn::Fit {
            return;
        }
        self.warn(&format!(
            "there is a validation loader, and `{module}` has no `validation_step`, so validation is skipped"
        ));
    }
}

impl Stage {
    /// The stage in a sentence.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Stage::Train => "training",
            Stage::SanityCheck | Stage::Validate => "validation",
            Stage::Test => "test",
            Stage::Predict => "prediction",
        }
    }
}
