//! [`SparseAdam`].

use crate::error::ensure;
use crate::options::options;
use crate::rule::{Bucket, Rule};
use crate::sparse::SparseGrad;
use crate::{GroupDefaults, OptimError, OptimizerBuilder, ParamGroup};

/// Adam for sparse gradients, such as those of `Tensor::embedding` with `sparse: true`:
/// [`torch.optim.SparseAdam`](https://docs.pytorch.org/docs/stable/generated/torch.optim.SparseAdam.html).
///
/// It is lazy: only the moments and values at the indices of a gradient are updated. A dense gradient is an error.
///
/// Options and defaults: [`SparseAdamOptions`].
///
/// ```
/// use fulgurite_optim::SparseAdam;
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let table = Tensor::ones([4, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
/// let mut optimizer = SparseAdam::new(vec![table.shallow_clone()]).lr(0.1).build()?;
/// Tensor::embedding(&table, &Tensor::from_slice(&[1i64, 1]), -1, false, true).sum(None).backward();
/// optimizer.step()?;
/// let changed: Vec<bool> = Vec::try_from(table.select(1, 0).lt(0.95))?;
/// assert_eq!(changed, [false, true, false, false]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type SparseAdam = OptimizerBuilder<SparseAdamOptions>;

options! {
    /// Options of [`SparseAdam`], and its update.
    SparseAdamOptions of SparseAdam {
        /// Learning rate.
        lr: f64 = 1e-3,
        /// Exponential decay rates of the moment estimates.
        betas(beta1: f64, beta2: f64 => (beta1, beta2)): (f64, f64) = (0.9, 0.999),
        /// Term added to the denominator for numerical stability; above 0.
        eps: f64 = 1e-8,
        /// Maximize the objective instead of minimizing it.
        maximize: bool = false,
    }
}

impl Rule for SparseAdamOptions {
    const NAME: &'static str = "SparseAdam";
    const SLOTS: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];
    const STEP_IS_INT: bool = true;

    fn group_defaults(&self) -> GroupDefaults {
        GroupDefaults::new(self.lr).betas(self.betas)
    }

    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        let holds = self.eps.is_finite() && self.eps > 0.0;
        ensure(holds, Self::NAME, "epsilon value", self.eps, "a finite number above 0")
    }

    fn check_gradients(&self, _group: &ParamGroup, _sparse: usize, dense: usize) -> Result<(), OptimError> {
        if dense == 0 { Ok(()) } else { Err(OptimError::DenseGradients { optimizer: Self::NAME }) }
    }

    fn update_sparse(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
        let ((beta1, beta2), step) = (group.betas(), bucket.step());
        let step_size = group.lr * (1.0 - beta2.powf(step)).sqrt() / (1.0 - beta1.powf(step));
        for i in 0..bucket.params.len() {
            let Some(grad) = SparseGrad::of(&bucket.grads.get(i)?, self.maximize)? else { continue };
            let [exp_avg, exp_avg_sq] = &bucket.slots[..] else { return Ok(()) };
            let (mut param, mut exp_avg, mut exp_avg_sq) =
                (bucket.params.get(i)?, exp_avg.get(i)?, exp_avg_sq.get(i)?);
            let old = grad.of_dense(&exp_avg)?;
            let change = grad.values.f_sub(&old)?.f_mul_scalar(1.0 - beta1)?;
            grad.add_to(&mut exp_avg, &change)?;
            let old_sq = grad.of_dense(&exp_avg_sq)?;
            let change_sq = grad.values.f_square()?.f_sub(&old_sq)?.f_mul_scalar(1.0 - beta2)?;
            grad.add_to(&mut exp_avg_sq, &change_sq)?;
            let denominator = change_sq.f_add(&old_sq)?.f_sqrt()?.f_add_scalar(self.eps)?;
            let update = change.f_add(&old)?.f_div(&denominator)?.f_mul_scalar(-step_size)?;
            grad.add_to(&mut param, &update)?;
        }
        Ok(())
    }

    fn update(&self, _group: &ParamGroup, _bucket: &mut Bucket) -> Result<(), OptimError> {
        Err(OptimError::DenseGradients { optimizer: Self::NAME })
    }
}
