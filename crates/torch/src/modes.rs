//! Modes of autograd and of kernels: guards that restore what was set before, and switches of the process.

use std::ffi::{c_char, c_int};
use std::marker::PhantomData;

use crate::error::{TorchError, check};
use crate::tch;

#[repr(C)]
struct RawInferenceMode {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn fulgurite_inference_mode_enter() -> *mut RawInferenceMode;
    fn fulgurite_inference_mode_leave(guard: *mut RawInferenceMode);
    fn fulgurite_inference_mode_is_enabled() -> bool;
    fn fulgurite_grad_mode_is_enabled() -> bool;
    fn fulgurite_grad_mode_set(enabled: bool);
    fn fulgurite_anomaly_mode_set(mode: c_int) -> c_int;
    fn fulgurite_set_deterministic_algorithms(enabled: bool, warn_only: bool) -> *mut c_char;
    fn fulgurite_deterministic_algorithms() -> bool;
    fn fulgurite_deterministic_algorithms_warn_only() -> bool;
    fn fulgurite_set_cudnn_benchmark(enabled: bool);
    fn fulgurite_cudnn_benchmark() -> bool;
}

/// Disables gradient recording on this thread. The previous state is restored when it is dropped, also by a panic.
/// Guards of a thread must be dropped in the reverse order of their creation, as scopes do.
///
/// It wraps `tch`'s guard, and is not `Send`, since it would restore the state of the wrong thread.
#[must_use = "the mode ends when the guard is dropped"]
pub struct NoGradGuard {
    _guard: tch::NoGradGuard,
    _thread: PhantomData<*const ()>,
}

impl NoGradGuard {
    /// Disables gradient recording on this thread.
    pub fn new() -> NoGradGuard {
        NoGradGuard { _guard: tch::no_grad_guard(), _thread: PhantomData }
    }
}

/// Whether this thread records gradients.
pub(crate) fn records_gradients() -> bool {
    // SAFETY: reads a thread-local flag.
    unsafe { fulgurite_grad_mode_is_enabled() }
}

/// Sets whether this thread records gradients.
pub(crate) fn set_records_gradients(enabled: bool) {
    // SAFETY: sets a thread-local flag.
    unsafe { fulgurite_grad_mode_set(enabled) };
}

/// `torch.inference_mode()` on this thread while it lives: no gradients, and no bookkeeping for them either. Tensors
/// created inside cannot be used in autograd later. The previous state is restored when it is dropped, also by a panic.
/// Guards of a thread must be dropped in the reverse order of their creation, as scopes do.
#[derive(Debug)]
#[must_use = "the mode ends when the guard is dropped"]
pub struct InferenceModeGuard {
    raw: *mut RawInferenceMode,
}

impl InferenceModeGuard {
    /// Enters inference mode on this thread.
    pub fn new() -> InferenceModeGuard {
        // SAFETY: takes nothing; the object is ours, and deleting null is allowed. The pointer keeps the guard on
        // this thread.
        InferenceModeGuard { raw: unsafe { fulgurite_inference_mode_enter() } }
    }

    /// Whether this thread is in inference mode.
    pub fn is_enabled() -> bool {
        // SAFETY: reads a thread-local flag.
        unsafe { fulgurite_inference_mode_is_enabled() }
    }
}

impl Drop for InferenceModeGuard {
    fn drop(&mut self) {
        // SAFETY: created by `fulgurite_inference_mode_enter` on this thread, and not used after this.
        unsafe { fulgurite_inference_mode_leave(self.raw) }
    }
}

/// `torch.autograd.detect_anomaly()` while it lives: a backward pass that produces a NaN is an error that names the
/// function. Slow. It applies to the whole process; the previous state is restored when it is dropped, also by a panic.
#[derive(Debug)]
#[must_use = "the mode ends when the guard is dropped"]
pub struct AnomalyModeGuard {
    before: c_int,
}

const ANOMALY_ENABLED: c_int = 1;
const ANOMALY_CHECK_NAN: c_int = 2;

impl AnomalyModeGuard {
    /// Turns the detection of anomalies on.
    pub fn new() -> AnomalyModeGuard {
        // SAFETY: sets two flags of the process.
        AnomalyModeGuard { before: unsafe { fulgurite_anomaly_mode_set(ANOMALY_ENABLED | ANOMALY_CHECK_NAN) } }
    }
}

impl Drop for AnomalyModeGuard {
    fn drop(&mut self) {
        // SAFETY: sets two flags of the process.
        unsafe { fulgurite_anomaly_mode_set(self.before) };
    }
}

