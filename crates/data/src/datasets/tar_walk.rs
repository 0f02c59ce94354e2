//! The members of a tar file, without their data.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header, PaxExtensions};

use super::files::unusable;
use crate::DataError;

const BLOCK: u64 = 512;
/// The longest name or attributes of a member.
const LONGEST: u64 = 1 << 20;

/// A regular file within a tar file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    /// Where its data begins.
    pub(super) start: u64,
    pub(super) len: u64,
}

/// Reads one header after the other, and goes past the data.
pub(super) struct Walk {
    path: PathBuf,
    file: File,
    /// The length of the file.
    len: u64,
    /// Where the next header is; `None` after the end.
    at: Option<u64>,
}

impl Walk {
    pub(super) fn open(path: &Path) -> Result<Walk, DataError> {
        let failed = |source| DataError::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        Ok(Walk { path: path.to_path_buf(), file, len, at: Some(0) })
    }

    /// The next regular file.
    pub(super) fn member(&mut self) -> Result<Option<Member>, DataError> {
        let mut name = None;
        let mut size = None;
        while let Some((header, start)) = self.header()? {
            let kind = header.entry_type();
            let describes = matches!(
                kind,
                EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
            );
            // Attributes are of the member after them.
            let len = match size {
                Some(size) if !describes => size,
                _ => header.entry_size().map_err(|error| self.damaged(start, &error.to_string()))?,
            };
            self.go_past(start, len)?;
            match kind {
                EntryType::GNULongName => name = Some(text(&self.data(start, len)?)),
                EntryType::XHeader => {
                    let attributes = self.data(start, len)?;
                    for attribute in PaxExtensions::new(&attributes) {
                        let attribute = attribute.map_err(|error| self.damaged(start, &error.to_string()))?;
                        match attribute.key_bytes() {
                            b"path" => name = Some(text(attribute.value_bytes())),
                            b"size" => size = attribute.value().ok().and_then(|size| size.parse().ok()),
                            _ => {}
                        }
                    }
                }
                EntryType::Regular | EntryType::Continuous => {
                    let name = name.unwrap_or_else(|| text(&header.path_bytes()));
                    return Ok(Some(Member { name, start, len }));
                }
                EntryType::GNUSparse => {
                    let message = "it has a sparse file, which is not read; write it without `--sparse`";
                    return Err(unusable(&self.path, message));
                }
                // Attributes of all members, and the targets of links, say nothing of what is read here.
                EntryType::XGlobalHeader | EntryType::GNULongLink => {}
                // Folders, links and devices.
                _ => (name, size) = (None, None),
            }
        }
        Ok(None)
    }

    /// The next header, and where the data begins; `None` at the empty block that ends a tar file.
    fn header(&mut self) -> Result<Option<(Header, u64)>, DataError> {
        let Some(at) = self.at else { return Ok(None) };
        let mut header = Header::new_old();
        if at + BLOCK > self.len {
            return Err(unusable(
                &self.path,
                format!(
                    "it is cut off: it ends after {} bytes, without the empty blocks that end a tar file",
                    self.len
                ),
            ));
        }
        self.read_at(at, header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|&byte| byte == 0) {
            self.at = None;
            return Ok(None);
        }
        let mut summed = header.clone();
        summed.set_cksum();
        if header.cksum().ok() != summed.cksum().ok() {
            let begin = header.as_bytes();
            let compressed = [&[0x1f, 0x8b][..], b"BZh", b"\xfd7zXZ", &[0x28, 0xb5, 0x2f, 0xfd]];
            if at == 0 && compressed.iter().any(|magic| begin.starts_with(magic)) {
                let message =
                    "it is compressed, so that nothing in it can be found without unpacking all before it; unpack it";
                return Err(unusable(&self.path, message));
            }
            return Err(self.damaged(at, "no header of a tar file is there"));
        }
        Ok(Some((header, at + BLOCK)))
    }

    /// The next header comes after so much data.
    fn go_past(&mut self, start: u64, len: u64) -> Result<(), DataError> {
        match len.checked_next_multiple_of(BLOCK).and_then(|padded| start.checked_add(padded)) {
            // The padding may be missing, but not the data.
            Some(end) if start.saturating_add(len) <= self.len => {
                self.at = Some(end);
                Ok(())
            }
            _ => Err(unusable(
                &self.path,
                format!(
                    "it is cut off: a member from byte {start} on has {len} bytes, and the file ends after {}",
                    self.len
                ),
            )),
        }
    }

    /// The data of a member that describes others.
    fn data(&mut self, start: u64, len: u64) -> Result<Vec<u8>, DataError> {
        if len > LONGEST {
            return Err(self.damaged(start, "a name or attributes of more than a megabyte"));
        }
        let mut data = vec![0; len as usize];
        self.read_at(start, &mut data)?;
        Ok(data)
    }

    fn read_at(&mut self, at: u64, buffer: &mut [u8]) -> Result<(), DataError> {
        let read = read_at(&mut self.file, at, buffer);
        read.map_err(|source| DataError::Io { path: self.path.clone(), source })
    }

    fn damaged(&self, at: u64, what: &str) -> DataError {
        unusable(&self.path, format!("it is damaged at byte {at}: {what}"))
    }
}

pub(super) fn read_at(file: &mut File, at: u64, buffer: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(buffer)
}

/// A name, without the zero that may end it.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(b"\0").unwrap_or(bytes)).into_owned()
}
