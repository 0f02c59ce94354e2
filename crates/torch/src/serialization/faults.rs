//! Fault injection: a file system that fails on purpose, for tests of writing checkpoints.
//!
//! A test runs what it tests once to count the calls, then once for each call and each [`Fault`], and looks at what is
//! left in the folder:
//!
//! ```
//! use std::sync::Arc;
//! use fulgurite_torch::serialization::faults::{Fault, FaultyFileSystem};
//! use fulgurite_torch::{Value, serialization};
//!
//! let folder = tempfile::tempdir().unwrap();
//! let path = folder.path().join("last.ckpt");
//! serialization::save(&path, &Value::Int(1))?;
//!
//! let counted = FaultyFileSystem::without_faults();
//! serialization::save_in(&counted, &path, &Value::Int(1))?;
//! for call in 0..counted.calls() {
//!     let files = FaultyFileSystem::new(call, Fault::NoSpace);
//!     let saved = serialization::save_in(&files, &path, &Value::Int(2));
//!     let there = serialization::load(&path)?;
//!     assert!(there == Value::Int(2) || there == Value::Int(1) && saved.is_err());
//!     serialization::save(&path, &Value::Int(1))?;
//! }
//! # Ok::<(), fulgurite_torch::TorchError>(())
//! ```
//!
//! For a process that is to be killed, the call is given through [`FaultyFileSystem::from_str`](std::str::FromStr), for
//! example of an environment variable that the test sets: `17:kill-within`.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::file_system::{FileSystem, LocalFileSystem, SyncWrite};

/// The fault of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The call does nothing and fails: there is no space left.
    NoSpace,
    /// The call does nothing and fails: the device is broken.
    Broken,
    /// A write takes half of its bytes and fails, as there is no space for more. Other calls fail.
    TornWrite,
    /// A short write: half of the bytes are written, which is not an error. Other calls succeed.
    ShortWrite,
    /// The process is killed (SIGKILL) before the call.
    KillBefore,
    /// The process is killed after half of a write. Other calls: before the call.
    KillWithin,
    /// The process is killed after the call.
    KillAfter,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 7] = [
        Fault::NoSpace,
        Fault::Broken,
        Fault::TornWrite,
        Fault::ShortWrite,
        Fault::KillBefore,
        Fault::KillWithin,
        Fault::KillAfter,
    ];

    /// Whether the process survives it.
    pub fn is_survived(self) -> bool {
        !matches!(self, Fault::KillBefore | Fault::KillWithin | Fault::KillAfter)
    }

    fn name(self) -> &'static str {
        match self {
            Fault::NoSpace => "no-space",
            Fault::Broken => "broken",
            Fault::TornWrite => "torn-write",
            Fault::ShortWrite => "short-write",
            Fault::KillBefore => "kill-before",
            Fault::KillWithin => "kill-within",
            Fault::KillAfter => "kill-after",
        }
    }

    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(if self == Fault::Broken { libc::EIO } else { libc::ENOSPC })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A file system in which one call fails. All calls are counted, from 0, including writes and syncs of files.
///
/// Clones share the count.
#[derive(Debug, Clone)]
pub struct FaultyFileSystem {
    files: Arc<dyn FileSystem>,
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct Plan {
    fault: Option<(u64, Fault)>,
    /// Whether what needs space fails from then on.
    lasting: bool,
    calls: AtomicU64,
}

impl FaultyFileSystem {
    /// Files of this machine; call number `call` (from 0) fails, those after it succeed again.
    pub fn new(call: u64, fault: Fault) -> FaultyFileSystem {
        FaultyFileSystem::over(Arc::new(LocalFileSystem), Some((call, fault)), false)
    }

    /// As [`FaultyFileSystem::new`], and what needs space (new files, writes, syncs, links, folders) fails from then on,
    /// as on a disk that is full or broken. Renaming and removing works again.
    pub fn from_then_on(call: u64, fault: Fault) -> FaultyFileSystem {
        FaultyFileSystem::over(Arc::new(LocalFileSystem), Some((call, fault)), true)
    }

