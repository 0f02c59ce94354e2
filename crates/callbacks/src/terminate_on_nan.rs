//! [`TerminateOnNaN`]: ends a run whose loss is NaN or infinite.

use std::any::Any;

use derive_setters::Setters;
use fulgurite_engine::config::Configurable;
use fulgurite_engine::{Callback, Error, Loss, ModuleView, Result, TrainerState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::deferred::Deferred;
use super::model_checkpoint::python_float;

/// Ends `fit` when the training loss is NaN or infinite.
///
/// Reading a loss makes the host wait for the device. So losses stay there and are read together, many with one wait:
/// on the processor after every batch, on a GPU at the logging interval, and always before validation and at the end of
/// an epoch. The message names the first batch whose loss was not finite, however late it was looked at.
/// `min_epochs` and `min_steps` still hold.
///
/// ```
/// use fulgurite::callbacks::TerminateOnNaN;
/// use fulgurite::prelude::*;
///
/// let trainer = Trainer::builder().callback(TerminateOnNaN::new().every_n_steps(10));
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct TerminateOnNaN {
    options: TerminateOnNaNOptions,
    losses: Deferred,
}

/// Options of [`TerminateOnNaN`].
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, generate_delegates(ty = "TerminateOnNaN", field = "options"))]
#[non_exhaustive]
pub struct TerminateOnNaNOptions {
    /// The number of batches between two checks of the losses; by default 1 on the CPU, `log_every_n_steps` on a GPU.
    pub every_n_steps: Option<u64>,
}

impl Configurable for TerminateOnNaN {
    type Options = TerminateOnNaNOptions;

    fn from_options(options: TerminateOnNaNOptions) -> Result<TerminateOnNaN, Error> {
        Ok(TerminateOnNaN { options, losses: Deferred::default() })
    }
}

impl TerminateOnNaN {
    /// Checks the losses as often as is cheap.
    pub fn new() -> TerminateOnNaN {
        TerminateOnNaN::default()
    }

    fn check(&mut self, trainer: &mut TrainerState) -> Result<()> {
        let mut first = None;
        self.losses.read(|step, loss| {
            if !loss.is_finite() {
                first.get_or_insert((step, loss));
            }
        })?;
        if let Some((step, loss)) = first {
            let message = format!(
                "TerminateOnNaN: the loss of {step} is {}. Lower the learning rate, clip gradients with gradient_clip_val, or look for the operation that makes it with detect_anomaly.",
                python_float(loss)
            );
            trainer.print(&message);
            trainer.request_stop(message);
        }
        Ok(())
    }
}

impl Callback for TerminateOnNaN {
    fn on_train_start(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        // Values of a failed run are dropped.
        self.losses = Deferred::default();
        Ok(())
    }

    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        outputs: &Loss,
        _: &dyn Any,
        _: usize,
    ) -> Result<()> {
        if let Some(loss) = outputs.loss() {
            self.losses.push(loss, trainer);
        }
        if self.losses.is_due(self.options.every_n_steps, trainer) { self.check(trainer) } else { Ok(()) }
    }

    fn on_validation_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.check(trainer)
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.check(trainer)
    }
}
