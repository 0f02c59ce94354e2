//! An epoch without updates that recomputes batch norm statistics.

use fulgurite_torch::TorchError;
use fulgurite_torch::rng::RngState;

use crate::batch_norm::BatchNormRefresh;
use crate::engine::Engine;
use crate::error::Error;
use crate::loss::Loss;
use crate::module::LightningModule;
use crate::scope::Scope;

impl Engine {
    /// Passes a batch through `training_step` for the statistics of batch norms. There is no backward pass and no update,
    /// but the last batch of the epoch counts as a step, so that loggers and checkpoints see that something is new.
    pub(super) fn refresh_batch_norm<M: LightningModule>(
        &mut self,
        module: &mut M,
        batch: &M::Batch,
    ) -> Result<Loss, Error> {
        let Some(refresh) = self.state.fit.epoch.optimization.take_refresh() else { return Ok(Loss::skip()) };
        let put_back = |engine: &mut Engine, refresh| engine.state.fit.epoch.optimization.set_refresh(refresh);
        let mut outputs = self.lend(refresh, put_back, |engine, refresh| engine.pass(module, batch, refresh))?;
        if !self.state.is_accumulating() {
            self.state.fit.epoch.optimization.count_step();
        }
        outputs.loss = outputs.loss.map(|loss| loss.f_detach().map_err(TorchError::from)).transpose()?;
        Ok(outputs)
    }

    fn pass<M: LightningModule>(
        &mut self,
        module: &mut M,
        batch: &M::Batch,
        refresh: &mut BatchNormRefresh,
    ) -> Result<Loss, Error> {
        if !refresh.is_rehearsed() {
            // Its effects are discarded: random numbers and logged values are those of a single pass.
            let rng = RngState::capture()?;
            let logs_nothing = self.state.metrics.set_disabled(true);
            refresh.before_rehearsal()?;
            let rehearsed = self.training_step(module, batch);
            self.state.metrics.set_disabled(logs_nothing);
            refresh.after_rehearsal()?;
            drop(rehearsed?);
            rng.restore()?;
        }
        refresh.before_batch()?;
        let outputs = self.training_step(module, batch);
        refresh.after_batch(outputs.is_ok())?;
        outputs
    }
}
