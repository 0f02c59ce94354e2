//! [`ProcessGroup`]: the processes that call collective operations together.

use std::ffi::{c_char, c_int};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::DistributedError;
use super::inquiry::{self, Inquiry};
use super::store::{RawStore, Store, Text, milliseconds};
use crate::error::{TorchError, check};
use crate::tch::Cuda;

/// How long ranks wait after a timeout for the reports of the others.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same after a lost connection.
const PATIENCE_AFTER_LOSS: Duration = Duration::from_secs(1);

/// The C++ object behind a [`ProcessGroup`].
#[repr(C)]
pub(super) struct RawGroup {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawOptions {
    timeout_ms: i64,
    name: Text,
    interfaces: *const Text,
    interface_count: usize,
    address: Text,
    store_port: u16,
    debug: bool,
    nccl: bool,
}

unsafe extern "C" {
    fn fulgurite_group_new(
        store: *const RawStore,
        rank: c_int,
        size: c_int,
        options: *const RawOptions,
        out: *mut *mut RawGroup,
    ) -> *mut c_char;
    fn fulgurite_group_free(group: *mut RawGroup);
    fn fulgurite_has_nccl() -> bool;
    fn fulgurite_debug_is_detail() -> bool;
}

/// The library that transfers tensors between processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Backend {
    /// Gloo: over TCP, for tensors on the CPU; slow for tensors on a GPU.
    #[default]
    Gloo,
    /// NCCL: between GPUs; tensors on the CPU go through Gloo.
    Nccl,
}

impl Backend {
    /// Whether NCCL can be used: it requires a GPU, and a program that was built with the feature `cuda`.
    pub fn nccl_is_available() -> bool {
        Backend::check_nccl().is_ok()
    }

    fn check_nccl() -> Result<(), DistributedError> {
        // SAFETY: takes nothing, and only looks.
        if !unsafe { fulgurite_has_nccl() } {
            let message = "this program was built without NCCL; build it with the feature `cuda`, or use Gloo";
            return Err(DistributedError::Backend(message));
        }
        if !Cuda::is_available() {
            return Err(DistributedError::Backend("NCCL works between GPUs, and there is none here; use Gloo"));
        }
        Ok(())
    }
}

/// Options of a [`ProcessGroup`]: the arguments of `torch.distributed.init_process_group`.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// The backend.
    pub backend: Backend,
    /// The timeout of operations and of creating the group; 30 minutes by default.
    pub timeout: Duration,
    /// The network interface, such as `eth0`, or several separated by commas. By default that of `GLOO_SOCKET_IFNAME`,
    /// or else the interface through which the store is reached, which for a store on this machine may be the loopback.
    /// For a store in a file it is the one that the host name resolves to.
    pub interface: Option<String>,
    /// The name of the group in messages. Groups of one store with different names are independent.
    pub name: String,
    /// Whether the ranks compare each operation before it starts, so that ranks that call different operations get an
    /// error and do not hang. Slow. By default on if `TORCH_DISTRIBUTED_DEBUG` is `DETAIL`.
    pub debug: Option<bool>,
}

impl Default for GroupOptions {
    fn default() -> Self {
        GroupOptions {
            backend: Backend::Gloo,
            timeout: Duration::from_secs(30 * 60),
            interface: None,
            name: "default".into(),
            debug: None,
        }
    }
}

