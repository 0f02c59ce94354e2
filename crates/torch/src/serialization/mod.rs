//! PyTorch's checkpoint files (`torch.save`'s zip format): `.pt`, `.pth`, `.ckpt`.
//!
//! What is written here opens in Python with `torch.load(path, weights_only=True)`. Only plain data is read: dicts,
//! lists, numbers, text and tensors. Reading executes no code: the pickle is interpreted by a machine that knows a
//! closed list of names, and every size is checked against the file before memory is allocated.

mod abandoned;
mod archive_reader;
mod archive_writer;
mod atomic;
mod dtype;
mod failures;
pub mod faults;
mod file_system;
mod globals;
mod manifest;
mod mapped;
mod opcode;
mod pickler;
mod reading;
mod rebuild;
mod regular_file;
pub mod safetensors;
mod unpickler;
mod writing;
mod zip_directory;
mod zip_layout;

use std::io::{self, Write};
use std::path::Path;

#[doc(hidden)]
pub use abandoned::beside;
pub use file_system::{FileSystem, LocalFileSystem, SyncWrite};
#[doc(hidden)]
pub use reading::run_pickle;
pub use reading::{load, load_from, load_mmap, outline, outline_from, verify, verify_from};
pub use regular_file::open_regular;

use crate::error::TorchError;
use crate::value::Value;

/// Writes `value` to `path`, as `torch.save` does.
///
/// The write is atomic: on failure, the previous file is unchanged. The file is written to a temporary file and
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
/// Fails if the file cannot be written, or if the format cannot hold the value (a sparse or quantized tensor); the
/// message says how to convert it.
pub fn save(path: impl AsRef<Path>, value: &Value) -> Result<(), TorchError> {
    save_in(&LocalFileSystem, path, value)
}

/// Writes `value` to `path` as [`save`] does, on the file system `files`.
///
/// # Errors
///
/// Fails as [`save`] does.
pub fn save_in(files: &dyn FileSystem, path: impl AsRef<Path>, value: &Value) -> Result<(), TorchError> {
    let pickled = pickler::pickle(value)?;
    atomic::write_atomically(files, path.as_ref(), |out| {
        out.get_mut().reserve(writing::size_of_storages(&pickled))?;
        writing::write_archive(out, &pickled)
    })
    .map_err(writing)
}

/// Writes `value` to `out`, as [`save`] does to a file.
///
/// # Errors
///
/// Fails if writing to `out` does, or if the format cannot hold the value.
pub fn write_to(out: impl Write, value: &Value) -> Result<(), TorchError> {
    let pickled = pickler::pickle(value)?;
    writing::write_archive(out, &pickled).map_err(writing)
}

fn writing(source: io::Error) -> TorchError {
    TorchError::CheckpointIo { doing: "write", source }
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod mapped_tests;
#[cfg(test)]
mod tests;
