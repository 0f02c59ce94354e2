//! PyTorch's checkpoint files (`torch.save`'s zip format): `.pt`, `.pth`, `.ckpt`.
//!
//! What is written here opens in Python with `torch.load(path, weights_only=True)`. What is read is plain data: dicts,
//! lists, numbers, text and tensors. Reading executes nothing: the pickle inside goes through a machine that knows a
//! closed list of names, and every size is checked against the file before memory is taken.

mod abandoned;
mod archive_reader;
mod archive_writer;
mod atomic;
mod dtype;
pub mod faults;
mod file_system;
mod globals;
mod opcode;
mod pickler;
mod rebuild;
mod unpickler;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::rc::Rc;

use archive_reader::{ArchiveReader, damaged};
use archive_writer::{ALIGNMENT, ArchiveWriter};
pub use file_system::{FileSystem, LocalFileSystem, SyncWrite};
use unpickler::Unpickler;

use crate::error::TorchError;
use crate::tch::{Device, Kind, Tensor};
use crate::value::Value;

/// How deep data may be nested, in either direction.
const MAX_DEPTH: usize = 256;

/// More than any pickle has: the numbers of tensors are not in it.
const MAX_PICKLE: u64 = 256 << 20;

/// Writes `value` to `path`, as `torch.save` does.
///
/// Either the whole file is there afterwards, on the disk, or what was there before: it is written beside `path` and
/// renamed. Tensors that share memory, such as tied weights, are written once and still share it when read. Tensors on
/// other devices are copied to the CPU. A tensor that alone uses a small part of a larger storage is written without
/// the rest of it, unlike `torch.save`.
///
/// ```
/// use fulgurite_torch::tch::Tensor;
/// use fulgurite_torch::{Dict, Value, serialization};
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("state.pt");
/// let state = Value::Dict(Dict::new().with("weight", Tensor::from_slice(&[1.0f32, 2.0])).with("epoch", 3));
/// serialization::save(&path, &state)?;
/// assert_eq!(serialization::load(&path)?, state);
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
///
/// # Errors
///
/// What the file system says; a value that the format cannot hold (sparse or quantized tensors), with the way to it.
pub fn save(path: impl AsRef<Path>, value: &Value) -> Result<(), TorchError> {
    save_in(&LocalFileSystem, path, value)
}

/// Writes `value` to `path` as [`save`] does, through the calls of `files`.
///
/// # Errors
///
/// As for [`save`].
pub fn save_in(files: &dyn FileSystem, path: impl AsRef<Path>, value: &Value) -> Result<(), TorchError> {
    atomic::write_atomically(files, path.as_ref(), |out| write_to(out, value).map_err(Failure::from)).map_err(|e| e.0)
}

/// Writes `value` to `out`, as [`save`] does to a file.
///
/// # Errors
///
/// What `out` says; a value that the format cannot hold.
pub fn write_to(out: impl Write, value: &Value) -> Result<(), TorchError> {
    let pickled = pickler::pickle(value)?;
    write_archive(out, &pickled).map_err(writing)
}

/// Reads the file that `torch.save`, Lightning or [`save`] wrote. All tensors are on the CPU.
///
/// # Errors
///
/// A file that is missing, cut, damaged or not a checkpoint; or that holds more than plain data. The message does not
/// repeat the path.
pub fn load(path: impl AsRef<Path>) -> Result<Value, TorchError> {
    let file = File::open(path).map_err(|source| TorchError::CheckpointIo { doing: "open", source })?;
    load_from(file)
}

/// Reads from `input` what [`load`] reads from a file.
///
/// # Errors
///
/// As for [`load`].
pub fn load_from(input: impl Read + Seek) -> Result<Value, TorchError> {
    let mut archive = ArchiveReader::open(input)?;
    if archive.size("byteorder").is_some() && archive.read("byteorder", 16)? != b"little" {
        return Err(TorchError::UnsupportedCheckpoint { reason: "it was written on a big-endian machine".into() });
    }
    let pickle = archive.read("data.pkl", MAX_PICKLE)?;
    let mut storages: HashMap<String, Rc<Tensor>> = HashMap::new();
    let mut read_storage = |key: &str, expected: usize| {
        if !storages.contains_key(key) {
            storages.insert(key.to_owned(), Rc::new(read_storage(&mut archive, key)?));
        }
        let storage = &storages[key];
        match storage.numel() == expected {
            true => Ok(Rc::clone(storage)),
            false => Err(damaged(format!("storage {key} has {} bytes, expected {expected}", storage.numel()))),
        }
    };
    let mut unpickler = Unpickler::new(&pickle, &mut read_storage);
    let root = unpickler.run()?;
    unpickler.value(root, pickle.len())
}

fn write_archive(out: impl Write, pickled: &pickler::Pickled) -> io::Result<()> {
    let mut archive = ArchiveWriter::new(out, "archive");
    let mut fingerprint = u64::from(archive.entry("data.pkl", &pickled.bytes)?);
    archive.entry(".format_version", b"1")?;
    archive.entry(".storage_alignment", ALIGNMENT.to_string().as_bytes())?;
    archive.entry("byteorder", b"little")?;
    for (key, storage) in pickled.storages.iter().enumerate() {
        let crc = archive.entry(&format!("data/{key}"), bytes(storage))?;
        fingerprint = fingerprint.rotate_left(7) ^ u64::from(crc);
    }
    archive.entry("version", b"3\n")?;
    // PyTorch writes two hashes of 20 digits: of the names and of the contents.
    let names = pickled.storages.len();
    archive.entry(".data/serialization_id", format!("{names:020}{fingerprint:020}").as_bytes())?;
    archive.finish()?.flush()
}

/// The memory of a contiguous tensor on the CPU.
fn bytes(tensor: &Tensor) -> &[u8] {
    let length = tensor.numel() * tensor.kind().elt_size_in_bytes();
    if length == 0 {
        return &[];
    }
    // SAFETY: the tensor is one-dimensional, contiguous and on the CPU, so that many bytes begin at its data, and they
    // live as long as the tensor that is borrowed.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) }
}

/// Reads a storage straight into the memory of a tensor of bytes.
fn read_storage(archive: &mut ArchiveReader<impl Read + Seek>, key: &str) -> Result<Tensor, TorchError> {
    let name = format!("data/{key}");
    let size = archive.size(&name).ok_or_else(|| damaged(format!("entry `{name}` is missing")))?;
    // The archive was checked to have the bytes, so this takes no more memory than the file has.
    let tensor = Tensor::f_empty([size as i64], (Kind::Uint8, Device::Cpu))?;
    if size > 0 {
        // SAFETY: the tensor was just made with `size` contiguous bytes on the CPU, and nobody else has it; bytes
        // may have any value, so it does not matter that they are not initialised yet to a defined one.
        let memory = unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<u8>(), size as usize) };
        archive.read_into(&name, memory)?;
    }
    Ok(tensor)
}

fn writing(source: io::Error) -> TorchError {
    TorchError::CheckpointIo { doing: "write", source }
}

/// Lets the error of a file system and our own come out of one function.
struct Failure(TorchError);

impl From<io::Error> for Failure {
    fn from(source: io::Error) -> Failure {
        Failure(writing(source))
    }
}

impl From<TorchError> for Failure {
    fn from(error: TorchError) -> Failure {
        Failure(error)
    }
}

#[cfg(test)]
mod tests;
