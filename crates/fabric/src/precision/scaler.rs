//! [`GradScaler`]: `torch.amp.GradScaler`.

use derive_setters::Setters;
use fulgurite_optim::{OptimError, Optimizer};
use fulgurite_torch::autocast::{unscale_grads, update_scale};
use fulgurite_torch::tch::{Kind, TchError, Tensor, no_grad_guard};
use fulgurite_torch::{Dict, TorchError, ValueError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::optimizer_step::OptimizerStep;

/// Options of [`GradScaler`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct GradScalerOptions {
    /// The initial scale.
    pub init_scale: f64,
    /// The factor of the scale after `growth_interval` consecutive steps without infinite or NaN gradients; above 1.
    pub growth_factor: f64,
    /// The factor of the scale after a step with an infinite or NaN gradient; below 1.
    pub backoff_factor: f64,
    /// The number of consecutive steps without infinite or NaN gradients before the scale grows.
    pub growth_interval: i64,
    /// Whether to scale. If disabled, every method behaves as without a scaler.
    pub enabled: bool,
}

impl Default for GradScalerOptions {
    fn default() -> GradScalerOptions {
        GradScalerOptions {
            init_scale: 65536.0,
            growth_factor: 2.0,
            backoff_factor: 0.5,
            growth_interval: 2000,
            enabled: true,
        }
    }
}

/// An error of [`GradScaler`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScalerError {
    /// An invalid option.
    #[error("{option}={value} is invalid for GradScaler: it must be {must}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        must: &'static str,
    },
    /// A method was called before any loss was scaled.
    #[error(
        "{method} was called before any loss was scaled; multiply the loss with `scale(&loss)` before its backward pass"
    )]
    NothingScaled {
        /// The method.
        method: &'static str,
    },
    /// `unscale_` was called twice.
    #[error(
        "unscale_ has already been called for this optimizer since the last update; call it once per step, after the last backward pass"
    )]
    UnscaledTwice,
    /// `unscale_` was called after `step`.
    #[error("unscale_ was called for this optimizer after its step; call update first")]
    UnscaledAfterStep,
    /// `step` was called twice.
    #[error(
        "step has already been called for this optimizer since the last update; call update after the steps of all optimizers"
    )]
    SteppedTwice,
    /// `step` was called for an optimizer whose parameters have no gradients.
    #[error("none of the parameters of {optimizer} has a gradient, so it cannot step; run a backward pass first")]
    NoGradients {
        /// The optimizer.
        optimizer: String,
    },
    /// `update` was called without a step.
    #[error(
        "update was called, but no gradients were checked since the last update; call it after the optimizers' steps"
    )]
    NothingChecked,
    /// The optimizer evaluates the loss itself.
    #[error(
        "{optimizer} evaluates the loss several times in a step, which a gradient scaler does not support; use another optimizer, or precision bf16-mixed"
    )]
    NeedsClosure {
        /// The optimizer.
        optimizer: String,
    },
    /// Gradients are infinite or NaN even at the smallest scale.
    #[error(
        "the gradients are infinite or NaN in every step, although the loss scale is down to {scale:e}, so the scale is not the cause; find the cause with `detect_anomaly`, lower the learning rate, or use precision bf16-mixed"
    )]
    NeverFinite {
        /// The scale.
        scale: f64,
    },
    /// The state is that of a disabled scaler.
    #[error("the saved state is empty, since its scaler was not enabled")]
    EmptyState,
    /// The state is not that of a gradient scaler.
    #[error("not the state of a gradient scaler: {0}")]
    State(#[from] ValueError),
    /// The step of the optimizer failed.
    #[error(transparent)]
    Optimizer(#[from] OptimError),
    /// An operation of libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl From<TchError> for ScalerError {
    fn from(error: TchError) -> ScalerError {
        ScalerError::Torch(error.into())
    }
}

/// Prevents small gradients from underflowing in 16 bits: the loss is multiplied by a scale before its backward pass, and
/// the gradients are divided by it afterwards. A step with an infinite or NaN gradient is skipped and the scale is reduced;
/// after many steps without one, the scale grows. The arithmetic is identical to that of `torch.amp.GradScaler`.
///
/// ```
/// use fulgurite_fabric::{GradScaler, OptimizerStep};
/// use fulgurite_optim::{Optimizer, SGD};
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let w = Tensor::ones([1], (Kind::Float, Device::Cpu)).set_requires_grad(true);
/// let mut optimizer = SGD::new(vec![w.shallow_clone()]).lr(0.1).build()?;
/// let mut scaler = GradScaler::default();
/// scaler.scale(&w.square().sum(None))?.backward();
/// assert_eq!(w.grad().double_value(&[0]), 2.0 * 65536.0);
/// assert_eq!(scaler.step(optimizer.as_mut())?, OptimizerStep::Taken);
/// scaler.update()?;
/// assert!((w.double_value(&[0]) - 0.8).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct GradScaler {
    options: GradScalerOptions,
    growth_tracker: i64,
    /// Set with the first loss.
    on_device: Option<OnDevice>,
    /// Since the last update.
    optimizers: Vec<PerOptimizer>,
}

