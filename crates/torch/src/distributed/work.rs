//! [`Work`]: an asynchronous operation.

use std::ffi::c_char;
use std::fmt;
use std::time::Duration;

use super::process_group::ProcessGroup;
use super::store::milliseconds;
use crate::error::{TorchError, check};

/// The C++ object behind a [`Work`].
#[repr(C)]
pub(super) struct RawWork {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn fulgurite_work_wait(work: *mut RawWork, timeout_ms: i64, done: *mut bool) -> *mut c_char;
    fn fulgurite_work_is_completed(work: *const RawWork) -> bool;
    fn fulgurite_work_free(work: *mut RawWork);
}

/// A collective operation in progress; `torch.distributed.Work`. Its tensors must not be used until
/// [`wait`](Work::wait) has returned, which also copies the received data to its destination.
///
/// Dropping it does not stop the operation, and leaves the contents of its tensors unspecified.
///
/// ```
/// # use fulgurite_torch::distributed::{GroupOptions, ProcessGroup, ReduceOp, Store, TcpStoreOptions};
/// # use fulgurite_torch::tch::Tensor;
/// # let store = Store::tcp(TcpStoreOptions { port: 0, is_server: true, ..Default::default() })?;
/// # let group = ProcessGroup::new(&store, 0, 1, &GroupOptions::default())?;
/// let sum = Tensor::from(3f32);
/// let work = group.all_reduce_async(&sum, ReduceOp::Sum)?;
/// // Something else can be done here.
/// work.wait()?;
/// assert_eq!(sum, Tensor::from(3f32));
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
#[must_use = "the result is available after `wait`"]
pub struct Work<T = ()> {
    running: Running,
    /// The result of `wait`.
    output: T,
    operation: &'static str,
    /// Keeps the group while one of its operations runs.
    group: ProcessGroup,
}

/// The C++ object.
struct Running(*mut RawWork);

// SAFETY: the C++ object is owned by this one alone, and the operation it stands for locks what its threads share.
unsafe impl Send for Running {}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: given by the bridge, owned by this object alone, and not used after this.
        unsafe { fulgurite_work_free(self.0) }
    }
}

impl Work {
    /// Takes over `raw`.
    pub(super) fn new(raw: *mut RawWork, operation: &'static str, group: &ProcessGroup) -> Work {
        Work { running: Running(raw), output: (), operation, group: group.clone() }
    }

    /// The same work, with a result for [`wait`](Work::wait).
    pub(super) fn with_output<T>(self, output: T) -> Work<T> {
        let Work { running, operation, group, .. } = self;
        Work { running, output, operation, group }
    }
}

impl<T> Work<T> {
    /// Waits until the operation is complete, and returns its result.
    ///
    /// # Errors
    ///
    /// Fails if the operation failed, or if it took longer than the group's timeout.
    pub fn wait(mut self) -> Result<T, TorchError> {
        self.wait_raw(0)?;
        Ok(self.output)
    }

    /// Waits until the operation is complete, but at most for `timeout`, and returns whether it is. If not, it
    /// continues, and can be waited for again; but a send or receive that is not complete in time fails, and its group
    /// with it.
    ///
    /// # Errors
    ///
    /// Fails if the operation failed, or if it took longer than the group's timeout.
    pub fn wait_for(&mut self, timeout: Duration) -> Result<bool, TorchError> {
        self.wait_raw(milliseconds(timeout))
    }

    /// Whether the operation is complete, successfully or not. A send or receive completes in [`wait`](Work::wait)
    /// only.
    pub fn is_completed(&self) -> bool {
        // SAFETY: the work lives.
        unsafe { fulgurite_work_is_completed(self.running.0) }
    }

    fn wait_raw(&mut self, timeout_ms: i64) -> Result<bool, TorchError> {
        let mut done = false;
        // SAFETY: the work lives, and `self` is the only one that can wait for it.
        check(unsafe { fulgurite_work_wait(self.running.0, timeout_ms, &mut done) })
            .map_err(|error| self.group.failed(self.operation, &error))?;
        Ok(done)
    }
}

impl<T: fmt::Debug> fmt::Debug for Work<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("operation", &self.operation)
            .field("group", &self.group.name())
            .field("is_completed", &self.is_completed())
            .finish_non_exhaustive()
    }
}
