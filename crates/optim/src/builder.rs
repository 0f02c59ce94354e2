//! [`OptimizerBuilder`]: builds an optimizer from a [`Rule`].

use crate::groups::resolve;
use crate::{IntoParamGroups, OptimError, Optimizer, Optimizers, ParamGroupConfig, Rule, RuleOptimizer};

/// Parameters and the options of their optimizer. Used under the name of the optimizer: [`AdamW`](crate::AdamW),
/// [`SGD`](crate::SGD), …
///
/// Options are checked by [`build`](OptimizerBuilder::build), or by what takes [`Optimizers`].
#[derive(Debug)]
pub struct OptimizerBuilder<R> {
    groups: Vec<ParamGroupConfig>,
    pub(crate) options: R,
}

impl<R: Rule> OptimizerBuilder<R> {
    /// For a `VarStore`, tensors, or groups, with default options.
    pub fn new(params: impl IntoParamGroups) -> Self {
        OptimizerBuilder::from_options(params, R::default())
    }

    /// For a `VarStore`, tensors, or groups, with these options.
    pub fn from_options(params: impl IntoParamGroups, options: R) -> Self {
        OptimizerBuilder { groups: params.into_param_groups(), options }
    }

    /// The optimizer, for a custom training loop.
    ///
    /// # Errors
    ///
    /// Fails if there is no parameter, one appears twice or cannot be optimized, or an option is out of range.
    pub fn build(self) -> Result<Box<dyn Optimizer>, OptimError> {
        let groups = resolve(R::NAME, self.groups, &self.options.group_defaults())?;
        Ok(Box::new(RuleOptimizer::new(groups, self.options)?))
    }
}

impl<R: Rule> From<OptimizerBuilder<R>> for Optimizers {
    fn from(builder: OptimizerBuilder<R>) -> Optimizers {
        Optimizers::from_result(builder.build())
    }
}
