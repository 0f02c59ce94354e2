//! libtorch's fused and foreach kernels: one call that works on all parameters.
//!
//! A function whose name ends in `_` works in place, as in PyTorch; the others replace the contents of `out`. Like any
//! libtorch operation they are recorded by autograd where a tensor requires a gradient, so an optimizer calls them
//! inside [`no_grad`](crate::tch::no_grad).
//!
//! On a CPU the fused functions are fastest when small tensors (under 32,768 elements) come before the others: no thread
//! is woken for those.
//!
//! ```
//! use fulgurite_torch::tch::Tensor;
//! use fulgurite_torch::{TensorList, foreach};
//!
//! let mut weights = TensorList::new(&[Tensor::from(1.0), Tensor::from(2.0)])?;
//! foreach::mul_scalar_(&mut weights, 10.0)?;
//! assert_eq!(weights.get(1)?, Tensor::from(20.0));
//! # Ok::<(), fulgurite_torch::TorchError>(())
//! ```

mod fused;

use std::ffi::c_char;
use std::ptr::{null, null_mut};

use torch_sys::C_tensor;

use crate::TensorList;
use crate::error::{TorchError, check};
use crate::tch::Tensor;
use crate::tensor_list::RawTensorList;

pub use fused::{FusedAdagrad, FusedAdam, FusedSgd, fused_adagrad_, fused_adam_, fused_sgd_};

unsafe extern "C" {
    fn fulgurite_foreach(
        operation: i32,
        out: *mut RawTensorList,
        list: *mut RawTensorList,
        a: *const RawTensorList,
        b: *const RawTensorList,
        scalar: f64,
    ) -> *mut c_char;
    fn fulgurite_list_select(
        out: *mut RawTensorList,
        from: *const RawTensorList,
        indices: *const usize,
        count: usize,
    ) -> *mut c_char;
    fn fulgurite_grads(
        params: *const RawTensorList,
        anchor: *const C_tensor,
        grads: *mut RawTensorList,
        missing: *mut usize,
        sparse: *mut usize,
        moved: *mut bool,
    ) -> *mut c_char;
    fn fulgurite_drop_grads(params: *mut RawTensorList) -> *mut c_char;
    fn fulgurite_size(tensor: *const C_tensor, dim: i64, out: *mut i64) -> *mut c_char;
    fn fulgurite_numel(tensor: *const C_tensor, out: *mut i64) -> *mut c_char;
    fn fulgurite_add(tensor: *mut C_tensor, other: *const C_tensor, alpha: f64) -> *mut c_char;
    fn fulgurite_addmm(
        input: *const C_tensor,
        a: *const C_tensor,
        b: *const C_tensor,
        beta: f64,
        alpha: f64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// The result of [`collect_grads`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collected {
    /// Which parameters have a gradient.
    pub grads: Grads,
    /// How many gradients are sparse, as those of an embedding with `sparse: true`.
    pub sparse: usize,
}

/// Which parameters have a gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grads {
    /// Every parameter has a gradient.
    All,
    /// Some have none: an undefined tensor takes their place.
    Missing(usize),
    /// A parameter has another kind or device than `anchor`. Nothing was collected.
    Moved,
}

/// Fills `grads` with the gradients of `params`. A gradient with another memory layout than its parameter (such as a
/// transposed one) is copied, since fused kernels iterate over both as flat memory. Sparse gradients are left as they are.
///
/// `anchor` has the kind and device that the parameters are expected to have.
///
/// # Errors
///
/// Fails if a gradient has an unknown layout.
pub fn collect_grads(params: &TensorList, anchor: &Tensor, grads: &mut TensorList) -> Result<Collected, TorchError> {
    let (mut missing, mut sparse, mut moved) = (0, 0, false);
    let (anchor, grads) = (anchor.as_ptr(), grads.as_raw());
    // SAFETY: all objects live for the call, which writes all outputs.
    check(unsafe { fulgurite_grads(params.as_raw(), anchor, grads, &mut missing, &mut sparse, &mut moved) })?;
    let grads = match (moved, missing) {
        (true, _) => Grads::Moved,
        (false, 0) => Grads::All,
        (false, missing) => Grads::Missing(missing),
    };
    Ok(Collected { grads, sparse })
}

/// Sets the gradients of `params` to none, as `Optimizer.zero_grad(set_to_none=True)` does.
///
/// # Errors
///
/// Fails if a tensor of the list is undefined.
pub fn drop_grads(params: &mut TensorList) -> Result<(), TorchError> {
    // SAFETY: the list lives for the call.
    check(unsafe { fulgurite_drop_grads(params.as_raw()) })
}

