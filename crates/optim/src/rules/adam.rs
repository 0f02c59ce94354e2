//! [`Adam`] and [`AdamW`].

use fulgurite_torch::foreach::{self, FusedAdam};

use crate::builder::{OptimizerBuilder, setters};
use crate::error::ensure_non_negative;
use crate::rule::{Batch, Inert, Rule};
use crate::settings::{Settings, settings};
use crate::{Momentum, OptimError, ParamGroup};

/// Adam, <https://arxiv.org/abs/1412.6980>: [`torch.optim.Adam`](https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html).
///
/// Defaults: `lr` 1e-3, `betas` (0.9, 0.999), `eps` 1e-8, `weight_decay` 0.
pub type Adam = OptimizerBuilder<AdamRule<false>>;

/// Adam with decoupled weight decay, <https://arxiv.org/abs/1711.05101>:
/// [`torch.optim.AdamW`](https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html).
///
/// Defaults: `lr` 1e-3, `betas` (0.9, 0.999), `eps` 1e-8, `weight_decay` 0.01.
///
/// ```
/// use fulgurite_optim::{AdamW, Optimizer};
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let weight = Tensor::ones([3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
/// let mut optimizer = AdamW::new(vec![weight.shallow_clone()]).lr(0.1).betas(0.9, 0.95).weight_decay(0.0).build()?;
/// optimizer.zero_grad();
/// weight.square().sum(None).backward();
/// optimizer.step()?;
/// assert!((weight.double_value(&[0]) - 0.9).abs() < 1e-6);
/// # Ok::<(), fulgurite_optim::OptimError>(())
/// ```
pub type AdamW = OptimizerBuilder<AdamRule<true>>;

/// The update of [`Adam`] (`W` false) and [`AdamW`] (`W` true).
#[derive(Debug, Clone)]
pub struct AdamRule<const W: bool> {
    eps: f64,
    amsgrad: bool,
    maximize: bool,
    decoupled_weight_decay: bool,
}

impl<const W: bool> OptimizerBuilder<AdamRule<W>> {
    setters! {
        /// How slowly the averages of the gradient and of its square move.
        betas(beta1: f64, beta2: f64) => momentum = Momentum::Betas(beta1, beta2);
        /// Added to the denominator.
        eps(eps: f64) => rule.eps = eps;
        /// Weight decay: added to the gradient (`Adam`), or taken off the weights (`AdamW`).
        weight_decay(weight_decay: f64) => weight_decay = Some(weight_decay);
        /// Divide by the largest average of the squared gradient so far, <https://openreview.net/forum?id=ryQu7f-RZ>.
        amsgrad(amsgrad: bool) => rule.amsgrad = amsgrad;
        /// Go up the gradient.
        maximize(maximize: bool) => rule.maximize = maximize;
    }
}

impl OptimizerBuilder<AdamRule<false>> {
    setters! {
        /// Take weight decay off the weights, which makes it `AdamW`.
        decoupled_weight_decay(decoupled: bool) => rule.decoupled_weight_decay = decoupled;
    }
}

impl<const W: bool> Settings for AdamRule<W> {
    settings! {
        "eps" = eps,
        "amsgrad" = amsgrad,
        "maximize" = maximize,
        "decoupled_weight_decay" = decoupled_weight_decay,
    }
}

impl<const W: bool> Rule for AdamRule<W> {
    const NAME: &'static str = if W { "AdamW" } else { "Adam" };
    const LR: f64 = 1e-3;
    const WEIGHT_DECAY: Option<f64> = Some(if W { 1e-2 } else { 0.0 });
    const MOMENTUM: Momentum = Momentum::Betas(0.9, 0.999);
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];
    const STEP_TENSORS: bool = true;
    const INERT: &'static [(&'static str, Inert)] = &[
        ("foreach", Inert::None),
        ("capturable", Inert::False),
        ("differentiable", Inert::False),
        ("fused", Inert::None),
    ];

    fn new() -> Self {
        AdamRule { eps: 1e-8, amsgrad: false, maximize: false, decoupled_weight_decay: W }
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        ensure_non_negative(Self::NAME, "epsilon value", self.eps)
    }

    fn uses(&self, slot: usize, _group: &ParamGroup) -> bool {
        slot < 2 || self.amsgrad
    }

    /// The kernel reads each parameter's own step.
    fn batch_key(_step: u64) -> u64 {
        0
    }

    fn update(&self, group: &ParamGroup, batch: &mut Batch) -> Result<(), OptimError> {
        let (beta1, beta2) = group.betas();
        let options = FusedAdam {
            lr: group.lr,
            beta1,
            beta2,
            weight_decay: group.weight_decay,
            eps: self.eps,
            amsgrad: self.amsgrad,
            maximize: self.maximize,
            decoupled_weight_decay: self.decoupled_weight_decay,
        };
        let Batch { params, grads, slots, steps, work: [none, _], .. } = batch;
        let [exp_avgs, exp_avg_sqs, max_exp_avg_sqs] = &mut slots[..] else { return Ok(()) };
        let max_exp_avg_sqs = if self.amsgrad { max_exp_avg_sqs } else { none };
        Ok(foreach::fused_adam_(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps, &options)?)
    }
}
