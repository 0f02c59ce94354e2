//! Gradients: the backward pass, and operations on the gradients of all parameters at once.
//!
//! Everything here runs libtorch's foreach kernels once over all gradients, leaves every value on its device, and
//! allocates nothing in Rust once warm. Parameters without a gradient are skipped. The functions take anything that
//! yields `&Tensor`: a slice, a `Vec`, or the groups of an optimizer one after the other.

use std::ffi::c_char;

use torch_sys::C_tensor;

use crate::error::{TorchError, check};
use crate::pointers::with_pointers;
use crate::tch::Tensor;

pub use crate::modes::{
    AnomalyModeGuard, Deterministic, InferenceModeGuard, NoGradGuard, cudnn_benchmark, deterministic_algorithms,
    set_cudnn_benchmark, set_deterministic_algorithms,
};

unsafe extern "C" {
    fn fulgurite_backward(loss: *const C_tensor) -> *mut c_char;
    fn fulgurite_clip_grad_norm(
        parameters: *const *const C_tensor,
        count: usize,
        max_norm: f64,
        norm_type: f64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn fulgurite_grad_norm(
        parameters: *const *const C_tensor,
        count: usize,
        norm_type: f64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn fulgurite_clip_grad_value(parameters: *const *const C_tensor, count: usize, clip_value: f64) -> *mut c_char;
    fn fulgurite_scale_grads(parameters: *const *const C_tensor, count: usize, factor: f64) -> *mut c_char;
    fn fulgurite_set_grad(parameter: *const C_tensor, grad: *const C_tensor) -> *mut c_char;
    fn fulgurite_zero_grad(parameters: *const *const C_tensor, count: usize) -> *mut c_char;
}

/// The backward pass of `loss`: accumulates into the `.grad` of every leaf that it depends on.
///
/// # Errors
///
/// Fails if the loss is not a scalar or depends on no parameter, or if the backward pass does, such as for a NaN that
/// [`AnomalyModeGuard`] finds.
pub fn backward(loss: &Tensor) -> Result<(), TorchError> {
    if loss.numel() != 1 {
        return Err(TorchError::LossNotScalar { shape: loss.size() });
    }
    if !loss.requires_grad() {
        return Err(TorchError::LossWithoutGradient);
    }
    // SAFETY: the tensor lives for the call.
    check(unsafe { fulgurite_backward(loss.as_ptr()) })
}

/// Scales all gradients so that their total norm is at most `max_norm`, and returns their norm before clipping, a
/// scalar on the first gradient's device. Bitwise identical to `torch.nn.utils.clip_grad_norm_`.
///
/// `norm_type` is the p of the p-norm, and may be [`f64::INFINITY`]. Without any gradient the norm is 0.
///
/// ```
/// use fulgurite_torch::grad;
/// use fulgurite_torch::tch::Tensor;
///
/// let w = Tensor::from_slice(&[3.0f32, 4.0]).set_requires_grad(true);
/// grad::backward(&(&w * &w).sum(None))?;
/// let norm = grad::clip_grad_norm([&w], 1.0, 2.0)?;
/// assert_eq!(norm, Tensor::from(10.0f32));
/// assert!((w.grad().norm() - 1.0).abs().double_value(&[]) < 1e-6);
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
///
/// # Errors
///
/// Fails if a gradient is not floating point.
pub fn clip_grad_norm<'a>(
    parameters: impl IntoIterator<Item = &'a Tensor>,
    max_norm: f64,
    norm_type: f64,
) -> Result<Tensor, TorchError> {
    let mut out = std::ptr::null_mut();
    with_pointers(parameters, |p| {
        // SAFETY: the pointers are of living tensors; `out` is written only when there is no error.
        check(unsafe { fulgurite_clip_grad_norm(p.as_ptr(), p.len(), max_norm, norm_type, &mut out) })
    })?;
    // SAFETY: `out` is a tensor that the bridge created with C++'s `new`, and `tch` deletes it.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// The total norm of all gradients, as [`clip_grad_norm`] computes it, without changing them.
///
/// # Errors
///
/// Fails if a gradient is not floating point.
pub fn grad_norm<'a>(parameters: impl IntoIterator<Item = &'a Tensor>, norm_type: f64) -> Result<Tensor, TorchError> {
    let mut out = std::ptr::null_mut();
    with_pointers(parameters, |p| {
        // SAFETY: the pointers are of living tensors; `out` is written only when there is no error.
        check(unsafe { fulgurite_grad_norm(p.as_ptr(), p.len(), norm_type, &mut out) })
    })?;
    // SAFETY: `out` is a tensor that the bridge created with C++'s `new`, and `tch` deletes it.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Clamps every element of every gradient to `-clip_value..=clip_value`, as `torch.nn.utils.clip_grad_value_`.
///
/// # Errors
///
/// Fails if libtorch cannot clamp a gradient, such as a sparse one.
pub fn clip_grad_value<'a>(
    parameters: impl IntoIterator<Item = &'a Tensor>,
    clip_value: f64,
) -> Result<(), TorchError> {
    with_pointers(parameters, |p| {
        // SAFETY: the pointers are of living tensors.
        check(unsafe { fulgurite_clip_grad_value(p.as_ptr(), p.len(), clip_value) })
    })
}

/// Multiplies every gradient by `factor`.
///
/// # Errors
///
/// Fails if libtorch cannot multiply a gradient in place.
pub fn scale_grads<'a>(parameters: impl IntoIterator<Item = &'a Tensor>, factor: f64) -> Result<(), TorchError> {
    with_pointers(parameters, |p| {
        // SAFETY: the pointers are of living tensors.
        check(unsafe { fulgurite_scale_grads(p.as_ptr(), p.len(), factor) })
    })
}

