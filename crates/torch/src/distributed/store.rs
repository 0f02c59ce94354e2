//! [`Store`]: the key-value store through which processes find each other.

use std::ffi::{c_char, c_int};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::DistributedError;
use crate::error::{TorchError, check};

/// The C++ object behind a [`Store`].
#[repr(C)]
pub(super) struct RawStore {
    _opaque: [u8; 0],
}

/// A string for the bridge, which reads it during the call.
#[repr(C)]
pub(super) struct Text {
    data: *const u8,
    len: usize,
}

impl Text {
    pub(super) fn new(text: &str) -> Text {
        Text { data: text.as_ptr(), len: text.len() }
    }
}

unsafe extern "C" {
    fn fulgurite_store_tcp(
        host: Text,
        port: u16,
        is_server: bool,
        loopback: bool,
        workers: i64,
        wait_for_workers: bool,
        timeout_ms: i64,
        out: *mut *mut RawStore,
        port_out: *mut u16,
    ) -> *mut c_char;
    fn fulgurite_store_file(path: Text, workers: c_int, timeout_ms: i64, out: *mut *mut RawStore) -> *mut c_char;
    fn fulgurite_store_prefixed(store: *const RawStore, prefix: Text, out: *mut *mut RawStore) -> *mut c_char;
    fn fulgurite_store_free(store: *mut RawStore);
    fn fulgurite_store_set(store: *const RawStore, key: Text, value: *const u8, len: usize) -> *mut c_char;
    fn fulgurite_store_get(store: *const RawStore, key: Text, out: *mut *mut u8, len: *mut usize) -> *mut c_char;
    fn fulgurite_bytes_free(bytes: *mut u8);
    fn fulgurite_store_check(store: *const RawStore, keys: *const Text, count: usize, out: *mut bool) -> *mut c_char;
    fn fulgurite_store_add(store: *const RawStore, key: Text, amount: i64, out: *mut i64) -> *mut c_char;
    fn fulgurite_store_delete(store: *const RawStore, key: Text, out: *mut bool) -> *mut c_char;
}

/// Options of [`Store::tcp`]: the arguments of `torch.distributed.TCPStore`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpStoreOptions {
    /// The name or address of the machine that serves the store.
    pub host: String,
    /// The port. For a server, 0 is any free one, which [`Store::port`] returns.
    pub port: u16,
    /// Whether this process serves the store, as rank 0 does; the others connect to it.
    pub is_server: bool,
    /// Whether a server accepts connections from this machine only, at 127.0.0.1, and not at all addresses. A store has
    /// no authentication: every process that can reach its port can read and set everything.
    pub loopback: bool,
    /// The number of processes that use the store, if known.
    pub world_size: Option<usize>,
    /// How long to wait for the server, for the other processes, and for keys.
    pub timeout: Duration,
    /// Whether the server waits until `world_size` processes have connected.
    pub wait_for_workers: bool,
}

impl Default for TcpStoreOptions {
    /// A client of a store on this machine at PyTorch's default port 29500, with a timeout of five minutes.
    fn default() -> Self {
        TcpStoreOptions {
            host: "localhost".into(),
            port: 29500,
            is_server: false,
            loopback: false,
            world_size: None,
            timeout: DEFAULT_TIMEOUT,
            wait_for_workers: true,
        }
    }
}

/// c10d's own default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
/// A client tries once a second, for whole seconds.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(1);
/// How long c10d may exceed the timeout before it reports it.
const ANSWER: Duration = Duration::from_secs(2);

/// A key-value store that processes share, served by one of them over TCP or kept in a file. It is
/// `torch.distributed.Store`.
///
/// A clone is the same store. Threads may use one at the same time, also while another waits for a key.
///
/// ```
/// use fulgurite_torch::distributed::{Store, TcpStoreOptions};
///
/// let server = Store::tcp(TcpStoreOptions { port: 0, is_server: true, ..Default::default() })?;
/// let client = Store::tcp(TcpStoreOptions { port: server.port().unwrap(), ..Default::default() })?;
/// client.set("greeting", b"hello")?;
/// assert_eq!(server.get("greeting")?, b"hello");
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    raw: *mut RawStore,
    /// Its location, for messages.
    place: String,
    host: Option<String>,
    port: Option<u16>,
    timeout: Duration,
    /// The store without the prefix: when it serves, it must outlive this one.
    _whole: Option<Store>,
}

// SAFETY: c10d's stores lock around every operation, so threads may share one. Nothing else of `Inner` changes.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: created by the bridge, owned by this object alone, and not used after this.
        unsafe { fulgurite_store_free(self.raw) }
    }
}

