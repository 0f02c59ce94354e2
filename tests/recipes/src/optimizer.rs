//! An optimizer: its options, and how it updates parameters.

use fulgurite::optim::{Bucket, GroupDefaults, OptimError, OptimizerBuilder, ParamGroup, Rule};
use fulgurite::torch::foreach;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Updates by the sign of momentum.
pub type SignSGD = OptimizerBuilder<SignSgdOptions>;

/// Options of [`SignSGD`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SignSgdOptions {
    /// Learning rate.
    pub lr: f64,
    /// Momentum factor.
    pub momentum: f64,
    /// Maximize the objective instead of minimizing it.
    pub maximize: bool,
}

impl Default for SignSgdOptions {
    fn default() -> SignSgdOptions {
        SignSgdOptions { lr: 1e-3, momentum: 0.9, maximize: false }
    }
}

impl Rule for SignSgdOptions {
    const NAME: &'static str = "SignSGD";
    const SLOTS: &'static [&'static str] = &["momentum_buffer"];

    fn group_defaults(&self) -> GroupDefaults {
        GroupDefaults::new(self.lr).momentum(self.momentum)
    }

    // Learning rate and momentum are the group's, because schedulers change them there.
    fn update(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        bucket.prepare_grads(self.maximize, 0.0)?;
        let Bucket { params, grads, slots, work: [signs, _], .. } = bucket;
        foreach::lerp_(&mut slots[0], grads, 1.0 - group.momentum())?;
        foreach::sign(&slots[0], signs)?;
        Ok(foreach::add_(params, signs, -group.lr)?)
    }
}
