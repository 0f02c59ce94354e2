//! [`ModuleView`]: a module as seen by callbacks.

use std::any::Any;

use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, Value};

use crate::error::Result;

/// The view of any module that callbacks receive.
pub trait ModuleView {
    /// The module's type name.
    fn name(&self) -> &str;

    /// Its parameters and buffers.
    fn vars(&self) -> &dyn Parameters;

    /// Its hyper-parameters.
    fn hparams(&self) -> Result<Dict>;

    /// Sets a hyper-parameter. Returns `false` if there is none with that name.
    fn set_hparam(&mut self, name: &str, value: &Value) -> Result<bool>;

    /// Whether the trainer runs backward passes and optimizers.
    fn automatic_optimization(&self) -> bool;

    /// Switches the module's layers between training and evaluation.
    fn train(&mut self, mode: bool) -> Result<()>;

    /// One forward pass over example inputs; `None` if the module has none.
    fn example_forward(&mut self) -> Result<Option<Tensor>>;

    /// Floating-point operations of one training batch, if the module reports them.
    fn flops_per_batch(&self) -> Option<f64>;

    /// The module itself, for downcasting.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}
