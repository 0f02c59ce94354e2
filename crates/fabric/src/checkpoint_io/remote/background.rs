//! The thread on which requests run, so that callers need no `async`, and may be within another runtime.

use std::future::Future;
use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::sync_channel;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

fn runtime() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<io::Result<Runtime>> = OnceLock::new();
    let runtime = RUNTIME
        .get_or_init(|| Builder::new_multi_thread().worker_threads(1).thread_name("object-store").enable_all().build());
    runtime
        .as_ref()
        .map_err(|error| io::Error::new(error.kind(), format!("the thread for requests cannot be started: {error}")))
}

/// Starts `work` in the background.
pub(super) fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> io::Result<JoinHandle<T>> {
    Ok(runtime()?.spawn(work))
}

/// Runs `work` and waits for its result.
pub(super) fn wait<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
    let (sender, receiver) = sync_channel(1);
    spawn(async move { sender.send(work.await) })?;
    receiver.recv().map_err(|_| io::Error::other("a request panicked"))
}
