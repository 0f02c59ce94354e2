//! [`ObjectStoreCheckpointIo`]: checkpoints in a bucket.

mod background;
mod download;
mod explain;
mod stores;
mod upload;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use derive_setters::Setters;
use fulgurite_torch::{TorchError, Value, serialization};
use futures_util::TryStreamExt;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};

use super::url::Url;
use super::{Alias, CheckpointIo, StoredFile};
use crate::FabricError;
use background::wait;
use download::{Download, download};
use explain::explain;
use stores::{Located, Timeouts};
use upload::{Failed, Upload, flatten};

/// S3 accepts at most 10 000 parts; half of that leaves a margin, since the size is an estimate.
const MAX_PARTS: u64 = 5000;

/// Checkpoints in object stores: `s3://bucket/…`, `gs://bucket/…`, `az://container/…`, `memory://name/…`, and
/// `http(s)://…` for reading.
///
/// Writes are atomic: an object is sent in parts while it is serialized, and becomes visible, or replaces its predecessor,
/// when the upload is completed. A failed request is retried with exponential backoff, an interrupted upload is restarted
/// (see [`ObjectStoreOptions`]), and the parts of a failed upload are dropped. The parts that a killed process leaves behind
/// are invisible, and use storage until the store drops them: configure a lifecycle rule for incomplete uploads.
///
/// A store is configured by the environment when its bucket is first used: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
/// `AWS_REGION`, `AWS_ENDPOINT_URL`, …; `GOOGLE_APPLICATION_CREDENTIALS`, …; `AZURE_STORAGE_ACCOUNT_NAME`, …; see the
/// crate [`object_store`]. [`with_config`](ObjectStoreCheckpointIo::with_config) sets the same options from a program, and
/// [`with_store`](ObjectStoreCheckpointIo::with_store) adds a store that is constructed otherwise.
/// `memory://name` is one store for each name, shared by the whole process, for tests.
///
/// Clones share their stores. It needs no asynchronous runtime, and may be used within one.
///
/// ```
/// use std::path::Path;
///
/// use fulgurite_fabric::{CheckpointIo, ObjectStoreCheckpointIo};
/// use fulgurite_torch::{Dict, Value};
///
/// let mut io = ObjectStoreCheckpointIo::new();
/// let state = Value::Dict(Dict::new().with("epoch", 3));
/// io.save(&state, Path::new("memory://docs/run/last.ckpt"))?;
/// assert_eq!(io.load(Path::new("memory://docs/run/last.ckpt"))?, state);
/// # Ok::<(), fulgurite_fabric::FabricError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct ObjectStoreCheckpointIo {
    options: ObjectStoreOptions,
    /// Has precedence over the environment.
    config: Vec<(String, String)>,
    /// By the prefix of their URLs.
    stores: HashMap<String, Arc<dyn ObjectStore>>,
}

/// Options of [`ObjectStoreCheckpointIo`]. Each field is a setter of it too.
#[derive(Debug, Clone, Setters)]
#[setters(generate_delegates(ty = "ObjectStoreCheckpointIo", field = "options"))]
#[non_exhaustive]
pub struct ObjectStoreOptions {
    /// The size of one part of an upload in bytes (8 MiB); stores require at least 5 MiB. Parts are larger if a checkpoint
    /// would have too many of them.
    pub part_size: usize,
    /// How many parts are sent, or read ahead, at the same time (4). An upload holds one more part in memory.
    pub concurrency: usize,
    /// The maximum number of attempts of an upload (3) that is interrupted after the store had accepted its start.
    pub upload_attempts: usize,
    /// How requests are retried: 10 times within three minutes, with backoff from 0.1 to 15 seconds. Applies to the
    /// stores that are configured by the environment.
    pub retry: RetryConfig,
    /// The timeout of a request (60 seconds), after which it is retried.
    pub request_timeout: Duration,
    /// The timeout of establishing a connection (5 seconds).
    pub connect_timeout: Duration,
}

