//! [`PredictionWriter`]: writes predictions during `predict`.

use std::any::Any;

use fulgurite_engine::{Callback, ModuleView, Result, TrainerState};
use fulgurite_torch::Value;
use fulgurite_torch::tch::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a [`PredictionWriter`] is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WriteInterval {
    /// After every batch.
    #[default]
    Batch,
    /// Once, after the last batch of the last loader.
    Epoch,
    /// After every batch and at the end.
    BatchAndEpoch,
}

impl WriteInterval {
    fn on_batch(self) -> bool {
        self != WriteInterval::Epoch
    }

    fn on_epoch(self) -> bool {
        self != WriteInterval::Batch
    }
}

/// Writes predictions, like Lightning's `BasePredictionWriter`. [`WritePredictions`] turns it into a callback.
///
/// Implement the method for the interval it is used with; the other does nothing by default.
///
/// ```
/// use std::path::PathBuf;
///
/// use fulgurite::callbacks::{PredictionWriter, WriteInterval, WritePredictions};
/// use fulgurite::prelude::*;
/// use fulgurite::torch::serialization;
///
/// /// One file for everything: `torch.load` opens it.
/// struct OneFile(PathBuf);
///
/// impl PredictionWriter for OneFile {
///     fn write_on_epoch_end(
///         &mut self,
///         _: &mut TrainerState,
///         _: &mut dyn fulgurite::ModuleView,
///         predictions: &[Vec<Value>],
///         _: &[Vec<Option<Vec<usize>>>],
///     ) -> Result<()> {
///         let loaders: Vec<Value> = predictions.iter().map(|batches| batches.clone().into()).collect();
///         Ok(serialization::save(&self.0, &loaders.into())?)
///     }
/// }
///
/// let writer = WritePredictions::new(OneFile("predictions.pt".into()), WriteInterval::Epoch);
/// let trainer = Trainer::builder().callback(writer);
/// ```
#[expect(unused_variables, reason = "the defaults do nothing with their arguments")]
pub trait PredictionWriter: Send + 'static {
    /// Writes the predictions of one batch, on the device they were made on. `batch_indices` are the items of the
    /// dataset that the batch holds; `None` where the loader cannot know. `batch` can be downcast to the module's
    /// `Batch`.
    #[expect(clippy::too_many_arguments, reason = "Lightning's")]
    fn write_on_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        prediction: &Value,
        batch_indices: Option<&[usize]>,
        batch: &dyn Any,
        batch_idx: usize,
        dataloader_idx: usize,
    ) -> Result<()> {
        Ok(())
    }

    /// Writes the predictions of all batches, per loader and batch, on the CPU; `batch_indices` has the same order.
    fn write_on_epoch_end(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        predictions: &[Vec<Value>],
        batch_indices: &[Vec<Option<Vec<usize>>>],
    ) -> Result<()> {
        Ok(())
    }
}

/// The callback that calls a [`PredictionWriter`] during `predict`.
#[must_use]
pub struct WritePredictions<W> {
    writer: W,
    write_interval: WriteInterval,
    /// Indices kept until the end of the epoch, per loader and batch.
    predictions: Vec<Vec<Value>>,
    batch_indices: Vec<Vec<Option<Vec<usize>>>>,
}

impl<W: PredictionWriter> WritePredictions<W> {
    /// Calls `writer` at every `write_interval`.
    pub fn new(writer: W, write_interval: WriteInterval) -> WritePredictions<W> {
        WritePredictions { writer, write_interval, predictions: Vec::new(), batch_indices: Vec::new() }
    }

    /// The writer.
    pub fn writer(&self) -> &W {
        &self.writer
    }

    fn forget(&mut self) {
        self.predictions.clear();
        self.batch_indices.clear();
    }
}

impl<W: PredictionWriter> Callback for WritePredictions<W> {
    fn on_predict_epoch_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.forget();
        let loaders = trainer.num_eval_batches().len();
        self.predictions.resize_with(loaders, Vec::new);
        self.batch_indices.resize_with(loaders, Vec::new);
        Ok(())
    }

    fn on_predict_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        outputs: &Value,
        batch: &dyn Any,
        batch_idx: usize,
        dataloader_idx: usize,
    ) -> Result<()> {
        let indices = trainer.batch_indices().map(<[usize]>::to_vec);
        if self.write_interval.on_batch() {
            let indices = indices.as_deref();
            self.writer.write_on_batch_end(trainer, module, outputs, indices, batch, batch_idx, dataloader_idx)?;
        }
        if self.write_interval.on_epoch() {
            self.predictions[dataloader_idx].push(outputs.map_tensors(&mut |t| t.to_device(Device::Cpu)));
            self.batch_indices[dataloader_idx].push(indices);
        }
        Ok(())
    }

    fn on_predict_epoch_end(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        if !self.write_interval.on_epoch() {
            return Ok(());
        }
        let written = self.writer.write_on_epoch_end(trainer, module, &self.predictions, &self.batch_indices);
        self.forget();
        written
    }
}
