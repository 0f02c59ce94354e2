//! [`MixedPrecision`]: autocast, and for `16-mixed` a gradient scaler.

use fulgurite_optim::Optimizer;
use fulgurite_torch::autocast::{Autocast, AutocastGuard};
use fulgurite_torch::tch::{Device, Kind, Tensor};
use fulgurite_torch::{Dict, grad};

use super::{GradScaler, OptimizerStep, Pass, Precision, ScalerError};
use crate::FabricError;

/// Below this scale the run fails: gradients that overflow 16 bits even when scaled down have another cause.
const MIN_SCALE: f64 = 1.0 / 16384.0;

/// Parameters in 32 bits, and operations in 16 bits where that is sufficiently accurate: `16-mixed` and `bf16-mixed`.
///
/// ```
/// use fulgurite_fabric::{GradScaler, GradScalerOptions, MixedPrecision, Precision};
///
/// let scaler = GradScaler::new(GradScalerOptions::default().init_scale(1024.0))?;
/// assert_eq!(MixedPrecision::fp16(scaler).name(), "16-mixed");
/// # Ok::<(), fulgurite_fabric::ScalerError>(())
/// ```
#[derive(Debug)]
pub struct MixedPrecision {
    kind: Kind,
    scaler: Option<GradScaler>,
}

impl MixedPrecision {
    /// `16-mixed`, with this scaler.
    pub fn fp16(scaler: GradScaler) -> MixedPrecision {
        MixedPrecision { kind: Kind::Half, scaler: Some(scaler) }
    }

    /// `bf16-mixed`, which has the range of 32-bit floats and needs no scaler.
    pub fn bf16() -> MixedPrecision {
        MixedPrecision { kind: Kind::BFloat16, scaler: None }
    }
}

impl Precision for MixedPrecision {
    fn name(&self) -> &'static str {
        if self.kind == Kind::Half { "16-mixed" } else { "bf16-mixed" }
    }

    fn state_key(&self) -> &'static str {
        "MixedPrecision"
    }

    /// In training, casts of parameters are not cached, as in Lightning: parameters may change within a step, and the
    /// gradients of several uses are summed in 32 bits.
    fn forward_context(&self, device: Device, pass: Pass) -> Result<Option<AutocastGuard>, FabricError> {
        Ok(Some(Autocast::new(device, self.kind).cache(pass == Pass::Evaluation).enter()?))
    }

    fn scale_loss(&mut self, loss: &Tensor) -> Result<Option<Tensor>, FabricError> {
        Ok(self.scaler.as_mut().map(|scaler| scaler.scale(loss)).transpose()?)
    }

    /// In manual optimization it runs within the forward context, where autocast must be disabled for it.
    fn backward(&mut self, loss: &Tensor) -> Result<(), FabricError> {
        let device = loss.device();
        let is_casting = Autocast::current(device)?.is_some();
        let _off = is_casting.then(|| Autocast::off(device).enter()).transpose()?;
        Ok(grad::backward(loss)?)
    }

    fn check_optimizer(&self, optimizer: &dyn Optimizer) -> Result<(), FabricError> {
        match &self.scaler {
            Some(scaler) => Ok(scaler.check_optimizer(optimizer)?),
            None => Ok(()),
        }
    }

    fn unscale_gradients(&mut self, optimizer: &dyn Optimizer) -> Result<(), FabricError> {
        let Some(scaler) = &mut self.scaler else { return Ok(()) };
        if scaler.has_stepped(optimizer) {
            scaler.update_stepped()?;
        }
        if scaler.is_unscaled(optimizer) {
            return Ok(());
        }
        match scaler.unscale_(optimizer) {
            Err(ScalerError::NothingScaled { .. }) if !has_gradients(optimizer) => Ok(()),
            unscaled => Ok(unscaled?),
        }
    }

    /// The scale is not updated while another optimizer with unscaled gradients has yet to step: they have the same scale.
    fn optimizer_step(&mut self, optimizer: &mut dyn Optimizer) -> Result<OptimizerStep, FabricError> {
        self.unscale_gradients(optimizer)?;
        let Some(scaler) = &mut self.scaler else {
            optimizer.step()?;
            return Ok(OptimizerStep::Taken);
        };
        let step = match scaler.step(optimizer) {
            // As without a scaler: the step of a batch without a loss counts, and changes nothing.
            Err(ScalerError::NoGradients { .. } | ScalerError::NothingScaled { .. }) if !has_gradients(optimizer) => {
                scaler.forget(optimizer);
                optimizer.step()?;
                return Ok(OptimizerStep::Taken);
            }
            step => step?,
        };
        if !scaler.awaits_a_step() {
            scaler.update()?;
        }
        if step == OptimizerStep::Skipped {
            let scale = scaler.get_scale()?;
            if scale < MIN_SCALE {
                return Err(ScalerError::NeverFinite { scale }.into());
            }
        }
        Ok(step)
    }

    fn is_mixed(&self) -> bool {
        true
    }

    fn scaler(&self) -> Option<&GradScaler> {
        self.scaler.as_ref()
    }

    fn state_dict(&self) -> Result<Dict, FabricError> {
        match &self.scaler {
            Some(scaler) => Ok(scaler.state_dict()?),
            None => Ok(Dict::new()),
        }
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<(), FabricError> {
        match &mut self.scaler {
            Some(scaler) => Ok(scaler.load_state_dict(state)?),
            None => Ok(()),
        }
    }
}

fn has_gradients(optimizer: &dyn Optimizer) -> bool {
    optimizer.param_groups().iter().flat_map(|group| &group.params).any(|parameter| parameter.grad().defined())
}
