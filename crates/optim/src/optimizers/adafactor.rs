//! [`Adafactor`].

use fulgurite_torch::foreach;
use fulgurite_torch::tch::{Kind, Tensor};

use crate::error::{ensure, ensure_non_negative};
use crate::options::options;
use crate::rule::{Bucket, Fixed, Rule};
use crate::{GroupDefaults, OptimError, OptimizerBuilder, ParamGroup};

/// Adafactor, <https://arxiv.org/abs/1804.04235>: second moment estimates are stored for rows and columns only.
/// [`torch.optim.Adafactor`](https://docs.pytorch.org/docs/stable/generated/torch.optim.Adafactor.html).
///
/// Unlike PyTorch's it never waits for the device. Options and defaults: [`AdafactorOptions`].
pub type Adafactor = OptimizerBuilder<AdafactorOptions>;

options! {
    /// Options of [`Adafactor`], and its update.
    AdafactorOptions of Adafactor {
        /// Learning rate.
        lr: f64 = 1e-2,
        /// Exponent of the step in the decay rate of the second moment estimates.
        beta2_decay: f64 = -0.8,
        /// Minimum of squared gradients (null: the epsilon of the parameter's kind), and minimum scale of a parameter.
        eps(eps1: Option<f64>, eps2: f64 => (eps1, eps2)): (Option<f64>, f64) = (None, 1e-3),
        /// Clipping threshold: updates with a larger root mean square are scaled down.
        d: f64 = 1.0,
        /// Decoupled weight decay: the weights shrink by `lr * weight_decay` at each step.
        weight_decay: f64 = 0.0,
        /// Maximize the objective instead of minimizing it.
        maximize: bool = false,
    }
}

impl Rule for AdafactorOptions {
    const NAME: &'static str = "Adafactor";
    const SLOTS: &'static [&'static str] = &["row_var", "col_var", "variance"];
    const FIXED: &'static [(&'static str, Fixed)] =
        &[("foreach", Fixed::None)];

    fn group_defaults(&self) -> GroupDefaults {
        GroupDefaults::new(self.lr).weight_decay(self.weight_decay)
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        ensure(self.beta2_decay <= 0.0, Self::NAME, "beta2_decay", self.beta2_decay, "0 or less")?;
        ensure_non_negative(Self::NAME, "epsilon1", self.eps.0.unwrap_or(0.0))?;
        ensure_non_negative(Self::NAME, "epsilon2", self.eps.1)?;
        ensure(self.d >= 1.0, Self::NAME, "clipping threshold d", self.d, "1 or more")
    }

    fn init(&self, slot: usize, _group: &ParamGroup, param: &Tensor) -> Result<Option<Tensor>, OptimError> {
        let mut shape = param.size();
        let dim = shape.len();
        match (slot, dim > 1) {
            (0, true) => shape[dim - 1] = 1,
            (1, true) => shape[dim - 2] = 1,
            (2, false) => {}
            _ => return Ok(None),
        }
        Ok(Some(Tensor::f_zeros(shape, (param.f_kind()?, param.device()))?))
    }

    fn update(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        bucket.prepare_grads(self.maximize, 0.0)?;
        for i in 0..bucket.params.len() {
            let state = |slot: usize| bucket.slots[slot].get(i);
            let (mut param, grad) = (bucket.params.get(i)?, bucket.grads.get(i)?);
            self.update_one(group, bucket.step(), &mut param, &grad, [state(0)?, state(1)?, state(2)?])?;
        }
        Ok(())
    }
}

impl AdafactorOptions {
    fn update_one(
        &self,
        group: &ParamGroup,
        step: f64,
        param: &mut Tensor,
        grad: &Tensor,
        [mut row_var, mut col_var, mut variance]: [Tensor; 3],
    ) -> Result<(), OptimError> {
        let eps1 = self.eps.0.unwrap_or(epsilon(param.f_kind()?));
        let eps2 = self.eps.1;
        let new_part = step.powf(self.beta2_decay);
        let root = (foreach::numel(param)? as f64).sqrt();
        let root_mean_square = |x: &Tensor| x.f_norm()?.f_div_scalar_(root);
        // The step size, relative to the size of the parameter. It stays on the device.
        let size = root_mean_square(param)?.f_clamp_min_(eps2)?.f_mul_scalar_(group.lr.min(1.0 / step.sqrt()))?;
        if group.weight_decay != 0.0 {
            let _ = param.f_mul_scalar_(1.0 - group.lr * group.weight_decay)?;
        }
        let smallest = eps1 * eps1;
        let mut square = if grad.dim() > 1 {
            let mean_square = |dim: i64| -> Result<Tensor, OptimError> {
                let count = foreach::size(grad, dim)? as f64;
                Ok(grad.f_norm_scalaropt_dim(2.0, dim, true)?.f_square_()?.f_div_scalar_(count)?)
            };
            let _ = row_var.f_lerp_(&mean_square(-1)?, new_part)?;
            let _ = col_var.f_lerp_(&mean_square(-2)?, new_part)?;
            let mean = row_var.f_mean_dim(-2, true, None::<Kind>)?.f_clamp_min_(eps1)?;
            row_var.f_matmul(&col_var)?.f_div_(&mean)?.f_clamp_min_(smallest)?
        } else {
            let _ = variance.f_lerp_(&grad.f_mul(grad)?, new_part)?;
            variance.f_clamp_min(smallest)?
        };
        let mut update = square.f_rsqrt_()?.f_mul_(grad)?;
        let clipping = root_mean_square(&update)?.f_div_scalar_(self.d)?.f_clamp_min_(1.0)?;
        let _ = param.f_sub_(&update.f_mul_(&size.f_div(&clipping)?)?)?;
        Ok(())
    }
}

/// The smallest difference from 1.
fn epsilon(kind: Kind) -> f64 {
    match kind {
        Kind::Double => f64::EPSILON,
        Kind::Half => 2f64.powi(-10),
        Kind::BFloat16 => 2f64.powi(-7),
        _ => f32::EPSILON.into(),
    }
}
