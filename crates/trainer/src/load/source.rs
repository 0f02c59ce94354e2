//! Reading checkpoints of every format: the only place that knows the formats.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use fulgurite_fabric::{CheckpointIo, DefaultCheckpointIo, is_url};
use fulgurite_torch::serialization::{self, open_regular, safetensors};
use fulgurite_torch::{Dict, Value};
use serde_json::Value as Json;

use fulgurite_engine::Error;

/// The format of a file, detected from its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// PyTorch's zip format.
    Torch,
    /// Safetensors: tensors only, without checksums.
    Safetensors,
    /// An index of shards.
    Shards,
}

/// A checkpoint that was read.
pub(crate) struct Source {
    pub(crate) format: Format,
    pub(crate) value: Value,
    /// The files it was read from.
    pub(crate) files: Vec<PathBuf>,
}

/// Whether checksums are compared, for which everything is read once, or a tensor is read when it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checksums {
    Compared,
    Ignored,
}

/// Maps a file, the shards of an index, or those of a folder that has one.
pub(crate) fn read(path: &Path, checksums: Checksums) -> Result<Source, Error> {
    if is_url(path) {
        let value = DefaultCheckpointIo::new().load(path)?;
        return Ok(Source { format: Format::Torch, value, files: Vec::new() });
    }
    if path.is_dir() {
        return read_shards(&find_index(path)?, checksums);
    }
    if path.to_str().is_some_and(|path| path.ends_with(".index.json")) {
        return read_shards(path, checksums);
    }
    let (format, value) = read_file(path, checksums)?;
    Ok(Source { format, value, files: vec![path.into()] })
}

/// Compares the checksums of a file, where it has any; its size.
pub(crate) fn verify(path: &Path) -> Result<u64, Error> {
    let verified = match is_safetensors(path)? {
        true => safetensors::load_mmap(path).map(drop),
        false => serialization::verify(path),
    };
    verified.map_err(|error| wrong(path, error.to_string()))?;
    let size = path.metadata().map_err(|error| wrong(path, format!("cannot be read: {error}")))?;
    Ok(size.len())
}

fn read_file(path: &Path, checksums: Checksums) -> Result<(Format, Value), Error> {
    if is_safetensors(path)? {
        let (tensors, _) = safetensors::load_mmap(path).map_err(|error| wrong(path, error.to_string()))?;
        return Ok((Format::Safetensors, Value::Dict(tensors)));
    }
    if checksums == Checksums::Compared {
        verify(path)?;
    }
    let value = serialization::load_mmap(path).map_err(|error| wrong(path, error.to_string()))?;
    Ok((Format::Torch, value))
}

/// Whether a file begins as safetensors do: the length of a header, and the header's brace.
fn is_safetensors(path: &Path) -> Result<bool, Error> {
    let cannot = |error: std::io::Error| wrong(path, format!("cannot be opened: {error}"));
    let mut head = [0; 9];
    let mut file = open_regular(path).map_err(cannot)?;
    match file.read_exact(&mut head) {
        Ok(()) => Ok(head[8] == b'{' && !head.starts_with(b"PK")),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(cannot(error)),
    }
}

/// The index of the shards in a folder.
fn find_index(folder: &Path) -> Result<PathBuf, Error> {
    let cannot = |error: std::io::Error| wrong(folder, format!("the folder cannot be read: {error}"));
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        names.insert(entry.map_err(cannot)?.file_name().to_string_lossy().into_owned());
    }
    let indices: Vec<&String> = names.iter().filter(|name| name.ends_with(".index.json")).collect();
    match indices[..] {
        [index] => Ok(folder.join(index)),
        // Several indices for the same weights, as on Hugging Face's hub.
        [_, _, ..] if names.contains("model.safetensors.index.json") => Ok(folder.join("model.safetensors.index.json")),
        [_, _, ..] => Err(wrong(folder, format!("has several indices: {indices:?}; name one of them"))),
        [] if names.contains(".metadata") || names.contains("meta.pt") => Err(wrong(
            folder,
            "is a distributed checkpoint (FSDP), which this version does not read; in Python, `python -m \
             lightning.pytorch.utilities.consolidate_checkpoint FOLDER` makes one file of it"
                .into(),
        )),
        [] if names.contains("zero_to_fp32.py") || names.contains("latest") => Err(wrong(
            folder,
            "is a DeepSpeed checkpoint, which this version does not read; its own `zero_to_fp32.py` converts it to one file"
                .into(),
        )),
        [] => Err(wrong(
            folder,
            "is a folder without an index of shards, such as `model.safetensors.index.json`; name a file in it".into(),
        )),
    }
}

/// All tensors of the shards that an index names.
fn read_shards(index: &Path, checksums: Checksums) -> Result<Source, Error> {
    let text = open_regular(index).and_then(std::io::read_to_string);
    let text = text.map_err(|error| wrong(index, format!("cannot be read: {error}")))?;
    let parsed: Json = serde_json::from_str(&text).map_err(|error| wrong(index, format!("is not JSON: {error}")))?;
    let malformed = || wrong(index, "is not an index of shards: `weight_map` does not map tensors to files".into());
    let map = parsed.get("weight_map").and_then(Json::as_object).ok_or_else(malformed)?;
    let folder = index.parent().unwrap_or(Path::new(""));
    let mut shards: HashMap<&str, HashMap<String, Value>> = HashMap::new();
    let mut files = Vec::new();
    let mut weights = Dict::new();
    for (name, file) in map {
        let file = file.as_str().ok_or_else(malformed)?;
        // An index may only refer to files beside it.
        if Path::new(file).file_name().is_none_or(|name| name != file) {
            return Err(wrong(index, format!("names the shard {file:?}, which is not a file beside it")));
        }
        if !shards.contains_key(file) {
            let path = folder.join(file);
            let (_, Value::Dict(shard)) = read_file(&path, checksums)? else {
                return Err(wrong(&path, "does not contain a state dict, as a shard does".into()));
            };
            files.push(path);
            let named = shard.into_iter().filter_map(|(name, value)| Some((name.as_str()?.to_owned(), value)));
            shards.insert(file, named.collect());
        }
        let tensor = shards[file].get(name).and_then(Value::as_tensor);
        weights.push(
            name.as_str(),
            tensor.ok_or_else(|| wrong(&folder.join(file), format!("lacks `{name}`, which the index lists for it")))?,
        );
    }
    Ok(Source { format: Format::Shards, value: Value::Dict(weights), files })
}

fn wrong(path: &Path, problem: String) -> Error {
    Error::Checkpoint { path: path.into(), problem }
}
