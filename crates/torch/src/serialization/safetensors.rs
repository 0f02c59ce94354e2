//! `.safetensors` files: tensors by name only. For weights that other programs use.
//!
//! Tensors that are the same memory under several names (tied weights) are written once, under the first of the names in
//! alphabetical order. The others are noted in the file's metadata, `"decoder.weight": "encoder.weight"`, as Python's
//! `safetensors.torch.save_model` does; reading gives all names back, tied. Tensors that share memory in another way, such
//! as a part of one, are written each by itself and are no longer tied when read. Whether a tensor requires a gradient is
//! not in such a file, and there are no checksums: what is checked is that names, kinds, shapes and places fit the file.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;
use std::rc::Rc;

use safetensors::tensor::{Dtype, TensorInfo};
use safetensors::{SafeTensorError, SafeTensors};
use serde_json::{Map, Value as Json};

use super::dtype;
use super::failures::damaged;
use super::mapped::MappedFile;
use super::pickler::{at, storage_offset, unwritable, whole_storage};
use super::rebuild::{of_bools, view};
use super::regular_file::open_checkpoint;
use super::unpickler::Storage;
use super::writing::bytes;
use super::{FileSystem, LocalFileSystem, atomic, writing as writing_failed};
use crate::error::TorchError;
use crate::tch::{Device, Kind, Tensor};
use crate::tensor_list::storage_id;
use crate::value::{Dict, Value};

/// Texts that go with the tensors, such as `"format": "pt"`.
pub type Metadata = BTreeMap<String, String>;

/// The key of the metadata in the header.
const METADATA: &str = "__metadata__";

/// The alignment of the data, so that it can be used in place; the format requires 8.
const ALIGNMENT: usize = 64;

/// The limit of the format's own readers.
const MAX_HEADER: usize = 100_000_000;

/// Bytes that tensors which lie over each other may take, beyond several times the memory they lie in: each is written by
/// itself, and a single number can be expanded to any size.
const MAX_EXPANSION: usize = 256 << 20;

/// Kinds of elements that both sides have.
const KINDS: [(Kind, Dtype); 15] = [
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Int64, Dtype::I64),
    (Kind::Int, Dtype::I32),
    (Kind::Int16, Dtype::I16),
    (Kind::Int8, Dtype::I8),
    (Kind::Uint8, Dtype::U8),
    (Kind::Bool, Dtype::BOOL),
    (Kind::ComplexFloat, Dtype::C64),
    (Kind::Float8e5m2, Dtype::F8_E5M2),
    (Kind::Float8e4m3fn, Dtype::F8_E4M3),
    (Kind::Float8e5m2fnuz, Dtype::F8_E5M2FNUZ),
    (Kind::Float8e4m3fnuz, Dtype::F8_E4M3FNUZ),
];

/// Writes a state dict, a flat dict of tensors by name, to `path`. The write is atomic: on failure, the previous file
/// is unchanged. Tensors on other devices are copied to the CPU, one at a time.
///
/// ```
/// use fulgurite_torch::serialization::safetensors;
/// use fulgurite_torch::{Dict, tch::Tensor};
///
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("model.safetensors");
/// let weights = Dict::new().with("fc.weight", Tensor::from_slice(&[1.0f32, 2.0]));
/// let metadata = [("format".to_owned(), "pt".to_owned())].into();
/// safetensors::save(&path, &weights, &metadata)?;
/// assert_eq!(safetensors::load(&path)?, (weights, metadata));
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
///
/// # Errors
///
/// Fails if the file cannot be written, if the value holds anything but tensors, or if the format does not have the
/// kind of a tensor.
pub fn save(path: impl AsRef<Path>, tensors: &Dict, metadata: &Metadata) -> Result<(), TorchError> {
    save_in(&LocalFileSystem, path, tensors, metadata)
}