/// Processes that call collective operations together: `torch.distributed.ProcessGroup`.
///
/// All ranks call the same operations in the same order, with tensors of the same shape and kind. A clone is the same
/// group. Several threads should not call operations of one group: their order would differ between the ranks.
///
/// Dropping a group while an operation is running does not wait for it.
///
/// ```
/// use fulgurite_torch::distributed::{GroupOptions, ProcessGroup, ReduceOp, Store, TcpStoreOptions};
/// use fulgurite_torch::tch::Tensor;
///
/// let store = Store::tcp(TcpStoreOptions { port: 0, is_server: true, ..Default::default() })?;
/// // Two ranks, which would be two processes.
/// std::thread::scope(|scope| {
///     for rank in 0..2 {
///         let store = &store;
///         scope.spawn(move || {
///             let group = ProcessGroup::new(store, rank, 2, &GroupOptions::default()).unwrap();
///             let number = Tensor::from(rank as f32 + 1.0);
///             group.all_reduce(&number, ReduceOp::Sum).unwrap();
///             assert_eq!(number, Tensor::from(3f32));
///         });
///     }
/// });
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
#[derive(Clone)]
pub struct ProcessGroup {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) raw: *mut RawGroup,
    rank: usize,
    /// The rank of each rank of this group in the parent group, and so on outwards.
    global_ranks: Vec<usize>,
    options: GroupOptions,
    /// The store for messages between ranks beside the operations. If this process serves it, the group needs it.
    store: Store,
    /// The number of monitored barriers so far.
    barriers: AtomicU64,
    /// Whether the group was abandoned.
    abandoned: AtomicBool,
    /// Whether the other ranks were already queried after a failure.
    has_asked: AtomicBool,
    /// Operations start one after the other.
    pub(super) order: Mutex<()>,
}

// SAFETY: c10d locks the queue of a group's threads, `order` the beginning of operations, and the rest is constant.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: created by the bridge, owned by this object alone, and not used after this.
        unsafe { fulgurite_group_free(self.raw) }
    }
}

impl ProcessGroup {
    /// Creates the group of `size` processes that call this with the same store, as rank `rank`. Waits until all have
    /// joined.
    ///
    /// A store can be used for many groups, if all ranks create them in the same order.
    ///
    /// # Errors
    ///
    /// Fails with [`DistributedError::RanksMissing`] if ranks do not join in time. Fails if `rank` is not below `size`,
    /// if the interface does not exist, or if this build or machine does not support the backend.
    pub fn new(store: &Store, rank: usize, size: usize, options: &GroupOptions) -> Result<ProcessGroup, TorchError> {
        ProcessGroup::join(store, rank, (0..size).collect(), options)
    }

    fn join(
        store: &Store,
        rank: usize,
        global_ranks: Vec<usize>,
        options: &GroupOptions,
    ) -> Result<ProcessGroup, TorchError> {
        let (size, name) = (global_ranks.len(), &options.name);
        let argument = |problem: String| DistributedError::Argument {
            operation: "creating the group",
            group: name.clone(),
            size,
            problem,
        };
        let (Ok(raw_rank), Ok(raw_size)) = (c_int::try_from(rank), c_int::try_from(size)) else {
            return Err(argument(format!("{size} ranks are too many")).into());
        };
        if rank >= size {
            return Err(argument(format!("there is no rank {rank}; ranks count from 0")).into());
        }
        let nccl = options.backend == Backend::Nccl;
        if nccl {
            Backend::check_nccl()?;
        }
        // Each rank counts how often it joined: the n-th groups of the name belong together.
        let round = store.add(&format!("{name}/round/{rank}"), 1)?;
        let store = store.prefixed(&format!("{name}/{round}"))?;
        let options = GroupOptions { name: name.clone(), ..options.clone() };
        let wait = Wait { store: &store, rank, global_ranks: &global_ranks, options: &options };
        let address = inquiry::own_address(&store).map(|address| address.to_string()).unwrap_or_default();
        let keys = (0..size).map(inquiry::arrival_key).collect();
        wait.for_all(keys, address.as_bytes(), "the making", options.timeout)?;

        let interfaces = options.interface.clone().or_else(|| std::env::var("GLOO_SOCKET_IFNAME").ok());
        let interfaces: Vec<Text> = interfaces.iter().flat_map(|names| names.split(',')).map(Text::new).collect();
        // If every rank reaches the store at a loopback address, all are on this machine. A single rank may see it
        // there although other machines do not.
        let mut is_local = store.host().is_some_and(|host| ["127.0.0.1", "localhost"].contains(&host));
        for rank in 0..size {
            is_local = is_local && store.get(&inquiry::arrival_key(rank))?.is_empty();
        }
        let listens_at = if is_local { "127.0.0.1" } else { &address };
        let raw_options = RawOptions {
            timeout_ms: milliseconds(options.timeout),
            name: Text::new(&options.name),
            interfaces: interfaces.as_ptr(),
            interface_count: interfaces.len(),
            address: Text::new(listens_at),
            store_port: store.port().unwrap_or_default(),
            // SAFETY: takes nothing, and only looks.
            debug: options.debug.unwrap_or_else(|| unsafe { fulgurite_debug_is_detail() }),
            nccl,
        };
        let mut raw = std::ptr::null_mut();
        // SAFETY: the store lives, and all that the options point to; `raw` is written only when there is no error.
        check(unsafe { fulgurite_group_new(store.as_raw(), raw_rank, raw_size, &raw_options, &mut raw) }).map_err(
            |error| DistributedError::Join {
                rank: global_ranks[rank],
                group: options.name.clone(),
                size,
                reason: reason(&error),
            },
        )?;
        let inner = Inner {
            raw,
            rank,
            global_ranks,
            options,
            store,
            barriers: AtomicU64::new(0),
            abandoned: AtomicBool::new(false),
            has_asked: AtomicBool::new(false),
            order: Mutex::new(()),
        };
        Ok(ProcessGroup { inner: Arc::new(inner) })
    }

