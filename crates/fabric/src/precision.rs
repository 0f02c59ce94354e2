//! Precision: the kinds of the parameters and of the inputs, and what surrounds a step.

use fulgurite_torch::tch::{Kind, nn};
use fulgurite_torch::{grad, params};

use crate::FabricError;

/// How numbers are represented during a run.
pub trait Precision: Send {
    /// The canonical name, such as `32-true`.
    fn name(&self) -> &'static str;

    /// The kind floating-point inputs are converted to; `None` leaves them as they are.
    fn input_kind(&self) -> Option<Kind> {
        None
    }

    /// Converts the parameters in place, once, before optimizers exist.
    ///
    /// # Errors
    ///
    /// What libtorch said.
    fn convert_module(&self, vars: &nn::VarStore) -> Result<(), FabricError> {
        let _ = vars;
        Ok(())
    }

    /// The backward pass of a loss.
    ///
    /// # Errors
    ///
    /// What autograd said.
    fn backward(&mut self, loss: &fulgurite_torch::tch::Tensor) -> Result<(), FabricError> {
        Ok(grad::backward(loss)?)
    }
}

struct Single;
struct Double;

impl Precision for Single {
    fn name(&self) -> &'static str {
        "32-true"
    }
}

impl Precision for Double {
    fn name(&self) -> &'static str {
        "64-true"
    }

    fn input_kind(&self) -> Option<Kind> {
        Some(Kind::Double)
    }

    fn convert_module(&self, vars: &nn::VarStore) -> Result<(), FabricError> {
        Ok(params::to_kind(vars, Kind::Double)?)
    }
}

/// The precision of a name: `32-true` (also `32`) or `64-true` (also `64`).
///
/// # Errors
///
/// An unknown name; the message lists the known ones.
pub fn precision(name: &str) -> Result<Box<dyn Precision>, FabricError> {
    match name {
        "32" | "32-true" => Ok(Box::new(Single)),
        "64" | "64-true" => Ok(Box::new(Double)),
        _ => Err(FabricError::Unknown { what: "precision", given: name.into(), known: &["32-true", "64-true"] }),
    }
}