/// Writes a state dict as [`save`] does, on the file system `files`.
///
/// # Errors
///
/// Fails as [`save`] does.
pub fn save_in(
    files: &dyn FileSystem,
    path: impl AsRef<Path>,
    tensors: &Dict,
    metadata: &Metadata,
) -> Result<(), TorchError> {
    let plan = plan(tensors, metadata)?;
    // A copy to the CPU can fail in the middle; the file system's error is the other one.
    let mut failed = Ok(());
    let written = atomic::write_atomically(files, path.as_ref(), |out| {
        out.get_mut().reserve(plan.size as u64)?;
        out.write_all(&plan.header)?;
        for tensor in &plan.tensors {
            match tensor.f_to_device(Device::Cpu).and_then(|tensor| tensor.f_contiguous()) {
                Ok(tensor) => out.write_all(bytes(&tensor))?,
                Err(error) => {
                    failed = Err(error);
                    return Err(std::io::ErrorKind::Other.into());
                }
            }
        }
        Ok(())
    });
    failed?;
    written.map_err(writing_failed)
}

/// Reads the tensors of a file, in the order in which they lie in it, and its metadata. All tensors are on the CPU.
///
/// # Errors
///
/// Fails if the file is missing, truncated, or not safetensors, or if libtorch does not have the kind of an element.
pub fn load(path: impl AsRef<Path>) -> Result<(Dict, Metadata), TorchError> {
    read(path.as_ref(), |file, start, end| Ok(Tensor::f_from_slice(&file.bytes()[start..end])?))
}

/// Reads a file as [`load`] does, but maps it into memory, as
/// [`load_mmap`](super::load_mmap) does with a checkpoint, and with the same consequences.
///
/// # Errors
///
/// Fails as [`load`] does.
pub fn load_mmap(path: impl AsRef<Path>) -> Result<(Dict, Metadata), TorchError> {
    read(path.as_ref(), |file, start, end| match start.is_multiple_of(16) {
        true => file.tensor(start as u64..end as u64),
        false => Ok(Tensor::f_from_slice(&file.bytes()[start..end])?),
    })
}

/// A file to be written.
struct Plan {
    /// Its length included.
    header: Vec<u8>,
    /// In the order of the file.
    tensors: Vec<Tensor>,
    /// Of all tensors, in bytes.
    size: usize,
}

