//! [`LightningModule`]: the model and its training logic.

use std::any::Any;

use fulgurite_data::Batch;
use fulgurite_optim::{LrScheduler, Optimizer, Optimizers};
use fulgurite_torch::params::{self, Parameters};
use fulgurite_torch::tch::{Device, Tensor};
use fulgurite_torch::{Dict, Value};

use crate::callback::Callback;
use crate::closure::OptimizerClosure;
use crate::config::GradientClipAlgorithm;
use crate::data_module::Loaders;
use crate::error::{NotImplemented, Result, not_implemented};
use crate::loss::Loss;
use crate::module_view::ModuleView;
use crate::stage::TrainerFn;
use crate::state::TrainerState;
use crate::step::Step;

/// Whether training continues with this batch and the rest of the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BatchFlow {
    /// Train on this batch.
    #[default]
    Continue,
    /// Skip this batch and the rest of the epoch (`-1` in the original).
    EndEpoch,
}

/// A model and its training logic: the parameters, the loss of a batch, and the optimizer that minimizes it.
///
/// A module that trains needs two methods: [`vars`](Self::vars) and [`training_step`](Self::training_step), with
/// [`configure_optimizers`](Self::configure_optimizers). Every other method has a default. A default step returns an
/// error that the trainer recognizes, so it knows that a module has, for example, no validation.
///
/// Hooks are called in the order of Lightning 2.6; those of the callbacks before that of the module.
///
/// ```
/// use fulgurite::prelude::*;
///
/// struct Line { vars: nn::VarStore, layer: nn::Linear }
///
/// impl LightningModule for Line {
///     type Batch = (Tensor, Tensor);
///
///     fn vars(&self) -> &dyn Parameters { &self.vars }
///
///     fn training_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> Result<Loss> {
///         let loss = self.layer.forward(&x).mse_loss(&y, tch::Reduction::Mean);
///         step.log("train_loss", &loss).prog_bar();
///         Ok(loss.into())
///     }
///
///     fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
///         Ok(SGD::new(&self.vars).lr(0.1).into())
///     }
/// }
/// ```
#[expect(unused_variables, reason = "the defaults of hooks do nothing with their arguments")]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `LightningModule`",
    note = "implement `fulgurite::LightningModule` for it: `type Batch`, `vars`, `training_step` and `configure_optimizers`"
)]
pub trait LightningModule: Any + Send + Sized {
    /// The batch type of the steps and loaders.
    type Batch: Batch;

    /// The parameters and buffers: usually the [`nn::VarStore`](fulgurite_torch::VarStore) that its layers
    /// were created from, or any other [`Parameters`]. These tensors are moved to the run's device and saved in
    /// checkpoints.
    fn vars(&self) -> &dyn Parameters;

    /// The loss of one batch, a scalar with a gradient. The trainer runs the backward pass and the optimizer. A module
    /// that is never trained returns an error.
    fn training_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<Loss>;

    /// Metrics of one validation batch, without gradients.
    fn validation_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<()> {
        not_implemented("validation_step")
    }

    /// Metrics of one test batch, without gradients.
    fn test_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<()> {
        not_implemented("test_step")
    }

    /// Predictions for one batch, without gradients.
    fn predict_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<Value> {
        not_implemented("predict_step")
    }

