//! [`Clip`]: how gradients are clipped.

use fulgurite_optim::Optimizer;
use fulgurite_torch::grad;
use fulgurite_torch::tch::Tensor;

use crate::FabricError;

/// How gradients are clipped.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Clip {
    /// Clamps every element to `-clip_val..=clip_val`.
    Value {
        /// The maximum absolute value.
        clip_val: f64,
    },
    /// Scales all gradients to a total norm of at most `max_norm`.
    Norm {
        /// The maximum norm.
        max_norm: f64,
        /// The p of the p-norm; may be infinite.
        norm_type: f64,
        /// Whether an infinite or NaN norm is an error. The check waits for the device.
        error_if_nonfinite: bool,
    },
}

impl Clip {
    /// Clamps every element to `-clip_val..=clip_val`.
    pub fn value(clip_val: f64) -> Clip {
        Clip::Value { clip_val }
    }

    /// Scales to a Euclidean norm of at most `max_norm`; an infinite or NaN norm is not an error.
    pub fn norm(max_norm: f64) -> Clip {
        Clip::Norm { max_norm, norm_type: 2.0, error_if_nonfinite: false }
    }

    /// Clips the gradients of an optimizer's parameters on a single device. Returns their norm before clipping, on their
    /// device, when clipping by norm.
    ///
    /// # Errors
    ///
    /// Fails if the norm is infinite or NaN and `error_if_nonfinite` is set, or if a gradient is not floating point.
    pub fn clip(self, optimizer: &dyn Optimizer) -> Result<Option<Tensor>, FabricError> {
        let parameters = || optimizer.param_groups().iter().flat_map(|group| &group.params);
        match self {
            Clip::Value { clip_val } => {
                grad::clip_grad_value(parameters(), clip_val)?;
                Ok(None)
            }
            Clip::Norm { max_norm, norm_type, error_if_nonfinite } => {
                if error_if_nonfinite {
                    let norm = grad::grad_norm(parameters(), norm_type)?.f_double_value(&[])?;
                    if !norm.is_finite() {
                        return Err(FabricError::NormNotFinite { norm });
                    }
                }
                Ok(Some(grad::clip_grad_norm(parameters(), max_norm, norm_type)?))
            }
        }
    }
}