    /// The rank of this process in the group, from 0.
    pub fn rank(&self) -> usize {
        self.inner.rank
    }

    /// The number of ranks.
    pub fn size(&self) -> usize {
        self.inner.global_ranks.len()
    }

    /// The name of the group in messages.
    pub fn name(&self) -> &str {
        &self.inner.options.name
    }

    /// The backend.
    pub fn backend(&self) -> Backend {
        self.inner.options.backend
    }

    /// The timeout of operations.
    pub fn timeout(&self) -> Duration {
        self.inner.options.timeout
    }

    /// A store that only the ranks of this group see.
    ///
    /// # Errors
    ///
    /// Fails if there is not enough memory.
    pub fn store(&self) -> Result<Store, TorchError> {
        self.inner.store.prefixed("user")
    }

    /// Creates a group of some of the ranks; `torch.distributed.new_group`. Every member must call this, and gets a
    /// group in which ranks count from 0 in the order of their ranks here. Other ranks may call it, and get `None`.
    ///
    /// # Errors
    ///
    /// Fails as [`new`](ProcessGroup::new) does, and if ranks are not in this group, or are named twice.
    pub fn subgroup(&self, ranks: &[usize]) -> Result<Option<ProcessGroup>, TorchError> {
        let mut members = ranks.to_vec();
        members.sort_unstable();
        members.dedup();
        if members.len() != ranks.len() || members.is_empty() || members.iter().any(|&rank| rank >= self.size()) {
            return Err(self.argument("subgroup", format!("{ranks:?} are not different ranks of this group")));
        }
        let Some(rank) = members.iter().position(|&rank| rank == self.rank()) else { return Ok(None) };
        let global_ranks = members.iter().map(|&rank| self.inner.global_ranks[rank]).collect();
        let name = format!("{}{members:?}", self.name());
        let options = GroupOptions { name, ..self.inner.options.clone() };
        ProcessGroup::join(&self.inner.store, rank, global_ranks, &options).map(Some)
    }

