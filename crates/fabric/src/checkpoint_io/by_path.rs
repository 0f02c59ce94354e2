//! [`DefaultCheckpointIo`]: the path determines where a checkpoint is stored.

use std::path::{Path, PathBuf};

use fulgurite_torch::Value;

#[cfg(feature = "object-store")]
use super::ObjectStoreCheckpointIo;
use super::url::Url;
use super::{Alias, CheckpointIo, StoredFile, TorchCheckpointIo};
use crate::FabricError;

/// The default checkpoint I/O: URLs go to object stores, all other paths to local files.
///
/// `s3://`, `gs://`, `az://`, `http(s)://` (reading only) and `memory://` need the cargo feature `object-store`;
/// without it they are an error. `file:///folder/name` is the local path after the scheme.
///
/// ```
/// use std::path::Path;
///
/// use fulgurite_fabric::{CheckpointIo, DefaultCheckpointIo};
/// use fulgurite_torch::Value;
///
/// let folder = tempfile::tempdir().unwrap();
/// let mut io = DefaultCheckpointIo::new();
/// io.save(&Value::Int(1), &folder.path().join("one.ckpt"))?;
/// let url = format!("file://{}/one.ckpt", folder.path().display());
/// assert_eq!(io.load(Path::new(&url))?, Value::Int(1));
/// # Ok::<(), fulgurite_fabric::FabricError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct DefaultCheckpointIo {
    local: TorchCheckpointIo,
    #[cfg(feature = "object-store")]
    remote: ObjectStoreCheckpointIo,
}

/// The kind of storage of a path.
#[derive(PartialEq, Eq)]
enum Place {
    Local(PathBuf),
    #[cfg(feature = "object-store")]
    Remote,
}

impl DefaultCheckpointIo {
    /// Local files, and object stores as the environment variables configure them.
    pub fn new() -> DefaultCheckpointIo {
        DefaultCheckpointIo::default()
    }

    /// Replaces the checkpoint I/O of local files.
    #[must_use]
    pub fn local(mut self, local: TorchCheckpointIo) -> DefaultCheckpointIo {
        self.local = local;
        self
    }

    /// Replaces the checkpoint I/O of object stores.
    #[cfg(feature = "object-store")]
    #[must_use]
    pub fn object_stores(mut self, stores: ObjectStoreCheckpointIo) -> DefaultCheckpointIo {
        self.remote = stores;
        self
    }

    /// The checkpoint I/O for `path`, and the path to pass to it.
    fn at<'a>(&'a mut self, path: &'a Path) -> Result<(&'a mut dyn CheckpointIo, PathBuf), FabricError> {
        match place(path)? {
            Place::Local(path) => Ok((&mut self.local, path)),
            #[cfg(feature = "object-store")]
            Place::Remote => Ok((&mut self.remote, path.into())),
        }
    }
}

fn place(path: &Path) -> Result<Place, FabricError> {
    match Url::of(path) {
        None => Ok(Place::Local(path.into())),
        Some(url) if url.scheme == "file" => Ok(Place::Local(Path::new("/").join(url.key))),
        #[cfg(feature = "object-store")]
        Some(_) => Ok(Place::Remote),
        #[cfg(not(feature = "object-store"))]
        Some(url) => {
            let message = format!(
                "{}:// URLs need the cargo feature `object-store`, which this program was built without: add it to \
                 `fulgurite` in Cargo.toml, or use a local path",
                url.scheme
            );
            Err(FabricError::Checkpoint { path: path.into(), message })
        }
    }
}

impl CheckpointIo for DefaultCheckpointIo {
    fn save(&mut self, checkpoint: &Value, path: &Path) -> Result<(), FabricError> {
        let (io, path) = self.at(path)?;
        io.save(checkpoint, &path)
    }

    fn load(&mut self, path: &Path) -> Result<Value, FabricError> {
        let (io, path) = self.at(path)?;
        io.load(&path)
    }

    fn remove(&mut self, path: &Path) -> Result<(), FabricError> {
        let (io, path) = self.at(path)?;
        io.remove(&path)
    }