impl Default for ObjectStoreOptions {
    fn default() -> ObjectStoreOptions {
        ObjectStoreOptions {
            part_size: 8 << 20,
            concurrency: 4,
            upload_attempts: 3,
            retry: RetryConfig::default(),
            request_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
        }
    }
}

impl ObjectStoreCheckpointIo {
    /// Uses stores configured by the environment.
    pub fn new() -> ObjectStoreCheckpointIo {
        ObjectStoreCheckpointIo::default()
    }

    /// Uses `store` for the URLs that begin with `prefix`, such as `s3://bucket`. Any scheme is possible.
    ///
    /// ```
    /// use std::path::Path;
    /// use std::sync::Arc;
    ///
    /// use fulgurite_fabric::{CheckpointIo, ObjectStoreCheckpointIo, object_store};
    /// use fulgurite_torch::Value;
    ///
    /// let store = Arc::new(object_store::memory::InMemory::new());
    /// let mut io = ObjectStoreCheckpointIo::new().with_store("s3://bucket", store);
    /// io.save(&Value::Int(1), Path::new("s3://bucket/one.ckpt"))?;
    /// # Ok::<(), fulgurite_fabric::FabricError>(())
    /// ```
    #[must_use]
    pub fn with_store(mut self, prefix: &str, store: Arc<dyn ObjectStore>) -> ObjectStoreCheckpointIo {
        let prefix = Url::of(Path::new(prefix)).map_or_else(|| prefix.to_owned(), |url| url.store());
        self.stores.insert(prefix, store);
        self
    }

