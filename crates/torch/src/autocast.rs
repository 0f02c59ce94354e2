//! Mixed precision: regions in which libtorch chooses the kind of each operation, and the kernels of a gradient scaler.
//!
//! ```
//! use fulgurite_torch::autocast::Autocast;
//! use fulgurite_torch::tch::{Device, Kind, Tensor};
//!
//! let x = Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
//! let product = {
//!     let _region = Autocast::new(Device::Cpu, Kind::BFloat16).enter()?;
//!     x.matmul(&x)
//! };
//! assert_eq!(product.kind(), Kind::BFloat16);
//! assert_eq!(x.matmul(&x).kind(), Kind::Float);
//! # Ok::<(), fulgurite_torch::TorchError>(())
//! ```

use std::ffi::{c_char, c_int};
use std::marker::PhantomData;

use torch_sys::C_tensor;

use crate::error::{TorchError, check};
use crate::pointers::with_pointers;
use crate::tch::{Device, Kind, Tensor};

/// The same fields as in autocast.cpp.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct RawAutocast {
    device: c_int,
    dtype: c_int,
    enabled: bool,
    cache: bool,
}

unsafe extern "C" {
    fn fulgurite_autocast_enter(wanted: *const RawAutocast, before: *mut RawAutocast) -> *mut c_char;
    fn fulgurite_autocast_leave(before: *const RawAutocast) -> *mut c_char;
    fn fulgurite_autocast_dtype(device: c_int, out: *mut c_int) -> *mut c_char;
    fn fulgurite_amp_update_scale(
        scale: *const C_tensor,
        growth_tracker: *const C_tensor,
        found_inf: *const C_tensor,
        growth_factor: f64,
        backoff_factor: f64,
        interval: i64,
    ) -> *mut c_char;
    fn fulgurite_unscale_grads(
        parameters: *const *const C_tensor,
        count: usize,
        scale: *const C_tensor,
        out: *mut *mut C_tensor,
        checked: *mut usize,
    ) -> *mut c_char;
}

/// libtorch's numbers of the kinds for autocast.
const HALF: c_int = 5;
const BFLOAT16: c_int = 15;
/// Leaves the kind that is set.
const UNCHANGED: c_int = -1;

/// `torch.autocast`: the options of an autocast region for one type of device. It begins with
/// [`enter`](Autocast::enter).
///
/// Matrix products and convolutions run in 16 bits, what needs range or precision (losses, norms, exponentials) in 32;
/// inputs are cast as needed. Parameters are unchanged.
#[derive(Debug, Clone, Copy)]
#[must_use = "the region begins with `enter`"]
pub struct Autocast {
    device: Device,
    kind: Option<Kind>,
    cache: bool,
}

impl Autocast {
    /// Casts to `kind`, which is [`Kind::Half`] or [`Kind::BFloat16`], on devices of the type of `device`.
    pub fn new(device: Device, kind: Kind) -> Autocast {
        Autocast { device, kind: Some(kind), cache: true }
    }

    /// Disables casts within an enclosing region: for operations that need 32 bits, and for backward passes, whose
    /// operations have the kinds of the forward pass already.
    pub fn off(device: Device) -> Autocast {
        Autocast { device, kind: None, cache: true }
    }

    /// Whether the casts of parameters are cached within the region; on by default. Turn it off if parameters change
    /// within the region, since cached casts do not.
    ///
    /// With the cache, the gradients of all uses of a parameter are summed in 16 bits, without it in 32.
    pub fn cache(mut self, cache: bool) -> Autocast {
        self.cache = cache;
        self
    }

    /// Enters the region on this thread. It ends when the guard is dropped.
    ///
    /// # Errors
    ///
    /// Fails if operations cannot be cast to the kind, or if the device does not support autocast.
    pub fn enter(self) -> Result<AutocastGuard, TorchError> {
        let dtype = match self.kind {
            None => UNCHANGED,
            Some(Kind::Half) => HALF,
            Some(Kind::BFloat16) => BFLOAT16,
            Some(kind) => return Err(TorchError::AutocastKind { kind }),
        };
        let wanted =
            RawAutocast { device: device_type(self.device)?, dtype, enabled: self.kind.is_some(), cache: self.cache };
        let mut before = wanted;
        // SAFETY: both live for the call; it sets thread-local values.
        check(unsafe { fulgurite_autocast_enter(&wanted, &mut before) })?;
        Ok(AutocastGuard { before, _thread: PhantomData })
    }