    fn alias(&mut self, path: &Path, alias: &Alias) -> Result<(), FabricError> {
        match (place(path)?, place(&alias.path)?) {
            (Place::Local(path), Place::Local(second)) => {
                self.local.alias(&path, &Alias { path: second, link: alias.link })
            }
            #[cfg(feature = "object-store")]
            (Place::Remote, Place::Remote) => self.remote.alias(path, alias),
            #[cfg(feature = "object-store")]
            _ => {
                let checkpoint = self.load(path)?;
                self.save(&checkpoint, &alias.path)
            }
        }
    }

    fn exists(&mut self, path: &Path) -> Result<bool, FabricError> {
        let (io, path) = self.at(path)?;
        io.exists(&path)
    }

    fn verify(&mut self, path: &Path) -> Result<(), FabricError> {
        let (io, path) = self.at(path)?;
        io.verify(&path)
    }

    fn outline(&mut self, path: &Path) -> Result<Value, FabricError> {
        let (io, path) = self.at(path)?;
        io.outline(&path)
    }

    fn remove_empty_folder(&mut self, folder: &Path) -> bool {
        self.at(folder).is_ok_and(|(io, folder)| io.remove_empty_folder(&folder))
    }

    fn list(&mut self, folder: &Path) -> Result<Vec<StoredFile>, FabricError> {
        let (io, there) = self.at(folder)?;
        Ok(renamed(io.list(&there)?, &there, folder))
    }

    fn list_below(&mut self, folder: &Path, depth: usize) -> Result<Vec<StoredFile>, FabricError> {
        let (io, there) = self.at(folder)?;
        Ok(renamed(io.list_below(&there, depth)?, &there, folder))
    }
}

/// Restores the `file://` URL of the folder in the paths, if the caller used one.
fn renamed(mut files: Vec<StoredFile>, there: &Path, folder: &Path) -> Vec<StoredFile> {
    for file in &mut files {
        if let Ok(name) = file.path.strip_prefix(there) {
            file.path = folder.join(name);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::super::Commit;
    use super::*;

    #[test]
    fn file_urls_are_local_paths() {
        let folder = tempfile::tempdir().unwrap();
        let url = PathBuf::from(format!("file://{}", folder.path().display()));
        let mut io = DefaultCheckpointIo::new();
        io.save(&Value::Int(3), &url.join("a.ckpt")).unwrap();
        io.alias(&url.join("a.ckpt"), &Alias { path: url.join("last.ckpt"), link: true }).unwrap();
        assert_eq!(io.load(&folder.path().join("last.ckpt")).unwrap(), Value::Int(3));
        let mut names: Vec<PathBuf> = io.list(&url).unwrap().into_iter().map(|file| file.path).collect();
        names.sort();
        assert_eq!(names, [url.join("a.ckpt"), url.join("last.ckpt")]);
        let below = |io: &mut DefaultCheckpointIo| io.list_below(&url, 2).unwrap().into_iter().map(|file| file.path);
        let commit = |name: &str, remove: &str| Commit {
            path: url.join(name),
            remove: vec![url.join(remove)],
            ..Commit::default()
        };
        io.commit(&Value::Int(4), &commit("epoch=0-val/loss=1/x.ckpt", "none.ckpt")).unwrap();
        let in_folder = url.join("epoch=0-val/loss=1/x.ckpt");
        assert_eq!(below(&mut io).filter(|path| *path == in_folder).count(), 1);
        assert_eq!(io.outline(&in_folder).unwrap(), Value::Int(4));
        // The folders of a name are removed with their last file.
        io.commit(&Value::Int(5), &commit("b.ckpt", "epoch=0-val/loss=1/x.ckpt")).unwrap();
        assert!(!folder.path().join("epoch=0-val").exists());
        io.remove(&url.join("b.ckpt")).unwrap();
        io.remove(&url.join("a.ckpt")).unwrap();
        assert!(!io.exists(&url.join("a.ckpt")).unwrap());
        assert!(io.verify(&url.join("last.ckpt")).is_err());
    }

    #[cfg(not(feature = "object-store"))]
    #[test]
    fn other_urls_name_the_feature() {
        let error = DefaultCheckpointIo::new().load(Path::new("s3://bucket/last.ckpt")).unwrap_err().to_string();
        assert_eq!(
            error,
            "checkpoint s3://bucket/last.ckpt: s3:// URLs need the cargo feature `object-store`, which this program \
             was built without: add it to `fulgurite` in Cargo.toml, or use a local path"
        );
    }
}
