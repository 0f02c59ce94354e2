//! [`Download`]: random access to an object, as to a file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt};

use super::background::{spawn, wait};
use super::upload::flatten;

/// The number of bytes of a request.
const CHUNK: u64 = 8 << 20;

/// Reads an object in chunks, with read-ahead. All chunks belong to one version of the object.
pub(super) struct Download {
    store: Arc<dyn ObjectStore>,
    meta: ObjectMeta,
    /// How many chunks are read ahead.
    ahead: usize,
    position: u64,
    /// The current chunk, with its number.
    chunk: Option<(u64, Bytes)>,
    pending: VecDeque<(u64, Pending)>,
    /// The error of the store, which readers may wrap or replace.
    failure: Option<Error>,
}

type Pending = Receiver<object_store::Result<Bytes>>;

impl Download {
    pub(super) fn open(store: Arc<dyn ObjectStore>, path: Path, ahead: usize) -> object_store::Result<Download> {
        let same = Arc::clone(&store);
        let meta = flatten(wait(async move { same.head(&path).await }))?;
        Ok(Download { store, meta, ahead, position: 0, chunk: None, pending: VecDeque::new(), failure: None })
    }

    pub(super) fn size(&self) -> u64 {
        self.meta.size
    }

    /// The error of the store, if that is why reading failed.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    fn chunks(&self) -> u64 {
        self.meta.size.div_ceil(CHUNK)
    }

    /// Starts to read chunk `number`.
    fn request(&self, number: u64) -> io::Result<Pending> {
        let range = number * CHUNK..((number + 1) * CHUNK).min(self.meta.size);
        let options = GetOptions::new().with_range(Some(range)).with_if_match(self.meta.e_tag.clone());
        let (store, path, e_tag) = (Arc::clone(&self.store), self.meta.location.clone(), self.meta.e_tag.clone());
        let (sender, receiver) = sync_channel(1);
        spawn(async move {
            let bytes = match store.get_opts(&path, options).await {
                // Not every server supports the condition.
                Ok(got) if got.meta.e_tag != e_tag => Err(replaced(&path)),
                Ok(got) => got.bytes().await,
                Err(error) => Err(error),
            };
            // A chunk that was skipped has no receiver.
            drop(sender.send(bytes));
        })?;
        Ok(receiver)
    }

    fn fetch(&mut self, number: u64) -> io::Result<Bytes> {
        if self.pending.front().is_none_or(|(first, _)| *first != number) {
            self.pending.clear();
        }
        let mut next = self.pending.back().map_or(number, |(last, _)| last + 1);
        while next < self.chunks() && next <= number + self.ahead as u64 {
            self.pending.push_back((next, self.request(next)?));
            next += 1;
        }
        let Some((_, pending)) = self.pending.pop_front() else { return Ok(Bytes::new()) };
        let bytes = pending.recv().map_err(|_| io::Error::other("a request panicked"))?;
        bytes.map_err(|error| {
            let message = error.to_string();
            self.failure = Some(error);
            io::Error::other(message)
        })
    }
}

impl Read for Download {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.meta.size || into.is_empty() {
            return Ok(0);
        }
        let number = self.position / CHUNK;
        let chunk = match &self.chunk {
            Some((current, bytes)) if *current == number => bytes,
            _ => {
                // Freed before the next one is received.
                self.chunk = None;
                let bytes = self.fetch(number)?;
                &self.chunk.insert((number, bytes)).1
            }
        };
        let rest = chunk.get((self.position % CHUNK) as usize..).unwrap_or_default();
        let read = rest.len().min(into.len());
        into[..read].copy_from_slice(&rest[..read]);
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Download {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.meta.size.checked_add_signed(by),
        };
        self.position = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

fn replaced(path: &Path) -> Error {
    Error::Precondition { path: path.to_string(), source: "the object was replaced".into() }
}

/// Downloads the whole object to an anonymous temporary file: for web servers, which may support neither ranges nor
/// `HEAD`.
pub(super) fn download(store: Arc<dyn ObjectStore>, path: Path) -> object_store::Result<File> {
    let here = |error: io::Error| Error::Generic { store: "temporary file", source: Box::new(error) };
    flatten(wait(async move {
        let mut file = tempfile::tempfile().map_err(here)?;
        let mut stream = store.get(&path).await?.into_stream();
        while let Some(bytes) = stream.next().await {
            file.write_all(&bytes?).map_err(here)?;
        }
        file.rewind().map_err(here)?;
        Ok(file)
    }))
}