#[derive(Debug)]
struct OnDevice {
    scale: Tensor,
    growth_tracker: Tensor,
}

#[derive(Debug)]
struct PerOptimizer {
    address: usize,
    stage: Stage,
    /// Not 0 if one of its gradients was infinite or NaN; `None` if there were no gradients.
    found_inf: Option<Tensor>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    Unscaled,
    Stepped,
}

impl GradScaler {
    /// A scaler with these options.
    ///
    /// # Errors
    ///
    /// Fails if an option is out of range.
    pub fn new(options: GradScalerOptions) -> Result<GradScaler, ScalerError> {
        let GradScalerOptions { init_scale, growth_factor, backoff_factor, growth_interval, .. } = options;
        for (option, value, holds, must) in [
            ("init_scale", init_scale, init_scale > 0.0 && init_scale.is_finite(), "a finite number above 0"),
            ("growth_factor", growth_factor, growth_factor > 1.0, "above 1"),
            ("backoff_factor", backoff_factor, backoff_factor > 0.0 && backoff_factor < 1.0, "between 0 and 1"),
            ("growth_interval", growth_interval as f64, growth_interval > 0, "1 or more"),
        ] {
            if !holds {
                return Err(ScalerError::Option { option, value, must });
            }
        }
        Ok(GradScaler { options, ..GradScaler::default() })
    }

    /// The options; `init_scale` is the initial scale, or that of the loaded state.
    pub fn options(&self) -> &GradScalerOptions {
        &self.options
    }

    /// Whether it scales.
    pub fn is_enabled(&self) -> bool {
        self.options.enabled
    }

    /// Multiplies the loss by the scale, on the device of the loss.
    ///
    /// # Errors
    ///
    /// Fails if the scale cannot be allocated on the device of the loss.
    pub fn scale(&mut self, loss: &Tensor) -> Result<Tensor, ScalerError> {
        if !self.options.enabled {
            return Ok(loss.shallow_clone());
        }
        let on_device = match &mut self.on_device {
            Some(there) => there,
            none => {
                let device = loss.device();
                let scale = Tensor::f_full([0; 0], self.options.init_scale, (Kind::Float, device))?;
                let growth_tracker = Tensor::f_full([0; 0], self.growth_tracker, (Kind::Int, device))?;
                none.insert(OnDevice { scale, growth_tracker })
            }
        };
        Ok(loss.f_mul(&on_device.scale.f_to_device(loss.device())?)?)
    }

    /// Divides the gradients of an optimizer's parameters by the scale, so that they can be inspected and clipped.
    /// [`step`](GradScaler::step) does it if it was not called.
    ///
    /// # Errors
    ///
    /// Fails if the gradients are unscaled already, if no loss was scaled, or if a gradient has the kind `Half`.
    pub fn unscale_(&mut self, optimizer: &dyn Optimizer) -> Result<(), ScalerError> {
        if !self.options.enabled {
            return Ok(());
        }
        let Some(OnDevice { scale, .. }) = &self.on_device else {
            return Err(ScalerError::NothingScaled { method: "unscale_" });
        };
        match self.stage(optimizer) {
            Some(Stage::Unscaled) => return Err(ScalerError::UnscaledTwice),
            Some(Stage::Stepped) => return Err(ScalerError::UnscaledAfterStep),
            None => {}
        }
        let parameters = optimizer.param_groups().iter().flat_map(|group| &group.params);
        let (found_inf, gradients) = unscale_grads(parameters, scale)?;
        let found_inf = (gradients > 0).then_some(found_inf);
        self.optimizers.push(PerOptimizer { address: address(optimizer), stage: Stage::Unscaled, found_inf });
        Ok(())
    }

