//! The optimizers that libtorch has as one kernel.

use std::ffi::c_char;

use crate::TensorList;
use crate::error::{TorchError, check};
use crate::tensor_list::RawTensorList;

unsafe extern "C" {
    fn fulgurite_fused_adam(
        params: *mut RawTensorList,
        grads: *mut RawTensorList,
        exp_avgs: *mut RawTensorList,
        exp_avg_sqs: *mut RawTensorList,
        max_exp_avg_sqs: *mut RawTensorList,
        steps: *const RawTensorList,
        options: *const FusedAdam,
    ) -> *mut c_char;
    fn fulgurite_fused_sgd(
        params: *mut RawTensorList,
        grads: *mut RawTensorList,
        momentum_buffers: *mut RawTensorList,
        options: *const FusedSgd,
    ) -> *mut c_char;
    fn fulgurite_fused_adagrad(
        params: *mut RawTensorList,
        grads: *mut RawTensorList,
        sums: *mut RawTensorList,
        steps: *mut RawTensorList,
        options: *const FusedAdagrad,
    ) -> *mut c_char;
}

/// The options of [`fused_adam_`].
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct FusedAdam {
    /// Learning rate.
    pub lr: f64,
    /// The exponential decay rate of the first moment.
    pub beta1: f64,
    /// The exponential decay rate of the second moment.
    pub beta2: f64,
    /// Weight decay: added to the gradient, or applied to the weights (`decoupled_weight_decay`).
    pub weight_decay: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Whether to divide by the maximum of the second moment so far, `max_exp_avg_sqs`.
    pub amsgrad: bool,
    /// Maximize the objective instead of minimizing it.
    pub maximize: bool,
    /// AdamW instead of Adam.
    pub decoupled_weight_decay: bool,
}

/// `_fused_adam_` or `_fused_adamw_`. `steps` are float32 scalars on the parameters' device that count from 1: advance
/// them before the call, or the bias correction divides by zero. `max_exp_avg_sqs` is empty without `amsgrad`.
///
/// # Errors
///
/// Fails if the lists differ in length, or their tensors in kind, shape or device.
pub fn fused_adam_(
    params: &mut TensorList,
    grads: &mut TensorList,
    exp_avgs: &mut TensorList,
    exp_avg_sqs: &mut TensorList,
    max_exp_avg_sqs: &mut TensorList,
    steps: &TensorList,
    options: &FusedAdam,
) -> Result<(), TorchError> {
    // SAFETY: all lists live for the call, and `FusedAdam` has the layout of C++'s `FulguriteAdam`.
    check(unsafe {
        fulgurite_fused_adam(
            params.as_raw(),
            grads.as_raw(),
            exp_avgs.as_raw(),
            exp_avg_sqs.as_raw(),
            max_exp_avg_sqs.as_raw(),
            steps.as_raw(),
            options,
        )
    })
}

/// The options of [`fused_sgd_`].
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct FusedSgd {
    /// Learning rate.
    pub lr: f64,
    /// Momentum; 0 for none.
    pub momentum: f64,
    /// Dampening of the momentum.
    pub dampening: f64,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
    /// Nesterov's momentum.
    pub nesterov: bool,
    /// Maximize the objective instead of minimizing it.
    pub maximize: bool,
    /// Whether this is the first step: momentum buffers are set to the gradients, and their contents are not read.
    pub is_first_step: bool,
}

/// `_fused_sgd_`. `momentum_buffers` is empty without momentum.
///
/// # Errors
///
/// Fails if the lists differ in length, or their tensors in kind, shape or device.
pub fn fused_sgd_(
    params: &mut TensorList,
    grads: &mut TensorList,
    momentum_buffers: &mut TensorList,
    options: &FusedSgd,
) -> Result<(), TorchError> {
    // SAFETY: all lists live for the call, and `FusedSgd` has the layout of C++'s `FulguriteSgd`.
    check(unsafe { fulgurite_fused_sgd(params.as_raw(), grads.as_raw(), momentum_buffers.as_raw(), options) })
}

/// The options of [`fused_adagrad_`].
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct FusedAdagrad {
    /// Learning rate.
    pub lr: f64,
    /// The decay of the learning rate.
    pub lr_decay: f64,
    /// Weight decay, added to the gradient.
    pub weight_decay: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Maximize the objective instead of minimizing it.
    pub maximize: bool,
}

/// `_fused_adagrad_`. `steps` as for [`fused_adam_`].
///
/// # Errors
///
/// Fails if the lists differ in length, or their tensors in kind, shape or device.
pub fn fused_adagrad_(
    params: &mut TensorList,
    grads: &mut TensorList,
    sums: &mut TensorList,
    steps: &mut TensorList,
    options: &FusedAdagrad,
) -> Result<(), TorchError> {
    // SAFETY: all lists live for the call, and `FusedAdagrad` has the layout of C++'s `FulguriteAdagrad`.
    check(unsafe { fulgurite_fused_adagrad(params.as_raw(), grads.as_raw(), sums.as_raw(), steps.as_raw(), options) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tch::{Device, Kind, Tensor};

    #[test]
    fn fused_adam_takes_its_first_step_at_the_learning_rate() {
        let zeros = || TensorList::new(&[Tensor::zeros([2], (Kind::Float, Device::Cpu))]).unwrap();
        let mut grads = TensorList::new(&[Tensor::from_slice(&[0.5f32, -2.0])]).unwrap();
        let (mut params, mut avgs, mut squares) = (zeros(), zeros(), zeros());
        let steps = TensorList::new(&[Tensor::from(1.0f32)]).unwrap();
        let options = FusedAdam {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.0,
            eps: 1e-8,
            amsgrad: false,
            maximize: false,
            decoupled_weight_decay: true,
        };
        let mut none = TensorList::empty().unwrap();
        fused_adam_(&mut params, &mut grads, &mut avgs, &mut squares, &mut none, &steps, &options).unwrap();
        let expected = Tensor::from_slice(&[-0.1f32, 0.1]);
        assert!(params.get(0).unwrap().allclose(&expected, 1e-6, 0.0, false));
    }
}
