//! [`OptimizerBuilder`]: how every optimizer but LBFGS is made.

use crate::engine::Engine;
use crate::groups::{Defaults, resolve};
use crate::rule::Rule;
use crate::{IntoParamGroups, Momentum, OptimError, Optimizer, Optimizers, ParamGroupConfig};

/// The settings of an optimizer to be. Used under the name of the optimizer: [`AdamW`](crate::AdamW),
/// [`SGD`](crate::SGD), …
///
/// Nothing is checked before it is built, by [`build`](OptimizerBuilder::build) or by what takes [`Optimizers`].
#[derive(Debug)]
pub struct OptimizerBuilder<R> {
    groups: Vec<ParamGroupConfig>,
    lr: f64,
    pub(crate) weight_decay: Option<f64>,
    pub(crate) momentum: Momentum,
    pub(crate) rule: R,
}

impl<R: Rule> OptimizerBuilder<R> {
    /// For a `VarStore`, tensors, or groups, with PyTorch's defaults.
    pub fn new(params: impl IntoParamGroups) -> Self {
        OptimizerBuilder {
            groups: params.into_param_groups(),
            lr: R::LR,
            weight_decay: R::WEIGHT_DECAY,
            momentum: R::MOMENTUM,
            rule: R::new(),
        }
    }

    /// The learning rate.
    #[must_use]
    pub fn lr(mut self, lr: f64) -> Self {
        self.lr = lr;
        self
    }

    /// The optimizer, for a loop of one's own.
    ///
    /// # Errors
    ///
    /// When there is no parameter, one appears twice or cannot be optimized, or a setting makes no sense.
    pub fn build(self) -> Result<Box<dyn Optimizer>, OptimError> {
        let defaults = Defaults { lr: self.lr, weight_decay: self.weight_decay, momentum: self.momentum };
        let groups = resolve(R::NAME, self.groups, &defaults)?;
        Ok(Box::new(Engine::new(groups, defaults, self.rule)?))
    }
}

impl<R: Rule> From<OptimizerBuilder<R>> for Optimizers {
    fn from(builder: OptimizerBuilder<R>) -> Optimizers {
        Optimizers::from_result(builder.build())
    }
}

/// Setters of a builder: `name(arguments) => field = value;`.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) => $($field:ident).+ = $value:expr;)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(mut self, $($argument: $type),*) -> Self {
                self.$($field).+ = $value;
                self
            }
        )*
    };
}
pub(crate) use setters;