    /// Steps the optimizer, unless one of its gradients is infinite or NaN. That check synchronizes with the device, as
    /// in PyTorch.
    ///
    /// # Errors
    ///
    /// Fails if the optimizer was stepped already since the last [`update`](GradScaler::update), has no gradients or
    /// needs a closure, or if its step fails.
    pub fn step(&mut self, optimizer: &mut dyn Optimizer) -> Result<OptimizerStep, ScalerError> {
        if !self.options.enabled {
            optimizer.step()?;
            return Ok(OptimizerStep::Taken);
        }
        self.check_optimizer(optimizer)?;
        if self.on_device.is_none() {
            return Err(ScalerError::NothingScaled { method: "step" });
        }
        match self.stage(optimizer) {
            Some(Stage::Stepped) => return Err(ScalerError::SteppedTwice),
            Some(Stage::Unscaled) => {}
            None => self.unscale_(optimizer)?,
        }
        let Some(found_inf) = self.found_inf(optimizer) else {
            return Err(ScalerError::NoGradients { optimizer: optimizer.name().to_owned() });
        };
        let step = match found_inf.f_double_value(&[])? {
            0.0 => {
                optimizer.step()?;
                OptimizerStep::Taken
            }
            _ => OptimizerStep::Skipped,
        };
        if let Some(known) = self.optimizers.iter_mut().find(|known| known.address == address(optimizer)) {
            known.stage = Stage::Stepped;
        }
        Ok(step)
    }

    /// Updates the scale according to the gradients since the last update. Call it once, after the steps of all optimizers.
    ///
    /// # Errors
    ///
    /// Fails if no optimizer was stepped since the last update.
    pub fn update(&mut self) -> Result<(), ScalerError> {
        let all = std::mem::take(&mut self.optimizers);
        self.update_by(&all)
    }

    /// The same for the optimizers that have stepped. The state of the others is kept.
    pub(super) fn update_stepped(&mut self) -> Result<(), ScalerError> {
        let stepped: Vec<_> = self.optimizers.extract_if(.., |known| known.stage == Stage::Stepped).collect();
        self.update_by(&stepped)
    }

    fn update_by(&mut self, optimizers: &[PerOptimizer]) -> Result<(), ScalerError> {
        if !self.options.enabled {
            return Ok(());
        }
        let _no_grad = no_grad_guard();
        let Some(OnDevice { scale, growth_tracker }) = &mut self.on_device else {
            return Err(ScalerError::NothingScaled { method: "update" });
        };
        let mut found = optimizers.iter().filter_map(|known| known.found_inf.as_ref());
        let Some(first) = found.next() else { return Err(ScalerError::NothingChecked) };
        let mut found_inf = first.shallow_clone();
        for more in found {
            found_inf = found_inf.f_add(&more.f_to_device(first.device())?)?;
        }
        let GradScalerOptions { growth_factor, backoff_factor, growth_interval, .. } = self.options;
        update_scale(scale, growth_tracker, &found_inf, (growth_factor, backoff_factor), growth_interval)?;
        Ok(())
    }

    /// Sets the scale, instead of [`update`](GradScaler::update).
    ///
    /// # Errors
    ///
    /// Fails if no loss was scaled yet.
    pub fn update_to(&mut self, new_scale: f64) -> Result<(), ScalerError> {
        if !self.options.enabled {
            return Ok(());
        }
        let Some(OnDevice { scale, .. }) = &mut self.on_device else {
            return Err(ScalerError::NothingScaled { method: "update_to" });
        };
        let _ = scale.f_fill_(new_scale)?;
        self.optimizers.clear();
        Ok(())
    }