    /// The kind that operations on devices of this type are cast to on this thread; `None` outside a region.
    ///
    /// # Errors
    ///
    /// Fails if the device does not support autocast.
    pub fn current(device: Device) -> Result<Option<Kind>, TorchError> {
        let mut dtype = UNCHANGED;
        // SAFETY: reads thread-local values into `dtype`.
        check(unsafe { fulgurite_autocast_dtype(device_type(device)?, &mut dtype) })?;
        Ok(match dtype {
            HALF => Some(Kind::Half),
            BFLOAT16 => Some(Kind::BFloat16),
            _ => None,
        })
    }
}

/// A region of [`Autocast`] on this thread. The previous state is restored when it is dropped, also by a panic; cached
/// casts are cleared when the outermost region ends. Guards of a thread must be dropped in the reverse order of their
/// creation, as scopes do.
#[derive(Debug)]
#[must_use = "the region ends when the guard is dropped"]
pub struct AutocastGuard {
    before: RawAutocast,
    _thread: PhantomData<*const ()>,
}

impl Drop for AutocastGuard {
    fn drop(&mut self) {
        // SAFETY: it is what `fulgurite_autocast_enter` wrote on this thread, and is used once.
        let left = check(unsafe { fulgurite_autocast_leave(&self.before) });
        debug_assert!(left.is_ok(), "a type of device that could be entered can be left");
    }
}

fn device_type(device: Device) -> Result<c_int, TorchError> {
    match device {
        Device::Cpu => Ok(0),
        Device::Cuda(_) => Ok(1),
        Device::Mps => Ok(13),
        Device::Vulkan => Err(TorchError::AutocastDevice { device }),
    }
}

/// Divides the gradients of `parameters` by `scale`, a zero-dimensional `Float`, and checks whether one of them is
/// infinite or NaN: the first half of a gradient scaler.
///
/// Returns a `Float` like `scale`, on the same device, which is not 0 if there was such a gradient, and the number of
/// gradients.
///
/// # Errors
///
/// Fails if a gradient has the kind `Half`: the division would underflow.
pub fn unscale_grads<'a>(
    parameters: impl IntoIterator<Item = &'a Tensor>,
    scale: &Tensor,
) -> Result<(Tensor, usize), TorchError> {
    let (mut out, mut count) = (std::ptr::null_mut(), 0);
    with_pointers(parameters, |p| {
        // SAFETY: the pointers are of living tensors; `out` is written only when there is no error.
        check(unsafe { fulgurite_unscale_grads(p.as_ptr(), p.len(), scale.as_ptr(), &mut out, &mut count) })
    })?;
    // SAFETY: `out` is a tensor that the bridge created with C++'s `new`, and `tch` deletes it.
    Ok((unsafe { Tensor::from_ptr(out) }, count))
}

