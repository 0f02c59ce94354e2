//! [`MappedBytes`]: a file that is read where it lies.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};

use crate::serialization::open_regular;

/// A regular file that is mapped into memory, not read: the system fetches the parts that are used, and may drop them again.
/// Clones share the mapping, and threads read at the same time.
///
/// Bytes are copied out, since another process could change them; one that makes the file shorter while it is mapped ends
/// this process with SIGBUS when it reads beyond the new end.
///
/// ```
/// use fulgurite_torch::MappedBytes;
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("tokens.bin");
/// std::fs::write(&path, [1, 2, 3, 4]).unwrap();
/// let bytes = MappedBytes::open(&path)?;
/// assert_eq!(bytes.read(1, &mut [0; 2]).copied(), Some([2, 3]));
/// assert_eq!(bytes.read(3, &mut [0; 2]), None);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MappedBytes(Option<Arc<MmapRaw>>);

impl MappedBytes {
    /// Maps the file at `path`.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be opened, or is a pipe, a socket or a device.
    pub fn open(path: impl AsRef<Path>) -> io::Result<MappedBytes> {
        let file = open_regular(path.as_ref())?;
        MappedBytes::of(&file)
    }

    fn of(file: &File) -> io::Result<MappedBytes> {
        // Nothing cannot be mapped.
        if file.metadata()?.len() == 0 {
            return Ok(MappedBytes(None));
        }
        Ok(MappedBytes(Some(Arc::new(MmapOptions::new().map_raw_read_only(file)?))))
    }

    /// The bytes of the file when it was mapped.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |mapping| mapping.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the bytes from `start` on into all of `buffer`, and returns it; `None` if there are not as many.
    pub fn read<'a, const N: usize>(&self, start: usize, buffer: &'a mut [u8; N]) -> Option<&'a [u8; N]> {
        self.read_slice(start, buffer)?;
        Some(buffer)
    }

    /// Copies the bytes from `start` on into all of `buffer`; `None` if there are not as many.
    pub fn read_slice(&self, start: usize, buffer: &mut [u8]) -> Option<()> {
        if start.checked_add(buffer.len())? > self.len() {
            return None;
        }
        let Some(mapping) = &self.0 else { return Some(()) };
        // SAFETY: that many bytes are mapped from `start` on as long as `self` lives, as was just checked, and no reference to
        // them exists. They are copied, so whatever other processes write meanwhile, `buffer` holds some bytes.
        unsafe { std::ptr::copy_nonoverlapping(mapping.as_ptr().add(start), buffer.as_mut_ptr(), buffer.len()) };
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        std::fs::write(&path, b"").unwrap();
        let empty = MappedBytes::open(&path).unwrap();
        assert!(empty.is_empty());
        assert_eq!((empty.read_slice(0, &mut []), empty.read(0, &mut [0; 1])), (Some(()), None));
        std::fs::write(&path, b"abc").unwrap();
        let three = MappedBytes::open(&path).unwrap();
        assert_eq!((three.len(), three.read(0, &mut [0; 3])), (3, Some(b"abc")));
        assert_eq!((three.read(usize::MAX, &mut [0; 1]), three.read(1, &mut [0; 3])), (None, None));
        assert!(MappedBytes::open(folder.path()).is_err());
        assert!(MappedBytes::open("/dev/zero").is_err());
    }
}
