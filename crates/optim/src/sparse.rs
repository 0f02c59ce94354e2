//! Sparse gradients: values at some indices of a parameter.

use fulgurite_torch::tch::{Device, Kind, Tensor};

use crate::{OptimError, ParamGroup};

/// A sparse gradient, each of whose indices is there once.
pub(crate) struct SparseGrad {
    /// The gradient, coalesced.
    grad: Tensor,
    indices: Tensor,
    /// Its values.
    pub(crate) values: Tensor,
}

impl SparseGrad {
    /// Adds what stands several times at one index; `None` if the gradient has no values.
    pub(crate) fn of(grad: &Tensor, maximize: bool) -> Result<Option<SparseGrad>, OptimError> {
        let grad = if maximize { grad.f_neg()? } else { grad.shallow_clone() };
        let grad = grad.f_coalesce()?;
        let (indices, values) = (grad.f_internal_indices()?, grad.f_internal_values()?);
        Ok((values.numel() > 0).then_some(SparseGrad { grad, indices, values }))
    }

    /// The values of a dense tensor at its indices.
    pub(crate) fn of_dense(&self, dense: &Tensor) -> Result<Tensor, OptimError> {
        Ok(dense.f_sparse_mask(&self.grad)?.f_internal_values()?)
    }

    /// Adds values at its indices to a dense tensor.
    pub(crate) fn add_to(&self, dense: &mut Tensor, values: &Tensor) -> Result<(), OptimError> {
        let options: (Kind, Device) = (values.f_kind()?, values.device());
        let size = self.grad.size();
        let _ = dense.f_add_(&Tensor::f_sparse_coo_tensor_indices_size(&self.indices, values, size, options, true)?)?;
        Ok(())
    }
}

/// For rules that take both, but no weight decay of sparse ones.
pub(crate) fn check(optimizer: &'static str, group: &ParamGroup, sparse: usize) -> Result<(), OptimError> {
    if sparse > 0 && group.weight_decay != 0.0 { Err(OptimError::SparseWeightDecay { optimizer }) } else { Ok(()) }
}