fn plan(tensors: &Dict, metadata: &Metadata) -> Result<Plan, TorchError> {
    let mut named = BTreeMap::new();
    for (key, value) in tensors.iter() {
        let Value::Str(name) = key else {
            return Err(unwritable(format!("a state dict has a key that is {}", key.type_name())));
        };
        let refused = |reason: String| at(unwritable(reason), name);
        let Value::Tensor(tensor) = value else {
            let kind = value.type_name();
            return Err(refused(format!("it is {kind}, and safetensors hold tensors alone; write it to a .ckpt file")));
        };
        if name == METADATA || metadata.contains_key(name) {
            return Err(refused("the name is one of the metadata; choose another one".into()));
        }
        let dense = tensor.defined() && storage_id(tensor).is_ok();
        let kind = tensor.f_kind().ok().filter(|_| dense).and_then(dtype_of).ok_or_else(|| {
            refused("it is not a dense tensor of a kind that safetensors have; convert it with `.to_dense(..)`, `.to_kind(..)`".into())
        })?;
        let plain = tensor.f_detach()?.f_resolve_conj()?.f_resolve_neg()?;
        if named.insert(name.as_str(), (kind, plain)).is_some() {
            return Err(refused("the name is there twice".into()));
        }
    }

    let mut notes: Map<String, Json> = metadata.iter().map(|(key, text)| (key.clone(), text.as_str().into())).collect();
    let mut first_names = HashMap::new();
    let mut written = Vec::new();
    for (name, (kind, tensor)) in named {
        let identity =
            (storage_id(&tensor)?, storage_offset(&tensor)?, tensor.size(), tensor.stride(), kind.to_string());
        match first_names.get(&identity) {
            Some(&first) if tensor.numel() > 0 => {
                notes.insert(name.to_owned(), Json::from(first));
            }
            _ => {
                first_names.insert(identity, name);
                written.push((name, kind, tensor));
            }
        }
    }
    // Larger elements first, so that all are aligned; as the format's own writer does.
    written.sort_by(|(a, kind_a, _), (b, kind_b, _)| kind_b.cmp(kind_a).then(a.cmp(b)));

    let mut header = Map::new();
    if !notes.is_empty() {
        header.insert(METADATA.into(), Json::Object(notes));
    }
    let mut size = 0usize;
    let mut storages = HashMap::new();
    for (name, dtype, tensor) in &written {
        let start = size;
        size = size.saturating_add(tensor.numel() * tensor.kind().elt_size_in_bytes());
        let whole = whole_storage(tensor)?;
        storages.insert(storage_id(tensor)?, whole.numel() * whole.kind().elt_size_in_bytes());
        let shape = tensor.size().into_iter().map(|length| length as usize).collect();
        let info = TensorInfo { dtype: *dtype, shape, data_offsets: (start, size) };
        header.insert((*name).to_owned(), serde_json::to_value(info).map_err(|error| unwritable(error.to_string()))?);
    }
    let held: usize = storages.into_values().sum();
    if size > held.saturating_mul(4).saturating_add(MAX_EXPANSION) {
        return Err(unwritable(format!(
            "its tensors lie over each other, in {held} bytes of memory, and written out they take {size}; make real ones \
             of those that are meant to be so large, with `.contiguous()` or `.copy()`"
        )));
    }
    let mut text = Json::Object(header).to_string().into_bytes();
    text.resize((8 + text.len()).next_multiple_of(ALIGNMENT) - 8, b' ');
    if text.len() > MAX_HEADER {
        return Err(unwritable(format!("names and shapes take {} bytes, and {MAX_HEADER} are possible", text.len())));
    }
    let header = [&(text.len() as u64).to_le_bytes()[..], &text].concat();
    Ok(Plan { header, tensors: written.into_iter().map(|(_, _, tensor)| tensor).collect(), size })
}

fn read(
    path: &Path,
    bytes_of: impl Fn(&MappedFile, usize, usize) -> Result<Tensor, TorchError>,
) -> Result<(Dict, Metadata), TorchError> {
    let file = open_checkpoint(path)?;
    let file = MappedFile::open(&file)?;
    if file.bytes().starts_with(b"PK\x03\x04") {
        return Err(TorchError::UnsupportedCheckpoint {
            reason: "it is a zip file, as torch.save writes, and not safetensors; read it with serialization::load"
                .into(),
        });
    }
    let (length, header) = SafeTensors::read_metadata(file.bytes()).map_err(refused)?;
    let mut tensors = Dict::new();
    let mut infos = header.tensors();
    for name in header.offset_keys() {
        let Some(info) = infos.remove(&name) else { continue };
        let unknown = || TorchError::UnsupportedCheckpoint {
            reason: format!("tensor `{name}` is of kind {}, which libtorch's tensors here do not have", info.dtype),
        };
        let kind = KINDS.iter().find(|(_, dtype)| *dtype == info.dtype).map(|(kind, _)| *kind).ok_or_else(unknown)?;
        let dtype = dtype::of_kind(kind).ok_or_else(unknown)?;
        let (start, end) = info.data_offsets;
        let bytes = bytes_of(&file, 8 + length + start, 8 + length + end)?;
        let storage = Storage {
            bytes: Rc::new(if kind == Kind::Bool { of_bools(bytes)? } else { bytes }),
            size: end - start,
            dtype: Some(dtype),
        };
        let size: Vec<i64> = info.shape.iter().map(|&length| length as i64).collect();
        tensors.push(name.as_str(), view(&storage, dtype, 0, &size, &contiguous(&size))?);
    }
    let mut metadata: Metadata =
        header.metadata().iter().flatten().map(|(name, text)| (name.clone(), text.clone())).collect();
    let held: HashMap<&str, &Value> =
        tensors.iter().filter_map(|(name, tensor)| Some((name.as_str()?, tensor))).collect();
    let tied: Vec<(String, Value)> = metadata
        .iter()
        .filter(|(name, _)| !held.contains_key(name.as_str()))
        .filter_map(|(name, text)| Some((name.clone(), (*held.get(text.as_str())?).clone())))
        .collect();
    for (name, tensor) in tied {
        metadata.remove(&name);
        tensors.push(name, tensor);
    }
    Ok((tensors, metadata))
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    KINDS.iter().find(|(known, _)| *known == kind).map(|(_, dtype)| *dtype)
}

