//! [`SGD`].

use fulgurite_torch::foreach::{self, FusedSgd};
use fulgurite_torch::tch::Tensor;

use crate::error::ensure;
use crate::options::options;
use crate::rule::{Bucket, Fixed, Rule};
use crate::{GroupDefaults, OptimError, OptimizerBuilder, ParamGroup, sparse};

/// Stochastic gradient descent, optionally with momentum:
/// [`torch.optim.SGD`](https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html).
///
/// Takes sparse gradients, without weight decay. Options and defaults: [`SgdOptions`].
pub type SGD = OptimizerBuilder<SgdOptions>;

options! {
    /// Options of [`SGD`], and its update.
    SgdOptions of SGD {
        /// Learning rate.
        lr: f64 = 1e-3,
        /// Momentum factor; 0.9 is usual.
        momentum: f64 = 0.0,
        /// Dampening of momentum.
        dampening: f64 = 0.0,
        /// Weight decay (L2 penalty).
        weight_decay: f64 = 0.0,
        /// Use Nesterov momentum; needs momentum, and no dampening.
        nesterov: bool = false,
        /// Maximize the objective instead of minimizing it.
        maximize: bool = false,
    }
}

impl Rule for SgdOptions {
    const NAME: &'static str = "SGD";
    const SLOTS: &'static [&'static str] = &["momentum_buffer"];
    const COUNTS_STEPS: bool = false;
    const FIXED: &'static [(&'static str, Fixed)] =
        &[("foreach", Fixed::None), ("differentiable", Fixed::False), ("fused", Fixed::None)];

    fn group_defaults(&self) -> GroupDefaults {
        GroupDefaults::new(self.lr).weight_decay(self.weight_decay).momentum(self.momentum)
    }

    fn validate(&self, group: &ParamGroup) -> Result<(), OptimError> {
        let (momentum, dampening) = (group.momentum(), self.dampening);
        ensure(dampening.is_finite(), Self::NAME, "dampening", dampening, "a finite number")?;
        if self.nesterov && (momentum <= 0.0 || dampening != 0.0) {
            return Err(OptimError::NesterovNeedsMomentum { momentum, dampening });
        }
        Ok(())
    }

    fn uses(&self, _slot: usize, group: &ParamGroup) -> bool {
        group.momentum() != 0.0
    }

    /// The first step sets the momentum, the others add to it.
    fn bucket_key(step: u64) -> u64 {
        step.min(2)
    }

    fn check_gradients(&self, group: &ParamGroup, sparse: usize, _dense: usize) -> Result<(), OptimError> {
        sparse::check(Self::NAME, group, sparse)
    }

    /// PyTorch's momentum of sparse gradients is sparse itself; this one is dense, with the same numbers.
    fn update_sparse(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        let (momentum, is_first_step) = (group.momentum(), bucket.progress.step == 1);
        let add = |to: &mut Tensor, what: &Tensor, factor: f64| -> Result<(), OptimError> {
            let _ = to.f_add_(&what.f_mul_scalar(factor)?)?;
            Ok(())
        };
        for i in 0..bucket.params.len() {
            let (mut param, grad) = (bucket.params.get(i)?, bucket.grads.get(i)?);
            let grad = if self.maximize { grad.f_neg()? } else { grad };
            if momentum == 0.0 {
                add(&mut param, &grad, -group.lr)?;
                continue;
            }
            let mut buffer = bucket.slots[0].get(i)?;
            let _ = buffer.f_mul_scalar_(if is_first_step { 0.0 } else { momentum })?;
            add(&mut buffer, &grad, if is_first_step { 1.0 } else { 1.0 - self.dampening })?;
            if self.nesterov {
                add(&mut param, &grad, -group.lr)?;
                add(&mut param, &buffer, -group.lr * momentum)?;
            } else {
                add(&mut param, &buffer, -group.lr)?;
            }
        }
        Ok(())
    }

    fn update(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        let momentum = group.momentum();
        let options = FusedSgd {
            lr: group.lr,
            momentum,
            dampening: self.dampening,
            weight_decay: group.weight_decay,
            nesterov: self.nesterov,
            maximize: self.maximize,
            is_first_step: momentum != 0.0 && bucket.progress.step == 1,
        };
        let Bucket { params, grads, slots, work: [none, _], .. } = bucket;
        let buffers = if momentum == 0.0 { none } else { &mut slots[0] };
        Ok(foreach::fused_sgd_(params, grads, buffers, &options)?)
    }
}
