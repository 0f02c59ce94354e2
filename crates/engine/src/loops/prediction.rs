//! Prediction.

use fulgurite_torch::Value;
use fulgurite_torch::params;
use fulgurite_torch::tch::Device;

use super::Run;
use super::batches::{Batches, Numbered, of_loader};
use crate::error::Error;
use crate::hook::Hook;
use crate::module::LightningModule;
use crate::record::Activity;
use crate::scope::Scope;
use crate::stage::Stage;
use crate::state::Owner;

impl<M: LightningModule> Run<'_, '_, M> {
    /// Predictions per loader and batch, on the CPU; empty if they are not kept.
    pub(crate) fn predict(&mut self, keep: bool) -> Result<Vec<Vec<Value>>, Error> {
        let Some(eval) = &self.eval else { return Ok(Vec::new()) };
        let limits = eval.limits.clone();
        if self.state().evaluation().has_no_batches() {
            return Ok(Vec::new());
        }
        let _gradients_off = self.state().gradients_off();
        let modes = params::modes(self.module.vars());
        let entered = self.module_hook(Hook::OnPredictModelEval, |m, t| m.on_predict_model_eval(t));
        entered.inspect_err(|_| modes.restore())?;
        let predicted = self.spending(Activity::Prediction, |run| run.predict_in_eval_mode(limits, keep));
        // Also after an error, because the next run may train the module.
        let switched = self.module.train(true);
        modes.restore();
        let name = || LightningModule::name(self.module).to_owned();
        let switched = switched.map_err(|error| self.engine.state.hook_error(Hook::Train, Owner::Module, &name, error));
        predicted.and_then(|predictions| switched.map(|()| predictions))
    }

    fn predict_in_eval_mode(&mut self, limits: Vec<Option<usize>>, keep: bool) -> Result<Vec<Vec<Value>>, Error> {
        self.hook(Hook::OnPredictStart, |c, t, m| c.on_predict_start(t, m), |m, t| m.on_predict_start(t))?;
        self.hook(
            Hook::OnPredictEpochStart,
            |c, t, m| c.on_predict_epoch_start(t, m),
            |m, t| m.on_predict_epoch_start(t),
        )?;
        let mut predictions = Vec::new();
        for (dataloader_idx, limit) in limits.into_iter().enumerate() {
            predictions.push(self.predict_loader(dataloader_idx, limit, keep)?);
        }
        self.state().position.end_batches();
        self.hook(Hook::OnPredictEpochEnd, |c, t, m| c.on_predict_epoch_end(t, m), |m, t| m.on_predict_epoch_end(t))?;
        self.hook(Hook::OnPredictEnd, |c, t, m| c.on_predict_end(t, m), |m, t| m.on_predict_end(t))?;
        if !keep {
            predictions.clear();
        }
        Ok(predictions)
    }

    fn predict_loader(&mut self, dataloader_idx: usize, limit: Option<usize>, keep: bool) -> Result<Vec<Value>, Error> {
        let Some(eval) = &self.eval else { return Ok(Vec::new()) };
        let (loader, in_common) = (eval.loaders[dataloader_idx].as_ref(), eval.in_common[dataloader_idx]);
        let stage = Stage::Predict.info().noun;
        let batches = Batches::new(loader, 0, 0, limit);
        let mut batches = batches.map_err(|source| Error::Data { stage, batch_idx: Some(0), source })?;
        let mut indices = of_loader(Stage::Predict, || loader.batch_indices(0))?;
        let mut predictions = Vec::new();
        while let Some(numbered) = self.state().fetch(&mut batches)? {
            let idx = numbered.idx;
            let of_batch = of_loader(Stage::Predict, || indices.as_mut().and_then(Iterator::next))?;
            self.state().position.set_batch_indices(of_batch);
            let outputs = self.predict_batch(numbered, dataloader_idx)?;
            self.state().profiling.batch_end(Stage::Predict)?;
            if keep {
                predictions.push(outputs.map_tensors(&mut |t| t.to_device(Device::Cpu)));
            }
            self.state().check_signals_synced(idx < in_common)?;
        }
        Ok(predictions)
    }

    fn predict_batch(&mut self, numbered: Numbered<M::Batch>, dataloader_idx: usize) -> Result<Value, Error> {
        let Numbered { batch, idx, .. } = numbered;
        let batch = self.engine.transfer(self.module, batch, dataloader_idx)?;
        self.state().start_batch(&batch, idx, Some(dataloader_idx));
        self.hook(
            Hook::OnPredictBatchStart,
            |c, t, m| c.on_predict_batch_start(t, m, &batch, idx, dataloader_idx),
            |m, t| m.on_predict_batch_start(t, &batch, idx, dataloader_idx),
        )?;
        let step_batch = fulgurite_data::Batch::shallow_clone(&batch);
        let outputs = self.engine.on_step(Hook::PredictStep, self.module, |m, step| m.predict_step(step_batch, step));
        let outputs = match outputs {
            Err(error) if error.not_implemented().is_some() => {
                let module = LightningModule::name(self.module).to_owned();
                return Err(Error::MissingMethod { entry: "predict", method: "predict_step", module });
            }
            outputs => outputs?,
        };
        self.hook(
            Hook::OnPredictBatchEnd,
            |c, t, m| c.on_predict_batch_end(t, m, &outputs, &batch, idx, dataloader_idx),
            |m, t| m.on_predict_batch_end(t, &outputs, &batch, idx, dataloader_idx),
        )?;
        Ok(outputs)
    }
}