fn contiguous(size: &[i64]) -> Vec<i64> {
    let mut stride = vec![1i64; size.len()];
    for index in (1..size.len()).rev() {
        stride[index - 1] = stride[index].saturating_mul(size[index].max(1));
    }
    stride
}

fn refused(error: SafeTensorError) -> TorchError {
    match error {
        SafeTensorError::MetadataIncompleteBuffer => {
            damaged("its tensors do not end where the file does; it was cut while being written or copied".into())
        }
        SafeTensorError::InvalidOffset(name) => damaged(format!("tensor `{name}` is not where it should be")),
        error => TorchError::UnsupportedCheckpoint { reason: format!("it is not safetensors: {error}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(tensors: &Dict) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        save(&path, tensors, &Metadata::new()).unwrap();
        (folder, path)
    }

    #[test]
    fn every_kind_and_shape_comes_back() {
        let base = Tensor::from_slice(&[0.0f64, 1.0, 2.0, 100.0]);
        let mut tensors = Dict::new();
        for (kind, dtype) in KINDS {
            tensors.push(dtype.to_string().as_str(), base.to_kind(kind));
        }
        let matrix = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]);
        tensors.push("transposed", matrix.transpose(0, 1));
        tensors.push("number", Tensor::from(2.5f32));
        tensors.push("empty", Tensor::zeros([0, 3], (Kind::Float, Device::Cpu)));
        let (_folder, path) = saved(&tensors);
        for (read, _) in [load(&path).unwrap(), load_mmap(&path).unwrap()] {
            assert_eq!(read.len(), tensors.len());
            for (name, expected) in tensors.iter() {
                let (read, expected) =
                    (read.get_value(name).unwrap().as_tensor().unwrap(), expected.as_tensor().unwrap());
                assert_eq!((read.kind(), read.size()), (expected.kind(), expected.size()), "{name:?}");
                let wide = |tensor: &Tensor| tensor.to_kind(Kind::ComplexDouble);
                assert!(wide(read).equal(&wide(expected)), "{name:?}");
            }
        }
    }

    #[test]
    fn tied_tensors_are_written_once_and_stay_tied() {
        let weight = Tensor::zeros([1000], (Kind::Float, Device::Cpu));
        let tensors = Dict::new()
            .with("encoder", &weight)
            .with("decoder", &weight)
            .with("part", weight.narrow(0, 0, 10))
            .with("copy", weight.copy());
        let (_folder, path) = saved(&tensors);
        assert!(std::fs::metadata(&path).unwrap().len() < 3 * 4000);
        for (read, metadata) in [load(&path).unwrap(), load_mmap(&path).unwrap()] {
            assert_eq!(metadata, Metadata::new());
            let _ = read.tensor("encoder").unwrap().narrow(0, 5, 1).fill_(7.0);
            let at_5 = |name| read.tensor(name).unwrap().double_value(&[5]);
            assert_eq!(["decoder", "part", "copy"].map(at_5), [7.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn what_the_format_cannot_hold_is_named() {
        let message = |tensors: Dict, metadata: &Metadata| plan(&tensors, metadata).err().unwrap().to_string();
        assert_eq!(
            message(Dict::new().with("epoch", 3), &Metadata::new()),
            "`epoch` cannot be written to a checkpoint: it is int, and safetensors hold tensors alone; write it to a \
             .ckpt file"
        );
        let sparse = Tensor::eye(2, (Kind::Float, Device::Cpu)).to_sparse(None, None::<i64>, None);
        for tensor in [sparse, Tensor::new(), Tensor::from(1.0).to_kind(Kind::ComplexDouble)] {
            let message = message(Dict::new().with("fc.weight", tensor), &Metadata::new());
            assert!(message.starts_with("`fc.weight` cannot be written to a checkpoint: it is not a dense tensor"));
        }
        let metadata = [("a".to_owned(), "b".to_owned())].into();
        assert!(message(Dict::new().with("a", Tensor::from(1)), &metadata).contains("one of the metadata"));
    }

    #[test]
    fn expanded_tensors_are_written_within_bounds() {
        let number = Tensor::from_slice(&[1.0f32]);
        let (_folder, path) = saved(&Dict::new().with("a", number.expand([100, 100], false)));
        assert_eq!(load(&path).unwrap().0.tensor("a").unwrap().double_value(&[99, 99]), 1.0);
        let huge = Dict::new().with("a", number.expand([1 << 20, 1 << 20], false));
        let message = save(&path, &huge, &Metadata::new()).unwrap_err().to_string();
        assert!(message.contains("in 4 bytes of memory, and written out they take 4398046511104"), "{message}");
    }

    #[test]
    fn damaged_files_are_errors() {
        let (_folder, path) = saved(&Dict::new().with("a", Tensor::from_slice(&[1.0f32, 2.0])));
        let file = std::fs::read(&path).unwrap();
        for length in 0..file.len() {
            std::fs::write(&path, &file[..length]).unwrap();
            assert!(load(&path).is_err() && load_mmap(&path).is_err(), "{length}");
        }
        for at in 0..8 * (file.len() - 8) {
            let mut changed = file.clone();
            changed[at / 8] ^= 1 << (at % 8);
            std::fs::write(&path, &changed).unwrap();
            let _ = (load(&path), load_mmap(&path));
        }
        super::super::save(&path, &Value::Int(1)).unwrap();
        assert!(load(&path).unwrap_err().to_string().ends_with("read it with serialization::load"));
    }

    /// Quadratic time would be minutes.
    #[test]
    fn hundreds_of_thousands_of_tied_names_are_read() {
        let mut header = String::from("{\"__metadata__\":{\"format\":\"pt\"");
        (0..300_000).for_each(|n| header += &format!(",\"n{n}\":\"w\""));
        header += "},\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &1.5f32.to_le_bytes()].concat();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        std::fs::write(&path, file).unwrap();
        for (tensors, metadata) in [load(&path).unwrap(), load_mmap(&path).unwrap()] {
            assert_eq!(tensors.len(), 300_001);
            assert_eq!(metadata, [("format".to_owned(), "pt".to_owned())].into());
            assert_eq!(f64::try_from(tensors.tensor("n299999").unwrap()).unwrap(), 1.5);
        }
    }

    #[test]
    fn a_bool_is_true_or_false_whatever_its_byte_is() {
        let (_folder, path) = saved(&Dict::new().with("b", Tensor::from_slice(&[true, true, false])));
        let mut file = std::fs::read(&path).unwrap();
        let at = file.len() - 3;
        file[at] = 255;
        std::fs::write(&path, file).unwrap();
        for (tensors, _) in [load(&path).unwrap(), load_mmap(&path).unwrap()] {
            let tensor = tensors.tensor("b").unwrap();
            assert_eq!(bytes(tensor), [1, 1, 0]);
            assert_eq!(Vec::<bool>::try_from(tensor).unwrap(), [true, true, false]);
        }
    }

    #[test]
    fn the_same_state_gives_the_same_bytes() {
        let metadata: Metadata = ["a", "b", "c", "d"].map(|key| (key.to_owned(), "text".to_owned())).into();
        let tensors = || Dict::new().with("x", Tensor::from(1)).with("y", Tensor::from(2.0));
        assert_eq!(plan(&tensors(), &metadata).unwrap().header, plan(&tensors(), &metadata).unwrap().header);
    }
}
