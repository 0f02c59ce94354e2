//! [`Callback`]: hooks that extend the trainer.

use std::any::{Any, TypeId};

use fulgurite_fabric::Commit;
use fulgurite_fabric::loggers::CheckpointNews;
use fulgurite_optim::Optimizer;
use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, Value};

use crate::checkpointer::Checkpointer;
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::module_view::ModuleView;
use crate::stage::TrainerFn;
use crate::state::TrainerState;

/// A callback that the trainer adds by default, unless another one replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DefaultCallback {
    /// The progress bar (`enable_progress_bar`).
    ProgressBar,
    /// The summary of the model (`enable_model_summary`).
    ModelSummary,
    /// The time limit (`max_time`), which is sufficient as the only limit of a run.
    Timer,
}

/// The class of a callback: a Rust type, and a name if one type represents several classes.
///
/// ```
/// use fulgurite::CallbackIdentity;
///
/// struct Foreign;
/// let stopping = CallbackIdentity::of::<Foreign>().class("EarlyStopping");
/// assert_eq!(stopping, CallbackIdentity::of::<Foreign>().class("EarlyStopping"));
/// assert_ne!(stopping, CallbackIdentity::of::<Foreign>().class("Timer"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CallbackIdentity {
    rust_type: TypeId,
    class: Option<String>,
}

impl CallbackIdentity {
    /// The class that is a Rust type.
    pub fn of<C: ?Sized + 'static>() -> CallbackIdentity {
        CallbackIdentity { rust_type: TypeId::of::<C>(), class: None }
    }

    /// One of the classes that the type represents.
    #[must_use]
    pub fn class(self, name: impl Into<String>) -> CallbackIdentity {
        CallbackIdentity { class: Some(name.into()), ..self }
    }
}

macro_rules! plain_hooks {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $($(#[$doc])* fn $name(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
            Ok(())
        })*
    };
}

macro_rules! eval_batch_hooks {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $($(#[$doc])* fn $name(
            &mut self,
            trainer: &mut TrainerState,
            module: &mut dyn ModuleView,
            batch: &dyn Any,
            batch_idx: usize,
            dataloader_idx: usize,
        ) -> Result<()> {
            Ok(())
        })*
    };
}

macro_rules! eval_batch_end_hooks {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $($(#[$doc])* fn $name(
            &mut self,
            trainer: &mut TrainerState,
            module: &mut dyn ModuleView,
            outputs: &Value,
            batch: &dyn Any,
            batch_idx: usize,
            dataloader_idx: usize,
        ) -> Result<()> {
            Ok(())
        })*
    };
}

/// Observes a run, and may change it. Every hook has a default; the hooks of callbacks are called before the
/// module is.
///
/// ```
/// use fulgurite::prelude::*;
/// use fulgurite::{ModuleView, TrainerState};
///
/// /// Stops when the loss is low enough.
/// struct GoodEnough(f64);
///
/// impl Callback for GoodEnough {
///     fn on_validation_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
///         let loss = trainer.callback_metrics()?.get("val_loss").map(|loss| loss.to_f64());
///         if loss.is_some_and(|loss| loss < self.0) {
///             trainer.request_stop("val_loss is good enough");
///         }
///         Ok(())
///     }
/// }
/// ```
#[expect(unused_variables, reason = "the defaults of hooks do nothing with their arguments")]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Callback`",
    note = "write `impl Callback for {Self} {{ ... }}` with the hooks it needs; all have defaults"
)]
pub trait Callback: Any + Send {
    /// The [`Checkpointer`], if the callback writes checkpoints. Such a callback is called after all others, and
    /// replaces the `ModelCheckpoint` that the trainer would add.
    fn checkpointer(&self) -> Option<&dyn Checkpointer> {
        None
    }

    /// The default callback that this one replaces; there can be one of each.
    fn stands_for(&self) -> Option<DefaultCallback> {
        None
    }

    /// Whether the callback reads what the module logs at the end of a training epoch: its
    /// [`on_train_epoch_end`](Callback::on_train_epoch_end) is then called after the module's. This is always so for
    /// checkpointers.
    fn reads_epoch_end_of_module(&self) -> bool {
        false
    }

    /// Its class, by which the module's callbacks replace those of the trainer: the Rust type by default. A type
    /// that represents several classes, such as those of another language, distinguishes them with
    /// [`CallbackIdentity::class`].
    fn identity(&self) -> CallbackIdentity {
        CallbackIdentity::of::<Self>()
    }

    /// The key of its state in checkpoints: unlike that of every other callback with state. The type's name by default, with the
    /// type's parameters; callbacks that can be added twice append what distinguishes them.
    fn state_key(&self) -> String {
        fulgurite_torch::type_name_with_parameters::<Self>()
    }

