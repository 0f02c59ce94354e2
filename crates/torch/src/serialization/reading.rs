//! Reads checkpoints: into memory, as mapped files, or only to verify them.

use std::collections::HashMap;
use std::io::{Cursor, Read, Seek};
use std::path::Path;
use std::rc::Rc;

use super::archive_reader::ArchiveReader;
use super::failures::damaged;
use super::mapped::MappedFile;
use super::regular_file::open_checkpoint;
use super::unpickler::Unpickler;
use crate::error::TorchError;
use crate::tch::{Device, Kind, Tensor};
use crate::value::Value;

/// More than any pickle has: the numbers of tensors are not in it.
const MAX_PICKLE: u64 = 256 << 20;

/// Where mapped bytes must begin to be used in place; others are copied.
const MAPPED_ALIGNMENT: u64 = 16;

/// Reads the file that `torch.save`, Lightning or [`save`](super::save) wrote. All tensors are on the CPU.
///
/// # Errors
///
/// Fails if the file is missing, truncated, damaged, not a checkpoint, or contains more than plain data. The message
/// does not repeat the path.
pub fn load(path: impl AsRef<Path>) -> Result<Value, TorchError> {
    load_from(open_checkpoint(path.as_ref())?)
}

/// Like [`load`], from `input`.
///
/// # Errors
///
/// Fails as [`load`] does.
pub fn load_from(input: impl Read + Seek) -> Result<Value, TorchError> {
    let mut archive = ArchiveReader::open(input)?;
    let pickle = read_pickle(&mut archive)?;
    build(&pickle, &mut |key, expected| {
        let name = entry_name(key);
        let size = archive.size(&name)?;
        expect(key, size, expected)?;
        // The archive was checked to have the bytes, so this takes no more memory than the file has.
        let tensor = Tensor::f_empty([size as i64], (Kind::Uint8, Device::Cpu))?;
        if size > 0 {
            // SAFETY: the tensor was just made with `size` contiguous bytes on the CPU, and has no other owner; bytes
            // may have any value, so it does not matter that they are not initialised yet to a defined one.
            let memory = unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<u8>(), size as usize) };
            archive.read_into(&name, memory)?;
        }
        Ok(tensor)
    })
}

/// Reads a file as [`load`] does, but maps it into memory instead of reading the data of its tensors: a page is read
/// when it is first accessed.
///
/// The mapping is private: changing such a tensor does not change the file. The file stays open as long as one of the
/// tensors lives. It may be replaced or removed meanwhile, as [`save`](super::save) does; but if another program
/// truncates it in place, accessing a missing page kills the process. Everything but the checksums of tensors is
/// checked; use [`verify`] for those.
///
/// # Errors
///
/// Fails as [`load`] does.
pub fn load_mmap(path: impl AsRef<Path>) -> Result<Value, TorchError> {
    let file = MappedFile::open(&open_checkpoint(path.as_ref())?)?;
    let mut archive = ArchiveReader::open(Cursor::new(file.bytes()))?;
    let pickle = read_pickle(&mut archive)?;
    build(&pickle, &mut |key, expected| {
        let range = archive.range(&entry_name(key))?;
        expect(key, range.end - range.start, expected)?;
        match range.start.is_multiple_of(MAPPED_ALIGNMENT) {
            true => file.tensor(range),
            false => Ok(Tensor::from_slice(&file.bytes()[range.start as usize..range.end as usize])),
        }
    })
}

/// Reads a complete file and verifies all checksums, so that [`load`] is known to succeed. Creates no tensors and needs
/// little memory, regardless of the size of the file.
///
/// # Errors
///
/// Fails as [`load`] does.
///
/// ```
/// use fulgurite_torch::{Value, serialization};
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("state.pt");
/// serialization::save(&path, &Value::Int(1))?;
/// serialization::verify(&path)?;
///
/// let whole = std::fs::read(&path).unwrap();
/// std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
/// let error = serialization::verify(&path).unwrap_err().to_string();
/// assert!(error.starts_with("the checkpoint is damaged: "), "{error}");
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
pub fn verify(path: impl AsRef<Path>) -> Result<(), TorchError> {
    verify_from(open_checkpoint(path.as_ref())?)
}

