//! What the readers of files share: finding them, and reading them whole, compressed or not.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::DataError;

/// A published data set: its files, and where they come from.
pub(crate) struct Source {
    /// The data set, for messages.
    pub(crate) name: &'static str,
    /// The folder below the root that PyTorch keeps them in.
    pub(crate) folder: &'static str,
    /// Where they can be downloaded, by hand too.
    pub(crate) url: &'static str,
}

impl Source {
    /// The file `name` or `name.gz`, in `root` or in PyTorch's folder below it.
    pub(crate) fn find(&self, root: &Path, name: &str) -> Result<PathBuf, DataError> {
        let folders = [root.to_path_buf(), root.join(self.folder)];
        let candidates = folders.iter().flat_map(|folder| [folder.join(name), folder.join(format!("{name}.gz"))]);
        candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
            DataError::Missing(format!(
                "{} needs the file {name} or {name}.gz in {} or {}, and it is in neither; download it from {} and put \
                 it there, or turn on the feature `download` and call `download` first",
                self.name,
                folders[0].display(),
                folders[1].display(),
                self.url
            ))
        })
    }
}

/// The bytes of a file, decompressed if they are gzip's.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, DataError> {
    let failed = |source| DataError::Io { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    BufReader::new(File::open(path).map_err(failed)?).read_to_end(&mut bytes).map_err(failed)?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut content = Vec::new();
    GzDecoder::new(bytes.as_slice())
        .read_to_end(&mut content)
        .map_err(|error| unusable(path, format!("its gzip data is damaged or cut off ({error}); download it again")))?;
    Ok(content)
}

/// The error for a file that is not what it should be.
pub(crate) fn unusable(path: &Path, message: impl Into<String>) -> DataError {
    DataError::Format { path: path.to_path_buf(), message: message.into() }
}