    /// Waits until all ranks have called this, and names those that have not; `torch.distributed.monitored_barrier`. It
    /// goes through the store, so it works whatever happened to the group's connections, and the group can be used
    /// after it failed.
    ///
    /// # Errors
    ///
    /// Returns [`DistributedError::RanksMissing`] if a rank does not call this in time. Fails if the connection to the
    /// store is lost.
    pub fn monitored_barrier(&self, timeout: Duration) -> Result<(), TorchError> {
        self.check_together("monitored_barrier")?;
        let Inner { store, rank, global_ranks, options, barriers, .. } = &*self.inner;
        let round = barriers.fetch_add(1, Ordering::Relaxed);
        let wait = Wait { store, rank: *rank, global_ranks, options };
        let keys = (0..self.size()).map(|rank| format!("barrier/{round}/{rank}")).collect();
        wait.for_all(keys, b"here", "monitored_barrier", timeout)?;
        if round > 0 {
            // All ranks are here, so the keys of the previous barrier are no longer needed.
            store.delete(&format!("barrier/{}/{rank}", round - 1))?;
        }
        Ok(())
    }

    /// Marks this process as out of step with the others, such as after an error of this process only: every operation
    /// from now on fails with [`DistributedError::Abandoned`] instead of waiting for ranks that are elsewhere in the
    /// program. Operations that have started continue.
    pub fn abandon(&self) {
        self.inner.abandoned.store(true, Ordering::Relaxed);
    }

    /// Whether [`abandon`](ProcessGroup::abandon) was called, here or on a clone.
    pub fn is_abandoned(&self) -> bool {
        self.inner.abandoned.load(Ordering::Relaxed)
    }

    pub(super) fn check_together(&self, operation: &'static str) -> Result<(), TorchError> {
        if !self.is_abandoned() {
            return Ok(());
        }
        let (rank, group) = (self.global_rank(), self.name().to_owned());
        Err(DistributedError::Abandoned { rank, group, operation }.into())
    }

    /// The rank of this process in the parent group, and so on outwards.
    pub(super) fn global_rank(&self) -> usize {
        self.inner.global_ranks[self.rank()]
    }

    /// An error about the arguments of `operation`.
    pub(super) fn argument(&self, operation: &'static str, problem: String) -> TorchError {
        DistributedError::Argument { operation, group: self.name().to_owned(), size: self.size(), problem }.into()
    }

    /// What is known about the other ranks after a failure. They are queried once: later failures follow from the
    /// first.
    fn ask_others(&self, operation: &'static str, patience: Duration) -> String {
        let Inner { store, rank, global_ranks, has_asked, .. } = &*self.inner;
        if has_asked.swap(true, Ordering::Relaxed) {
            return "an operation of this group had failed before".to_owned();
        }
        let (store, global_ranks) = (store.clone(), global_ranks.clone());
        Inquiry { store, rank: *rank, global_ranks, operation, patience }.ask()
    }

    /// Adds to an error of the bridge the rank, the group and the operation.
    pub(super) fn failed(&self, operation: &'static str, error: &TorchError) -> TorchError {
        let (rank, group, size) = (self.global_rank(), self.name().to_owned(), self.size());
        let timeout = self.timeout();
        let reason = reason(error);
        if let Some(missing) = missing_ranks(&reason) {
            let missing = missing.into_iter().filter_map(|rank| self.inner.global_ranks.get(rank).copied()).collect();
            let operation = operation.to_owned();
            return DistributedError::RanksMissing { rank, group, size, operation, missing, timeout }.into();
        }
        let says = |texts: &[&str]| texts.iter().any(|text| reason.contains(text));
        if says(&["Detected mismatch between collectives", "monitoredBarrier"]) {
            let reason = without_device_options(&reason);
            DistributedError::Mismatch { rank, group, size, operation, reason }
        } else if says(&["Timed out", "timed out", "Application timeout", "timeout"]) {
            let others = self.ask_others(operation, PATIENCE);
            DistributedError::Timeout { rank, group, size, operation, timeout, others, reason }
        } else if says(&["Connection closed", "Connection reset", "Broken pipe", "Connection refused"]) {
            // The other ranks have lost the connection too, or closed it, so they report at once.
            let others = self.ask_others(operation, PATIENCE_AFTER_LOSS);
            DistributedError::ConnectionLost { rank, group, size, operation, others, reason }
        } else {
            DistributedError::Collective { rank, group, size, operation, reason }
        }
        .into()
    }
}

