//! [`SharedTensor`]: a tensor that many threads read.

use torch_sys::C_tensor;

use crate::error::TorchError;
use crate::tch::{Kind, Tensor};

unsafe extern "C" {
    fn fulgurite_is_exclusive(tensor: *const C_tensor) -> bool;
}

/// A tensor that threads may read at the same time, such as the samples of a dataset.
///
/// `tch`'s `Tensor` is not `Sync`, because a handle is enough to change the data in place. This one can only be read,
/// and owns its memory alone: [`new`](SharedTensor::new) copies a tensor that is still referenced elsewhere, and
/// the methods return copies. So no thread can write while another one reads.
///
/// ```
/// use fulgurite_torch::SharedTensor;
/// use fulgurite_torch::tch::Tensor;
///
/// let images = SharedTensor::new(Tensor::from_slice(&[0u8, 1, 2, 3]).view([2, 2]))?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| assert_eq!(images.get(1).unwrap(), Tensor::from_slice(&[2u8, 3])));
/// });
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
#[derive(Debug)]
pub struct SharedTensor {
    tensor: Tensor,
    /// The size of the first dimension.
    len: usize,
}

// SAFETY: the tensor and its memory have no other owner (see `new`), and no method changes them or returns a
// handle. What the methods do on the C++ side only reads the tensor: reference counts are atomic, and autograd, which
// would keep track of the reads, has nothing to do, as the tensor is detached.
unsafe impl Sync for SharedTensor {}

impl SharedTensor {
    /// Shares `tensor`, without its gradient. It is copied if another handle or view of its memory exists.
    ///
    /// # Errors
    ///
    /// Fails if the tensor cannot be copied to the CPU.
    pub fn new(tensor: Tensor) -> Result<SharedTensor, TorchError> {
        let detached = tensor.f_detach()?;
        drop(tensor);
        let tensor = if is_exclusive(&detached) { detached } else { copy(&detached)? };
        let len = tensor.size().first().map_or(0, |&len| usize::try_from(len).unwrap_or(0));
        Ok(SharedTensor { tensor, len })
    }

    /// The shape.
    pub fn size(&self) -> Vec<i64> {
        self.tensor.size()
    }

    /// The kind of the elements.
    pub fn kind(&self) -> Kind {
        self.tensor.kind()
    }

    /// The size of the first dimension; 0 for a scalar.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether [`len`](SharedTensor::len) is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the slice at `index` of the first dimension.
    ///
    /// # Errors
    ///
    /// Fails if `index` is [`len`](SharedTensor::len) or more.
    pub fn get(&self, index: usize) -> Result<Tensor, TorchError> {
        // For one slice, this is twice as fast as `select_copy`.
        Ok(self.narrow(index, 1)?.f_squeeze_dim(0)?)
    }

    /// A copy of `len` slices of the first dimension, from `start` on.
    ///
    /// # Errors
    ///
    /// Fails if the range extends beyond the end.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Tensor, TorchError> {
        if start.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(TorchError::OutOfRange { start, len, available: self.len });
        }
        Ok(self.tensor.f_narrow_copy(0, start as i64, len as i64)?)
    }

    /// A copy of the slices at `indices` of the first dimension, in their order.
    ///
    /// # Errors
    ///
    /// Fails if an index is [`len`](SharedTensor::len) or more.
    pub fn index_select(&self, indices: &[i64]) -> Result<Tensor, TorchError> {
        let indices = Tensor::f_from_slice(indices)?.f_to_device(self.tensor.device())?;
        Ok(self.tensor.f_index_select(0, &indices)?)
    }

    /// A copy of the whole tensor.
    ///
    /// # Errors
    ///
    /// Fails if there is not enough memory for the copy.
    pub fn to_tensor(&self) -> Result<Tensor, TorchError> {
        copy(&self.tensor)
    }
}

/// Whether this is the only handle of the tensor, and no view of its memory exists, so that writing to it is not
/// observable elsewhere.
pub fn is_exclusive(tensor: &Tensor) -> bool {
    // SAFETY: the tensor lives for the call, and only its reference counts are read.
    unsafe { fulgurite_is_exclusive(tensor.as_ptr()) }
}

fn copy(tensor: &Tensor) -> Result<Tensor, TorchError> {
    let mut copy = tensor.f_empty_like()?;
    copy.f_copy_(tensor)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tch::Device;

    #[test]
    fn it_cannot_be_changed_through_another_handle() {
        let mut outside = Tensor::zeros([2], (Kind::Float, Device::Cpu));
        let shared = SharedTensor::new(outside.shallow_clone()).unwrap();
        let _ = outside.fill_(1.0);
        let _ = shared.get(0).unwrap().fill_(2.0);
        let _ = shared.to_tensor().unwrap().fill_(3.0);
        assert_eq!(shared.to_tensor().unwrap(), Tensor::from_slice(&[0.0f32, 0.0]));
    }

    #[test]
    fn a_tensor_held_alone_is_not_copied() {
        let alone = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        let data = alone.data_ptr();
        assert_eq!(SharedTensor::new(alone).unwrap().tensor.data_ptr(), data);
        let base = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        let view = base.view([2, 2]);
        let data = view.data_ptr();
        assert_ne!(SharedTensor::new(view).unwrap().tensor.data_ptr(), data);
    }

    #[test]
    fn slices_come_in_the_order_asked_for() {
        let shared = SharedTensor::new(Tensor::arange(6, (Kind::Int64, Device::Cpu)).view([3, 2])).unwrap();
        assert_eq!((shared.len(), shared.size(), shared.kind()), (3, vec![3, 2], Kind::Int64));
        assert_eq!(shared.get(2).unwrap(), Tensor::from_slice(&[4i64, 5]));
        assert_eq!(shared.narrow(1, 2).unwrap(), Tensor::from_slice(&[2i64, 3, 4, 5]).view([2, 2]));
        assert_eq!(shared.index_select(&[2, 0]).unwrap(), Tensor::from_slice(&[4i64, 5, 0, 1]).view([2, 2]));
    }

    #[test]
    fn beyond_the_end_is_an_error() {
        let shared = SharedTensor::new(Tensor::zeros([3], (Kind::Float, Device::Cpu))).unwrap();
        assert_eq!(shared.get(3).unwrap_err().to_string(), "3..4 was requested, but there are 3 items");
        assert_eq!(shared.narrow(2, 2).unwrap_err().to_string(), "2..4 was requested, but there are 3 items");
        assert!(shared.index_select(&[3]).is_err());
    }

    #[test]
    fn threads_read_at_the_same_time() {
        let shared = SharedTensor::new(Tensor::arange(100, (Kind::Int64, Device::Cpu))).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in 0..100 {
                        assert_eq!(shared.get(i).unwrap().int64_value(&[]), i as i64);
                    }
                });
            }
        });
    }
}
