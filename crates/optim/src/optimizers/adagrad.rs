//! [`Adagrad`].

use fulgurite_torch::foreach::{self, FusedAdagrad};
use fulgurite_torch::tch::Tensor;

use crate::error::ensure_non_negative;
use crate::options::options;
use crate::rule::{Bucket, Fixed, Rule};
use crate::sparse::{self, SparseGrad};
use crate::{GroupDefaults, OptimError, OptimizerBuilder, ParamGroup};

/// Adagrad, <https://jmlr.org/papers/v12/duchi11a.html>:
/// [`torch.optim.Adagrad`](https://docs.pytorch.org/docs/stable/generated/torch.optim.Adagrad.html).
///
/// Takes sparse gradients, without weight decay. Options and defaults: [`AdagradOptions`].
pub type Adagrad = OptimizerBuilder<AdagradOptions>;

options! {
    /// Options of [`Adagrad`], and its update.
    AdagradOptions of Adagrad {
        /// Learning rate.
        lr: f64 = 1e-2,
        /// Decay of the learning rate: at step `t` it is `lr / (1 + (t - 1) * lr_decay)`.
        lr_decay: f64 = 0.0,
        /// Weight decay (L2 penalty).
        weight_decay: f64 = 0.0,
        /// Initial value of the sums of squared gradients.
        initial_accumulator_value: f64 = 0.0,
        /// Term added to the denominator for numerical stability.
        eps: f64 = 1e-10,
        /// Maximize the objective instead of minimizing it.
        maximize: bool = false,
    }
}

impl Rule for AdagradOptions {
    const NAME: &'static str = "Adagrad";
    const SLOTS: &'static [&'static str] = &["sum"];
    const STEP_TENSORS: bool = true;
    const EAGER: bool = true;
    const FIXED: &'static [(&'static str, Fixed)] =
        &[("foreach", Fixed::None), ("differentiable", Fixed::False), ("fused", Fixed::None)];

    fn group_defaults(&self) -> GroupDefaults {
        GroupDefaults::new(self.lr).weight_decay(self.weight_decay)
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        ensure_non_negative(Self::NAME, "lr_decay value", self.lr_decay)?;
        ensure_non_negative(Self::NAME, "initial_accumulator_value value", self.initial_accumulator_value)?;
        ensure_non_negative(Self::NAME, "epsilon value", self.eps)
    }

    fn init(&self, _slot: usize, _group: &ParamGroup, param: &Tensor) -> Result<Option<Tensor>, OptimError> {
        Ok(Some(param.f_full_like(self.initial_accumulator_value)?))
    }

    /// The kernel reads each parameter's own step.
    fn bucket_key(_step: u64) -> u64 {
        0
    }

    fn check_gradients(&self, group: &ParamGroup, sparse: usize, _dense: usize) -> Result<(), OptimError> {
        sparse::check(Self::NAME, group, sparse)
    }

    fn update_sparse(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        for i in 0..bucket.params.len() {
            let Some(grad) = SparseGrad::of(&bucket.grads.get(i)?, self.maximize)? else { continue };
            let (mut param, mut sum) = (bucket.params.get(i)?, bucket.slots[0].get(i)?);
            let step = bucket.steps.get(i)?.f_double_value(&[])?;
            let lr = group.lr / (1.0 + (step - 1.0) * self.lr_decay);
            grad.add_to(&mut sum, &grad.values.f_square()?)?;
            let std = grad.of_dense(&sum)?.f_sqrt()?.f_add_scalar(self.eps)?;
            grad.add_to(&mut param, &grad.values.f_div(&std)?.f_mul_scalar(-lr)?)?;
        }
        Ok(())
    }

    fn update(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        let options = FusedAdagrad {
            lr: group.lr,
            lr_decay: self.lr_decay,
            weight_decay: group.weight_decay,
            eps: self.eps,
            maximize: self.maximize,
        };
        let Bucket { params, grads, slots, steps, .. } = bucket;
        Ok(foreach::fused_adagrad_(params, grads, &mut slots[0], steps, &options)?)
    }
}