impl fmt::Debug for ProcessGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessGroup")
            .field("name", &self.name())
            .field("rank", &self.rank())
            .field("size", &self.size())
            .field("backend", &self.backend())
            .finish_non_exhaustive()
    }
}

/// A rank that waits in the store for all ranks of its group.
struct Wait<'a> {
    store: &'a Store,
    rank: usize,
    global_ranks: &'a [usize],
    options: &'a GroupOptions,
}

impl Wait<'_> {
    /// Publishes `what` under this rank's key, and waits until all ranks have published something under theirs.
    fn for_all(&self, keys: Vec<String>, what: &[u8], operation: &str, timeout: Duration) -> Result<(), TorchError> {
        self.store.set(&keys[self.rank], what)?;
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.store.wait(&keys, timeout).map_err(|error| {
            let TorchError::Distributed(distributed) = &error else { return error };
            let DistributedError::KeysMissing { keys: missing, .. } = distributed.as_ref() else { return error };
            let came = |rank: usize| !missing.iter().any(|key| key == keys[rank]);
            let missing = (0..keys.len()).filter(|&rank| !came(rank)).map(|rank| self.global_ranks[rank]);
            DistributedError::RanksMissing {
                rank: self.global_ranks[self.rank],
                group: self.options.name.clone(),
                size: keys.len(),
                operation: operation.to_owned(),
                missing: missing.collect(),
                timeout,
            }
            .into()
        })
    }
}

/// The message of an error of the bridge, without the location in Gloo's source.
fn reason(error: &TorchError) -> String {
    let message = error.to_string();
    match message.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((place, rest)) if place.contains(".cc:") || place.contains(".h:") => rest.trim().to_owned(),
        _ => message.trim().to_owned(),
    }
}

/// The ranks that c10d reports as missing: `[Rank 0]: Ranks 1, 2 failed to pass monitoredBarrier in 1000 ms`.
fn missing_ranks(reason: &str) -> Option<Vec<usize>> {
    let (before, _) = reason.split_once(" failed to pass monitoredBarrier")?;
    let (_, ranks) = before.rsplit_once("Rank")?;
    ranks.trim_start_matches('s').split(',').map(|rank| rank.trim().parse().ok()).collect()
}

/// c10d's description of a mismatch, without the long lists of options.
fn without_device_options(reason: &str) -> String {
    let mut parts = reason.split(", TensorDeviceTypes=TensorOptions(");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(")))") {
            Some((_, rest)) => text.extend([")", rest]),
            None => text.push_str(part),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranks_that_did_not_come_are_read() {
        assert_eq!(missing_ranks("[Rank 0]: Ranks 1, 12 failed to pass monitoredBarrier in 9 ms"), Some(vec![1, 12]));
        assert_eq!(missing_ranks("[Rank 0]: Rank 3 failed to pass monitoredBarrier in 9 ms"), Some(vec![3]));
        assert_eq!(missing_ranks("Rank 1 successfully reached monitoredBarrier, but"), None);
    }

    #[test]
    fn mismatches_are_shortened() {
        let options = "TensorOptions(dtype=float (default), memory_format=(nullopt))";
        let text = format!(
            "A(Shape=[2], TensorDtypes=Float, TensorDeviceTypes={options}), but B(Shape=[3], TensorDtypes=Float, \
             TensorDeviceTypes={options}).End"
        );
        let short = "A(Shape=[2], TensorDtypes=Float), but B(Shape=[3], TensorDtypes=Float).End";
        assert_eq!(without_device_options(&text), short);
        assert_eq!(without_device_options("other"), "other");
    }
}
