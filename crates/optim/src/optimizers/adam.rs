//! [`Adam`] and [`AdamW`].

use fulgurite_torch::foreach::{self, FusedAdam};

use crate::error::ensure_non_negative;
use crate::options::options;
use crate::rule::{Bucket, Fixed, Rule};
use crate::{GroupDefaults, OptimError, OptimizerBuilder, ParamGroup};

/// Adam, <https://arxiv.org/abs/1412.6980>:
/// [`torch.optim.Adam`](https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html).
///
/// Options and defaults: [`AdamOptions`].
pub type Adam = OptimizerBuilder<AdamOptions>;

/// Adam with decoupled weight decay, <https://arxiv.org/abs/1711.05101>:
/// [`torch.optim.AdamW`](https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html).
///
/// Options and defaults: [`AdamWOptions`].
///
/// ```
/// use fulgurite_optim::{AdamW, Optimizer};
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let weight = Tensor::ones([3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
/// let mut optimizer = AdamW::new(vec![weight.shallow_clone()]).lr(0.1).betas(0.9, 0.95).weight_decay(0.0).build()?;
/// optimizer.zero_grad()?;
/// weight.square().sum(None).backward();
/// optimizer.step()?;
/// assert!((weight.double_value(&[0]) - 0.9).abs() < 1e-6);
/// # Ok::<(), fulgurite_optim::OptimError>(())
/// ```
pub type AdamW = OptimizerBuilder<AdamWOptions>;

options! {
    /// Options of [`Adam`], and its update.
    AdamOptions of Adam {
        /// Learning rate.
        lr: f64 = 1e-3,
        /// Exponential decay rates of the first and second moment estimates.
        betas(beta1: f64, beta2: f64 => (beta1, beta2)): (f64, f64) = (0.9, 0.999),
        /// Term added to the denominator for numerical stability.
        eps: f64 = 1e-8,
        /// Weight decay (L2 penalty).
        weight_decay: f64 = 0.0,
        /// Use the AMSGrad variant, <https://openreview.net/forum?id=ryQu7f-RZ>.
        amsgrad: bool = false,
        /// Maximize the objective instead of minimizing it.
        maximize: bool = false,
        /// Use decoupled weight decay, as AdamW does, instead of an L2 penalty.
        decoupled_weight_decay: bool = false,
    }
}

options! {
    /// Options of [`AdamW`], and its update.
    AdamWOptions of AdamW {
        /// Learning rate.
        lr: f64 = 1e-3,
        /// Exponential decay rates of the first and second moment estimates.
        betas(beta1: f64, beta2: f64 => (beta1, beta2)): (f64, f64) = (0.9, 0.999),
        /// Term added to the denominator for numerical stability.
        eps: f64 = 1e-8,
        /// Decoupled weight decay: the weights shrink by `lr * weight_decay` at each step.
        weight_decay: f64 = 1e-2,
        /// Use the AMSGrad variant, <https://openreview.net/forum?id=ryQu7f-RZ>.
        amsgrad: bool = false,
        /// Maximize the objective instead of minimizing it.
        maximize: bool = false,
    }
}

/// The common part: `decoupled` determines how weight decay is applied, as a function of the options.
macro_rules! adam {
    ($options:ident, $name:literal, $decoupled:expr, [$($fixed:expr),*]) => {
        impl Rule for $options {
            const NAME: &'static str = $name;
            const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];
            const STEP_TENSORS: bool = true;
            const FIXED: &'static [(&'static str, Fixed)] = &[
                $($fixed,)*
                ("foreach", Fixed::None),
                ("capturable", Fixed::False),
                ("differentiable", Fixed::False),
                ("fused", Fixed::None),
            ];

            fn group_defaults(&self) -> GroupDefaults {
                GroupDefaults::new(self.lr).weight_decay(self.weight_decay).betas(self.betas)
            }

            fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
                ensure_non_negative(Self::NAME, "epsilon value", self.eps)
            }

            fn uses(&self, slot: usize, _group: &ParamGroup) -> bool {
                slot < 2 || self.amsgrad
            }

            /// The kernel reads each parameter's own step.
            fn bucket_key(_step: u64) -> u64 {
                0
            }

            fn update(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
                let (beta1, beta2) = group.betas();
                let decoupled: fn(&Self) -> bool = $decoupled;
                let options = FusedAdam {
                    lr: group.lr,
                    beta1,
                    beta2,
                    weight_decay: group.weight_decay,
                    eps: self.eps,
                    amsgrad: self.amsgrad,
                    maximize: self.maximize,
                    decoupled_weight_decay: decoupled(self),
                };
                let Bucket { params, grads, slots, steps, work: [none, _], .. } = bucket;
                let [exp_avgs, exp_avg_sqs, max_exp_avg_sqs] = &mut slots[..] else { return Ok(()) };
                let max_exp_avg_sqs = if self.amsgrad { max_exp_avg_sqs } else { none };
                Ok(foreach::fused_adam_(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps, &options)?)
            }
        }
    };
}

adam!(AdamOptions, "Adam", |options| options.decoupled_weight_decay, []);
adam!(AdamWOptions, "AdamW", |_| true, [("decoupled_weight_decay", Fixed::True)]);