/// Drops every gradient (sets it to none, as PyTorch's `zero_grad()` does by default).
///
/// # Errors
///
/// Fails if libtorch cannot access the gradient of a parameter.
pub fn zero_grad<'a>(parameters: impl IntoIterator<Item = &'a Tensor>) -> Result<(), TorchError> {
    with_pointers(parameters, |p| {
        // SAFETY: the pointers are of living tensors.
        check(unsafe { fulgurite_zero_grad(p.as_ptr(), p.len()) })
    })
}

/// Sets the gradient of `parameter`, converted to its device and kind; an undefined tensor drops the gradient. The
/// tensor is not copied if device and kind match already.
///
/// # Errors
///
/// Fails if the gradient has another shape than the parameter.
pub fn set_grad(parameter: &Tensor, grad: &Tensor) -> Result<(), TorchError> {
    // SAFETY: both are living tensors.
    check(unsafe { fulgurite_set_grad(parameter.as_ptr(), grad.as_ptr()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tch::{Device, Kind};

    fn leaf(values: &[f32], grad: &[f32]) -> Tensor {
        let leaf = Tensor::from_slice(values).set_requires_grad(true);
        backward(&(&leaf * Tensor::from_slice(grad)).sum(Kind::Float)).unwrap();
        leaf
    }

    #[test]
    fn a_gradient_can_be_put_back() {
        let parameter = leaf(&[1.0, 2.0], &[3.0, 4.0]);
        let kept = parameter.grad().copy();
        zero_grad([&parameter]).unwrap();
        set_grad(&parameter, &kept.to_kind(Kind::Double)).unwrap();
        assert_eq!(parameter.grad(), kept);
        backward(&(&parameter * 2.0).sum(Kind::Float)).unwrap();
        assert_eq!(parameter.grad(), Tensor::from_slice(&[5.0f32, 6.0]));
        set_grad(&parameter, &Tensor::new()).unwrap();
        assert!(!parameter.grad().defined());
        let error = set_grad(&parameter, &Tensor::zeros([3], (Kind::Float, Device::Cpu))).unwrap_err();
        assert_eq!(error.to_string(), "the gradient has the shape [3], its parameter [2]");
    }

    fn double(tensor: &Tensor) -> f64 {
        tensor.double_value(&[])
    }

    #[test]
    fn the_norm_is_over_all_gradients_and_the_clipped_ones_have_the_wanted_norm() {
        let params = [leaf(&[1.0, 1.0], &[3.0, 0.0]), leaf(&[1.0], &[4.0])];
        assert_eq!(double(&clip_grad_norm(&params, 1.0, 2.0).unwrap()), 5.0);
        assert!((double(&grad_norm(&params, 2.0).unwrap()) - 1.0).abs() < 1e-6);
        assert_eq!(double(&clip_grad_norm(&params, 10.0, f64::INFINITY).unwrap()), double(&params[1].grad()));
        assert!((double(&params[1].grad()) - 0.8).abs() < 1e-6, "a norm under the limit changes nothing");
    }

    #[test]
    fn kinds_may_be_mixed_and_missing_gradients_are_skipped() {
        let small = leaf(&[1.0], &[3.0]);
        let large = Tensor::ones([1], (Kind::Double, Device::Cpu)).set_requires_grad(true);
        backward(&(&large * 4.0).sum(Kind::Double)).unwrap();
        let none = Tensor::ones([1], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let norm = clip_grad_norm([&small, &none, &large], 2.5, 2.0).unwrap();
        assert_eq!(double(&norm), 5.0);
        assert!((double(&small.grad()) - 1.5).abs() < 1e-6);
        assert!((double(&large.grad()) - 2.0).abs() < 1e-6);
        assert!(!none.grad().defined());
    }

    #[test]
    fn without_gradients_the_norm_is_zero() {
        let none = Tensor::ones([1], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        assert_eq!(double(&clip_grad_norm([&none], 1.0, 2.0).unwrap()), 0.0);
    }

    #[test]
    fn values_are_clamped_scaled_and_dropped() {
        let params = vec![leaf(&[1.0, 1.0, 1.0], &[-2.0, 0.5, 2.0])];
        clip_grad_value(&params, 1.0).unwrap();
        assert_eq!(params[0].grad(), Tensor::from_slice(&[-1.0f32, 0.5, 1.0]));
        scale_grads(&params, 0.5).unwrap();
        assert_eq!(params[0].grad(), Tensor::from_slice(&[-0.5f32, 0.25, 0.5]));
        zero_grad(&params).unwrap();
        assert!(!params[0].grad().defined());
    }

    #[test]
    fn a_loss_that_cannot_be_differentiated_says_why() {
        let shape = backward(&Tensor::ones([2, 3], (Kind::Float, Device::Cpu))).unwrap_err();
        assert_eq!(
            shape.to_string(),
            "the loss has shape [2, 3], but only a scalar can be differentiated; reduce it, for example with `.mean(None)`"
        );
        let constant = backward(&Tensor::from(1.0)).unwrap_err();
        assert_eq!(
            constant.to_string(),
            "the loss has no gradient: it depends on no parameter that requires one; was it computed under no_grad, \
             detached, or are all parameters frozen?"
        );
    }

    #[test]
    fn what_libtorch_throws_is_an_error() {
        let x = Tensor::from(1.0).set_requires_grad(true);
        let loss = &x * &x;
        backward(&loss).unwrap();
        let error = backward(&loss).unwrap_err().to_string();
        assert!(error.starts_with("Trying to backward through the graph a second time"), "{error}");
    }
}
