//! Reads the zip container of a checkpoint: finds its entries, and trusts nothing that it says about them.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};

use zip::ZipArchive;
use zip::result::ZipError;

use crate::error::TorchError;

/// An opened checkpoint file.
pub(super) struct ArchiveReader<R> {
    input: R,
    /// By name, without the folder that all lie in.
    entries: HashMap<String, Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    start: u64,
    size: u64,
    crc: u32,
}

impl<R: Read + Seek> ArchiveReader<R> {
    pub(super) fn open(mut input: R) -> Result<ArchiveReader<R>, TorchError> {
        let length = input.seek(SeekFrom::End(0)).map_err(reading)?;
        recognise(&mut input, length)?;
        let mut archive = ZipArchive::new(input).map_err(|error| match error {
            ZipError::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => reading(error),
            _ => damaged(format!(
                "it begins like a checkpoint and has no end, at {length} bytes; it was cut while being written or \
                 copied"
            )),
        })?;

        let mut entries = HashMap::new();
        let mut folder: Option<String> = None;
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index).map_err(|error| damaged(format!("entry {index}: {error}")))?;
            let name = entry.name().to_owned();
            if entry.compression() != zip::CompressionMethod::Stored {
                return Err(TorchError::UnsupportedCheckpoint {
                    reason: format!("entry `{name}` is compressed; write the file with torch.save"),
                });
            }
            let (start, size) = (entry.data_start(), entry.size());
            if size != entry.compressed_size() || start.checked_add(size).is_none_or(|end| end > length) {
                return Err(damaged(format!("entry `{name}` reaches beyond the end of the file")));
            }
            let Some((top, rest)) = name.split_once('/') else {
                return Err(TorchError::NotACheckpoint {
                    reason: format!("it is a zip file with an entry `{name}` outside of any folder"),
                });
            };
            if folder.get_or_insert_with(|| top.to_owned()) != top {
                continue;
            }
            let found = Entry { start, size, crc: entry.crc32() };
            if entries.insert(rest.to_owned(), found).is_some() {
                return Err(damaged(format!("two entries are named `{name}`")));
            }
        }
        // What torch.jit.save writes has this one too.
        if entries.contains_key("constants.pkl") {
            return Err(TorchError::NotACheckpoint {
                reason: "it is a TorchScript module; save its state_dict".into(),
            });
        }
        if !entries.contains_key("data.pkl") {
            return Err(TorchError::NotACheckpoint { reason: "it is a zip file without a data.pkl".into() });
        }
        reject_overlaps(&entries)?;
        Ok(ArchiveReader { input: archive.into_inner(), entries })
    }

    /// The size of an entry in bytes, if it is there.
    pub(super) fn size(&self, name: &str) -> Option<u64> {
        self.entries.get(name).map(|entry| entry.size)
    }

    /// Reads an entry whole into `target`, which has its size.
    pub(super) fn read_into(&mut self, name: &str, target: &mut [u8]) -> Result<(), TorchError> {
        let entry = *self.entries.get(name).ok_or_else(|| damaged(format!("entry `{name}` is missing")))?;
        if entry.size != target.len() as u64 {
            return Err(damaged(format!("entry `{name}` has {} bytes, expected {}", entry.size, target.len())));
        }
        self.input.seek(SeekFrom::Start(entry.start)).map_err(reading)?;
        self.input.read_exact(target).map_err(reading)?;
        // torch writes 0 when it is told not to compute checksums.
        if entry.crc != 0 && crc32fast::hash(target) != entry.crc {
            return Err(damaged(format!("the checksum of entry `{name}` is wrong")));
        }
        Ok(())
    }

    /// Reads an entry of at most `limit` bytes.
    pub(super) fn read(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, TorchError> {
        let size = self.size(name).ok_or_else(|| damaged(format!("entry `{name}` is missing")))?;
        if size > limit {
            return Err(TorchError::UnsupportedCheckpoint {
                reason: format!("entry `{name}` has {size} bytes; up to {limit} are read"),
            });
        }
        let mut data = vec![0; size as usize];
        self.read_into(name, &mut data)?;
        Ok(data)
    }
}

/// Says what a file is that does not begin like a zip file.
fn recognise(input: &mut (impl Read + Seek), length: u64) -> Result<(), TorchError> {
    let mut head = [0; 16];
    let known = length.min(16) as usize;
    input.seek(SeekFrom::Start(0)).map_err(reading)?;
    input.read_exact(&mut head[..known]).map_err(reading)?;
    input.seek(SeekFrom::Start(0)).map_err(reading)?;
    let reason = match &head[..known] {
        [] => "it is empty",
        [b'P', b'K', 3, 4, ..] => return Ok(()),
        [0x80, 2..=5, ..] => {
            "it is a pickle outside of a zip file, as PyTorch wrote before 1.6; load it in Python and torch.save it \
             again"
        }
        [_, _, _, _, _, _, _, _, b'{', ..] => "it looks like safetensors",
        head if head.starts_with(b"version https://") => "it is a Git LFS pointer; run `git lfs pull`",
        _ => "it does not begin like a zip file",
    };
    Err(TorchError::NotACheckpoint { reason: reason.into() })
}

/// Entries that share bytes would let a small file claim a lot of memory.
fn reject_overlaps(entries: &HashMap<String, Entry>) -> Result<(), TorchError> {
    let mut ranges: Vec<_> = entries.values().filter(|entry| entry.size > 0).collect();
    ranges.sort_by_key(|entry| entry.start);
    match ranges.windows(2).all(|pair| pair[0].start + pair[0].size <= pair[1].start) {
        true => Ok(()),
        false => Err(damaged("entries overlap".into())),
    }
}

pub(super) fn damaged(reason: String) -> TorchError {
    TorchError::DamagedCheckpoint { reason }
}

fn reading(source: std::io::Error) -> TorchError {
    TorchError::CheckpointIo { doing: "read", source }
}
