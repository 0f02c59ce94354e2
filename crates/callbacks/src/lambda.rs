//! [`LambdaCallback`]: a callback made of closures.

use std::any::Any;

use fulgurite_engine::{Callback, Error, Loss, ModuleView, Result, TrainerFn, TrainerState};
use fulgurite_fabric::Commit;
use fulgurite_optim::Optimizer;
use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, Value};

/// A hook's closure, if it has one. Each is called with the trainer, the module, and what else its hook is told.
macro_rules! hook_type {
    ($($arg:ty),*) => {
        Option<Box<dyn FnMut(&mut TrainerState, &mut dyn ModuleView $(, $arg)*) -> Result<()> + Send>>
    };
}

macro_rules! lambda_callback {
    ($($(#[$doc:meta])* $hook:ident($($name:ident: $arg:ty),*);)*) => {
        /// A callback made of closures, one for each hook that something should happen in.
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

        /// One setter for each hook of [`Callback`]; a second closure for the same hook takes the place of the first.
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
    /// A callback that does nothing yet.
    pub fn new() -> LambdaCallback {
        LambdaCallback::default()
    }
}

lambda_callback! {
    /// An entry point begins.
    setup(stage: TrainerFn);
    /// An entry point ended, however it ended.
    teardown(stage: TrainerFn);
    /// Fit begins; the optimizers exist.
    on_fit_start();
    /// Fit ended.
    on_fit_end();
    /// The sanity check begins.
    on_sanity_check_start();
    /// The sanity check ended.
    on_sanity_check_end();
    /// Training begins.
    on_train_start();
    /// Training ended.
    on_train_end();
    /// A training epoch begins.
    on_train_epoch_start();
    /// A training epoch ended.
    on_train_epoch_end();
    /// A training batch is on the device: the batch and its index.
    on_train_batch_start(batch: &dyn Any, batch_idx: usize);
    /// A training batch was trained on: its loss, the batch and its index.
    on_train_batch_end(outputs: &Loss, batch: &dyn Any, batch_idx: usize);
    /// The gradients of the last step are about to be dropped.
    on_before_zero_grad(optimizer: &mut dyn Optimizer);
    /// Before the backward pass of a loss.
    on_before_backward(loss: &Tensor);
    /// After the backward pass.
    on_after_backward();
    /// The gradients of the window are complete, and not clipped yet.
    on_before_optimizer_step(optimizer: &mut dyn Optimizer);
    /// Validation begins.
    on_validation_start();
    /// Validation ended; its metrics are complete.
    on_validation_end();
    /// The walk through the validation loaders begins.
    on_validation_epoch_start();
    /// The walk through the validation loaders ended.
    on_validation_epoch_end();
    /// A validation batch is on the device: the batch, its index and its loader's.
    on_validation_batch_start(batch: &dyn Any, batch_idx: usize, dataloader_idx: usize);
    /// A validation batch was evaluated: the outputs of its step, the batch, its index and its loader's.
    on_validation_batch_end(outputs: &Value, batch: &dyn Any, batch_idx: usize, dataloader_idx: usize);
    /// Test begins.
    on_test_start();
    /// Test ended.
    on_test_end();
    /// The walk through the test loaders begins.
    on_test_epoch_start();
    /// The walk through the test loaders ended.
    on_test_epoch_end();
    /// A test batch is on the device: the batch, its index and its loader's.
    on_test_batch_start(batch: &dyn Any, batch_idx: usize, dataloader_idx: usize);
    /// A test batch was evaluated: the outputs of its step, the batch, its index and its loader's.
    on_test_batch_end(outputs: &Value, batch: &dyn Any, batch_idx: usize, dataloader_idx: usize);
    /// Prediction begins.
    on_predict_start();
    /// Prediction ended.
    on_predict_end();
    /// The walk through the prediction loaders begins.
    on_predict_epoch_start();
    /// The walk through the prediction loaders ended.
    on_predict_epoch_end();
    /// A prediction batch is on the device: the batch, its index and its loader's.
    on_predict_batch_start(batch: &dyn Any, batch_idx: usize, dataloader_idx: usize);
    /// A batch was predicted: the predictions, the batch, its index and its loader's.
    on_predict_batch_end(outputs: &Value, batch: &dyn Any, batch_idx: usize, dataloader_idx: usize);
    /// An error ends the run.
    on_exception(error: &Error);
    /// A checkpoint could not be written: what was to be done, and why it was not.
    on_checkpoint_failed(commit: &Commit, error: &Error);
    /// A checkpoint is about to be written; it may be added to.
    on_save_checkpoint(checkpoint: &mut Dict);
    /// A checkpoint was read.
    on_load_checkpoint(checkpoint: &mut Dict);
}