impl Store {
    /// Serves a store over TCP, or connects to one that another process serves. The server stops with the last clone of
    /// its store, and of groups created with it.
    ///
    /// # Errors
    ///
    /// Fails if the port is in use, if the server does not respond, or if not all processes connect in time.
    pub fn tcp(options: TcpStoreOptions) -> Result<Store, TorchError> {
        if options.is_server {
            return Store::open(options);
        }
        // c10d waits indefinitely for the first response on an accepted connection.
        let TcpStoreOptions { host, port, timeout, .. } = options.clone();
        let silent = |reason: &str| DistributedError::Unreachable { host, port, timeout, reason: reason.to_owned() };
        let (sender, made) = mpsc::channel();
        let connect = move || _ = sender.send(Store::open(options));
        let begun = thread::Builder::new().name("fulgurite-connect".into()).spawn(connect);
        match begun.map(|_| made.recv_timeout(timeout.max(SHORTEST_PATIENCE).saturating_add(ANSWER))) {
            Ok(Ok(made)) => made,
            Ok(Err(_)) => Err(silent(
                "there was no response in time: the host is unreachable, or the program at the port is not a store",
            )
            .into()),
            Err(error) => Err(silent(&error.to_string()).into()),
        }
    }

    fn open(options: TcpStoreOptions) -> Result<Store, TorchError> {
        let TcpStoreOptions { host, port, is_server, loopback, world_size, timeout, wait_for_workers } = options;
        let (mut raw, mut port_out) = (std::ptr::null_mut(), 0);
        let patience = timeout.max(SHORTEST_PATIENCE);
        let workers = world_size.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX));
        // SAFETY: the host is read during the call; `raw` and `port_out` are written only when there is no error.
        let made = check(unsafe {
            fulgurite_store_tcp(
                Text::new(&host),
                port,
                is_server,
                loopback,
                workers,
                wait_for_workers,
                milliseconds(patience),
                &mut raw,
                &mut port_out,
            )
        });
        if let Err(error) = made {
            let reason = error.to_string();
            return Err(match (is_server, world_size) {
                (true, Some(expected)) if reason.contains("clients joined") => {
                    let store = format!("the store at {host}:{port}");
                    DistributedError::Missing { store, expected, timeout, reason }
                }
                (true, _) if reason.contains("EADDRINUSE") || reason.contains("address already in use") => {
                    DistributedError::PortInUse { port }
                }
                (true, _) => DistributedError::Serve { port, reason },
                (false, _) => DistributedError::Unreachable { host, port, timeout, reason },
            }
            .into());
        }
        let place = format!("the store at {host}:{port_out}");
        Ok(Store::new(Inner { raw, place, host: Some(host), port: Some(port_out), timeout, _whole: None }))
    }

    /// A store in a file that all processes can open, created if it does not exist. With `world_size`, the last of that
    /// many processes removes it; a file that an earlier run left behind must be removed before.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be opened or created.
    pub fn file(path: impl AsRef<Path>, world_size: Option<usize>) -> Result<Store, TorchError> {
        let path = path.as_ref().to_string_lossy();
        let place = format!("the store in {path}");
        let workers = world_size.map_or(-1, |size| c_int::try_from(size).unwrap_or(c_int::MAX));
        let mut raw = std::ptr::null_mut();
        // c10d waits for a folder that does not exist, and an error in its destructor aborts the process.
        std::fs::OpenOptions::new().append(true).create(true).open(&*path).map_err(|error| {
            DistributedError::Store { store: place.clone(), doing: "open its file".into(), reason: error.to_string() }
        })?;
        // SAFETY: the path is read during the call; `raw` is written only when there is no error.
        check(unsafe { fulgurite_store_file(Text::new(&path), workers, milliseconds(DEFAULT_TIMEOUT), &mut raw) })?;
        Ok(Store::new(Inner { raw, place, host: None, port: None, timeout: DEFAULT_TIMEOUT, _whole: None }))
    }

    /// The same store, in which every key begins with `prefix` and a slash: users with different prefixes are
    /// independent.
    ///
    /// # Errors
    ///
    /// Fails if there is not enough memory.
    pub fn prefixed(&self, prefix: &str) -> Result<Store, TorchError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the store lives, and the prefix is read during the call; `raw` is written only without an error.
        check(unsafe { fulgurite_store_prefixed(self.inner.raw, Text::new(prefix), &mut raw) })?;
        let Inner { place, host, port, timeout, .. } = &*self.inner;
        let (place, host) = (place.clone(), host.clone());
        Ok(Store::new(Inner { raw, place, host, port: *port, timeout: *timeout, _whole: Some(self.clone()) }))
    }

    /// A description, for messages.
    pub(super) fn place(&self) -> &str {
        &self.inner.place
    }

    /// The machine that serves the store; `None` for a file.
    pub fn host(&self) -> Option<&str> {
        self.inner.host.as_deref()
    }

    /// The port at which the store is served; `None` for a file.
    pub fn port(&self) -> Option<u16> {
        self.inner.port
    }

    /// The timeout of [`get`](Store::get).
    pub fn timeout(&self) -> Duration {
        self.inner.timeout
    }

    /// Sets `key`.
    ///
    /// # Errors
    ///
    /// Fails if the connection to the store is lost.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), TorchError> {
        // SAFETY: the store lives, and key and value are read during the call.
        let result = check(unsafe { fulgurite_store_set(self.inner.raw, Text::new(key), value.as_ptr(), value.len()) });
        self.doing(|| format!("set `{key}`"), result)
    }

    /// The value of `key`. Blocks until a process sets it.
    ///
    /// # Errors
    ///
    /// Returns [`DistributedError::KeysMissing`] if no process sets it in time. Fails if the connection to the store is
    /// lost.
    pub fn get(&self, key: &str) -> Result<Vec<u8>, TorchError> {
        self.wait(&[key], self.inner.timeout)?;
        let (mut data, mut len) = (std::ptr::null_mut(), 0);
        // SAFETY: the store lives, and the key is read during the call; the rest is written only without an error.
        let result = check(unsafe { fulgurite_store_get(self.inner.raw, Text::new(key), &mut data, &mut len) });
        self.doing(|| format!("get `{key}`"), result)?;
        // SAFETY: the bridge gave `len` bytes at `data`, which are ours until they are freed.
        let value = unsafe { std::slice::from_raw_parts(data, len) }.to_vec();
        // SAFETY: as above, and they are not used after this.
        unsafe { fulgurite_bytes_free(data) };
        Ok(value)
    }

    /// Waits until all `keys` are set.
    ///
    /// # Errors
    ///
    /// Returns [`DistributedError::KeysMissing`], with the keys that no process set in time. Fails if the connection is
    /// lost.
    pub fn wait(&self, keys: &[&str], timeout: Duration) -> Result<(), TorchError> {
        // The store's own wait would block every other thread that uses the store.
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        while !self.check(keys)? {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                let mut missing = Vec::new();
                for key in keys {
                    if !self.check(&[key])? {
                        missing.push((*key).to_owned());
                    }
                }
                return if missing.is_empty() {
                    Ok(())
                } else {
                    let store = self.inner.place.clone();
                    Err(DistributedError::KeysMissing { store, keys: missing, timeout }.into())
                };
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Whether all `keys` are set now.
    ///
    /// # Errors
    ///
    /// Fails if the connection to the store is lost.
    pub fn check(&self, keys: &[&str]) -> Result<bool, TorchError> {
        let texts: Vec<Text> = keys.iter().map(|key| Text::new(key)).collect();
        let mut out = false;
        // SAFETY: the store lives, and the keys are read during the call; `out` is written only without an error.
        let result = check(unsafe { fulgurite_store_check(self.inner.raw, texts.as_ptr(), texts.len(), &mut out) });
        self.doing(|| format!("look for `{}`", keys.join("`, `")), result)?;
        Ok(out)
    }

    /// Adds `amount` to the number under `key` (0 if it is not set), and returns the sum. If several processes add 1,
    /// each gets a different number.
    ///
    /// # Errors
    ///
    /// Fails if the value is not a number, after which this process cannot use the store any more,
    /// or if the connection to the store is lost.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64, TorchError> {
        let mut out = 0;
        // SAFETY: the store lives, and the key is read during the call; `out` is written only without an error.
        let result = check(unsafe { fulgurite_store_add(self.inner.raw, Text::new(key), amount, &mut out) });
        self.doing(|| format!("add to `{key}`"), result)?;
        Ok(out)
    }

    /// Removes `key`, and returns whether it was set (always `true` for a store in a file).
    ///
    /// # Errors
    ///
    /// Fails if the connection to the store is lost.
    pub fn delete(&self, key: &str) -> Result<bool, TorchError> {
        let mut out = false;
        // SAFETY: the store lives, and the key is read during the call; `out` is written only without an error.
        let result = check(unsafe { fulgurite_store_delete(self.inner.raw, Text::new(key), &mut out) });
        self.doing(|| format!("delete `{key}`"), result)?;
        Ok(out)
    }

    /// The C++ object, for calls into the bridge. It lives as long as `self`.
    pub(super) fn as_raw(&self) -> *const RawStore {
        self.inner.raw
    }

    fn new(inner: Inner) -> Store {
        Store { inner: Arc::new(inner) }
    }

    /// Adds to an error the store and the operation.
    fn doing<T>(&self, what: impl FnOnce() -> String, result: Result<T, TorchError>) -> Result<T, TorchError> {
        result.map_err(|error| {
            let store = self.inner.place.clone();
            DistributedError::Store { store, doing: what(), reason: error.to_string() }.into()
        })
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("place", &self.inner.place).finish_non_exhaustive()
    }
}

/// A timeout for c10d: at least a millisecond, because zero means no timeout.
pub(super) fn milliseconds(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX).clamp(1, i64::from(i32::MAX))
}
