//! Prediction.

use fulgurite_torch::Value;
use fulgurite_torch::tch::Device;

use super::Run;
use super::batches::{Batches, Numbered};
use crate::error::Error;
use crate::hook::Hook;
use crate::module::LightningModule;

impl<M: LightningModule> Run<'_, '_, M> {
    /// Predictions per loader and batch, on the CPU; none unless they are to be kept.
    pub(crate) fn predict(&mut self, keep: bool) -> Result<Vec<Vec<Value>>, Error> {
        let Some(eval) = &self.eval else { return Ok(Vec::new()) };
        let limits = eval.limits.clone();
        if self.engine.state.num_eval_batches.iter().all(|batches| *batches == Some(0)) {
            return Ok(Vec::new());
        }
        let _gradients_off = self.engine.state.gradients_off();
        self.module_hook(Hook::OnPredictModelEval, |m, t| m.on_predict_model_eval(t))?;
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
        self.engine.state.batch_idx = None;
        self.engine.state.batch_indices = None;
        self.hook(Hook::OnPredictEpochEnd, |c, t, m| c.on_predict_epoch_end(t, m), |m, t| m.on_predict_epoch_end(t))?;
        self.hook(Hook::OnPredictEnd, |c, t, m| c.on_predict_end(t, m), |m, t| m.on_predict_end(t))?;
        self.module.train(true);
        if !keep {
            predictions.clear();
        }
        Ok(predictions)
    }

    fn predict_loader(&mut self, dataloader_idx: usize, limit: Option<usize>, keep: bool) -> Result<Vec<Value>, Error> {
        let Some(eval) = &self.eval else { return Ok(Vec::new()) };
        let (loader, in_common) = (eval.loaders[dataloader_idx].as_ref(), eval.in_common[dataloader_idx]);
        let mut batches = Batches::new(loader, 0, 0, limit).map_err(|source| Error::Data {
            stage: "prediction",
            batch_idx: 0,
            source,
        })?;
        let mut indices = loader.batch_indices(0);
        let mut predictions = Vec::new();
        while let Some(numbered) = self.engine.state.fetch(&mut batches, "[_PredictionLoop].predict_next")? {
            self.engine.state.batch_indices = indices.as_mut().and_then(Iterator::next);
            let idx = numbered.idx;
            let outputs = self.predict_batch(numbered, dataloader_idx)?;
            self.engine.state.profile_batch_end()?;
            if keep {
                predictions.push(outputs.map_tensors(&mut |t| t.to_device(Device::Cpu)));
            }
            self.engine.state.heed_signals_together(idx < in_common)?;
        }
        Ok(predictions)
    }

    fn predict_batch(&mut self, numbered: Numbered<M::Batch>, dataloader_idx: usize) -> Result<Value, Error> {
        let Numbered { batch, idx, .. } = numbered;
        let batch = self.engine.transfer(self.module, batch, dataloader_idx)?;
        self.engine.start_batch(&batch, idx, None);
        self.engine.state.dataloader_idx = dataloader_idx;
        self.hook(
            Hook::OnPredictBatchStart,
            |c, t, m| c.on_predict_batch_start(t, m, &batch, idx, dataloader_idx),
            |m, t| m.on_predict_batch_start(t, &batch, idx, dataloader_idx),
        )?;
        let step_batch = fulgurite_data::Batch::shallow_clone(&batch);
        let outputs = self.engine.on_step(Hook::PredictStep, self.module, |m, step| m.predict_step(step_batch, step));
        let outputs = match outputs {
            Err(Error::NotImplemented(method)) => {
                return Err(Error::MissingMethod { entry: "predict", method, module: self.module.name().to_owned() });
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