impl Default for NoGradGuard {
    fn default() -> NoGradGuard {
        NoGradGuard::new()
    }
}

impl Default for InferenceModeGuard {
    fn default() -> InferenceModeGuard {
        InferenceModeGuard::new()
    }
}

impl Default for AnomalyModeGuard {
    fn default() -> AnomalyModeGuard {
        AnomalyModeGuard::new()
    }
}

/// Whether operations must give the same result every time: `torch.use_deterministic_algorithms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deterministic {
    /// Operations that cannot be deterministic are errors.
    True,
    /// Operations that cannot be deterministic print a warning.
    WarnOnly,
    /// The fastest algorithm is used.
    False,
}

/// Sets whether operations must be deterministic, for the whole process.
///
/// On CUDA, cuBLAS is deterministic only when the environment variable `CUBLAS_WORKSPACE_CONFIG` was set to `:4096:8`
/// before the process started; libtorch reports it otherwise.
///
/// # Errors
///
/// Fails if libtorch does not support the mode.
pub fn set_deterministic_algorithms(mode: Deterministic) -> Result<(), TorchError> {
    let (enabled, warn_only) = match mode {
        Deterministic::True => (true, false),
        Deterministic::WarnOnly => (true, true),
        Deterministic::False => (false, false),
    };
    // SAFETY: sets flags of the process.
    check(unsafe { fulgurite_set_deterministic_algorithms(enabled, warn_only) })
}

/// The current setting of [`set_deterministic_algorithms`].
pub fn deterministic_algorithms() -> Deterministic {
    // SAFETY: reads flags of the process.
    match unsafe { (fulgurite_deterministic_algorithms(), fulgurite_deterministic_algorithms_warn_only()) } {
        (true, false) => Deterministic::True,
        (true, true) => Deterministic::WarnOnly,
        (false, _) => Deterministic::False,
    }
}

/// Whether cuDNN tries its algorithms and keeps the fastest (`torch.backends.cudnn.benchmark`), for the whole process.
pub fn set_cudnn_benchmark(enabled: bool) {
    // SAFETY: sets a flag of the process.
    unsafe { fulgurite_set_cudnn_benchmark(enabled) }
}

/// Whether cuDNN tries its algorithms and keeps the fastest.
pub fn cudnn_benchmark() -> bool {
    // SAFETY: reads a flag of the process.
    unsafe { fulgurite_cudnn_benchmark() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad::backward;
    use crate::tch::Tensor;

    #[test]
    fn no_grad_ends_with_its_scope_and_with_a_panic() {
        {
            let _outer = NoGradGuard::new();
            {
                let _inner = NoGradGuard::new();
            }
            assert!(!records_gradients());
        }
        assert!(records_gradients());
        let caught = std::panic::catch_unwind(|| {
            let _guard = NoGradGuard::new();
            panic!("in the middle");
        });
        assert!(caught.is_err());
        assert!(records_gradients());
    }

    #[test]
    fn inference_mode_nests_and_ends_with_its_scope_and_with_a_panic() {
        {
            let _outer = InferenceModeGuard::new();
            {
                let _inner = InferenceModeGuard::new();
            }
            assert!(InferenceModeGuard::is_enabled());
            assert!(Tensor::from(1.0).is_inference());
        }
        assert!(!InferenceModeGuard::is_enabled());
        let caught = std::panic::catch_unwind(|| {
            let _guard = InferenceModeGuard::new();
            panic!("in the middle");
        });
        assert!(caught.is_err());
        assert!(!InferenceModeGuard::is_enabled());
        assert!(records_gradients());
    }

    #[test]
    fn an_anomaly_is_an_error_that_names_the_function() {
        let x = Tensor::from(-1.0).set_requires_grad(true);
        {
            let _guard = AnomalyModeGuard::new();
            let error = backward(&x.sqrt()).unwrap_err().to_string();
            assert_eq!(error, "Function 'SqrtBackward0' returned nan values in its 0th output.");
        }
        backward(&x.sqrt()).unwrap();
    }

    #[test]
    fn determinism_is_set_and_read() {
        for mode in [Deterministic::True, Deterministic::WarnOnly, Deterministic::False] {
            set_deterministic_algorithms(mode).unwrap();
            assert_eq!(deterministic_algorithms(), mode);
        }
    }

    #[test]
    fn cudnn_benchmark_is_set_and_read() {
        set_cudnn_benchmark(true);
        assert!(cudnn_benchmark());
        set_cudnn_benchmark(false);
        assert!(!cudnn_benchmark());
    }
}
