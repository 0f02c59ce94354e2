//! [`TensorList`]: tensors held on the C++ side, and the identity of tensors.

use std::ffi::c_char;

use torch_sys::C_tensor;

use crate::error::{TorchError, check};
use crate::tch::Tensor;

/// The C++ object behind a [`TensorList`], for other parts of the bridge.
#[repr(C)]
pub(crate) struct RawTensorList {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn fulgurite_tensor_id(tensor: *const C_tensor) -> usize;
    fn fulgurite_storage_id(tensor: *const C_tensor, out: *mut usize) -> *mut c_char;
    fn fulgurite_list_new() -> *mut RawTensorList;
    fn fulgurite_list_free(list: *mut RawTensorList);
    fn fulgurite_list_clear(list: *mut RawTensorList);
    fn fulgurite_list_len(list: *const RawTensorList) -> usize;
    fn fulgurite_list_push(list: *mut RawTensorList, tensor: *const C_tensor) -> *mut c_char;
    fn fulgurite_list_get(list: *const RawTensorList, index: usize, out: *mut *mut C_tensor) -> *mut c_char;
}

/// A `std::vector<at::Tensor>` that lives on the C++ side.
///
/// Functions that work on all parameters at once (clipping, fused optimizers) take one, so that a step passes libtorch
/// a single pointer and allocates nothing in Rust. Like [`Tensor::shallow_clone`], it shares the tensors: a list of
/// parameters sees their new values and gradients at every use, and is created once.
///
/// ```
/// use fulgurite_torch::TensorList;
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let weight = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
/// let list = TensorList::new(&[weight])?;
/// assert_eq!(list.len(), 1);
/// assert_eq!(list.get(0)?.size(), [2, 3]);
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
#[derive(Debug)]
pub struct TensorList {
    raw: *mut RawTensorList,
}

// SAFETY: the list owns its vector, and a libtorch tensor may be used from another thread than the one that made it,
// which is what makes `tch::Tensor` Send too.
unsafe impl Send for TensorList {}

impl TensorList {
    /// A list that shares `tensors`, in their order.
    pub fn new(tensors: &[Tensor]) -> Result<TensorList, TorchError> {
        let mut list = TensorList::empty()?;
        for tensor in tensors {
            list.push(tensor)?;
        }
        Ok(list)
    }

    /// An empty list, for [`push`](TensorList::push).
    pub fn empty() -> Result<TensorList, TorchError> {
        // SAFETY: takes nothing, gives an object we own, or null.
        let raw = unsafe { fulgurite_list_new() };
        if raw.is_null() {
            return Err(TorchError::Bridge("out of memory while creating a list of tensors".into()));
        }
        Ok(TensorList { raw })
    }

    /// Appends a tensor, shared.
    pub fn push(&mut self, tensor: &Tensor) -> Result<(), TorchError> {
        // SAFETY: both objects live for the call, and `&mut self` keeps other users of the list away.
        check(unsafe { fulgurite_list_push(self.raw, tensor.as_ptr()) })
    }

    /// Removes all tensors, and keeps the memory for the next ones.
    pub fn clear(&mut self) {
        // SAFETY: the list lives, and `&mut self` keeps other users of it away.
        unsafe { fulgurite_list_clear(self.raw) }
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        // SAFETY: the list lives.
        unsafe { fulgurite_list_len(self.raw) }
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tensor at `index`, shared.
    ///
    /// # Errors
    ///
    /// Fails if `index` is [`len`](TensorList::len) or more.
    pub fn get(&self, index: usize) -> Result<Tensor, TorchError> {
        let mut out = std::ptr::null_mut();
        // SAFETY: the list lives; the bridge checks the index, and writes `out` only when it gives no error.
        check(unsafe { fulgurite_list_get(self.raw, index, &mut out) })?;
        // SAFETY: `out` is a tensor that the bridge created with C++'s `new`, and `tch` deletes it.
        Ok(unsafe { Tensor::from_ptr(out) })
    }

    /// The C++ object, for calls into the bridge. It lives as long as `self`.
    pub(crate) fn as_raw(&self) -> *mut RawTensorList {
        self.raw
    }
}

impl Drop for TensorList {
    fn drop(&mut self) {
        // SAFETY: created by `fulgurite_list_new`, owned by this list alone, and not used after this.
        unsafe { fulgurite_list_free(self.raw) }
    }
}

/// The identity of a tensor: equal for handles of the same tensor (created by [`Tensor::shallow_clone`]), different
/// for all other tensors that live at the same time, including views of the same memory. Python's `id(tensor)`.
pub fn tensor_id(tensor: &Tensor) -> usize {
    // SAFETY: the tensor lives for the call, and only its address is looked at.
    unsafe { fulgurite_tensor_id(tensor.as_ptr()) }
}

/// The identity of a storage: equal for tensors that are views of the same memory, such as tied weights.
///
/// # Errors
///
/// Fails if the tensor has no storage: undefined or sparse.
pub fn storage_id(tensor: &Tensor) -> Result<usize, TorchError> {
    let mut out = 0;
    // SAFETY: the tensor lives for the call; `out` is written only when there is no error.
    check(unsafe { fulgurite_storage_id(tensor.as_ptr(), &mut out) })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tch::{Device, Kind};

    #[test]
    fn a_list_shares_its_tensors() {
        let mut weight = Tensor::zeros([2], (Kind::Float, Device::Cpu));
        let list = TensorList::new(&[weight.shallow_clone()]).unwrap();
        let _ = weight.fill_(3.0);
        assert_eq!(list.get(0).unwrap(), Tensor::from_slice(&[3.0f32, 3.0]));
        assert_eq!(tensor_id(&list.get(0).unwrap()), tensor_id(&weight));
    }

    #[test]
    fn an_index_outside_is_an_error() {
        let mut list = TensorList::new(&[Tensor::from(1.0)]).unwrap();
        let error = list.get(1).unwrap_err().to_string();
        assert!(error.contains("1"), "{error}");
        list.clear();
        assert!(list.is_empty());
    }

    #[test]
    fn identity_follows_the_handle_and_storage_the_memory() {
        let a = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        let handle = a.shallow_clone();
        let view = a.view([2, 2]);
        assert_eq!(tensor_id(&a), tensor_id(&handle));
        assert_ne!(tensor_id(&a), tensor_id(&view));
        assert_eq!(storage_id(&a).unwrap(), storage_id(&view).unwrap());
        assert_ne!(storage_id(&a).unwrap(), storage_id(&a.copy()).unwrap());
    }

    #[test]
    fn a_tensor_without_storage_has_no_storage_id() {
        assert!(storage_id(&Tensor::new()).is_err());
    }
}
