//! How layers create their tensors.

use fulgurite_torch::Path;
use fulgurite_torch::tch::{Kind, Tensor};

use crate::error::Result;

/// A parameter whose values are still to be set.
pub(crate) fn parameter(path: &Path<'_>, name: &str, size: &[i64]) -> Result<Tensor> {
    Ok(path.add(name, Tensor::f_zeros(size, (path.kind(), path.device()))?, true))
}

/// A parameter whose values are all `value`.
pub(crate) fn constant(path: &Path<'_>, name: &str, size: &[i64], value: f64) -> Result<Tensor> {
    Ok(path.add(name, Tensor::f_full(size, value, (path.kind(), path.device()))?, true))
}

/// A buffer whose values are all `value`.
pub(crate) fn buffer(path: &Path<'_>, name: &str, size: &[i64], value: f64) -> Result<Tensor> {
    Ok(path.add(name, Tensor::f_full(size, value, (path.kind(), path.device()))?, false))
}

/// A counter that is a buffer.
pub(crate) fn counter(path: &Path<'_>, name: &str) -> Result<Tensor> {
    Ok(path.add(name, Tensor::f_zeros([], (Kind::Int64, path.device()))?, false))
}
