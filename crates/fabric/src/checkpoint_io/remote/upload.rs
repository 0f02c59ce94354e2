//! [`Upload`]: an object that becomes visible only when it is complete.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use object_store::path::Path;
use object_store::{Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutPayload};
use tokio::task::JoinHandle;

use super::background::{spawn, wait};

/// Aborting must not take as long as the upload did: the store removes the remaining parts by its own rules.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes the bytes of an object and sends them in parts while more are produced. Buffers the parts that are being sent,
/// and the one that is being filled.
pub(super) struct Upload {
    store: Arc<dyn ObjectStore>,
    path: Path,
    part_size: usize,
    concurrency: usize,
    buffer: Vec<u8>,
    /// Set once there is more than one part.
    multipart: Option<Box<dyn MultipartUpload>>,
    sending: Vec<JoinHandle<()>>,
    in_flight: usize,
    sent: (Sender<object_store::Result<()>>, Receiver<object_store::Result<()>>),
    failure: Option<Error>,
}

/// The error of a failed upload.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    /// The store had accepted the start of the upload, so another attempt may succeed.
    pub(super) had_started: bool,
}

impl Upload {
    pub(super) fn new(store: Arc<dyn ObjectStore>, path: Path, part_size: usize, concurrency: usize) -> Upload {
        Upload {
            store,
            path,
            part_size: part_size.max(1),
            concurrency: concurrency.max(1),
            buffer: Vec::new(),
            multipart: None,
            sending: Vec::new(),
            in_flight: 0,
            sent: channel(),
            failure: None,
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Completes the upload, which makes the object visible.
    pub(super) fn finish(mut self) -> Result<(), Failed> {
        let finished = match self.failure.take() {
            Some(error) => Err(error),
            None => self.complete(),
        };
        finished.map_err(|error| {
            let had_started = self.multipart.is_some();
            self.abort();
            Failed { error, had_started }
        })
    }

    /// Cancels the upload and makes the store drop its parts.
    pub(super) fn abort(mut self) {
        self.sending.drain(..).for_each(|part| part.abort());
        if let Some(mut multipart) = self.multipart.take() {
            let _ = wait(async move { tokio::time::timeout(ABORT_TIMEOUT, multipart.abort()).await });
        }
    }

    fn complete(&mut self) -> Result<(), Error> {
        let rest = std::mem::take(&mut self.buffer);
        if self.multipart.is_none() {
            let (store, path) = (Arc::clone(&self.store), self.path.clone());
            return flatten(wait(async move { store.put(&path, rest.into()).await.map(drop) }));
        }
        if !rest.is_empty() {
            self.send(rest)?;
        }
        self.wait_for_fewer_than(1)?;
        let Some(mut multipart) = self.multipart.take() else { return Ok(()) };
        let (returned, completed) = wait(async move {
            let completed = multipart.complete().await;
            (multipart, completed)
        })
        .map_err(no_thread)?;
        self.multipart = Some(returned);
        completed.map(drop)
    }

    /// Sends a part, once fewer than `concurrency` parts are in flight.
    fn send(&mut self, part: Vec<u8>) -> Result<(), Error> {
        if self.multipart.is_none() {
            let (store, path) = (Arc::clone(&self.store), self.path.clone());
            let started = wait(async move { store.put_multipart_opts(&path, PutMultipartOptions::default()).await });
            self.multipart = Some(flatten(started)?);
        }
        self.wait_for_fewer_than(self.concurrency)?;
        let Some(multipart) = &mut self.multipart else { return Ok(()) };
        let sending = multipart.put_part(PutPayload::from(part));
        let sent = self.sent.0.clone();
        // A part of a failed upload has no receiver any more.
        let task = spawn(async move { drop(sent.send(sending.await)) }).map_err(no_thread)?;
        self.sending.retain(|task| !task.is_finished());
        self.sending.push(task);
        self.in_flight += 1;
        Ok(())
    }

    fn wait_for_fewer_than(&mut self, count: usize) -> Result<(), Error> {
        while self.in_flight >= count {
            // `self` holds a sender, so the channel stays open.
            let Ok(sent) = self.sent.1.recv() else { break };
            self.in_flight -= 1;
            sent?;
        }
        Ok(())
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failure.is_some() {
            return Err(io::Error::other("the upload failed"));
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(self.part_size);
        }
        let taken = bytes.len().min(self.part_size - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == self.part_size {
            let part = std::mem::take(&mut self.buffer);
            if let Err(error) = self.send(part) {
                self.failure = Some(error);
                return Err(io::Error::other("the upload failed"));
            }
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The response of a store, or the error that no request could be sent.
pub(super) fn flatten<T>(response: io::Result<object_store::Result<T>>) -> object_store::Result<T> {
    response.map_err(no_thread)?
}

fn no_thread(error: io::Error) -> Error {
    Error::Generic { store: "runtime", source: Box::new(error) }
}
