//! Precision: the kinds of parameters and inputs, the context of a forward pass, and the optimizer step.
//!
//! Every training step calls it in this order: [`forward_context`](Precision::forward_context) around the
//! forward pass, [`scale_loss`](Precision::scale_loss), [`backward`](Precision::backward),
//! [`unscale_gradients`](Precision::unscale_gradients), hooks and clipping, then
//! [`optimizer_step`](Precision::optimizer_step), which may skip.

mod clip;
mod mixed;
mod names;
mod on_fabric;
mod optimizer_step;
mod scaler;
mod true_precision;

use fulgurite_optim::Optimizer;
use fulgurite_torch::autocast::AutocastGuard;
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::{Device, Kind, Tensor};
use fulgurite_torch::{Dict, grad};

use crate::FabricError;

pub use clip::Clip;
pub use mixed::MixedPrecision;
pub use names::{NAMES, Named, precision};
pub use on_fabric::ForwardContext;
pub use optimizer_step::OptimizerStep;
pub use scaler::{GradScaler, GradScalerOptions, ScalerError};
pub use true_precision::TruePrecision;

/// The purpose of a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Training: gradients are recorded, and parameters may change before it ends (manual optimization).
    Training,
    /// Validation, test, prediction.
    Evaluation,
}

/// How numbers are represented during a run.
pub trait Precision: Send {
    /// The canonical name, such as `32-true`.
    fn name(&self) -> &'static str;

    /// The key of its state in a checkpoint: Lightning's name of the class.
    fn state_key(&self) -> &'static str {
        self.name()
    }

    /// The kind floating-point inputs are converted to; `None` leaves them as they are.
    fn input_kind(&self) -> Option<Kind> {
        None
    }

    /// The kind in which to create parameters: the argument of `VarStore::set_kind` before layers are created.
    fn init_kind(&self) -> Kind {
        Kind::Float
    }

    /// Converts the parameters in place, once, before optimizers are created.
    ///
    /// # Errors
    ///
    /// Fails if the converted parameters cannot be allocated.
    fn convert_module(&self, vars: &dyn Parameters) -> Result<(), FabricError> {
        let _ = vars;
        Ok(())
    }

    /// The context of a forward pass and its loss on `device`, active until the guard is dropped.
    ///
    /// # Errors
    ///
    /// Fails if the device does not support autocast.
    fn forward_context(&self, device: Device, pass: Pass) -> Result<Option<AutocastGuard>, FabricError> {
        let _ = (device, pass);
        Ok(None)
    }

    /// Scales the loss for its backward pass. `None` if it is not scaled.
    ///
    /// # Errors
    ///
    /// Fails if libtorch cannot allocate the scale or multiply the loss with it.
    fn scale_loss(&mut self, loss: &Tensor) -> Result<Option<Tensor>, FabricError> {
        let _ = loss;
        Ok(None)
    }

    /// The backward pass of a loss that was [scaled](Precision::scale_loss).
    ///
    /// # Errors
    ///
    /// Fails if autograd does, such as for a loss that does not require a gradient.
    fn backward(&mut self, loss: &Tensor) -> Result<(), FabricError> {
        Ok(grad::backward(loss)?)
    }

    /// Rejects an optimizer that this precision does not support, when it is set up.
    ///
    /// # Errors
    ///
    /// Fails if the precision does not support the optimizer, such as one that needs a closure with a gradient scaler.
    fn check_optimizer(&self, optimizer: &dyn Optimizer) -> Result<(), FabricError> {
        let _ = optimizer;
        Ok(())
    }

    /// Divides the gradients of an optimizer's parameters by the scale, before hooks are called and gradients are clipped.
    /// Once per step: further calls before [`optimizer_step`](Precision::optimizer_step) change nothing.
    ///
    /// # Errors
    ///
    /// Fails if no loss was scaled before, or if a gradient has the kind `Half`.
    fn unscale_gradients(&mut self, optimizer: &dyn Optimizer) -> Result<(), FabricError> {
        let _ = optimizer;
        Ok(())
    }

    /// Whether an optimizer is stepped by [`optimizer_step`](Precision::optimizer_step) after the loss was evaluated,
    /// instead of being given the evaluation as its closure.
    fn evaluates_first(&self) -> bool {
        self.scaler().is_some()
    }

    /// Steps an optimizer whose gradients are complete, unless one of them is infinite or NaN.
    ///
    /// # Errors
    ///
    /// Fails if the step of the optimizer does.
    fn optimizer_step(&mut self, optimizer: &mut dyn Optimizer) -> Result<OptimizerStep, FabricError> {
        optimizer.step()?;
        Ok(OptimizerStep::Taken)
    }

    /// Whether forward passes run with autocast, which must not be active outside of them.
    fn is_mixed(&self) -> bool {
        false
    }

    /// The gradient scaler, if there is one.
    fn scaler(&self) -> Option<&GradScaler> {
        None
    }

    /// The state to save in a checkpoint under [`state_key`](Precision::state_key). An empty state is not saved.
    ///
    /// # Errors
    ///
    /// Fails if the state cannot be copied from the device.
    fn state_dict(&self) -> Result<Dict, FabricError> {
        Ok(Dict::new())
    }

    /// Restores a state that [`state_dict`](Precision::state_dict) returned.
    ///
    /// # Errors
    ///
    /// Fails if the state is not one of this precision.
    fn load_state_dict(&mut self, state: &Dict) -> Result<(), FabricError> {
        let _ = state;
        Ok(())
    }
}
