//! How layers create their tensors.

use fulgurite_torch::Path;
use fulgurite_torch::tch::{Kind, Tensor};

use crate::error::{NnError, Result};

/// A parameter whose values are still to be set.
pub(crate) fn parameter(path: &Path<'_>, name: &str, size: &[i64]) -> Result<Tensor> {
    add(path, name, Tensor::f_zeros(size, (path.kind(), path.device()))?, true)
}

/// A parameter whose values are all `value`.
pub(crate) fn constant(path: &Path<'_>, name: &str, size: &[i64], value: f64) -> Result<Tensor> {
    add(path, name, Tensor::f_full(size, value, (path.kind(), path.device()))?, true)
}

/// A buffer whose values are all `value`.
pub(crate) fn buffer(path: &Path<'_>, name: &str, size: &[i64], value: f64) -> Result<Tensor> {
    add(path, name, Tensor::f_full(size, value, (path.kind(), path.device()))?, false)
}

/// A counter that is a buffer.
pub(crate) fn counter(path: &Path<'_>, name: &str) -> Result<Tensor> {
    add(path, name, Tensor::f_zeros([], (Kind::Int64, path.device()))?, false)
}

/// The second tensor of a name is an error: `tch` would rename it, and the layer would be another one in each program.
fn add(path: &Path<'_>, name: &str, tensor: Tensor, trainable: bool) -> Result<Tensor> {
    if path.get(name).is_none() {
        return Ok(path.add(name, tensor, trainable));
    }
    let layer = match path.name() {
        root if root.is_empty() => "a layer at the root".to_owned(),
        place => format!("a layer at `{place}`"),
    };
    let message = format!(
        "another one there has a `{name}` already; give each layer a path of its own, such as `vars.root() / \"layers\" / i`"
    );
    Err(NnError::Options { layer, message })
}