/// The size of dimension `dim`, without the vector that [`Tensor::size`] allocates.
///
/// # Errors
///
/// Fails if there is no such dimension.
pub fn size(tensor: &Tensor, dim: i64) -> Result<i64, TorchError> {
    let mut out = 0;
    // SAFETY: the tensor lives for the call, which writes `out` unless it gives an error.
    check(unsafe { fulgurite_size(tensor.as_ptr(), dim, &mut out) })?;
    Ok(out)
}

/// The number of elements, without the vector that [`Tensor::numel`] allocates.
///
/// # Errors
///
/// Fails if the tensor is undefined.
pub fn numel(tensor: &Tensor) -> Result<i64, TorchError> {
    let mut out = 0;
    // SAFETY: the tensor lives for the call, which writes `out` unless it gives an error.
    check(unsafe { fulgurite_numel(tensor.as_ptr(), &mut out) })?;
    Ok(out)
}

/// `tensor += alpha * other`, which `tch` has without `alpha`.
///
/// # Errors
///
/// Fails if the shapes do not match.
pub fn add_tensor_(tensor: &mut Tensor, other: &Tensor, alpha: f64) -> Result<(), TorchError> {
    // SAFETY: both tensors live for the call.
    check(unsafe { fulgurite_add(tensor.as_mut_ptr(), other.as_ptr(), alpha) })
}

