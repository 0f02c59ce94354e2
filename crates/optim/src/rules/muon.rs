//! [`Muon`].

use fulgurite_torch::foreach;
use fulgurite_torch::tch::{Kind, Tensor};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::builder::{OptimizerBuilder, setters};
use crate::error::{ensure, ensure_non_negative};
use crate::rule::{Batch, Inert, Rule};
use crate::settings::{Settings, setting_enum, settings};
use crate::{Momentum, OptimError, ParamGroup};

/// Momentum made orthogonal by a Newton-Schulz iteration, <https://kellerjordan.github.io/posts/muon/>:
/// [`torch.optim.Muon`](https://docs.pytorch.org/docs/stable/generated/torch.optim.Muon.html).
///
/// For the matrices inside a network; give biases, norms, embeddings and the last layer to AdamW
/// ([`Optimizers::and`](crate::Optimizers::and) has both in one run). Defaults: `lr` 1e-3, `weight_decay` 0.1,
/// `momentum` 0.95 with Nesterov, `ns_coefficients` (3.4445, -4.775, 2.0315), `ns_steps` 5, `eps` 1e-7.
pub type Muon = OptimizerBuilder<MuonRule>;

/// How [`Muon`] fits its learning rate to the shape of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdjustLr {
    /// As [`AdjustLr::Original`], unsaid.
    #[default]
    #[serde(skip)]
    Unset,
    /// Times √max(1, rows / columns), as its author does.
    Original,
    /// Times 0.2 √max(rows, columns), which makes its steps as large as AdamW's, <https://arxiv.org/abs/2502.16982>.
    MatchRmsAdamw,
}

setting_enum! {
    AdjustLr, "`original`, `match_rms_adamw` or None",
    () => AdjustLr::Unset,
    "original" => AdjustLr::Original,
    "match_rms_adamw" => AdjustLr::MatchRmsAdamw,
}

/// The update of [`Muon`].
#[derive(Debug, Clone)]
pub struct MuonRule {
    nesterov: bool,
    ns_coefficients: [f64; 3],
    eps: f64,
    ns_steps: i64,
    adjust_lr: AdjustLr,
}

impl Muon {
    setters! {
        /// Weight decay, taken off the weights.
        weight_decay(weight_decay: f64) => weight_decay = Some(weight_decay);
        /// Momentum.
        momentum(momentum: f64) => momentum = Momentum::Momentum(momentum);
        /// Nesterov's momentum; on by default.
        nesterov(nesterov: bool) => rule.nesterov = nesterov;
        /// The coefficients of the Newton-Schulz polynomial.
        ns_coefficients(a: f64, b: f64, c: f64) => rule.ns_coefficients = [a, b, c];
        /// The smallest norm to divide by.
        eps(eps: f64) => rule.eps = eps;
        /// The number of Newton-Schulz iterations.
        ns_steps(steps: u32) => rule.ns_steps = i64::from(steps);
        /// How the learning rate is fitted to the shape of a matrix.
        adjust_lr_fn(adjust: AdjustLr) => rule.adjust_lr = adjust;
    }
}

impl Settings for MuonRule {
    settings! {
        "nesterov" = nesterov,
        "ns_coefficients" = ns_coefficients,
        "eps" = eps,
        "ns_steps" = ns_steps,
        "adjust_lr_fn" = adjust_lr,
    }
}

impl Rule for MuonRule {
    const NAME: &'static str = "Muon";
    const LR: f64 = 1e-3;
    const WEIGHT_DECAY: Option<f64> = Some(0.1);
    const MOMENTUM: Momentum = Momentum::Momentum(0.95);
    const SLOTS: &'static [&'static str] = &["momentum_buffer"];
    const COUNTS_STEPS: bool = false;
    const INERT: &'static [(&'static str, Inert)] = &[];

    fn new() -> Self {
        MuonRule {
            nesterov: true,
            ns_coefficients: [3.4445, -4.775, 2.0315],
            eps: 1e-7,
            ns_steps: 5,
            adjust_lr: AdjustLr::Unset,
        }
    }

    fn validate(&self, group: &ParamGroup) -> Result<(), OptimError> {
        ensure_non_negative(Self::NAME, "epsilon value", self.eps)?;
        ensure((0..100).contains(&self.ns_steps), Self::NAME, "ns_steps", self.ns_steps, "less than 100")?;
        match group.params.iter().find(|param| param.dim() != 2) {
            None => Ok(()),
            Some(param) => ensure(
                false,
                Self::NAME,
                "parameter of shape",
                format!("{:?}", param.size()),
                "a matrix; give parameters that are none to AdamW",
            ),
        }
    }

    fn batch_key(_step: u64) -> u64 {
        0
    }

    fn update(&self, group: &ParamGroup, batch: &mut Batch) -> Result<(), OptimError> {
        let momentum = group.momentum();
        let Batch { params, grads, slots, work: [updates, _], .. } = batch;
        let buffers = &mut slots[0];
        foreach::lerp_(buffers, grads, 1.0 - momentum)?;
        if self.nesterov {
            foreach::lerp(grads, buffers, momentum, updates)?;
        }
        foreach::mul_scalar_(params, 1.0 - group.lr * group.weight_decay)?;
        for i in 0..params.len() {
            let mut param = params.get(i)?;
            let update = if self.nesterov { updates.get(i)? } else { buffers.get(i)? };
            let (rows, columns) = (foreach::size(&param, 0)?, foreach::size(&param, 1)?);
            let scale = match self.adjust_lr {
                AdjustLr::Unset | AdjustLr::Original => (rows as f64 / columns as f64).max(1.0).sqrt(),
                AdjustLr::MatchRmsAdamw => 0.2 * (rows.max(columns) as f64).sqrt(),
            };
            let update = self.orthogonalize(&update, rows > columns)?;
            foreach::add_tensor_(&mut param, &update, -group.lr * scale)?;
        }
        Ok(())
    }
}

impl MuonRule {
    /// About `U Vᵀ` of `U S Vᵀ = matrix`, in bfloat16 as in PyTorch; `tall` matrices are turned around for it.
    fn orthogonalize(&self, matrix: &Tensor, tall: bool) -> Result<Tensor, OptimError> {
        let [a, b, c] = self.ns_coefficients;
        let turn = |x: Tensor| if tall { x.f_transpose(0, 1) } else { Ok(x) };
        let mut x = turn(matrix.f_to_kind(Kind::BFloat16)?)?;
        let norm = x.f_norm()?.f_clamp_min_(self.eps)?;
        let _ = x.f_div_(&norm)?;
        for _ in 0..self.ns_steps {
            let gram = x.f_matmul(&x.f_transpose(0, 1)?)?;
            let polynomial = foreach::addmm(&gram, &gram, &gram, b, c)?;
            x = foreach::addmm(&x, &polynomial, &x, a, 1.0)?;
        }
        Ok(turn(x)?)
    }
}
