//! [`Adagrad`].

use fulgurite_torch::foreach::{self, FusedAdagrad};
use fulgurite_torch::tch::{TchError, Tensor};

use crate::builder::{OptimizerBuilder, setters};
use crate::error::ensure_non_negative;
use crate::rule::{Batch, Inert, Rule};
use crate::settings::{Settings, settings};
use crate::{Momentum, OptimError, ParamGroup};

/// Gradients divided by the root of the sum of their squares, <https://jmlr.org/papers/v12/duchi11a.html>:
/// [`torch.optim.Adagrad`](https://docs.pytorch.org/docs/stable/generated/torch.optim.Adagrad.html).
///
/// Defaults: `lr` 1e-2, `eps` 1e-10, everything else 0.
pub type Adagrad = OptimizerBuilder<AdagradRule>;

/// The update of [`Adagrad`].
#[derive(Debug, Clone)]
pub struct AdagradRule {
    lr_decay: f64,
    eps: f64,
    initial_accumulator_value: f64,
    maximize: bool,
}

impl Adagrad {
    setters! {
        /// How fast the learning rate falls with the steps.
        lr_decay(lr_decay: f64) => rule.lr_decay = lr_decay;
        /// Weight decay, added to the gradient.
        weight_decay(weight_decay: f64) => weight_decay = Some(weight_decay);
        /// What the sums of squares start from.
        initial_accumulator_value(value: f64) => rule.initial_accumulator_value = value;
        /// Added to the denominator.
        eps(eps: f64) => rule.eps = eps;
        /// Go up the gradient.
        maximize(maximize: bool) => rule.maximize = maximize;
    }
}

impl Settings for AdagradRule {
    settings! {
        "lr_decay" = lr_decay,
        "eps" = eps,
        "initial_accumulator_value" = initial_accumulator_value,
        "maximize" = maximize,
    }
}

impl Rule for AdagradRule {
    const NAME: &'static str = "Adagrad";
    const LR: f64 = 1e-2;
    const WEIGHT_DECAY: Option<f64> = Some(0.0);
    const MOMENTUM: Momentum = Momentum::None;
    const SLOTS: &'static [&'static str] = &["sum"];
    const STEP_TENSORS: bool = true;
    const EAGER: bool = true;
    const INERT: &'static [(&'static str, Inert)] =
        &[("foreach", Inert::None), ("differentiable", Inert::False), ("fused", Inert::None)];

    fn new() -> Self {
        AdagradRule { lr_decay: 0.0, eps: 1e-10, initial_accumulator_value: 0.0, maximize: false }
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        ensure_non_negative(Self::NAME, "lr_decay value", self.lr_decay)?;
        ensure_non_negative(Self::NAME, "initial_accumulator_value value", self.initial_accumulator_value)?;
        ensure_non_negative(Self::NAME, "epsilon value", self.eps)
    }

    fn init(&self, _slot: usize, _group: &ParamGroup, param: &Tensor) -> Result<Option<Tensor>, TchError> {
        param.f_full_like(self.initial_accumulator_value).map(Some)
    }

    /// The kernel reads each parameter's own step.
    fn batch_key(_step: u64) -> u64 {
        0
    }

    fn update(&self, group: &ParamGroup, batch: &mut Batch) -> Result<(), OptimError> {
        let options = FusedAdagrad {
            lr: group.lr,
            lr_decay: self.lr_decay,
            weight_decay: group.weight_decay,
            eps: self.eps,
            maximize: self.maximize,
        };
        let Batch { params, grads, slots, steps, .. } = batch;
        Ok(foreach::fused_adagrad_(params, grads, &mut slots[0], steps, &options)?)
    }
}