/// `beta * input + alpha * a @ b`, rounded once; `tch` has it without the factors.
///
/// # Errors
///
/// Fails if the shapes do not match.
pub fn addmm(input: &Tensor, a: &Tensor, b: &Tensor, beta: f64, alpha: f64) -> Result<Tensor, TorchError> {
    let mut out = null_mut();
    // SAFETY: all tensors live for the call, which writes `out` unless it gives an error.
    check(unsafe { fulgurite_addmm(input.as_ptr(), a.as_ptr(), b.as_ptr(), beta, alpha, &mut out) })?;
    // SAFETY: `out` is a tensor that the bridge created with C++'s `new`, and `tch` deletes it.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Replaces the contents of `out` by the tensors of `from` at `indices`, shared.
///
/// # Errors
///
/// Fails if an index is not below `from.len()`.
pub fn select(from: &TensorList, indices: &[usize], out: &mut TensorList) -> Result<(), TorchError> {
    // SAFETY: both lists live for the call and differ (`out` is borrowed mutably); `indices` is valid for its length.
    check(unsafe { fulgurite_list_select(out.as_raw(), from.as_raw(), indices.as_ptr(), indices.len()) })
}

// The numbers of csrc/foreach.cpp.
const NEG: i32 = 0;
const ABS: i32 = 1;
const SIGN: i32 = 2;
const SQRT: i32 = 3;
const RECIPROCAL: i32 = 4;
const ADD_SCALAR: i32 = 5;
const MUL_SCALAR: i32 = 6;
const DIV_SCALAR: i32 = 7;
const MINIMUM_SCALAR: i32 = 8;
const MAXIMUM_SCALAR: i32 = 9;
const ADD: i32 = 10;
const SUB: i32 = 11;
const MUL: i32 = 12;
const DIV: i32 = 13;
const MAXIMUM: i32 = 14;
const COPY: i32 = 15;
const LERP: i32 = 16;
const ADDCMUL: i32 = 17;
const ADDCDIV: i32 = 18;

fn call(
    operation: i32,
    out: Option<&mut TensorList>,
    list: &TensorList,
    a: Option<&TensorList>,
    b: Option<&TensorList>,
    scalar: f64,
) -> Result<(), TorchError> {
    let raw = |list: Option<&TensorList>| list.map_or(null(), |list| list.as_raw().cast_const());
    let out = out.map_or(null_mut(), |list| list.as_raw());
    // SAFETY: every list lives for the call; the operands that the operation reads are given by the functions below.
    // The vector of `list` is not changed, in place or not: only the elements of its tensors are.
    check(unsafe { fulgurite_foreach(operation, out, list.as_raw(), raw(a), raw(b), scalar) })
}

macro_rules! foreach {
    ($($(#[$doc:meta])* $in_place:ident, $into:ident($($list:ident),*; $($scalar:ident)?) = $operation:ident;)*) => {
        $(
            $(#[$doc])*
            #[doc = ""]
            #[doc = "In place.\n\n# Errors\n\nFails if the lists differ in length, or if the tensors at one position do not match."]
            pub fn $in_place(list: &mut TensorList, $($list: &TensorList,)* $($scalar: f64)?) -> Result<(), TorchError> {
                call($operation, None, list, foreach!(@a $($list),*), foreach!(@b $($list),*), foreach!(@s $($scalar)?))
            }

            $(#[$doc])*
            #[doc = ""]
            #[doc = "New tensors, in `out`.\n\n# Errors\n\nFails if the lists differ in length, or if the tensors at one position do not match."]
            pub fn $into(list: &TensorList, $($list: &TensorList,)* $($scalar: f64,)? out: &mut TensorList) -> Result<(), TorchError> {
                call($operation, Some(out), list, foreach!(@a $($list),*), foreach!(@b $($list),*), foreach!(@s $($scalar)?))
            }
        )*
    };
    (@a) => { None };
    (@a $a:ident $(, $b:ident)?) => { Some($a) };
    (@b $($a:ident)?) => { None };
    (@b $a:ident, $b:ident) => { Some($b) };
    (@s) => { 0.0 };
    (@s $scalar:ident) => { $scalar };
}

foreach! {
    /// `-list`.
    neg_, neg(;) = NEG;
    /// `|list|`.
    abs_, abs(;) = ABS;
    /// The sign of `list`: -1, 0 or 1.
    sign_, sign(;) = SIGN;
    /// The square root of `list`.
    sqrt_, sqrt(;) = SQRT;
    /// `1 / list`.
    reciprocal_, reciprocal(;) = RECIPROCAL;
    /// `list + scalar`.
    add_scalar_, add_scalar(; scalar) = ADD_SCALAR;
    /// `list * scalar`.
    mul_scalar_, mul_scalar(; scalar) = MUL_SCALAR;
    /// `list / scalar`.
    div_scalar_, div_scalar(; scalar) = DIV_SCALAR;
    /// The smaller of `list` and `scalar`.
    minimum_scalar_, minimum_scalar(; scalar) = MINIMUM_SCALAR;
    /// The larger of `list` and `scalar`.
    maximum_scalar_, maximum_scalar(; scalar) = MAXIMUM_SCALAR;
    /// `list + alpha * other`.
    add_, add(other; alpha) = ADD;
    /// `list - alpha * other`.
    sub_, sub(other; alpha) = SUB;
    /// `list * other`.
    mul_, mul(other;) = MUL;
    /// `list / other`.
    div_, div(other;) = DIV;
    /// The larger of `list` and `other`.
    maximum_, maximum(other;) = MAXIMUM;
    /// `source`, in the kind and on the device of `list`.
    copy_, copy(source;) = COPY;
    /// `list + weight * (end - list)`.
    lerp_, lerp(end; weight) = LERP;
    /// `list + value * a * b`.
    addcmul_, addcmul(a, b; value) = ADDCMUL;
    /// `list + value * a / b`.
    addcdiv_, addcdiv(a, b; value) = ADDCDIV;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tch::{Device, Kind};

    fn list(values: &[f64]) -> TensorList {
        TensorList::new(&values.iter().map(|&v| Tensor::from(v)).collect::<Vec<_>>()).unwrap()
    }

    fn values(list: &TensorList) -> Vec<f64> {
        (0..list.len()).map(|i| list.get(i).unwrap().double_value(&[])).collect()
    }

    #[test]
    fn every_operation_is_the_one_it_is_called() {
        let x = list(&[-4.0, 9.0]);
        let a = list(&[2.0, -3.0]);
        let b = list(&[5.0, 10.0]);
        let mut out = TensorList::empty().unwrap();
        type Into<'a> = &'a dyn Fn(&mut TensorList) -> Result<(), TorchError>;
        let cases: [(Into, [f64; 2]); 18] = [
            (&|out| neg(&x, out), [4.0, -9.0]),
            (&|out| abs(&x, out), [4.0, 9.0]),
            (&|out| sign(&x, out), [-1.0, 1.0]),
            (&|out| reciprocal(&x, out), [-0.25, 1.0 / 9.0]),
            (&|out| add_scalar(&x, 2.0, out), [-2.0, 11.0]),
            (&|out| mul_scalar(&x, 2.0, out), [-8.0, 18.0]),
            (&|out| div_scalar(&x, 2.0, out), [-2.0, 4.5]),
            (&|out| minimum_scalar(&x, 2.0, out), [-4.0, 2.0]),
            (&|out| maximum_scalar(&x, 2.0, out), [2.0, 9.0]),
            (&|out| add(&x, &a, 3.0, out), [2.0, 0.0]),
            (&|out| sub(&x, &a, 3.0, out), [-10.0, 18.0]),
            (&|out| mul(&x, &a, out), [-8.0, -27.0]),
            (&|out| div(&x, &a, out), [-2.0, -3.0]),
            (&|out| maximum(&x, &a, out), [2.0, 9.0]),
            (&|out| copy(&x, &a, out), [2.0, -3.0]),
            (&|out| lerp(&x, &a, 0.5, out), [-1.0, 3.0]),
            (&|out| addcmul(&x, &a, &b, 2.0, out), [16.0, -51.0]),
            (&|out| addcdiv(&x, &a, &b, 10.0, out), [0.0, 6.0]),
        ];
        for (i, (operation, expected)) in cases.iter().enumerate() {
            operation(&mut out).unwrap();
            assert_eq!(values(&out), expected, "case {i}");
            assert_eq!(values(&x), [-4.0, 9.0], "case {i} changed its operand");
        }
        let mut squares = list(&[4.0, 9.0]);
        sqrt_(&mut squares).unwrap();
        assert_eq!(values(&squares), [2.0, 3.0]);
        addcmul_(&mut squares, &a, &b, 1.0).unwrap();
        assert_eq!(values(&squares), [12.0, -27.0]);
    }

    #[test]
    fn nothing_is_done_to_no_tensors() {
        let mut none = TensorList::empty().unwrap();
        mul_scalar_(&mut none, 2.0).unwrap();
        let mut out = list(&[1.0]);
        neg(&none, &mut out).unwrap();
        assert!(out.is_empty());
    }

    #[test]
    fn lists_of_different_lengths_are_an_error() {
        let mut x = list(&[1.0, 2.0]);
        let error = add_(&mut x, &list(&[1.0]), 1.0).unwrap_err().to_string();
        assert!(error.contains("must have the same number of tensors"), "{error}");
    }

    #[test]
    fn gradients_are_collected_counted_and_dropped() {
        let (a, b) = (Tensor::from(1.0).set_requires_grad(true), Tensor::from(2.0).set_requires_grad(true));
        let mut params = TensorList::new(&[a.shallow_clone(), b.shallow_clone()]).unwrap();
        let mut grads = TensorList::empty().unwrap();
        (&a * 3.0).backward();
        assert_eq!(collect_grads(&params, &a, &mut grads).unwrap().grads, Grads::Missing(1));
        assert_eq!(grads.get(0).unwrap(), Tensor::from(3.0));
        assert!(!grads.get(1).unwrap().defined());
        (&a * &b).backward();
        assert_eq!(collect_grads(&params, &a, &mut grads).unwrap().grads, Grads::All);
        assert_eq!(values(&grads), [5.0, 1.0]);
        let elsewhere = Tensor::zeros([0], (Kind::Half, Device::Cpu));
        assert_eq!(collect_grads(&params, &elsewhere, &mut grads).unwrap().grads, Grads::Moved);
        drop_grads(&mut params).unwrap();
        assert_eq!(collect_grads(&params, &a, &mut grads).unwrap().grads, Grads::Missing(2));
        assert!(!a.grad().defined());
    }

    #[test]
    fn a_gradient_laid_out_unlike_its_parameter_is_copied() {
        let weight = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]).set_requires_grad(true);
        let transposed = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([3, 2]).tr();
        weight.sum(None).backward();
        weight.grad().set_data(&transposed);
        let mut grads = TensorList::empty().unwrap();
        collect_grads(&TensorList::new(&[weight.shallow_clone()]).unwrap(), &weight, &mut grads).unwrap();
        let collected = grads.get(0).unwrap();
        assert_eq!(collected.stride(), weight.stride());
        assert_eq!(collected, transposed);
    }

    #[test]
    fn sparse_gradients_are_counted() {
        let weight = Tensor::ones([4, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        Tensor::embedding(&weight, &Tensor::from_slice(&[1i64, 2]), -1, false, true).sum(None).backward();
        let mut grads = TensorList::empty().unwrap();
        let params = TensorList::new(&[weight.shallow_clone()]).unwrap();
        let collected = collect_grads(&params, &weight, &mut grads).unwrap();
        assert_eq!(collected, Collected { grads: Grads::All, sparse: 1 });
        assert!(grads.get(0).unwrap().is_sparse());
    }

    #[test]
    fn selection_shares_and_checks_its_indices() {
        let from = list(&[1.0, 2.0, 3.0]);
        let mut out = TensorList::empty().unwrap();
        select(&from, &[2, 0], &mut out).unwrap();
        assert_eq!(values(&out), [3.0, 1.0]);
        assert!(select(&from, &[3], &mut out).is_err());
    }

    #[test]
    fn sums_and_products_take_their_factors() {
        let mut x = Tensor::from_slice(&[1.0, 2.0]);
        add_tensor_(&mut x, &Tensor::from_slice(&[10.0, 20.0]), 0.5).unwrap();
        assert_eq!(x, Tensor::from_slice(&[6.0, 12.0]));
        assert_eq!((size(&x, 0).unwrap(), numel(&x).unwrap()), (2, 2));
        assert!(size(&x, 1).is_err());
        let eye = Tensor::eye(2, (Kind::Double, Device::Cpu));
        assert_eq!(addmm(&eye, &eye, &eye, 2.0, 3.0).unwrap(), &eye * 5.0);
        assert!(addmm(&eye, &eye, &Tensor::ones([3, 2], (Kind::Double, Device::Cpu)), 1.0, 1.0).is_err());
    }
}
