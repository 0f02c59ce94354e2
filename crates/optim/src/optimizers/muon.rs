//! [`Muon`].

use fulgurite_torch::foreach;
use fulgurite_torch::tch::{Kind, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{ensure, ensure_non_negative};
use crate::options::options;
use crate::rule::{Bucket, Rule};
use crate::{GroupDefaults, OptimError, OptimizerBuilder, ParamGroup};

/// Muon, <https://kellerjordan.github.io/posts/muon/>: momentum orthogonalized by a Newton-Schulz iteration.
/// [`torch.optim.Muon`](https://docs.pytorch.org/docs/stable/generated/torch.optim.Muon.html).
///
/// For the matrices inside a network; give biases, norms, embeddings and the last layer to AdamW
/// ([`Optimizers::and`](crate::Optimizers::and) has both in one run). Options and defaults: [`MuonOptions`].
pub type Muon = OptimizerBuilder<MuonOptions>;

/// How [`Muon`] adjusts its learning rate to the shape of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdjustLr {
    /// Times √max(1, rows / columns), as its author does.
    Original,
    /// Times 0.2 √max(rows, columns), which makes its steps as large as AdamW's, <https://arxiv.org/abs/2502.16982>.
    MatchRmsAdamw,
}

options! {
    /// Options of [`Muon`], and its update.
    MuonOptions of Muon {
        /// Learning rate.
        lr: f64 = 1e-3,
        /// Decoupled weight decay: the weights shrink by `lr * weight_decay` at each step.
        weight_decay: f64 = 0.1,
        /// Momentum factor.
        momentum: f64 = 0.95,
        /// Use Nesterov momentum.
        nesterov: bool = true,
        /// Coefficients of the Newton-Schulz polynomial.
        ns_coefficients(a: f64, b: f64, c: f64 => (a, b, c)): (f64, f64, f64) = (3.4445, -4.775, 2.0315),
        /// Minimum of the norm that the momentum is divided by.
        eps: f64 = 1e-7,
        /// Number of Newton-Schulz iterations.
        ns_steps: u32 = 5,
        /// Adjustment of the learning rate to the shape of a matrix; null is `original`.
        adjust_lr_fn(adjust: AdjustLr => Some(adjust)): Option<AdjustLr> = None,
    }
}

impl Rule for MuonOptions {
    const NAME: &'static str = "Muon";
    const SLOTS: &'static [&'static str] = &["momentum_buffer"];
    const COUNTS_STEPS: bool = false;

    fn group_defaults(&self) -> GroupDefaults {
        GroupDefaults::new(self.lr).weight_decay(self.weight_decay).momentum(self.momentum)
    }

    fn validate(&self, group: &ParamGroup) -> Result<(), OptimError> {
        ensure_non_negative(Self::NAME, "epsilon value", self.eps)?;
        ensure(self.ns_steps < 100, Self::NAME, "ns_steps", self.ns_steps, "less than 100")?;
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

    fn bucket_key(_step: u64) -> u64 {
        0
    }

    fn update(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        let momentum = group.momentum();
        let Bucket { params, grads, slots, work: [updates, _], .. } = bucket;
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
            let scale = match self.adjust_lr_fn.unwrap_or(AdjustLr::Original) {
                AdjustLr::Original => (rows as f64 / columns as f64).max(1.0).sqrt(),
                AdjustLr::MatchRmsAdamw => 0.2 * (rows.max(columns) as f64).sqrt(),
            };
            let update = self.orthogonalize(&update, rows > columns)?;
            foreach::add_tensor_(&mut param, &update, -group.lr * scale)?;
        }
        Ok(())
    }
}

impl MuonOptions {
    /// About `U Vᵀ` of `U S Vᵀ = matrix`, in bfloat16 as in PyTorch; `tall` matrices are turned around for it.
    fn orthogonalize(&self, matrix: &Tensor, tall: bool) -> Result<Tensor, OptimError> {
        let (a, b, c) = self.ns_coefficients;
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
