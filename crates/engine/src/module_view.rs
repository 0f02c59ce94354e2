//! [`ModuleView`]: any module, as callbacks see it.

use std::any::Any;

use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, Value};

use crate::error::Result;

/// What a callback sees of any module.
pub trait ModuleView {
    /// The module's type name.
    fn name(&self) -> &str;

    /// Its parameters and buffers.
    fn vars(&self) -> &dyn Parameters;

    /// Its hyper-parameters.
    fn hparams(&self) -> Result<Dict>;

    /// Changes a hyper-parameter. `false`: there is none of that name.
    fn set_hparam(&mut self, name: &str, value: &Value) -> Result<bool>;

    /// Whether the trainer runs backward passes and optimizers.
    fn automatic_optimization(&self) -> bool;

    /// Switches layers that care between training and evaluation.
    fn train(&mut self, mode: bool) -> Result<()>;

    /// One forward pass over example inputs; `None` where the module has none.
    fn example_forward(&mut self) -> Result<Option<Tensor>>;

    /// Floating-point operations of one training batch, if it says.
    fn flops_per_batch(&self) -> Option<f64>;

    /// The module itself, to be downcast by a callback that knows it.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}
