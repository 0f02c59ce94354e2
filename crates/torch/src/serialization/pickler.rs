//! Writes a [`Value`] as a pickle that `torch.load(weights_only=True)` accepts, and collects its tensors' memory.

use std::collections::HashMap;
use std::ffi::c_char;

use torch_sys::C_tensor;

use super::dtype::{self, Dtype};
use super::opcode::*;
use crate::error::{TorchError, check};
use crate::tch::{Device, Tensor};
use crate::tensor_list::{storage_id, tensor_id};
use crate::value::Value;

unsafe extern "C" {
    fn fulgurite_whole_storage(tensor: *const C_tensor, out: *mut *mut C_tensor) -> *mut c_char;
    fn fulgurite_storage_offset(tensor: *const C_tensor, out: *mut i64) -> *mut c_char;
}

/// A pickle, and the storages that its tensors lie in, under the keys `0`, `1`, ….
pub(super) struct Pickled {
    pub(super) bytes: Vec<u8>,
    /// One-dimensional, on the CPU.
    pub(super) storages: Vec<Tensor>,
}

pub(super) fn pickle(value: &Value) -> Result<Pickled, TorchError> {
    let mut pickler = Pickler { bytes: vec![PROTO, 2], ..Default::default() };
    pickler.count_users(value);
    pickler.value(value, 0)?;
    pickler.bytes.push(STOP);
    Ok(Pickled { bytes: pickler.bytes, storages: pickler.storages })
}

#[derive(Default)]
struct Pickler {
    bytes: Vec<u8>,
    storages: Vec<Tensor>,
    /// The key under which a storage is written, by its identity and the kind it is seen as.
    keys: HashMap<(usize, &'static str), usize>,
    /// The only tensor that uses a storage, or none if several do.
    users: HashMap<usize, Option<usize>>,
    /// Copies of tensors that are the only users of their storage, and use a part of it.
    compact: HashMap<usize, Tensor>,
    /// Keeps every storage of `keys` alive, so that no other one gets its identity.
    held: Vec<Tensor>,
}

impl Pickler {
    fn count_users(&mut self, value: &Value) {
        match value {
            Value::Tensor(tensor) => {
                if let Ok(storage) = storage_id(tensor) {
                    let id = tensor_id(tensor);
                    let user = self.users.entry(storage).or_insert(Some(id));
                    *user = user.filter(|&other| other == id);
                }
            }
            Value::List(items) | Value::Tuple(items) => items.iter().for_each(|item| self.count_users(item)),
            Value::Dict(dict) => dict.iter().for_each(|(_, item)| self.count_users(item)),
            _ => {}
        }
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), TorchError> {
        if depth > MAX_DEPTH {
            return Err(unwritable(format!("it is nested deeper than {MAX_DEPTH} levels")));
        }
        match value {
            Value::None => self.bytes.push(NONE),
            Value::Bool(true) => self.bytes.push(NEWTRUE),
            Value::Bool(false) => self.bytes.push(NEWFALSE),
            Value::Int(int) => self.int(*int),
            Value::Float(float) => {
                self.bytes.push(BINFLOAT);
                self.bytes.extend(float.to_be_bytes());
            }
            Value::Str(text) => self.text(text)?,
            Value::Bytes(bytes) => {
                // Protocol 2 has no bytes: Python writes them as Latin-1 text.
                self.global("_codecs", "encode");
                self.text(&bytes.iter().copied().map(char::from).collect::<String>())?;
                self.text("latin1")?;
                self.bytes.extend([TUPLE2, REDUCE]);
            }
            Value::Tensor(tensor) => self.tensor(tensor)?,
            Value::List(items) => {
                self.bytes.extend([EMPTY_LIST, MARK]);
                self.items(items, depth)?;
                self.bytes.push(APPENDS);
            }
            Value::Tuple(items) => {
                self.bytes.push(MARK);
                self.items(items, depth)?;
                self.bytes.push(TUPLE);
            }
            Value::Dict(dict) => {
                self.bytes.extend([EMPTY_DICT, MARK]);
                for (key, item) in dict.iter() {
                    if !is_hashable(key) {
                        return Err(unwritable(format!("a dict has a key that is {}", key.type_name())));
                    }
                    self.value(key, depth + 1)?;
                    self.value(item, depth + 1).map_err(|error| at(error, &key_text(key)))?;
                }
                self.bytes.push(SETITEMS);
            }
            Value::Opaque(object) => {
                return Err(unwritable(format!(
                    "it is an object of type {}, and a file holds plain data; take it out in `on_save_checkpoint`, or put what it is made of in its place",
                    object.type_name()
                )));
            }
        }
        Ok(())
    }

    fn items(&mut self, items: &[Value], depth: usize) -> Result<(), TorchError> {
        for (index, item) in items.iter().enumerate() {
            self.value(item, depth + 1).map_err(|error| at(error, &index.to_string()))?;
        }
        Ok(())
    }

    fn int(&mut self, int: i64) {
        if let Ok(byte) = u8::try_from(int) {
            self.bytes.extend([BININT1, byte]);
        } else if let Ok(small) = i32::try_from(int) {
            self.bytes.push(BININT);
            self.bytes.extend(small.to_le_bytes());
        } else {
            self.bytes.extend([LONG1, 8]);
            self.bytes.extend(int.to_le_bytes());
        }
    }