    /// The scale, copied from the device; 1 if the scaler is disabled.
    ///
    /// # Errors
    ///
    /// Fails if the scale cannot be copied from the device.
    pub fn get_scale(&self) -> Result<f64, ScalerError> {
        match &self.on_device {
            _ if !self.options.enabled => Ok(1.0),
            Some(OnDevice { scale, .. }) => Ok(scale.f_double_value(&[])?),
            None => Ok(self.options.init_scale),
        }
    }

    /// What [`unscale_`](GradScaler::unscale_) found in an optimizer's gradients since the last update: a `Float` that
    /// is not 0 if one was infinite or NaN. Strategies that reduce gradients across processes reduce it too, in place,
    /// before the step.
    pub fn found_inf(&self, optimizer: &dyn Optimizer) -> Option<Tensor> {
        self.known(optimizer)?.found_inf.as_ref().map(Tensor::shallow_clone)
    }

    /// Whether an optimizer's gradients were divided by the scale, and it has not stepped.
    pub fn is_unscaled(&self, optimizer: &dyn Optimizer) -> bool {
        self.stage(optimizer) == Some(Stage::Unscaled)
    }

    /// Whether an optimizer has stepped since the last update.
    pub(super) fn has_stepped(&self, optimizer: &dyn Optimizer) -> bool {
        self.stage(optimizer) == Some(Stage::Stepped)
    }

    /// Whether an optimizer with unscaled gradients has not stepped yet.
    pub(super) fn awaits_a_step(&self) -> bool {
        self.optimizers.iter().any(|known| known.stage == Stage::Unscaled)
    }

    /// Discards the state of an optimizer since the last update.
    pub(super) fn forget(&mut self, optimizer: &dyn Optimizer) {
        self.optimizers.retain(|known| known.address != address(optimizer));
    }

    pub(super) fn check_optimizer(&self, optimizer: &dyn Optimizer) -> Result<(), ScalerError> {
        match optimizer.needs_closure() && self.options.enabled {
            true => Err(ScalerError::NeedsClosure { optimizer: optimizer.name().to_owned() }),
            false => Ok(()),
        }
    }

    /// The state under PyTorch's keys; empty if the scaler is disabled.
    ///
    /// # Errors
    ///
    /// Fails if the scale cannot be copied from the device.
    pub fn state_dict(&self) -> Result<Dict, ScalerError> {
        if !self.options.enabled {
            return Ok(Dict::new());
        }
        let growth_tracker = match &self.on_device {
            Some(OnDevice { growth_tracker, .. }) => growth_tracker.f_int64_value(&[])?,
            None => self.growth_tracker,
        };
        Ok(Dict::new()
            .with("scale", self.get_scale()?)
            .with("growth_factor", self.options.growth_factor)
            .with("backoff_factor", self.options.backoff_factor)
            .with("growth_interval", self.options.growth_interval)
            .with("_growth_tracker", growth_tracker))
    }

    /// Restores a state that [`state_dict`](GradScaler::state_dict), here or in PyTorch, returned.
    ///
    /// # Errors
    ///
    /// Fails if the state is empty, because its scaler was disabled, or not that of a gradient scaler. The scaler is then
    /// unchanged.
    pub fn load_state_dict(&mut self, state: &Dict) -> Result<(), ScalerError> {
        if !self.options.enabled {
            return Ok(());
        }
        if state.is_empty() {
            return Err(ScalerError::EmptyState);
        }
        let options = GradScalerOptions {
            init_scale: state.float("scale")?,
            growth_factor: state.float("growth_factor")?,
            backoff_factor: state.float("backoff_factor")?,
            growth_interval: state.int("growth_interval")?,
            enabled: true,
        };
        let growth_tracker = state.int("_growth_tracker")?;
        *self = GradScaler { growth_tracker, ..GradScaler::new(options)? };
        Ok(())
    }

    fn known(&self, optimizer: &dyn Optimizer) -> Option<&PerOptimizer> {
        self.optimizers.iter().find(|known| known.address == address(optimizer))
    }

    fn stage(&self, optimizer: &dyn Optimizer) -> Option<Stage> {
        self.known(optimizer).map(|known| known.stage)
    }
}

/// Identifies an optimizer between two updates.
fn address(optimizer: &dyn Optimizer) -> usize {
    std::ptr::from_ref(optimizer).cast::<()>().addr()
}
