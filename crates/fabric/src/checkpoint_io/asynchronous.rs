//! [`AsyncCheckpointIo`]: checkpoints written in the background of training.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use fulgurite_torch::{Value, catch_panic};

use super::host_copy::{Buffer, HostCopy};
use super::{Alias, CheckpointIo, Commit, CommitFailure, CommitState, StoredFile};
use crate::FabricError;

/// Writes checkpoints in the background: [`CheckpointIo::commit`] copies the state's tensors to host memory and
/// returns, and a thread hands the copy to the `inner` checkpoint I/O. Lightning's `AsyncCheckpointIO`.
///
/// Training waits only for the copy (for CUDA a transfer into pinned memory), and may change its parameters as soon as
/// `commit` has returned. The memory of the copy is reused for the next checkpoint; there is one copy for each commit that
/// may be [in flight](AsyncCheckpointIo::in_flight).
///
/// Commits are executed in order. If one fails, its alias and removals are not executed, and later commits are not
/// affected; [`poll`](CheckpointIo::poll) returns the failure, and a [`Trainer`] polls after every batch. A panic of
/// the inner checkpoint I/O is such a failure. All other methods first wait for the pending commits, so that
/// they see the same files as in a synchronous run. Dropping it waits too.
///
/// [`Trainer`]: https://docs.rs/fulgurite
///
/// ```
/// use fulgurite_fabric::{AsyncCheckpointIo, CheckpointIo, Commit, TorchCheckpointIo};
/// use fulgurite_torch::tch::Tensor;
/// use fulgurite_torch::{Dict, Value};
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("last.ckpt");
/// let mut io = AsyncCheckpointIo::new(TorchCheckpointIo::new());
/// let mut weight = Tensor::from_slice(&[1.0f32, 2.0]);
/// let state = Value::Dict(Dict::new().with("weight", weight.shallow_clone()));
/// io.commit(&state, &Commit { path: path.clone(), ..Commit::default() })?;
/// let _ = weight.fill_(0.0);
/// assert!(io.wait().is_none());
/// let Value::Dict(saved) = io.load(&path)? else { panic!() };
/// assert_eq!(*saved.tensor("weight").unwrap(), Tensor::from_slice(&[1.0f32, 2.0]));
/// # Ok::<(), fulgurite_fabric::FabricError>(())
/// ```
pub struct AsyncCheckpointIo {
    shared: Arc<Shared>,
    in_flight: usize,
    /// Started by the first commit.
    writer: Option<Writer>,
}

/// The thread that writes.
struct Writer {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

struct Job {
    copy: HostCopy,
    commit: Commit,
}

struct Shared {
    inner: Mutex<Box<dyn CheckpointIo>>,
    progress: Mutex<Progress>,
    /// Notified when a commit has finished.
    ended: Condvar,
    /// The number of unreported failures, so that [`CheckpointIo::poll`] need not lock when there are none.
    failed: AtomicUsize,
}

#[derive(Default)]
struct Progress {
    /// Commits that have been queued and have not finished, in order.
    outstanding: VecDeque<Commit>,
    /// The memory of finished commits.
    buffers: Vec<Vec<Buffer>>,
    failures: VecDeque<CommitFailure>,
}

impl AsyncCheckpointIo {
    /// Writes through `inner`, one checkpoint at a time.
    pub fn new(inner: impl CheckpointIo + 'static) -> AsyncCheckpointIo {
        AsyncCheckpointIo {
            shared: Arc::new(Shared {
                inner: Mutex::new(Box::new(inner)),
                progress: Mutex::default(),
                ended: Condvar::new(),
                failed: AtomicUsize::new(0),
            }),
            in_flight: 1,
            writer: None,
        }
    }

    /// The maximum number of checkpoints in flight (1 by default, at least 1): the next commit blocks until one of them
    /// is written. Each takes host memory for one copy of the state.
    #[must_use]
    pub fn in_flight(mut self, checkpoints: usize) -> AsyncCheckpointIo {
        self.in_flight = checkpoints.max(1);
        self
    }

    /// Waits until fewer than `count` commits are outstanding.
    fn wait_for_fewer_than(&self, count: usize) -> MutexGuard<'_, Progress> {
        let progress = lock(&self.shared.progress);
        let until = self.shared.ended.wait_while(progress, |progress| progress.outstanding.len() >= count);
        until.unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the inner checkpoint I/O once all queued commits are written.
    fn after_all<T>(&self, call: impl FnOnce(&mut dyn CheckpointIo) -> T) -> T {
        drop(self.wait_for_fewer_than(1));
        call(lock(&self.shared.inner).as_mut())
    }