    /// The optimizers and their schedulers; called once per fit, with the parameters on their device.
    ///
    /// [`trainer.estimated_stepping_batches()?`](TrainerState::estimated_stepping_batches) is the length of a schedule.
    /// Asking for it may need the training loader, in which case this is called a second time once that is there.
    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        not_implemented("configure_optimizers")
    }

    /// Whether the trainer runs backward passes and optimizers. If not, [`training_step`](Self::training_step) does,
    /// with [`Step::manual_backward`], [`Step::optimizer_step`] and related methods, over any number of optimizers.
    fn automatic_optimization(&self) -> bool {
        true
    }

    /// One forward pass over example inputs (`example_input_array` in the original): the model summary takes sizes
    /// and FLOPs from. The inputs belong on the device of [`vars`](Self::vars).
    fn example_forward(&mut self) -> Result<Tensor> {
        not_implemented("example_forward")
    }

    /// Floating-point operations of one training batch, forward and backward, for
    /// `ThroughputMonitor`.
    fn flops_per_batch(&self) -> Option<f64> {
        None
    }

    /// Its name in logs and messages: that of the type by default.
    fn name(&self) -> &str {
        fulgurite_torch::short_type_name::<Self>()
    }

    /// Hyper-parameters, saved in checkpoints and sent to loggers.
    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::new())
    }

    /// Sets a hyper-parameter, for the tuner. Returns `false` if there is none with that name.
    fn set_hparam(&mut self, name: &str, value: &Value) -> Result<bool> {
        Ok(false)
    }

    /// Additional callbacks. One of the same class ([`Callback::identity`]) as a callback of the
    /// trainer replaces it.
    fn configure_callbacks(&mut self) -> Result<Vec<Box<dyn Callback>>> {
        Ok(Vec::new())
    }

    /// Switches between training and evaluation: by default all layers whose modes [`vars`](Self::vars) names, such as the
    /// dropout of an [`nn::VarStore`](fulgurite_torch::VarStore). A module that keeps a mode itself overrides it, and calls
    /// [`params::train`](fulgurite_torch::params::train) if it has such layers too. Layers of `tch` take the mode as an
    /// argument: [`Step::is_training`].
    ///
    /// The trainer does not call it when fit begins: a layer that is in evaluation mode then is not trained on.
    fn train(&mut self, mode: bool) -> Result<()> {
        params::train(self.vars(), mode);
        Ok(())
    }

    // Data ------------------------------------------------------------------------------------------------------------

    /// Downloads and prepares data, once per node. State that is set here is not visible to other processes.
    fn prepare_data(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called in every process when an entry point begins.
    fn setup(&mut self, trainer: &mut TrainerState, stage: TrainerFn) -> Result<()> {
        Ok(())
    }

    /// Called in every process when an entry point ends, also after an error.
    fn teardown(&mut self, trainer: &mut TrainerState, stage: TrainerFn) -> Result<()> {
        Ok(())
    }

    /// Creates layers after [`setup`](Self::setup), before a checkpoint is read. Called in every entry point.
    fn configure_model(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// The training loader, if neither loaders nor a data module are passed to `fit`.
    fn train_dataloader(&mut self, trainer: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        not_implemented("train_dataloader")
    }

    /// The validation loaders, if none are passed.
    fn val_dataloader(&mut self, trainer: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        not_implemented("val_dataloader")
    }

    /// The test loaders, if none are passed.
    fn test_dataloader(&mut self, trainer: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        not_implemented("test_dataloader")
    }

    /// The prediction loaders, if none are passed.
    fn predict_dataloader(&mut self, trainer: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        not_implemented("predict_dataloader")
    }

    /// Transforms a batch before it is moved to the device.
    fn on_before_batch_transfer(
        &mut self,
        trainer: &mut TrainerState,
        batch: Self::Batch,
        dataloader_idx: usize,
    ) -> Result<Self::Batch> {
        Ok(batch)
    }

    /// Moves a batch to the device.
    fn transfer_batch_to_device(
        &mut self,
        trainer: &mut TrainerState,
        batch: Self::Batch,
        device: Device,
        dataloader_idx: usize,
    ) -> Result<Self::Batch> {
        Ok(batch.to_device(device))
    }

    /// Transforms a batch on the device.
    fn on_after_batch_transfer(
        &mut self,
        trainer: &mut TrainerState,
        batch: Self::Batch,
        dataloader_idx: usize,
    ) -> Result<Self::Batch> {
        Ok(batch)
    }

    // Fit -------------------------------------------------------------------------------------------------------------

    /// Called when fit begins; the optimizers exist.
    fn on_fit_start(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called when fit ends.
    fn on_fit_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called when training begins, after the sanity check.
    fn on_train_start(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called when training ends.
    fn on_train_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called at the start of a training epoch.
    fn on_train_epoch_start(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called at the end of a training epoch; its metrics are complete.
    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called before a training batch, which is on the device.
    fn on_train_batch_start(
        &mut self,
        trainer: &mut TrainerState,
        batch: &Self::Batch,
        batch_idx: usize,
    ) -> Result<BatchFlow> {
        Ok(BatchFlow::Continue)
    }

    /// Called after a training batch.
    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        outputs: &Loss,
        batch: &Self::Batch,
        batch_idx: usize,
    ) -> Result<()> {
        Ok(())
    }

    // Optimization ----------------------------------------------------------------------------------------------------

    /// Called before the gradients are zeroed.
    fn on_before_zero_grad(&mut self, trainer: &mut TrainerState, optimizer: &mut dyn Optimizer) -> Result<()> {
        Ok(())
    }

    /// Zeroes the gradients.
    fn optimizer_zero_grad(&mut self, trainer: &mut TrainerState, optimizer: &mut dyn Optimizer) -> Result<()> {
        Ok(optimizer.zero_grad()?)
    }

    /// Called before the backward pass of `loss`, which is not divided by the accumulation window. In precision
    /// `16-mixed` it is multiplied by the loss scale.
    fn on_before_backward(&mut self, trainer: &mut TrainerState, loss: &Tensor) -> Result<()> {
        Ok(())
    }

    /// The backward pass of `loss`, here divided by the accumulation window.
    fn backward(&mut self, trainer: &mut TrainerState, loss: &Tensor) -> Result<()> {
        trainer.backward(loss)
    }

    /// Called after the backward pass.
    fn on_after_backward(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called before an optimizer step, with the accumulated gradients unscaled and before clipping.
    fn on_before_optimizer_step(&mut self, trainer: &mut TrainerState, optimizer: &mut dyn Optimizer) -> Result<()> {
        Ok(())
    }

    /// Clips the gradients; by default according to the trainer's arguments.
    fn configure_gradient_clipping(
        &mut self,
        trainer: &mut TrainerState,
        optimizer: &mut dyn Optimizer,
        gradient_clip_val: Option<f64>,
        gradient_clip_algorithm: GradientClipAlgorithm,
    ) -> Result<()> {
        trainer.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
    }

    /// Steps the optimizer. `closure` runs the training step, the backward pass and the hooks around them; an override
    /// must call it once, as this default does.
    fn optimizer_step(
        &mut self,
        optimizer: &mut dyn Optimizer,
        closure: &mut OptimizerClosure<'_, Self>,
    ) -> Result<()> {
        closure.step(self, optimizer)
    }

    /// Steps a scheduler. `metric` is the monitored value of a plateau scheduler.
    fn lr_scheduler_step(
        &mut self,
        trainer: &mut TrainerState,
        scheduler: &mut dyn LrScheduler,
        optimizer: &mut dyn Optimizer,
        metric: Option<f64>,
    ) -> Result<()> {
        Ok(scheduler.step(optimizer, metric)?)
    }

    // Validation, test and prediction ---------------------------------------------------------------------------------

    /// Switches the module to evaluation mode for validation: `train(false)`.
    fn on_validation_model_eval(&mut self, trainer: &mut TrainerState) -> Result<()> {
        self.train(false)
    }

    /// Switches the module back after validation. By default `train(true)` is called, and then each layer gets the mode back that
    /// it had before: what was in evaluation mode stays in it. An override is all that happens.
    fn on_validation_model_train(&mut self, trainer: &mut TrainerState) -> Result<()> {
        not_implemented("on_validation_model_train")
    }

    /// Zeroes the gradients before validation, to save memory.
    fn on_validation_model_zero_grad(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(trainer.zero_grad()?)
    }

    /// Called when validation begins.
    fn on_validation_start(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called when validation ends.
    fn on_validation_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called at the start of the validation epoch.
    fn on_validation_epoch_start(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called at the end of the validation epoch.
    fn on_validation_epoch_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called when a validation batch is on the device.
    fn on_validation_batch_start(
        &mut self,
        trainer: &mut TrainerState,
        batch: &Self::Batch,
        batch_idx: usize,
        dataloader_idx: usize,
    ) -> Result<()> {
        Ok(())
    }

    /// Called after a validation batch. `outputs` are those of [`Step::set_outputs`], or `None`.
    fn on_validation_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        outputs: &Value,
        batch: &Self::Batch,
        batch_idx: usize,
        dataloader_idx: usize,
    ) -> Result<()> {
        Ok(())
    }

    /// Switches the module to evaluation mode for test: `train(false)`.
    fn on_test_model_eval(&mut self, trainer: &mut TrainerState) -> Result<()> {
        self.train(false)
    }

    /// Switches the module back after test. By default `train(true)` is called, and then each layer gets the mode back that
    /// it had before: what was in evaluation mode stays in it. An override is all that happens.
    fn on_test_model_train(&mut self, trainer: &mut TrainerState) -> Result<()> {
        not_implemented("on_test_model_train")
    }

    /// Called when test begins.
    fn on_test_start(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called when test ends.
    fn on_test_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called at the start of the test epoch.
    fn on_test_epoch_start(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called at the end of the test epoch.
    fn on_test_epoch_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called when a test batch is on the device.
    fn on_test_batch_start(
        &mut self,
        trainer: &mut TrainerState,
        batch: &Self::Batch,
        batch_idx: usize,
        dataloader_idx: usize,
    ) -> Result<()> {
        Ok(())
    }

    /// Called after a test batch. `outputs` are those of [`Step::set_outputs`], or `None`.
    fn on_test_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        outputs: &Value,
        batch: &Self::Batch,
        batch_idx: usize,
        dataloader_idx: usize,
    ) -> Result<()> {
        Ok(())
    }

    /// Switches the module to evaluation mode for prediction: `train(false)`. Afterwards `train(true)` is called, and each layer
    /// gets the mode back that it had before.
    fn on_predict_model_eval(&mut self, trainer: &mut TrainerState) -> Result<()> {
        self.train(false)
    }

    /// Called when prediction begins.
    fn on_predict_start(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called when prediction ends.
    fn on_predict_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called at the start of the prediction epoch.
    fn on_predict_epoch_start(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called at the end of the prediction epoch.
    fn on_predict_epoch_end(&mut self, trainer: &mut TrainerState) -> Result<()> {
        Ok(())
    }

    /// Called when a prediction batch is on the device.
    fn on_predict_batch_start(
        &mut self,
        trainer: &mut TrainerState,
        batch: &Self::Batch,
        batch_idx: usize,
        dataloader_idx: usize,
    ) -> Result<()> {
        Ok(())
    }

    /// Called after a prediction batch.
    fn on_predict_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        outputs: &Value,
        batch: &Self::Batch,
        batch_idx: usize,
        dataloader_idx: usize,
    ) -> Result<()> {
        Ok(())
    }

    // Checkpoints -----------------------------------------------------------------------------------------------------

    /// Adds to or changes a checkpoint before it is written.
    fn on_save_checkpoint(&mut self, trainer: &mut TrainerState, checkpoint: &mut Dict) -> Result<()> {
        Ok(())
    }

    /// Reads what [`on_save_checkpoint`](Self::on_save_checkpoint) added, before the weights are restored. If a
    /// checkpoint is loaded outside a run, `trainer` is `None`.
    fn on_load_checkpoint(&mut self, trainer: Option<&mut TrainerState>, checkpoint: &mut Dict) -> Result<()> {
        Ok(())
    }
}

impl<M: LightningModule> ModuleView for M {
    fn name(&self) -> &str {
        LightningModule::name(self)
    }

    fn vars(&self) -> &dyn Parameters {
        LightningModule::vars(self)
    }

    fn hparams(&self) -> Result<Dict> {
        LightningModule::hparams(self)
    }

    fn set_hparam(&mut self, name: &str, value: &Value) -> Result<bool> {
        LightningModule::set_hparam(self, name, value)
    }

    fn automatic_optimization(&self) -> bool {
        LightningModule::automatic_optimization(self)
    }

    fn train(&mut self, mode: bool) -> Result<()> {
        LightningModule::train(self, mode)
    }

    fn example_forward(&mut self) -> Result<Option<Tensor>> {
        match LightningModule::example_forward(self) {
            Err(error) if error.is::<NotImplemented>() => Ok(None),
            passed => passed.map(Some),
        }
    }

    fn flops_per_batch(&self) -> Option<f64> {
        LightningModule::flops_per_batch(self)
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