/// Updates `scale`, a zero-dimensional `Float`, in place: multiplies it by `backoff_factor` if `found_inf` is not 0,
/// else by `growth_factor` whenever `growth_tracker`, a zero-dimensional `Int`, has counted `interval` consecutive
/// steps. The second half of a gradient scaler; it does not synchronize with the device.
///
/// # Errors
///
/// Fails if a tensor has another kind.
pub fn update_scale(
    scale: &mut Tensor,
    growth_tracker: &mut Tensor,
    found_inf: &Tensor,
    (growth_factor, backoff_factor): (f64, f64),
    interval: i64,
) -> Result<(), TorchError> {
    let (scale, tracker) = (scale.as_ptr(), growth_tracker.as_ptr());
    // SAFETY: the tensors live for the call, and `&mut` keeps other users of the first two away.
    check(unsafe {
        fulgurite_amp_update_scale(scale, tracker, found_inf.as_ptr(), growth_factor, backoff_factor, interval)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad::{NoGradGuard, backward};

    const CPU: Device = Device::Cpu;

    fn matrix() -> Tensor {
        Tensor::ones([2, 2], (Kind::Float, CPU))
    }

    fn kind_of_a_product() -> Kind {
        matrix().matmul(&matrix()).kind()
    }

    #[test]
    fn regions_nest_and_each_restores_what_was_before() {
        let bf16 = Autocast::new(CPU, Kind::BFloat16).enter().unwrap();
        {
            let _half = Autocast::new(CPU, Kind::Half).enter().unwrap();
            assert_eq!(Autocast::current(CPU).unwrap(), Some(Kind::Half));
            {
                let _off = Autocast::off(CPU).enter().unwrap();
                assert_eq!((kind_of_a_product(), Autocast::current(CPU).unwrap()), (Kind::Float, None));
            }
            assert_eq!(kind_of_a_product(), Kind::Half);
        }
        assert_eq!(kind_of_a_product(), Kind::BFloat16);
        drop(bf16);
        assert_eq!((kind_of_a_product(), Autocast::current(CPU).unwrap()), (Kind::Float, None));
    }

    #[test]
    fn a_panic_ends_a_region_and_other_threads_have_none() {
        let caught = std::panic::catch_unwind(|| {
            let _region = Autocast::new(CPU, Kind::BFloat16).enter().unwrap();
            assert_eq!(std::thread::spawn(kind_of_a_product).join().unwrap(), Kind::Float);
            panic!("in the middle");
        });
        assert!(caught.is_err());
        assert_eq!(kind_of_a_product(), Kind::Float);
    }

    /// The number that a cast parameter has in a region after the parameter was changed.
    fn after_a_change(region: Autocast) -> f64 {
        let mut weight = matrix().set_requires_grad(true);
        let _region = region.enter().unwrap();
        let _first = matrix().matmul(&weight);
        {
            let _no_grad = NoGradGuard::new();
            let _ = weight.fill_(2.0);
        }
        matrix().matmul(&weight).double_value(&[0, 0])
    }

    #[test]
    fn casts_are_kept_until_the_outermost_region_ends_or_not_at_all() {
        let region = Autocast::new(CPU, Kind::BFloat16);
        assert_eq!(after_a_change(region), 2.0);
        assert_eq!(after_a_change(region), 2.0, "the first region's casts are gone");
        assert_eq!(after_a_change(region.cache(false)), 4.0);
    }

    #[test]
    fn a_pass_without_gradients_does_not_take_them_from_the_next_one() {
        let weight = matrix().set_requires_grad(true);
        let _region = Autocast::new(CPU, Kind::BFloat16).enter().unwrap();
        {
            let _no_grad = NoGradGuard::new();
            let _teacher = matrix().matmul(&weight);
        }
        assert!(matrix().matmul(&weight).requires_grad());
    }

    #[test]
    fn what_cannot_be_cast_says_so() {
        let error = Autocast::new(CPU, Kind::Float).enter().unwrap_err().to_string();
        assert_eq!(error, "operations cannot be cast to Float; autocast takes Half or BFloat16");
        let error = Autocast::new(Device::Vulkan, Kind::Half).enter().unwrap_err().to_string();
        assert_eq!(error, "there is no autocast on Vulkan; it is for CPU, CUDA and MPS");
    }

    fn leaf(grad: &[f32]) -> Tensor {
        let leaf = Tensor::zeros([grad.len() as i64], (Kind::Float, CPU)).set_requires_grad(true);
        backward(&(&leaf * Tensor::from_slice(grad)).sum(Kind::Float)).unwrap();
        leaf
    }

    #[test]
    fn gradients_are_unscaled_and_an_infinity_is_found() {
        let scale = Tensor::from(4.0f32);
        let none = Tensor::zeros([1], (Kind::Float, CPU)).set_requires_grad(true);
        let parameters = [leaf(&[4.0, 8.0]), none, leaf(&[2.0])];
        let (found, count) = unscale_grads(&parameters, &scale).unwrap();
        assert_eq!((found.double_value(&[]), count), (0.0, 2));
        assert_eq!(parameters[0].grad(), Tensor::from_slice(&[1.0f32, 2.0]));
        for bad in [f32::INFINITY, f32::NAN] {
            let (found, _) = unscale_grads([&leaf(&[1.0]), &leaf(&[bad, 1.0])], &scale).unwrap();
            assert_eq!(found.double_value(&[]), 1.0);
        }
        let (found, count) = unscale_grads([], &scale).unwrap();
        assert_eq!((found.double_value(&[]), count), (0.0, 0));
    }

    #[test]
    fn gradients_of_16_bits_are_refused() {
        let half = Tensor::zeros([1], (Kind::Half, CPU)).set_requires_grad(true);
        backward(&(&half * 2.0).sum(Kind::Half)).unwrap();
        let error = unscale_grads([&half], &Tensor::from(4.0f32)).unwrap_err().to_string();
        assert!(error.starts_with("gradients of 16 bits cannot be unscaled"), "{error}");
    }

    #[test]
    fn the_scale_grows_after_an_interval_and_shrinks_at_once() {
        let mut scale = Tensor::from(8.0f32);
        let mut tracker = Tensor::from(0i32);
        let mut seen = Vec::new();
        for found in [0.0f32, 0.0, 1.0, 0.0, 0.0] {
            update_scale(&mut scale, &mut tracker, &Tensor::from(found), (2.0, 0.25), 2).unwrap();
            seen.push((scale.double_value(&[]), tracker.int64_value(&[])));
        }
        assert_eq!(seen, [(8.0, 1), (16.0, 0), (4.0, 0), (4.0, 1), (8.0, 0)]);
    }
}