/// Like [`verify`], for `input`.
///
/// # Errors
///
/// Fails as [`load`] does.
pub fn verify_from(input: impl Read + Seek) -> Result<(), TorchError> {
    let mut archive = ArchiveReader::open(input)?;
    let pickle = read_pickle(&mut archive)?;
    build(&pickle, &mut |key, expected| {
        expect(key, archive.size(&entry_name(key))?, expected)?;
        // Stands for any tensor.
        Ok(Tensor::new())
    })?;
    archive.check_sums()
}

/// Reads the contents of a file without its tensors, each of which is [`Value::None`]. Needs little time and memory,
/// regardless of the size of the file; the checksums of tensors are not verified.
///
/// # Errors
///
/// Fails as [`load`] does.
///
/// ```
/// use fulgurite_torch::tch::Tensor;
/// use fulgurite_torch::{Dict, Value, serialization};
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("state.pt");
/// serialization::save(&path, &Value::Dict(Dict::new().with("step", 3).with("weight", Tensor::from(1.0))))?;
/// let outline = Dict::new().with("step", 3).with("weight", Value::None);
/// assert_eq!(serialization::outline(&path)?, Value::Dict(outline));
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
pub fn outline(path: impl AsRef<Path>) -> Result<Value, TorchError> {
    outline_from(open_checkpoint(path.as_ref())?)
}

/// Like [`outline`], from `input`.
///
/// # Errors
///
/// Fails as [`load`] does.
pub fn outline_from(input: impl Read + Seek) -> Result<Value, TorchError> {
    let mut archive = ArchiveReader::open(input)?;
    let pickle = read_pickle(&mut archive)?;
    let value = build(&pickle, &mut |key, expected| {
        expect(key, archive.size(&entry_name(key))?, expected)?;
        Ok(Tensor::new())
    })?;
    Ok(value.without_tensors())
}

/// Runs only the pickle machine, with any storages: for fuzzing.
///
/// # Errors
///
/// Fails as [`load`] does.
#[doc(hidden)]
pub fn run_pickle(pickle: &[u8]) -> Result<Value, TorchError> {
    build(pickle, &mut |_, _| Ok(Tensor::new()))
}

fn entry_name(key: &str) -> String {
    format!("data/{key}")
}

fn read_pickle(archive: &mut ArchiveReader<impl Read + Seek>) -> Result<Vec<u8>, TorchError> {
    if archive.has("byteorder") && archive.read("byteorder", 16)? != b"little" {
        return Err(TorchError::UnsupportedCheckpoint { reason: "it was written on a big-endian machine".into() });
    }
    archive.read("data.pkl", MAX_PICKLE)
}

fn expect(key: &str, size: u64, expected: usize) -> Result<(), TorchError> {
    match size == expected as u64 {
        true => Ok(()),
        false => Err(damaged(format!("storage {key} has {size} bytes, expected {expected}"))),
    }
}

/// Builds the value of a pickle; `storage` returns the bytes of a key as a tensor, once for each key, given the number
/// that the pickle expects. An undefined tensor stands for any bytes.
fn build(
    pickle: &[u8],
    storage: &mut dyn FnMut(&str, usize) -> Result<Tensor, TorchError>,
) -> Result<Value, TorchError> {
    let mut storages: HashMap<String, (Rc<Tensor>, usize)> = HashMap::new();
    let mut read_storage = |key: &str, expected: usize| {
        if let Some((known, size)) = storages.get(key) {
            return expect(key, *size as u64, expected).map(|()| Rc::clone(known));
        }
        let tensor = Rc::new(storage(key, expected)?);
        storages.insert(key.to_owned(), (Rc::clone(&tensor), expected));
        Ok(tensor)
    };
    let mut unpickler = Unpickler::new(pickle, &mut read_storage);
    let root = unpickler.run()?;
    unpickler.value(root, pickle.len())
}
