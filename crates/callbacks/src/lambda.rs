//! [`LambdaCallback`]: a callback defined by closures.

use std::any::Any;

use fulgurite_engine::{Callback, Error, Loss, ModuleView, Result, TrainerFn, TrainerState};
use fulgurite_fabric::Commit;
use fulgurite_fabric::loggers::CheckpointNews;
use fulgurite_optim::Optimizer;
use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, Value};

/// The closure of a hook, if one is set. It is called with the trainer, the module, and the other arguments of the
/// hook.
macro_rules! hook_type {
    ($($arg:ty),*) => {
        Option<Box<dyn FnMut(&mut TrainerState, &mut dyn ModuleView $(, $arg)*) -> Result<()> + Send>>
    };
}

macro_rules! lambda_callback {
    ($($(#[$doc:meta])* $hook:ident($($name:ident: $arg:ty),*);)*) => {
        /// A callback defined by closures, one per hook.
        ///
        /// ```
        /// use fulgurite::callbacks::LambdaCallback;
        /// use fulgurite::prelude::*;
        ///
        /// let talkative = LambdaCallback::new()
        ///     .on_train_start(|trainer, module| {
        ///         trainer.print(&format!("{} learns", module.name()));
        ///         Ok(())
        ///     })
        ///     .on_validation_end(|trainer, _| {
        ///         let loss = trainer.callback_metrics()?.get("val_loss").map(|loss| loss.to_f64());
        ///         trainer.print(&format!("val_loss is {loss:?}"));
        ///         Ok(())
        ///     });
        /// let trainer = Trainer::builder().callback(talkative);
        /// ```
        #[derive(Default)]
        #[must_use]
        pub struct LambdaCallback {
            $($hook: hook_type!($($arg),*),)*
        }

        /// One setter for each hook of [`Callback`]. Setting a hook again replaces its closure.
        impl LambdaCallback {
            $(
                $(#[$doc])*
                pub fn $hook(
                    mut self,
                    hook: impl FnMut(&mut TrainerState, &mut dyn ModuleView $(, $arg)*) -> Result<()> + Send + 'static,
                ) -> Self {
                    self.$hook = Some(Box::new(hook));
                    self
                }
            )*
        }

        impl Callback for LambdaCallback {
            $(
                fn $hook(
                    &mut self,
                    trainer: &mut TrainerState,
                    module: &mut dyn ModuleView
                    $(, $name: $arg)*
                ) -> Result<()> {
                    self.$hook.as_mut().map_or(Ok(()), |hook| hook(trainer, module $(, $name)*))
                }
            )*
        }
    };
}

impl LambdaCallback {
    /// A callback without any closure.
    pub fn new() -> LambdaCallback {
        LambdaCallback::default()
    }
}

lambda_callback! {
    /// Called when an entry point begins.
    setup(stage: TrainerFn);
    /// Called when an entry point ends, also after an error.
    teardown(stage: TrainerFn);
    /// Called when fit begins; the optimizers exist.
    on_fit_start();
    /// Called when fit ends.
    on_fit_end();
    /// Called when the sanity check begins.
    on_sanity_check_start();
    /// Called when the sanity check ends.
    on_sanity_check_end();
    /// Called when training begins.
    on_train_start();
    /// Called when training ends.
    on_train_end();
    /// Called at the start of a training epoch.
    on_train_epoch_start();
    /// Called at the end of a training epoch.
    on_train_epoch_end();
    /// Called when a training batch is on the device: the batch and its index.
    on_train_batch_start(batch: &dyn Any, batch_idx: usize);
    /// Called after a training batch: its loss, the batch and its index.
    on_train_batch_end(outputs: &Loss, batch: &dyn Any, batch_idx: usize);
    /// Called before the gradients are zeroed.
    on_before_zero_grad(optimizer: &mut dyn Optimizer);
    /// Called before the backward pass of a loss.
    on_before_backward(loss: &Tensor);
    /// Called after the backward pass.
    on_after_backward();
    /// Called before an optimizer step, with the accumulated gradients before clipping.
    on_before_optimizer_step(optimizer: &mut dyn Optimizer);
    /// Called when validation begins.
    on_validation_start();
    /// Called when validation ends; its metrics are complete.
    on_validation_end();
    /// Called at the start of the validation epoch.
    on_validation_epoch_start();
    /// Called at the end of the validation epoch.
    on_validation_epoch_end();
    /// Called when a validation batch is on the device: the batch, its index and its loader's.
    on_validation_batch_start(batch: &dyn Any, batch_idx: usize, dataloader_idx: usize);
    /// Called after a validation batch: the outputs of its step, the batch, its index and its loader's.
    on_validation_batch_end(outputs: &Value, batch: &dyn Any, batch_idx: usize, dataloader_idx: usize);
    /// Called when test begins.
    on_test_start();
    /// Called when test ends.
    on_test_end();
    /// Called at the start of the test epoch.
    on_test_epoch_start();
    /// Called at the end of the test epoch.
    on_test_epoch_end();
    /// Called when a test batch is on the device: the batch, its index and its loader's.
    on_test_batch_start(batch: &dyn Any, batch_idx: usize, dataloader_idx: usize);
    /// Called after a test batch: the outputs of its step, the batch, its index and its loader's.
    on_test_batch_end(outputs: &Value, batch: &dyn Any, batch_idx: usize, dataloader_idx: usize);
    /// Called when prediction begins.
    on_predict_start();
    /// Called when prediction ends.
    on_predict_end();
    /// Called at the start of the prediction epoch.
    on_predict_epoch_start();
    /// Called at the end of the prediction epoch.
    on_predict_epoch_end();
    /// Called when a prediction batch is on the device: the batch, its index and its loader's.
    on_predict_batch_start(batch: &dyn Any, batch_idx: usize, dataloader_idx: usize);
    /// Called after a prediction batch: the predictions, the batch, its index and its loader's.
    on_predict_batch_end(outputs: &Value, batch: &dyn Any, batch_idx: usize, dataloader_idx: usize);
    /// Called when an error ends the run.
    on_exception(error: &Error);
    /// Called when a checkpoint is complete on the disk, in the process of rank 0 alone.
    on_checkpoint_written(news: &CheckpointNews);
    /// Called when a checkpoint could not be written, with the request and the error.
    on_checkpoint_failed(commit: &Commit, error: &Error);
    /// Called before a checkpoint is written; entries may be added.
    on_save_checkpoint(checkpoint: &mut Dict);
    /// Called after a checkpoint was read.
    on_load_checkpoint(checkpoint: &mut Dict);
}