    /// Sets an option as an environment variable would, such as `aws_endpoint_url`, for the stores that are opened from now
    /// on. A store ignores options of other kinds of stores.
    #[must_use]
    pub fn with_config(mut self, key: &str, value: &str) -> ObjectStoreCheckpointIo {
        self.config.push((key.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// The store of a URL and the object's name there.
    fn locate(&mut self, path: &Path) -> Result<(Url, Located), FabricError> {
        let url = Url::of(path).ok_or_else(|| not_a_url(path))?;
        let schemes = ["s3", "s3a", "gs", "az", "abfs", "abfss", "adl", "http", "https", "memory"];
        let is_web = url.scheme.starts_with("http");
        let store = match self.stores.get(&url.store()) {
            Some(store) => Arc::clone(store),
            None if !schemes.contains(&url.scheme.as_str()) => return Err(unknown_scheme(path, &url)),
            None => {
                let ObjectStoreOptions { connect_timeout: connect, request_timeout: request, retry, .. } =
                    &self.options;
                let timeouts = Timeouts { connect: *connect, request: *request };
                let store = stores::open(&url, timeouts, retry, &self.config)
                    .map_err(|error| explain(path, &url, "opened", &error))?;
                // A web address may have a query, which applies to a single file.
                if !is_web {
                    self.stores.insert(url.store(), Arc::clone(&store));
                }
                store
            }
        };
        let name = stores::name(&url).map_err(|error| explain(path, &url, "named so", &error))?;
        Ok((url, (store, name)))
    }

    /// The same for a place to write to.
    fn locate_to_write(&mut self, path: &Path) -> Result<(Url, Located), FabricError> {
        let located = self.locate(path)?;
        if located.0.scheme.starts_with("http") && !self.stores.contains_key(&located.0.store()) {
            let message = format!("{}:// is read-only; write to s3://, gs://, az:// or a folder", located.0.scheme);
            return Err(FabricError::Checkpoint { path: path.into(), message });
        }
        Ok(located)
    }

    /// Reads an object with `ahead` chunks of read-ahead; from a web server through a temporary file.
    fn read(
        &mut self,
        path: &Path,
        ahead: usize,
        of_store: impl FnOnce(&mut Download) -> Result<Value, TorchError>,
        of_web: impl FnOnce(File) -> Result<Value, TorchError>,
    ) -> Result<Value, FabricError> {
        let (url, (store, name)) = self.locate(path)?;
        let cannot = |error: Error| explain(path, &url, "read", &error);
        if url.scheme.starts_with("http") {
            let file = download(store, name).map_err(cannot)?;
            return of_web(file).map_err(|error| unusable(path, &error));
        }
        let mut file = Download::open(store, name, ahead).map_err(cannot)?;
        of_store(&mut file).map_err(|error| match file.take_failure() {
            Some(error) => cannot(error),
            None => unusable(path, &error),
        })
    }

    /// Uploads the output of `write`, and starts again if the upload is interrupted.
    fn upload<E>(
        &self,
        (store, name): &Located,
        size: u64,
        mut write: impl FnMut(&mut Upload) -> Result<(), E>,
    ) -> Result<(), NotUploaded<E>> {
        let part_size = self.options.part_size.max(size.div_ceil(MAX_PARTS) as usize);
        let mut attempt = 1;
        loop {
            let mut upload = Upload::new(Arc::clone(store), name.clone(), part_size, self.options.concurrency);
            if let Err(error) = write(&mut upload)
                && !upload.has_failed()
            {
                upload.abort();
                return Err(NotUploaded::Source(error));
            }
            let Err(Failed { error, had_started }) = upload.finish() else { return Ok(()) };
            if !had_started || attempt >= self.options.upload_attempts {
                return Err(NotUploaded::Store(error));
            }
            tracing::warn!(%error, attempt, "an upload was interrupted and is restarted");
            attempt += 1;
        }
    }

    /// Copies an object through this machine, which is slower than within the store but always possible.
    fn copy_through(&self, from: &Located, to: &Located) -> Result<(), Error> {
        let mut source = Download::open(Arc::clone(&from.0), from.1.clone(), self.options.concurrency)?;
        let copied = self.upload(to, source.size(), |upload| {
            source.rewind()?;
            io::copy(&mut source, upload).map(drop)
        });
        copied.map_err(|error| match error {
            NotUploaded::Store(error) => error,
            NotUploaded::Source(error) => Error::Generic { store: "source", source: Box::new(error) },
        })
    }
}

/// The cause of a failed upload.
enum NotUploaded<E> {
    Source(E),
    Store(Error),
}

impl CheckpointIo for ObjectStoreCheckpointIo {
    fn save(&mut self, checkpoint: &Value, path: &Path) -> Result<(), FabricError> {
        let (url, located) = self.locate_to_write(path)?;
        let saved =
            self.upload(&located, tensor_bytes(checkpoint), |upload| serialization::write_to(upload, checkpoint));
        saved.map_err(|error| match error {
            NotUploaded::Store(error) => explain(path, &url, "written", &error),
            NotUploaded::Source(error) => unusable(path, &error),
        })
    }

    fn load(&mut self, path: &Path) -> Result<Value, FabricError> {
        self.read(path, self.options.concurrency, |file| serialization::load_from(file), serialization::load_from)
    }

    /// Reads only the parts of the object without tensors.
    fn outline(&mut self, path: &Path) -> Result<Value, FabricError> {
        self.read(path, 0, |file| serialization::outline_from(file), serialization::outline_from)
    }

    fn remove(&mut self, path: &Path) -> Result<(), FabricError> {
        let (url, (store, name)) = self.locate_to_write(path)?;
        match flatten(wait(async move { store.delete(&name).await })) {
            Err(Error::NotFound { .. }) => Ok(()),
            removed => removed.map_err(|error| explain(path, &url, "removed", &error)),
        }
    }

    /// Copies atomically within the store, which has no links.
    fn alias(&mut self, path: &Path, alias: &Alias) -> Result<(), FabricError> {
        let ((from_url, from), (url, to)) = (self.locate(path)?, self.locate_to_write(&alias.path)?);
        if from_url.store() == url.store() {
            let (store, source, target) = (Arc::clone(&to.0), from.1.clone(), to.1.clone());
            match flatten(wait(async move { store.copy(&source, &target).await })) {
                Ok(()) => return Ok(()),
                Err(
                    error @ (Error::NotFound { .. } | Error::PermissionDenied { .. } | Error::Unauthenticated { .. }),
                ) => {
                    return Err(explain(path, &from_url, "copied", &error));
                }
                // S3 limits copies to 5 GB, for example.
                Err(error) => tracing::debug!(%error, "the object could not be copied within the store"),
            }
        }
        self.copy_through(&from, &to).map_err(|error| explain(&alias.path, &url, "written", &error))
    }

    fn exists(&mut self, path: &Path) -> Result<bool, FabricError> {
        let (url, (store, name)) = self.locate(path)?;
        match flatten(wait(async move { store.head(&name).await })) {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(explain(path, &url, "looked up", &error)),
        }
    }

    fn list(&mut self, folder: &Path) -> Result<Vec<StoredFile>, FabricError> {
        let (url, (store, name)) = self.locate_to_write(folder)?;
        let listed = flatten(wait(async move { store.list_with_delimiter(Some(&name)).await }));
        let objects = match listed {
            Ok(listed) => listed.objects,
            Err(error) => return Err(explain(folder, &url, "listed", &error)),
        };
        Ok(objects
            .into_iter()
            .filter_map(|object| {
                let path = folder.join(object.location.filename()?);
                Some(StoredFile { path, modified: object.last_modified.into(), size: object.size })
            })
            .collect())
    }

    /// Lists everything below with one request, because a store has no folders; for depth 0, only the folder itself.
    fn list_below(&mut self, folder: &Path, depth: usize) -> Result<Vec<StoredFile>, FabricError> {
        if depth == 0 {
            return self.list(folder);
        }
        let (url, (store, name)) = self.locate_to_write(folder)?;
        let below = name.clone();
        let listed = flatten(wait(async move { store.list(Some(&below)).try_collect::<Vec<_>>().await }));
        let objects = listed.map_err(|error| explain(folder, &url, "listed", &error))?;
        let file = |object: ObjectMeta| {
            let parts: Vec<String> =
                object.location.prefix_match(&name)?.map(|part| part.as_ref().to_owned()).collect();
            let path = parts.iter().fold(folder.to_path_buf(), |path, part| path.join(part));
            let is_near = (1..=depth + 1).contains(&parts.len());
            is_near.then(|| StoredFile { path, modified: object.last_modified.into(), size: object.size })
        };
        Ok(objects.into_iter().filter_map(file).collect())
    }
}

/// The approximate size of the tensors in bytes: some may share memory.
fn tensor_bytes(value: &Value) -> u64 {
    match value {
        Value::Tensor(tensor) if tensor.defined() => (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64,
        Value::List(items) | Value::Tuple(items) => items.iter().map(tensor_bytes).sum(),
        Value::Dict(dict) => dict.iter().map(|(_, item)| tensor_bytes(item)).sum(),
        _ => 0,
    }
}

fn unusable(path: &Path, error: &TorchError) -> FabricError {
    FabricError::Checkpoint { path: path.into(), message: error.to_string() }
}

fn not_a_url(path: &Path) -> FabricError {
    let message = "it is not a URL such as s3://bucket/name; use DefaultCheckpointIo for local files too".to_owned();
    FabricError::Checkpoint { path: path.into(), message }
}

fn unknown_scheme(path: &Path, url: &Url) -> FabricError {
    let message = format!(
        "no object store supports {}://; use s3://, gs://, az://, memory://, http(s):// for reading, or add one with \
         ObjectStoreCheckpointIo::with_store",
        url.scheme
    );
    FabricError::Checkpoint { path: path.into(), message }
}
