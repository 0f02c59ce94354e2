//! [`SyncBatchNorm`]: batch normalization over the batches of all ranks.

use std::ffi::c_char;
use std::fmt;
use std::marker::PhantomData;

use super::process_group::{ProcessGroup, RawGroup};
use crate::error::{TorchError, check};

/// The C++ object behind a [`SyncBatchNorm`].
#[repr(C)]
struct RawScope {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn fulgurite_sync_batch_norm_new(group: *const RawGroup, out: *mut *mut RawScope) -> *mut c_char;
    fn fulgurite_sync_batch_norm_free(scope: *mut RawScope);
    fn fulgurite_sync_batch_norm_enter(scope: *mut RawScope) -> *mut RawScope;
    fn fulgurite_sync_batch_norm_leave(before: *mut RawScope);
}

/// Synchronizes batch norms in training over the ranks of a group: `torch.nn.SyncBatchNorm`, without another layer.
/// Every call of `tch`'s `batch_norm` on this thread between [`enter`](SyncBatchNorm::enter) and the drop of its guard
/// is synchronized, and so is its backward pass, even after that.
///
/// Mean and variance are over the items of all ranks, whose batches may differ in size, or be empty. Running statistics
/// become the same on all ranks. Gradients of weight and bias are local, to be averaged with all others by a
/// [`Reducer`](super::Reducer). In evaluation, with one rank, and in instance norms nothing is exchanged.
///
/// All ranks must run the same batch norms in the same order, forward and backward. Double backward is not supported.
/// Works on the CPU and on CUDA, also under autocast.
///
/// ```
/// # use fulgurite_torch::distributed::{GroupOptions, ProcessGroup, Store, TcpStoreOptions};
/// use fulgurite_torch::distributed::SyncBatchNorm;
/// # use fulgurite_torch::tch::{Device, Kind, Tensor, nn, nn::ModuleT};
/// # let store = Store::tcp(TcpStoreOptions { port: 0, is_server: true, ..Default::default() })?;
/// # let group = ProcessGroup::new(&store, 0, 1, &GroupOptions::default())?;
/// let vars = nn::VarStore::new(Device::Cpu);
/// let layer = nn::batch_norm1d(vars.root(), 3, Default::default());
/// let sync = SyncBatchNorm::new(&group)?;
/// let output = {
///     let _guard = sync.enter();
///     Tensor::randn([8, 3], (Kind::Float, Device::Cpu)).apply_t(&layer, true)
/// };
/// assert_eq!(output.size(), [8, 3]);
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
pub struct SyncBatchNorm {
    raw: *mut RawScope,
    group: ProcessGroup,
}

// SAFETY: the C++ object is constant, and counts its owners atomically.
unsafe impl Send for SyncBatchNorm {}
// SAFETY: as above.
unsafe impl Sync for SyncBatchNorm {}

impl SyncBatchNorm {
    /// Synchronizes over the ranks of a group. Does not communicate yet.
    ///
    /// # Errors
    ///
    /// Fails if libtorch does not accept the kernel for synchronized batch norms.
    pub fn new(group: &ProcessGroup) -> Result<SyncBatchNorm, TorchError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the group lives for the call; `raw` is written only when there is no error.
        check(unsafe { fulgurite_sync_batch_norm_new(group.inner.raw, &mut raw) })?;
        Ok(SyncBatchNorm { raw, group: group.clone() })
    }

    /// The group of ranks.
    pub fn group(&self) -> &ProcessGroup {
        &self.group
    }

    /// Synchronizes the batch norms of this thread until the guard is dropped.
    pub fn enter(&self) -> SyncBatchNormGuard {
        // SAFETY: the object lives; the thread's variable becomes one more owner of it.
        let before = unsafe { fulgurite_sync_batch_norm_enter(self.raw) };
        SyncBatchNormGuard { before, _thread: PhantomData }
    }
}

impl Drop for SyncBatchNorm {
    fn drop(&mut self) {
        // SAFETY: created by the bridge, and not used after this; guards and graphs are owners of their own.
        unsafe { fulgurite_sync_batch_norm_free(self.raw) }
    }
}

impl fmt::Debug for SyncBatchNorm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncBatchNorm").field("group", &self.group).finish_non_exhaustive()
    }
}

/// Batch norms of this thread are synchronized while it lives. The previous state is restored when it is dropped, also
/// by a panic. Guards of a thread must be dropped in the reverse order of their creation, as scopes do.
#[derive(Debug)]
#[must_use = "batch norms are synchronized until the guard is dropped"]
pub struct SyncBatchNormGuard {
    before: *mut RawScope,
    _thread: PhantomData<*const ()>,
}

impl Drop for SyncBatchNormGuard {
    fn drop(&mut self) {
        // SAFETY: what `enter` returned on this thread, owned by this guard, and not used after this.
        unsafe { fulgurite_sync_batch_norm_leave(self.before) }
    }
}
