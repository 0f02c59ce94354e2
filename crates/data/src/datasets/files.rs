//! What the readers of files share: finding them, and reading them, compressed or not.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::DataError;

/// The limit for files whose length is unknown: pipes, devices, and small gzip files.
const UNKNOWN: u64 = 256 << 20;
/// How many times its own length a gzip file may have; text and pictures have a tenth of it.
const RATIO: u64 = 32;

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

/// What is in a file, unpacked if it is gzip's. Memory stays in proportion to the file: of gzip data only so much is read
/// as honest data of that length can hold, and of pipes and devices a fixed amount.
///
/// Its errors become a [`DataError`] through [`failed`].
pub(crate) struct Content {
    bytes: Box<dyn Read>,
    left: u64,
    /// The error for a file that exceeds it.
    too_much: String,
}

impl Content {
    pub(crate) fn open(path: &Path) -> Result<Content, DataError> {
        Content::read_first(path).map_err(|error| failed(path, error))
    }

    fn read_first(path: &Path) -> io::Result<Content> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let length = metadata.is_file().then_some(metadata.len());
        let mut file = BufReader::new(file);
        // Not less than the mark before UTF-8 text and a byte of it: readers look for that in the first bytes they get.
        let mut magic = Vec::with_capacity(4);
        file.by_ref().take(4).read_to_end(&mut magic)?;
        let is_gzip = magic.starts_with(&[0x1f, 0x8b]);
        let file = Cursor::new(magic).chain(file);
        if is_gzip {
            let left = length.map_or(UNKNOWN, |length| length.saturating_mul(RATIO).max(UNKNOWN));
            let too_much = format!(
                "it is gzip data that unpacks to more than {} MiB, too much for its length; if that is right, unpack it \
                 with gunzip first",
                left >> 20
            );
            return Ok(Content { bytes: Box::new(Unpacked(MultiGzDecoder::new(file))), left, too_much });
        }
        let too_much =
            format!("more than {} MiB come out of it, and it is no regular file; save it to one first", UNKNOWN >> 20);
        Ok(Content { bytes: Box::new(file), left: if length.is_some() { u64::MAX } else { UNKNOWN }, too_much })
    }

    /// At most so many bytes more. Fewer come from a file that ends before.
    pub(crate) fn up_to(&mut self, count: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.take(count).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).map_or(buffer.len(), |left| buffer.len().min(left.saturating_add(1)));
        let count = self.bytes.read(&mut buffer[..room])?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other(Unusable(self.too_much.clone()))),
        }
        Ok(count)
    }
}

/// Gzip data, whose errors are distinguished from those of the disk.
struct Unpacked<R>(MultiGzDecoder<R>);

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => {
                io::Error::other(Unusable(format!("its gzip data is damaged or cut off ({error}); download it again")))
            }
        })
    }
}

/// An error of what is in a file, not of reading it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unusable(String);

/// What went wrong while reading the [`Content`] of a file.
pub(crate) fn failed(path: &Path, error: io::Error) -> DataError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Unusable>()) {
        Some(Unusable(message)) => unusable(path, message),
        None => DataError::Io { path: path.to_path_buf(), source: error },
    }
}

/// The bytes of a file, unpacked if they are gzip's.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    Content::open(path)?.read_to_end(&mut bytes).map_err(|error| failed(path, error))?;
    Ok(bytes)
}

/// The error for a file that is not what it should be.
pub(crate) fn unusable(path: &Path, message: impl Into<String>) -> DataError {
    DataError::Format { path: path.to_path_buf(), message: message.into() }
}