    /// A file system without faults, to count calls.
    pub fn without_faults() -> FaultyFileSystem {
        FaultyFileSystem::over(Arc::new(LocalFileSystem), None, false)
    }

    fn over(files: Arc<dyn FileSystem>, fault: Option<(u64, Fault)>, lasting: bool) -> FaultyFileSystem {
        FaultyFileSystem { files, plan: Arc::new(Plan { fault, lasting, calls: AtomicU64::new(0) }) }
    }

    /// The number of calls so far.
    pub fn calls(&self) -> u64 {
        self.plan.calls.load(Ordering::Relaxed)
    }
}

/// `CALL:FAULT`, such as `17:kill-within`.
impl FromStr for FaultyFileSystem {
    type Err = String;

    fn from_str(text: &str) -> Result<FaultyFileSystem, String> {
        let parsed = text.split_once(':').and_then(|(call, name)| {
            Some((call.parse().ok()?, Fault::ALL.into_iter().find(|fault| fault.name() == name)?))
        });
        let (call, fault) = parsed.ok_or_else(|| {
            let names = Fault::ALL.map(Fault::name).join(", ");
            format!("{text:?} is not a fault; write CALL:FAULT, where CALL counts from 0 and FAULT is one of {names}")
        })?;
        Ok(FaultyFileSystem::new(call, fault))
    }
}

impl Plan {
    /// Counts a call; what goes wrong in it.
    fn next(&self, needs_space: bool) -> Option<Fault> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let (at, fault) = self.fault?;
        (call == at || self.lasting && needs_space && call > at).then_some(fault)
    }

    /// A call that is either done or not.
    fn call<T>(&self, needs_space: bool, action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.next(needs_space) {
            None | Some(Fault::ShortWrite) => action(),
            Some(Fault::KillBefore | Fault::KillWithin) => die(),
            Some(Fault::KillAfter) => {
                let _ = action();
                die()
            }
            Some(fault) => Err(fault.error()),
        }
    }
}

impl FileSystem for FaultyFileSystem {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn SyncWrite>> {
        let file = self.plan.call(true, || self.files.create_new(path))?;
        Ok(Box::new(FaultyFile { file, plan: Arc::clone(&self.plan) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.plan.call(false, || self.files.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.plan.call(false, || self.files.remove_file(path))
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        self.plan.call(true, || self.files.hard_link(original, link))
    }

    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        self.plan.call(true, || self.files.symlink(target, link))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.plan.call(true, || self.files.sync_folder(folder))
    }

    fn create_dir_all(&self, folder: &Path) -> io::Result<()> {
        self.plan.call(true, || self.files.create_dir_all(folder))
    }

    fn remove_abandoned(&self, folder: &Path) -> io::Result<()> {
        self.plan.call(false, || self.files.remove_abandoned(folder))
    }
}

struct FaultyFile {
    file: Box<dyn SyncWrite>,
    plan: Arc<Plan>,
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let half = &bytes[..bytes.len().div_ceil(2)];
        match self.plan.next(true) {
            None => self.file.write(bytes),
            Some(Fault::ShortWrite) => self.file.write_all(half).map(|()| half.len()),
            Some(fault @ Fault::TornWrite) => {
                self.file.write_all(half)?;
                Err(fault.error())
            }
            Some(fault @ (Fault::NoSpace | Fault::Broken)) => Err(fault.error()),
            Some(Fault::KillBefore) => die(),
            Some(Fault::KillWithin) => {
                let _ = self.file.write_all(half);
                die()
            }
            Some(Fault::KillAfter) => {
                let _ = self.file.write_all(bytes);
                die()
            }
        }
    }

    /// Files of a file system are unbuffered.
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl SyncWrite for FaultyFile {
    fn reserve(&mut self, size: u64) -> io::Result<()> {
        self.plan.call(true, || self.file.reserve(size))
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.plan.call(true, || self.file.sync_all())
    }
}

/// Ends the process as nothing can be ready for: no destructors, no handlers.
fn die() -> ! {
    // SAFETY: a plain system call on this process.
    #[cfg(unix)]
    unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
    }
    std::process::abort()
}