    /// State to save in checkpoints; empty for none.
    fn state_dict(&self) -> Result<Dict> {
        Ok(Dict::new())
    }

    /// Restores the state returned by [`state_dict`](Callback::state_dict).
    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        Ok(())
    }

    /// Called when an entry point begins.
    fn setup(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        Ok(())
    }

    /// Called when an entry point ends, also after an error.
    fn teardown(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        Ok(())
    }

    plain_hooks! {
        /// Called when fit begins; the optimizers exist.
        on_fit_start;
        /// Called when fit ends.
        on_fit_end;
        /// Called when the sanity check begins.
        on_sanity_check_start;
        /// Called when the sanity check ends.
        on_sanity_check_end;
        /// Called when training begins.
        on_train_start;
        /// Called when training ends.
        on_train_end;
        /// Called at the start of a training epoch.
        on_train_epoch_start;
        /// Called at the end of a training epoch.
        on_train_epoch_end;
        /// Called after the backward pass.
        on_after_backward;
        /// Called when validation begins.
        on_validation_start;
        /// Called when validation ends; its metrics are complete.
        on_validation_end;
        /// Called at the start of the validation epoch.
        on_validation_epoch_start;
        /// Called at the end of the validation epoch.
        on_validation_epoch_end;
        /// Called when test begins.
        on_test_start;
        /// Called when test ends.
        on_test_end;
        /// Called at the start of the test epoch.
        on_test_epoch_start;
        /// Called at the end of the test epoch.
        on_test_epoch_end;
        /// Called when prediction begins.
        on_predict_start;
        /// Called when prediction ends.
        on_predict_end;
        /// Called at the start of the prediction epoch.
        on_predict_epoch_start;
        /// Called at the end of the prediction epoch.
        on_predict_epoch_end;
    }

    eval_batch_hooks! {
        /// Called when a validation batch is on the device. `batch` can be downcast to the module's `Batch`.
        on_validation_batch_start;
        /// Called when a test batch is on the device.
        on_test_batch_start;
        /// Called when a prediction batch is on the device.
        on_predict_batch_start;
    }

    eval_batch_end_hooks! {
        /// Called after a validation batch. `outputs` are those of [`Step::set_outputs`](crate::Step::set_outputs), or `None`.
        on_validation_batch_end;
        /// Called after a test batch. `outputs` are those of [`Step::set_outputs`](crate::Step::set_outputs), or `None`.
        on_test_batch_end;
        /// Called after a prediction batch.
        on_predict_batch_end;
    }

    /// Called when a training batch is on the device. `batch` can be downcast to the module's `Batch`.
    fn on_train_batch_start(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        batch: &dyn Any,
        batch_idx: usize,
    ) -> Result<()> {
        Ok(())
    }

    /// Called after a training batch.
    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        outputs: &Loss,
        batch: &dyn Any,
        batch_idx: usize,
    ) -> Result<()> {
        Ok(())
    }

    /// Called before the gradients are zeroed.
    fn on_before_zero_grad(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        optimizer: &mut dyn Optimizer,
    ) -> Result<()> {
        Ok(())
    }

    /// Called before the backward pass of `loss`.
    fn on_before_backward(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        loss: &Tensor,
    ) -> Result<()> {
        Ok(())
    }

    /// Called before an optimizer step, with the accumulated gradients before clipping.
    fn on_before_optimizer_step(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        optimizer: &mut dyn Optimizer,
    ) -> Result<()> {
        Ok(())
    }

    /// Called when an error ends the run.
    fn on_exception(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView, error: &Error) -> Result<()> {
        Ok(())
    }

    /// Called when a checkpoint whose request has [`news`](crate::SaveRequest::news), as those of `ModelCheckpoint` have, is complete
    /// on the disk. This is in the process of rank 0 alone, and for one that is written in the background later, after a batch or
    /// at the end of the run.
    fn on_checkpoint_written(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        news: &CheckpointNews,
    ) -> Result<()> {
        Ok(())
    }

    /// Called when a checkpoint could not be written, with the request and the error. For checkpoints written in the
    /// background the error is reported later, after a batch or at the end of the run, when other checkpoints may
    /// already have been requested.
    fn on_checkpoint_failed(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        commit: &Commit,
        error: &Error,
    ) -> Result<()> {
        Ok(())
    }

    /// Called before a checkpoint is written; entries may be added. A weights-only checkpoint has no
    /// `optimizer_states`. A callback that replaces the weights must do so in both kinds. (Lightning does not call this
    /// hook for weights-only checkpoints.)
    fn on_save_checkpoint(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        checkpoint: &mut Dict,
    ) -> Result<()> {
        Ok(())
    }

    /// Called after a checkpoint was read, before [`load_state_dict`](Callback::load_state_dict).
    fn on_load_checkpoint(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        checkpoint: &mut Dict,
    ) -> Result<()> {
        Ok(())
    }
}