    /// The queue of the thread, which is started if necessary. `None` if it cannot be started.
    fn start(&mut self) -> Option<Sender<Job>> {
        if self.writer.is_none() {
            let (jobs, received) = channel();
            let shared = Arc::clone(&self.shared);
            let thread = Builder::new().name("checkpoint-writer".into()).spawn(move || shared.write(&received));
            self.writer = Some(Writer { jobs, thread: thread.ok()? });
        }
        self.writer.as_ref().map(|writer| writer.jobs.clone())
    }
}

impl Shared {
    /// The main loop of the thread.
    fn write(&self, jobs: &Receiver<Job>) {
        for Job { copy, commit } in jobs {
            let written = catch_panic(|| {
                let mut inner = lock(&self.inner);
                let written = inner.commit(&copy.value, &commit);
                (written, inner.poll())
            });
            let (written, earlier) = written.unwrap_or_else(|message| (Err(panicked(&commit.path, &message)), None));
            let failure = written.err().map(|error| CommitFailure { commit, error });
            let mut progress = lock(&self.progress);
            progress.buffers.push(copy.into_buffers());
            progress.failures.extend(earlier.into_iter().chain(failure));
            self.failed.store(progress.failures.len(), Ordering::Release);
            progress.outstanding.pop_front();
            drop(progress);
            self.ended.notify_all();
        }
    }
}

impl CheckpointIo for AsyncCheckpointIo {
    fn save(&mut self, checkpoint: &Value, path: &Path) -> Result<(), FabricError> {
        self.after_all(|inner| inner.save(checkpoint, path))
    }

    fn load(&mut self, path: &Path) -> Result<Value, FabricError> {
        self.after_all(|inner| inner.load(path))
    }

    fn remove(&mut self, path: &Path) -> Result<(), FabricError> {
        self.after_all(|inner| inner.remove(path))
    }

    fn alias(&mut self, path: &Path, alias: &Alias) -> Result<(), FabricError> {
        self.after_all(|inner| inner.alias(path, alias))
    }

    fn commit(&mut self, checkpoint: &Value, commit: &Commit) -> Result<(), FabricError> {
        let buffers = self.wait_for_fewer_than(self.in_flight).buffers.pop().unwrap_or_default();
        let copy = HostCopy::of(checkpoint, buffers).map_err(|error| FabricError::Checkpoint {
            path: commit.path.clone(),
            message: format!("its tensors cannot be copied to host memory: {error}; save without AsyncCheckpointIo"),
        })?;
        let Some(jobs) = self.start() else {
            // Without a thread, the checkpoint is written synchronously.
            return self.after_all(|inner| inner.commit(&copy.value, commit));
        };
        lock(&self.shared.progress).outstanding.push_back(commit.clone());
        // The thread exits when its channel is closed.
        let _ = jobs.send(Job { copy, commit: commit.clone() });
        Ok(())
    }

    fn exists(&mut self, path: &Path) -> Result<bool, FabricError> {
        self.after_all(|inner| inner.exists(path))
    }

    fn verify(&mut self, path: &Path) -> Result<(), FabricError> {
        self.after_all(|inner| inner.verify(path))
    }

    fn outline(&mut self, path: &Path) -> Result<Value, FabricError> {
        self.after_all(|inner| inner.outline(path))
    }

    fn list(&mut self, folder: &Path) -> Result<Vec<StoredFile>, FabricError> {
        self.after_all(|inner| inner.list(folder))
    }

    fn list_below(&mut self, folder: &Path, depth: usize) -> Result<Vec<StoredFile>, FabricError> {
        self.after_all(|inner| inner.list_below(folder, depth))
    }

    fn poll(&mut self) -> Option<CommitFailure> {
        if self.shared.failed.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut progress = lock(&self.shared.progress);
        let failure = progress.failures.pop_front();
        self.shared.failed.store(progress.failures.len(), Ordering::Release);
        failure
    }

    fn commit_state(&self, commit: &Commit) -> CommitState {
        let progress = lock(&self.shared.progress);
        if progress.outstanding.contains(commit) {
            CommitState::Pending
        } else if progress.failures.iter().any(|failure| failure.commit == *commit) {
            CommitState::Failed
        } else {
            CommitState::Written
        }
    }

    fn wait(&mut self) -> Option<CommitFailure> {
        if let Some(failure) = self.after_all(|inner| inner.wait()) {
            let mut progress = lock(&self.shared.progress);
            progress.failures.push_back(failure);
            self.shared.failed.store(progress.failures.len(), Ordering::Release);
        }
        self.poll()
    }
}

impl Drop for AsyncCheckpointIo {
    fn drop(&mut self) {
        if let Some(Writer { jobs, thread }) = self.writer.take() {
            drop(jobs);
            let _ = thread.join();
        }
        for failure in &lock(&self.shared.progress).failures {
            tracing::error!(error = %failure.error, "a checkpoint was not written");
        }
    }
}

/// Ignores poisoning: the guarded data is consistent even after a panic, since it is set in single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn panicked(path: &Path, message: &str) -> FabricError {
    let message = format!("its checkpoint I/O panicked: {message}");
    FabricError::Checkpoint { path: path.into(), message }
}
