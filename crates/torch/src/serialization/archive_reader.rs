//! Reads the zip container of a checkpoint: what its entries are for, and their bytes.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use super::failures::{damaged, read_failed};
use super::manifest;
use super::zip_directory::{self, Directory, Record, ambiguous, read_at};
use crate::error::TorchError;

/// More than the list of a million entries has.
const MAX_MANIFEST: u64 = 128 << 20;

/// Read, and summed up while it is in the processor's cache.
const PIECE: usize = 1 << 20;

/// An opened checkpoint file.
pub(super) struct ArchiveReader<R> {
    input: R,
    /// By name, without the folder that all lie in.
    entries: HashMap<String, Record>,
}

impl<R: Read + Seek> ArchiveReader<R> {
    pub(super) fn open(mut input: R) -> Result<ArchiveReader<R>, TorchError> {
        let length = input.seek(SeekFrom::End(0)).map_err(read_failed)?;
        recognise(&mut input, length)?;
        let Directory { records, tail } = zip_directory::read(&mut input, length)?;

        let folder = folder_of(&records)?.to_owned();
        let list = records.iter().find(|record| within(&record.name, &folder) == Some(manifest::NAME));
        if let Some(list) = list {
            let text = read_entry(&mut input, list, MAX_MANIFEST)?;
            manifest::check(&text, &records, &folder, &tail, |record| {
                read_at(&mut input, record.header_at, (record.start - record.header_at) as usize)
            })?;
        }
        let entries: HashMap<String, Record> = records
            .into_iter()
            .filter_map(|record| Some((within(&record.name, &folder)?.to_owned(), record)))
            .collect();
        // What torch.jit.save writes has this one too.
        if entries.contains_key("constants.pkl") {
            return Err(TorchError::NotACheckpoint {
                reason: "it is a TorchScript module; save its state_dict".into(),
            });
        }
        if !entries.contains_key("data.pkl") {
            return Err(TorchError::NotACheckpoint { reason: "it is a zip file without a data.pkl".into() });
        }
        Ok(ArchiveReader { input, entries })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The size of an entry in bytes.
    pub(super) fn size(&self, name: &str) -> Result<u64, TorchError> {
        Ok(self.record(name)?.size)
    }

    /// The location of the bytes of an entry in the file.
    pub(super) fn range(&self, name: &str) -> Result<Range<u64>, TorchError> {
        let record = self.record(name)?;
        Ok(record.start..record.start + record.size)
    }

    /// Reads a complete entry into `target`, which has its size.
    pub(super) fn read_into(&mut self, name: &str, target: &mut [u8]) -> Result<(), TorchError> {
        let record = self.entries.get(name).ok_or_else(|| missing(name))?;
        if record.size != target.len() as u64 {
            return Err(damaged(format!("entry `{name}` has {} bytes, expected {}", record.size, target.len())));
        }
        read_summed(&mut self.input, record, target)
    }

    /// Reads an entry of at most `limit` bytes.
    pub(super) fn read(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, TorchError> {
        let record = self.entries.get(name).ok_or_else(|| missing(name))?;
        read_entry(&mut self.input, record, limit)
    }

    /// Reads every entry to verify its checksum.
    pub(super) fn check_sums(&mut self) -> Result<(), TorchError> {
        let mut records: Vec<&Record> = self.entries.values().collect();
        records.sort_by_key(|record| record.start);
        let mut buffer = vec![0; PIECE];
        for record in records {
            self.input.seek(SeekFrom::Start(record.start)).map_err(read_failed)?;
            let mut sum = crc32fast::Hasher::new();
            let mut left = record.size;
            while left > 0 {
                let piece = &mut buffer[..left.min(PIECE as u64) as usize];
                self.input.read_exact(piece).map_err(read_failed)?;
                sum.update(piece);
                left -= piece.len() as u64;
            }
            check_sum(record, sum)?;
        }
        Ok(())
    }

    fn record(&self, name: &str) -> Result<&Record, TorchError> {
        self.entries.get(name).ok_or_else(|| missing(name))
    }
}

/// The one folder that a checkpoint lies in: that of the first entry.
fn folder_of(records: &[Record]) -> Result<&str, TorchError> {
    if let Some(outside) = records.iter().find(|record| !record.name.contains('/')) {
        return Err(TorchError::NotACheckpoint {
            reason: format!("it is a zip file with an entry `{}` outside of any folder", outside.name),
        });
    }
    let first = records.first().and_then(|record| record.name.split_once('/'));
    let folder = first.map_or("", |(folder, _)| folder);
    match records.iter().find(|record| !record.name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))) {
        Some(other) => Err(ambiguous(&format!("entry `{}` is in another folder than the first one", other.name))),
        None => Ok(folder),
    }
}

fn within<'a>(name: &'a str, folder: &str) -> Option<&'a str> {
    name.strip_prefix(folder)?.strip_prefix('/').filter(|rest| !rest.is_empty())
}

fn read_entry(input: &mut (impl Read + Seek), record: &Record, limit: u64) -> Result<Vec<u8>, TorchError> {
    if record.size > limit {
        return Err(TorchError::UnsupportedCheckpoint {
            reason: format!("entry `{}` has {} bytes; up to {limit} are read", record.short_name(), record.size),
        });
    }
    // The file was found to have that many bytes.
    let mut data = vec![0; record.size as usize];
    read_summed(input, record, &mut data)?;
    Ok(data)
}

fn read_summed(input: &mut (impl Read + Seek), record: &Record, target: &mut [u8]) -> Result<(), TorchError> {
    input.seek(SeekFrom::Start(record.start)).map_err(read_failed)?;
    let mut sum = crc32fast::Hasher::new();
    for piece in target.chunks_mut(PIECE) {
        input.read_exact(piece).map_err(read_failed)?;
        sum.update(piece);
    }
    check_sum(record, sum)
}

/// torch writes 0 if checksums are disabled.
fn check_sum(record: &Record, sum: crc32fast::Hasher) -> Result<(), TorchError> {
    match record.crc == 0 || record.crc == sum.finalize() {
        true => Ok(()),
        false => Err(damaged(format!("the checksum of entry `{}` is wrong", record.short_name()))),
    }
}

/// Describes a file that does not begin like a zip file.
fn recognise(input: &mut (impl Read + Seek), length: u64) -> Result<(), TorchError> {
    let mut head = [0; 16];
    let known = length.min(16) as usize;
    input.seek(SeekFrom::Start(0)).map_err(read_failed)?;
    input.read_exact(&mut head[..known]).map_err(read_failed)?;
    input.seek(SeekFrom::Start(0)).map_err(read_failed)?;
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

fn missing(name: &str) -> TorchError {
    damaged(format!("entry `{name}` is missing"))
}
