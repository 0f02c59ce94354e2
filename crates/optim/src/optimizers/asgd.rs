//! [`ASGD`].

use fulgurite_torch::foreach;

use crate::error::ensure;
use crate::options::options;
use crate::rule::{Bucket, Fixed, Rule};
use crate::{GroupDefaults, OptimError, OptimizerBuilder, ParamGroup};

/// Averaged stochastic gradient descent (B. Polyak, A. Juditsky, 1992); the averaged weights are `ax` in its state.
/// [`torch.optim.ASGD`](https://docs.pytorch.org/docs/stable/generated/torch.optim.ASGD.html).
///
/// Options and defaults: [`AsgdOptions`].
pub type ASGD = OptimizerBuilder<AsgdOptions>;

options! {
    /// Options of [`ASGD`], and its update.
    AsgdOptions of ASGD {
        /// Learning rate.
        lr: f64 = 1e-2,
        /// Decay of the weights, and of the learning rate.
        lambd: f64 = 1e-4,
        /// Power of the learning rate's decay.
        alpha: f64 = 0.75,
        /// The step at which averaging starts.
        t0: f64 = 1e6,
        /// Weight decay (L2 penalty).
        weight_decay: f64 = 0.0,
        /// Maximize the objective instead of minimizing it.
        maximize: bool = false,
    }
}

impl Rule for AsgdOptions {
    const NAME: &'static str = "ASGD";
    const SLOTS: &'static [&'static str] = &["ax"];
    const SCALARS: &'static [&'static str] = &["eta", "mu"];
    const FIXED: &'static [(&'static str, Fixed)] =
        &[("foreach", Fixed::None), ("differentiable", Fixed::False), ("capturable", Fixed::False)];

    fn group_defaults(&self) -> GroupDefaults {
        GroupDefaults::new(self.lr).weight_decay(self.weight_decay)
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        let finite = self.lambd.is_finite() && self.alpha.is_finite() && !self.t0.is_nan();
        let values = format!("{}, {}, {}", self.lambd, self.alpha, self.t0);
        ensure(finite, Self::NAME, "lambd, alpha, t0", values, "numbers")
    }

    fn initial_scalars(&self, group: &ParamGroup) -> [f32; 2] {
        [group.lr as f32, 1.0]
    }

    fn update(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        bucket.prepare_grads(self.maximize, group.weight_decay)?;
        let step = bucket.step();
        let Bucket { params, grads, slots, work: [work, _], progress, .. } = bucket;
        let [eta, mu] = progress.scalars.map(f64::from);
        foreach::add(grads, params, self.lambd, work)?;
        foreach::add_(params, work, -eta)?;
        foreach::sub(params, &slots[0], 1.0, work)?;
        foreach::add_(&mut slots[0], work, mu)?;
        let next_eta = group.lr / (1.0 + self.lambd * group.lr * step).powf(self.alpha);
        let next_mu = 1.0 / (step - self.t0).max(1.0);
        progress.scalars = [next_eta as f32, next_mu as f32];
        Ok(())
    }
}
