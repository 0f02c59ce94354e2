//! What is asked of a store, seen from inside of one.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{large_state, same, state};
use async_trait::async_trait;
use fulgurite_fabric::object_store::memory::InMemory;
use fulgurite_fabric::object_store::path::Path as Name;
use fulgurite_fabric::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use fulgurite_fabric::{Alias, CheckpointIo, ObjectStoreCheckpointIo};
use futures_util::stream::BoxStream;

/// A store in memory that counts, and fails where it is told to.
#[derive(Debug, Default)]
struct Watched {
    inner: InMemory,
    /// Parts still to come before one fails, and how many fail then.
    good_parts: AtomicUsize,
    bad_parts: AtomicUsize,
    bad_completions: AtomicUsize,
    refuses_copies: bool,
    begun: AtomicUsize,
    aborted: AtomicUsize,
    copied: AtomicUsize,
    parts: Arc<AtomicUsize>,
    at_once: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watched")
    }
}

fn failure(what: &str) -> Error {
    Error::Generic { store: "watched", source: what.into() }
}

/// Takes one of what is left, if there is any.
fn take(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

#[derive(Debug)]
struct WatchedUpload(Arc<Watched>, Box<dyn MultipartUpload>);

#[async_trait]
impl MultipartUpload for WatchedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let store = Arc::clone(&self.0);
        store.parts.fetch_add(1, Ordering::SeqCst);
        if !take(&store.good_parts) && take(&store.bad_parts) {
            return Box::pin(async { Err(failure("a part is lost")) });
        }
        let part = self.1.put_part(data);
        Box::pin(async move {
            let at_once = store.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            store.most_at_once.fetch_max(at_once, Ordering::SeqCst);
            let put = part.await;
            store.at_once.fetch_sub(1, Ordering::SeqCst);
            put
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        match take(&self.0.bad_completions) {
            true => Err(failure("the parts are gone")),
            false => self.1.complete().await,
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.0.aborted.fetch_add(1, Ordering::SeqCst);
        self.1.abort().await
    }
}

/// The store as it is handed over: uploads count in it.
#[derive(Debug, Clone)]
struct Handle(Arc<Watched>);

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Handle {
    async fn put_opts(&self, name: &Name, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.inner.put_opts(name, payload, options).await
    }

    async fn put_multipart_opts(&self, name: &Name, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        let upload = self.0.inner.put_multipart_opts(name, options).await?;
        Ok(Box::new(WatchedUpload(Arc::clone(&self.0), upload)))
    }

    async fn get_opts(&self, name: &Name, options: GetOptions) -> Result<GetResult> {
        self.0.inner.get_opts(name, options).await
    }

    fn delete_stream(&self, names: BoxStream<'static, Result<Name>>) -> BoxStream<'static, Result<Name>> {
        self.0.inner.delete_stream(names)
    }

    fn list(&self, prefix: Option<&Name>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Name>) -> Result<ListResult> {
        self.0.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Name, to: &Name, options: CopyOptions) -> Result<()> {
        if self.0.refuses_copies {
            return Err(failure("too large for a copy"));
        }
        self.0.copied.fetch_add(1, Ordering::SeqCst);
        self.0.inner.copy_opts(from, to, options).await
    }
}

fn watched(store: Watched) -> (ObjectStoreCheckpointIo, Arc<Watched>) {
    let store = Arc::new(store);
    let io = ObjectStoreCheckpointIo::new().with_store("s3://bucket", Arc::new(Handle(Arc::clone(&store))));
    (io.part_size(64 << 10), store)
}

fn count(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::SeqCst)
}

const ONE: &str = "s3://bucket/one.ckpt";

#[test]
fn an_upload_goes_in_parts_a_few_at_once() {
    let (mut io, store) = watched(Watched::default());
    let state = large_state(1.0);
    io.save(&state, Path::new(ONE)).unwrap();
    assert!(same(&io.load(Path::new(ONE)).unwrap(), &state));
    let bytes = io.list(Path::new("s3://bucket")).unwrap()[0].size as usize;
    assert_eq!(count(&store.parts), bytes.div_ceil(64 << 10));
    assert!(count(&store.most_at_once) <= 4, "{}", count(&store.most_at_once));
    assert_eq!((count(&store.begun), count(&store.aborted)), (1, 0));

    let (io, store) = watched(Watched::default());
    let mut io = io.concurrency(1);
    io.save(&state, Path::new(ONE)).unwrap();
    assert_eq!(count(&store.most_at_once), 1);
    assert!(same(&io.load(Path::new(ONE)).unwrap(), &state));
}

#[test]
fn a_small_checkpoint_is_one_request() {
    let (mut io, store) = watched(Watched::default());
    io.save(&state(1.0), Path::new(ONE)).unwrap();
    assert_eq!(count(&store.begun), 0);
    assert!(same(&io.load(Path::new(ONE)).unwrap(), &state(1.0)));
}

#[test]
fn an_upload_that_breaks_off_is_begun_anew() {
    for (bad_parts, bad_completions) in [(1, 0), (0, 1), (1, 1)] {
        let (mut io, store) = watched(Watched {
            good_parts: 3.into(),
            bad_parts: bad_parts.into(),
            bad_completions: bad_completions.into(),
            ..Watched::default()
        });
        io.save(&large_state(2.0), Path::new(ONE)).unwrap();
        let failures = bad_parts + bad_completions;
        assert_eq!((count(&store.begun), count(&store.aborted)), (1 + failures, failures));
        assert!(same(&io.load(Path::new(ONE)).unwrap(), &large_state(2.0)));
    }
}

#[test]
fn an_upload_that_is_given_up_leaves_what_was_there() {
    let (mut io, store) = watched(Watched { good_parts: 40.into(), bad_completions: 0.into(), ..Watched::default() });
    io.save(&large_state(1.0), Path::new(ONE)).unwrap();
    store.bad_completions.store(3, Ordering::SeqCst);
    let error = io.save(&large_state(2.0), Path::new(ONE)).unwrap_err().to_string();
    assert_eq!(error, "checkpoint s3://bucket/one.ckpt: it cannot be written: the parts are gone");
    assert_eq!((count(&store.begun), count(&store.aborted)), (4, 3));
    assert!(same(&io.load(Path::new(ONE)).unwrap(), &large_state(1.0)));

    let (io, store) = watched(Watched { bad_parts: 1.into(), ..Watched::default() });
    let mut io = io.upload_attempts(1_usize);
    let error = io.save(&large_state(2.0), Path::new(ONE)).unwrap_err().to_string();
    assert_eq!(error, "checkpoint s3://bucket/one.ckpt: it cannot be written: a part is lost");
    assert_eq!(count(&store.aborted), 1);
    assert!(!io.exists(Path::new(ONE)).unwrap());
}

#[test]
fn a_value_that_no_file_holds_is_not_tried_again() {
    let (mut io, store) = watched(Watched::default());
    let mut unwritable = large_state(1.0);
    if let fulgurite_torch::Value::Dict(dict) = &mut unwritable {
        dict.set("bad", fulgurite_torch::tch::Tensor::new());
    }
    let error = io.save(&unwritable, Path::new(ONE)).unwrap_err().to_string();
    assert!(error.contains("undefined tensor"), "{error}");
    assert!(count(&store.begun) <= 1 && count(&store.begun) == count(&store.aborted));
    assert!(!io.exists(Path::new(ONE)).unwrap());
}

#[test]
fn a_second_name_is_a_copy_within_the_store_or_through_this_machine() {
    for refuses_copies in [false, true] {
        let (mut io, store) = watched(Watched { refuses_copies, ..Watched::default() });
        io.save(&large_state(3.0), Path::new(ONE)).unwrap();
        let alias = Alias { path: "s3://bucket/last.ckpt".into(), link: true };
        io.alias(Path::new(ONE), &alias).unwrap();
        assert_eq!((count(&store.copied), count(&store.begun)), if refuses_copies { (0, 2) } else { (1, 1) });
        assert!(same(&io.load(&alias.path).unwrap(), &large_state(3.0)));

        let missing = io.alias(Path::new("s3://bucket/none.ckpt"), &alias).unwrap_err().to_string();
        assert!(missing.starts_with("checkpoint s3://bucket/"), "{missing}");
        assert!(same(&io.load(&alias.path).unwrap(), &large_state(3.0)));

        let elsewhere = Alias { path: "memory://copies/last.ckpt".into(), link: false };
        io.alias(Path::new(ONE), &elsewhere).unwrap();
        assert!(same(&io.load(&elsewhere.path).unwrap(), &large_state(3.0)));
    }
}