    fn text(&mut self, text: &str) -> Result<(), TorchError> {
        let length = u32::try_from(text.len()).map_err(|_| unwritable("it is a text of more than 4 GiB".into()))?;
        self.bytes.push(BINUNICODE);
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(text.as_bytes());
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) {
        self.bytes.push(GLOBAL);
        self.bytes.extend(format!("{module}\n{name}\n").as_bytes());
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`, or `_v3` with the dtype at the end.
    fn tensor(&mut self, tensor: &Tensor) -> Result<(), TorchError> {
        if !tensor.defined() {
            return Err(unwritable("it is an undefined tensor".into()));
        }
        let dtype = tensor
            .f_kind()
            .ok()
            .and_then(dtype::of_kind)
            .ok_or_else(|| unwritable("it is a quantized tensor; dequantize it first".into()))?;
        let requires_grad = tensor.requires_grad();
        let plain = self.plain(tensor)?;
        let (key, bytes) = self.storage(&plain, dtype)?;
        self.global("torch._utils", if dtype.storage.is_some() { "_rebuild_tensor_v2" } else { "_rebuild_tensor_v3" });
        self.bytes.push(MARK);

        self.bytes.push(MARK);
        self.text("storage")?;
        match dtype.storage {
            Some(class) => self.global("torch", class),
            None => self.global("torch.storage", "UntypedStorage"),
        }
        self.text(&key.to_string())?;
        self.text("cpu")?;
        self.int((if dtype.storage.is_some() { bytes / dtype.size } else { bytes }) as i64);
        self.bytes.extend([TUPLE, BINPERSID]);

        self.int(storage_offset(&plain)?);
        for numbers in [plain.size(), plain.stride()] {
            self.bytes.push(MARK);
            numbers.into_iter().for_each(|number| self.int(number));
            self.bytes.push(TUPLE);
        }
        self.bytes.push(if requires_grad { NEWTRUE } else { NEWFALSE });
        self.global("collections", "OrderedDict");
        self.bytes.extend([EMPTY_TUPLE, REDUCE]);
        if dtype.storage.is_none() {
            self.global("torch", dtype.name);
        }
        self.bytes.extend([TUPLE, REDUCE]);
        Ok(())
    }

    /// The tensor without lazy conjugation or negation. A small part of a large storage that nothing else in the file
    /// uses is copied, so that the file does not contain the rest.
    fn plain(&mut self, tensor: &Tensor) -> Result<Tensor, TorchError> {
        let id = tensor_id(tensor);
        if let Some(copy) = self.compact.get(&id) {
            return Ok(copy.shallow_clone());
        }
        let resolved = tensor.f_detach()?.f_resolve_conj()?.f_resolve_neg()?;
        let storage = storage_id(&resolved).map_err(|_| {
            unwritable("it is a sparse, or otherwise not strided, tensor; make it dense with `.to_dense(..)`".into())
        })?;
        let alone = self.users.get(&storage).is_some_and(Option::is_some);
        if !alone || resolved.numel() >= whole_storage(&resolved)?.numel() {
            return Ok(resolved);
        }
        let mut copy = resolved.f_empty_like()?;
        copy.f_copy_(&resolved)?;
        self.compact.insert(id, copy.shallow_clone());
        Ok(copy)
    }

    /// The key of the tensor's storage and its size in bytes; it is brought to the CPU at the first use.
    fn storage(&mut self, tensor: &Tensor, dtype: &'static Dtype) -> Result<(usize, usize), TorchError> {
        let key = match self.keys.get(&(storage_id(tensor)?, dtype.name)) {
            Some(&key) => key,
            None => {
                self.storages.push(whole_storage(tensor)?.f_to_device(Device::Cpu)?);
                self.held.push(tensor.shallow_clone());
                let key = self.storages.len() - 1;
                self.keys.insert((storage_id(tensor)?, dtype.name), key);
                key
            }
        };
        Ok((key, self.storages[key].numel() * dtype.size))
    }
}

/// All elements of the storage that the tensor is a view of, as a tensor of one dimension.
pub(super) fn whole_storage(tensor: &Tensor) -> Result<Tensor, TorchError> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the tensor lives for the call; `out` is written only when there is no error.
    check(unsafe { fulgurite_whole_storage(tensor.as_ptr(), &mut out) })?;
    // SAFETY: `out` is a tensor that the bridge created with C++'s `new`, and `tch` deletes it.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// The first element's place in the storage.
pub(super) fn storage_offset(tensor: &Tensor) -> Result<i64, TorchError> {
    let mut out = 0;
    // SAFETY: the tensor lives for the call; `out` is written only when there is no error.
    check(unsafe { fulgurite_storage_offset(tensor.as_ptr(), &mut out) })?;
    Ok(out)
}

pub(super) fn is_hashable(key: &Value) -> bool {
    match key {
        Value::List(_) | Value::Dict(_) | Value::Tensor(_) | Value::Opaque(_) => false,
        Value::Tuple(items) => items.iter().all(is_hashable),
        _ => true,
    }
}

fn key_text(key: &Value) -> String {
    match key {
        Value::Str(text) => text.clone(),
        Value::Int(int) => int.to_string(),
        other => other.type_name().to_owned(),
    }
}

pub(super) fn unwritable(reason: String) -> TorchError {
    TorchError::Unwritable { at: String::new(), reason }
}

/// Puts a step of the way to the value in front of the way that is known already.
pub(super) fn at(error: TorchError, step: &str) -> TorchError {
    match error {
        TorchError::Unwritable { at, reason } if at.is_empty() => TorchError::Unwritable { at: step.into(), reason },
        TorchError::Unwritable { at, reason } => TorchError::Unwritable { at: format!("{step}.{at}"), reason },
        other => other,
    }
}
