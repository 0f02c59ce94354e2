//! The methods of [`Fabric`] that use its precision.

use fulgurite_data::Batch;
use fulgurite_optim::Optimizer;
use fulgurite_torch::autocast::AutocastGuard;
use fulgurite_torch::tch::Tensor;

use super::{Clip, GradScaler, OptimizerStep, Pass};
use crate::strategy::ContextGuard;
use crate::{Fabric, FabricError};

/// The context of a forward pass on this thread, active until it is dropped. Created by [`Fabric::forward_context`].
#[derive(Debug)]
#[must_use = "the context ends when it is dropped"]
pub struct ForwardContext {
    _strategy: ContextGuard,
    _autocast: Option<AutocastGuard>,
}

impl Fabric {
    /// Converts the floating-point tensors of the batch to the kind of the precision.
    pub fn convert_input<B: Batch>(&self, batch: B) -> B {
        match self.precision().input_kind() {
            Some(kind) => batch.to_float_kind(kind),
            None => batch,
        }
    }

    /// The context of a forward pass and its loss, active until it is dropped: autocast in mixed precision, and the context of
    /// the strategy, such as synchronized batch norms in training.
    ///
    /// ```
    /// use fulgurite_fabric::{Fabric, Pass};
    /// use fulgurite_torch::tch::{Device, Kind, Tensor};
    ///
    /// let fabric = Fabric::new("cpu", &1.into(), "bf16-mixed")?;
    /// let x = Tensor::ones([2, 2], (Kind::Float, fabric.device()));
    /// let y = {
    ///     let _context = fabric.forward_context(Pass::Training)?;
    ///     x.matmul(&x)
    /// };
    /// assert_eq!(y.kind(), Kind::BFloat16);
    /// # Ok::<(), fulgurite_fabric::FabricError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Fails if the device does not support autocast.
    pub fn forward_context(&self, pass: Pass) -> Result<ForwardContext, FabricError> {
        Ok(ForwardContext {
            _strategy: self.strategy().forward_context(pass)?,
            _autocast: self.precision().forward_context(self.device(), pass)?,
        })
    }

    /// The backward pass of `loss`, a scalar with a gradient. With a gradient scaler, the gradients are scaled until
    /// [`clip_gradients`](Fabric::clip_gradients) or [`optimizer_step`](Fabric::optimizer_step).
    ///
    /// # Errors
    ///
    /// Fails if autograd does, such as for a loss that does not require a gradient.
    pub fn backward(&mut self, loss: &Tensor) -> Result<(), FabricError> {
        match self.scale_loss(loss)? {
            Some(scaled) => self.backward_scaled(&scaled),
            None => self.backward_scaled(loss),
        }
    }

    /// The first half of [`backward`](Fabric::backward): scales the loss, `None` if the precision does not.
    ///
    /// # Errors
    ///
    /// Fails as [`Precision::scale_loss`](crate::Precision::scale_loss) does.
    pub fn scale_loss(&mut self, loss: &Tensor) -> Result<Option<Tensor>, FabricError> {
        self.precision_mut().scale_loss(loss)
    }

    /// The second half of [`backward`](Fabric::backward): the backward pass of a loss that was scaled.
    ///
    /// # Errors
    ///
    /// Fails as [`backward`](Fabric::backward) does.
    pub fn backward_scaled(&mut self, loss: &Tensor) -> Result<(), FabricError> {
        let (strategy, precision) = self.step_parts();
        strategy.backward(loss, precision)
    }

    /// The factor of the loss; 1 without a gradient scaler. Copied from the device.
    ///
    /// # Errors
    ///
    /// Fails if the scale cannot be copied from the device.
    pub fn loss_scale(&self) -> Result<f64, FabricError> {
        Ok(self.precision().scaler().map(GradScaler::get_scale).transpose()?.unwrap_or(1.0))
    }

    /// Divides the gradients of an optimizer's parameters by the scale, once per step.
    ///
    /// # Errors
    ///
    /// Fails as [`Precision::unscale_gradients`](crate::Precision::unscale_gradients) does.
    pub fn unscale_gradients(&mut self, optimizer: &dyn Optimizer) -> Result<(), FabricError> {
        self.precision_mut().unscale_gradients(optimizer)
    }

    /// Unscales and clips the gradients of an optimizer's parameters. Returns their norm before clipping, on their device,
    /// when clipping by norm.
    ///
    /// # Errors
    ///
    /// Fails if the norm is infinite or NaN and `error_if_nonfinite` is set, or if the gradients cannot be unscaled.
    pub fn clip_gradients(&mut self, optimizer: &dyn Optimizer, clip: Clip) -> Result<Option<Tensor>, FabricError> {
        self.unscale_gradients(optimizer)?;
        self.strategy_mut().clip_gradients(optimizer, clip)
    }

    /// Steps an optimizer whose gradients are complete. With a gradient scaler, a step with an infinite gradient is
    /// skipped.
    ///
    /// # Errors
    ///
    /// Fails if the step of the optimizer does, or if the optimizer needs a closure (LBFGS).
    pub fn optimizer_step(&mut self, optimizer: &mut dyn Optimizer) -> Result<OptimizerStep, FabricError> {
        let (strategy, precision) = self.step_parts();
        strategy.optimizer_step(optimizer, precision)
    }
}
