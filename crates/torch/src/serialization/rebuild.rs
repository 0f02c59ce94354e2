//! The functions that names in a pickle refer to, and the conversion of objects to a [`Value`].

use std::collections::HashSet;
use std::ffi::c_char;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use torch_sys::C_tensor;

use super::dtype::Dtype;
use super::failures::damaged;
use super::globals::Global;
use super::opcode::MAX_DEPTH;
use super::pickler::is_hashable;
use super::unpickler::{EXPANSION, Id, Object, Storage, Unpickler, expands_too_much};
use crate::error::{TorchError, check};
use crate::tch::{Device, Kind, Tensor};
use crate::value::{Dict, Value};

unsafe extern "C" {
    fn fulgurite_set_storage(
        target: *const C_tensor,
        source: *const C_tensor,
        offset: i64,
        size: *const i64,
        stride: *const i64,
        dims: usize,
    ) -> *mut c_char;
}

/// The memory of a tensor without its data.
const TENSOR: usize = 512;

/// More than any of the names takes.
const MAX_ARGUMENTS: usize = 8;

/// More dimensions than PyTorch's own operations take.
const MAX_DIMENSIONS: usize = 64;

impl Unpickler<'_> {
    /// The object that a name creates from `arguments`.
    pub(super) fn call(&mut self, callee: Id, arguments: Id) -> Result<Object, TorchError> {
        let object = self.make(callee, arguments)?;
        self.charge(match &object {
            Object::Tensor(_) => TENSOR,
            Object::Str(text) => text.len(),
            Object::Bytes(bytes) => bytes.len(),
            Object::List(items) | Object::Tuple(items) => size_of_val(&items[..]),
            Object::Dict(entries) | Object::Namespace(entries) => size_of_val(&entries[..]),
            _ => 0,
        })?;
        Ok(object)
    }

    fn make(&mut self, callee: Id, arguments: Id) -> Result<Object, TorchError> {
        let Object::Global(global) = self.objects[callee] else {
            return Err(damaged("its pickle calls something that is not a name".into()));
        };
        let arguments = self.items_of(arguments)?;
        if arguments.len() > MAX_ARGUMENTS {
            return Err(damaged(format!("its pickle gives {} arguments to {global:?}", arguments.len())));
        }
        let arguments = arguments.to_vec();
        let malformed = || damaged(format!("its pickle gives wrong arguments to {global:?}"));
        let argument = |index: usize| arguments.get(index).copied().ok_or_else(malformed);
        match global {
            Global::Dict => match arguments.first() {
                None => Ok(Object::Dict(Vec::new())),
                Some(&entries) => Ok(Object::Dict(self.entries(entries)?)),
            },
            Global::Namespace => Ok(Object::Namespace(Vec::new())),
            Global::Set => Ok(Object::List(arguments.first().map_or(Ok(Vec::new()), |&items| self.items(items))?)),
            Global::Size => Ok(Object::Tuple(self.items(argument(0)?)?)),
            Global::Device => match (&self.objects[argument(0)?], arguments.get(1).map(|&id| &self.objects[id])) {
                (Object::Str(kind), None) => Ok(Object::Str(kind.clone())),
                (Object::Str(kind), Some(Object::Int(index))) => Ok(Object::Str(format!("{kind}:{index}"))),
                _ => Err(malformed()),
            },
            Global::ByteArray => match arguments.first().map(|&id| &self.objects[id]) {
                None => Ok(Object::Bytes(Vec::new())),
                Some(Object::Bytes(bytes)) => Ok(Object::Bytes(bytes.clone())),
                Some(_) => Err(malformed()),
            },
            Global::Encode => match (&self.objects[argument(0)?], &self.objects[argument(1)?]) {
                (Object::Str(text), Object::Str(encoding)) if encoding == "latin1" => text
                    .chars()
                    .map(|c| u8::try_from(u32::from(c)).map_err(|_| malformed()))
                    .collect::<Result<_, _>>()
                    .map(Object::Bytes),
                _ => Err(malformed()),
            },
            Global::RebuildTensorV2 | Global::RebuildTensorV3 => {
                let Object::Storage(storage) = self.objects[argument(0)?].clone_storage() else {
                    return Err(malformed());
                };
                let dtype = match (global, storage.dtype) {
                    (Global::RebuildTensorV3, _) => match self.objects[argument(6)?] {
                        Object::Global(Global::Dtype(dtype)) => dtype,
                        _ => return Err(malformed()),
                    },
                    (_, Some(dtype)) => dtype,
                    _ => return Err(malformed()),
                };
                let offset = self.int(argument(1)?)?;
                let (size, stride) = (self.ints(argument(2)?)?, self.ints(argument(3)?)?);
                let requires_grad = matches!(self.objects[argument(4)?], Object::Bool(true));
                if requires_grad && !dtype.is_differentiable() {
                    return Err(damaged(format!("a tensor of {} requires a gradient", dtype.name)));
                }
                let storage = if dtype.kind == Kind::Bool { self.bools(storage)? } else { storage };
                let tensor = view(&storage, dtype, offset, &size, &stride)?;
                Ok(Object::Tensor(with_grad(tensor, requires_grad)?))
            }
            Global::RebuildParameter => {
                let requires_grad = matches!(self.objects[argument(1)?], Object::Bool(true));
                match &self.objects[argument(0)?] {
                    Object::Tensor(tensor) if !tensor.defined() => Ok(Object::Tensor(Tensor::new())),
                    Object::Tensor(tensor) => Ok(Object::Tensor(with_grad(tensor.f_detach()?, requires_grad)?)),
                    _ => Err(malformed()),
                }
            }
            // A tensor with attributes; they have no place in plain data.
            Global::RebuildFromType => match self.objects[argument(0)?] {
                Object::Global(Global::RebuildFromType) => Err(malformed()),
                Object::Global(_) => self.make(argument(0)?, argument(2)?),
                _ => Err(malformed()),
            },
            Global::Dtype(_) | Global::TypedStorage(_) | Global::UntypedStorage | Global::TensorClass => {
                Err(malformed())
            }
        }
    }

    /// The storage that a persistent id names: `("storage", class, key, location, numel)`.
    pub(super) fn storage(&mut self, id: Id) -> Result<Storage, TorchError> {
        let malformed = || damaged("its pickle names a storage in an unknown way".into());
        let &[tag, class, key, _location, numel] = self.items_of(id)? else { return Err(malformed()) };
        if !matches!(&self.objects[tag], Object::Str(tag) if tag == "storage") {
            return Err(malformed());
        }
        let dtype = match self.objects[class] {
            Object::Global(Global::TypedStorage(dtype)) => Some(dtype),
            Object::Global(Global::UntypedStorage) => None,
            _ => return Err(malformed()),
        };
        let Object::Str(key) = &self.objects[key] else { return Err(malformed()) };
        if key.len() > 64 || key.contains(char::is_control) {
            return Err(malformed());
        }
        let numel = usize::try_from(self.int(numel)?).map_err(|_| malformed())?;
        let size = numel.checked_mul(dtype.map_or(1, |dtype| dtype.size)).ok_or_else(malformed)?;
        Ok(Storage { bytes: (self.read_storage)(key, size)?, size, dtype })
    }

    /// A storage of [`of_bools`], the same one each time, so that sharing is preserved.
    fn bools(&mut self, storage: Storage) -> Result<Storage, TorchError> {
        let held = Rc::clone(&storage.bytes);
        let sound = match self.bools.get(&Rc::as_ptr(&held)) {
            Some((_, sound)) => Rc::clone(sound),
            None => {
                let sound = Rc::new(of_bools(held.shallow_clone())?);
                self.bools.insert(Rc::as_ptr(&held), (held, Rc::clone(&sound)));
                sound
            }
        };
        Ok(Storage { bytes: sound, ..storage })
    }

    fn items(&self, id: Id) -> Result<Vec<Id>, TorchError> {
        self.items_of(id).map(<[Id]>::to_vec)
    }

    fn items_of(&self, id: Id) -> Result<&[Id], TorchError> {
        match &self.objects[id] {
            Object::Tuple(items) | Object::List(items) => Ok(items),
            _ => Err(damaged("its pickle has something else where a tuple belongs".into())),
        }
    }

    fn entries(&self, id: Id) -> Result<Vec<(Id, Id)>, TorchError> {
        match &self.objects[id] {
            Object::Dict(entries) => Ok(entries.clone()),
            _ => self
                .items(id)?
                .into_iter()
                .map(|pair| match *self.items_of(pair)? {
                    [key, value] => Ok((key, value)),
                    _ => Err(damaged("its pickle has something else where a pair belongs".into())),
                })
                .collect(),
        }
    }

    fn int(&self, id: Id) -> Result<i64, TorchError> {
        match self.objects[id] {
            Object::Int(int) => Ok(int),
            _ => Err(damaged("its pickle has something else where an integer belongs".into())),
        }
    }

    fn ints(&self, id: Id) -> Result<Vec<i64>, TorchError> {
        match self.items_of(id)? {
            items if items.len() > MAX_DIMENSIONS => {
                Err(damaged(format!("a tensor has {} dimensions, up to {MAX_DIMENSIONS} are possible", items.len())))
            }
            items => items.iter().map(|&item| self.int(item)).collect(),
        }
    }

    /// The tree below an object. What the pickle shares is repeated, within a budget.
    pub(super) fn value(&self, root: Id, pickle_size: usize) -> Result<Value, TorchError> {
        let mut budget = EXPANSION.saturating_add(pickle_size.saturating_mul(64));
        self.subtree(root, 0, &mut budget)
    }

    fn subtree(&self, id: Id, depth: usize, budget: &mut usize) -> Result<Value, TorchError> {
        if depth > MAX_DEPTH {
            return Err(TorchError::UnsupportedCheckpoint {
                reason: format!("it is nested deeper than {MAX_DEPTH} levels, or contains itself"),
            });
        }
        let object = &self.objects[id];
        let payload = match object {
            Object::Str(text) => text.len(),
            Object::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        *budget = budget.checked_sub(payload + size_of::<(Value, Value)>()).ok_or_else(expands_too_much)?;
        let mut item = |id: &Id| self.subtree(*id, depth + 1, budget);
        Ok(match object {
            Object::None => Value::None,
            Object::Bool(bool) => Value::Bool(*bool),
            Object::Int(int) => Value::Int(*int),
            Object::Float(float) => Value::Float(*float),
            Object::Str(text) => Value::Str(text.clone()),
            Object::Bytes(bytes) => Value::Bytes(bytes.clone()),
            Object::Tensor(tensor) => Value::Tensor(tensor.shallow_clone()),
            Object::List(items) => Value::List(items.iter().map(item).collect::<Result<_, _>>()?),
            Object::Tuple(items) => Value::Tuple(items.iter().map(item).collect::<Result<_, _>>()?),
            Object::Dict(entries) | Object::Namespace(entries) => {
                let pairs = entries.iter().map(|(key, value)| Ok((item(key)?, item(value)?)));
                let dict = pairs.collect::<Result<Dict, TorchError>>()?;
                check_keys(&dict)?;
                Value::Dict(dict)
            }
            Object::Global(Global::Dtype(dtype)) => Value::Str(format!("torch.{}", dtype.name)),
            Object::Global(_) | Object::Storage(_) => {
                return Err(TorchError::UnsupportedCheckpoint {
                    reason: "it holds a class or a bare storage where data belongs".into(),
                });
            }
        })
    }
}

/// Python's dicts have keys that can be hashed, each once.
fn check_keys(dict: &Dict) -> Result<(), TorchError> {
    let mut seen = HashSet::new();
    for (key, _) in dict.iter() {
        if !is_hashable(key) {
            return Err(damaged(format!("a dict has a key that is {}", key.type_name())));
        }
        if !seen.insert(Key(key)) {
            return Err(damaged("a dict has the same key twice".into()));
        }
    }
    Ok(())
}

/// What can be a key, compared in its place: a text of it would take more memory than the file.
#[derive(Clone, Copy)]
struct Key<'a>(&'a Value);

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        std::mem::discriminant(self.0).hash(hasher);
        match self.0 {
            Value::Bool(bool) => bool.hash(hasher),
            Value::Int(int) => int.hash(hasher),
            Value::Float(float) => float.to_bits().hash(hasher),
            Value::Str(text) => text.hash(hasher),
            Value::Bytes(bytes) => bytes.hash(hasher),
            Value::Tuple(items) => items.iter().for_each(|item| Key(item).hash(hasher)),
            _ => {}
        }
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self.0, other.0) {
            (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
            (Value::Tuple(a), Value::Tuple(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Key(a) == Key(b)),
            (a, b) => a == b,
        }
    }
}

impl Eq for Key<'_> {}

impl Object {
    fn clone_storage(&self) -> Object {
        match self {
            Object::Storage(storage) => Object::Storage(storage.clone()),
            _ => Object::None,
        }
    }
}

/// A tensor over a part of a storage, all of which lies inside.
pub(super) fn view(
    storage: &Storage,
    dtype: &Dtype,
    offset: i64,
    size: &[i64],
    stride: &[i64],
) -> Result<Tensor, TorchError> {
    let available = (storage.size / dtype.size) as i64;
    if size.len() > MAX_DIMENSIONS {
        return Err(damaged(format!("a tensor has {} dimensions, up to {MAX_DIMENSIONS} are possible", size.len())));
    }
    if !lies_inside(available, offset, size, stride) {
        return Err(damaged(format!(
            "a tensor of size {size:?}, stride {stride:?} and offset {offset} does not fit its storage of {available} \
             elements"
        )));
    }
    if !storage.bytes.defined() {
        return Ok(Tensor::new());
    }
    let target = Tensor::f_empty([0], (dtype.kind, Device::Cpu))?;
    // SAFETY: both tensors live for the call, the slices have `size.len()` elements each, and everything that the view
    // reaches was found to lie inside the storage.
    check(unsafe {
        fulgurite_set_storage(
            target.as_ptr(),
            storage.bytes.as_ptr(),
            offset,
            size.as_ptr(),
            stride.as_ptr(),
            size.len(),
        )
    })?;
    Ok(target)
}

/// Bytes of which each is a `bool`: 0 or 1. PyTorch takes any other for true, and writes it as it is where a program made
/// one of other bytes; here they become 1.
pub(super) fn of_bools(bytes: Tensor) -> Result<Tensor, TorchError> {
    let is_sound = !bytes.defined() || bytes.numel() == 0 || i64::try_from(bytes.f_max()?)? <= 1;
    Ok(if is_sound { bytes } else { bytes.f_clamp_max(1)? })
}

/// Whether the elements from `offset` on, in this size and stride, are all under `available`.
fn lies_inside(available: i64, offset: i64, size: &[i64], stride: &[i64]) -> bool {
    if size.len() != stride.len() || offset < 0 || size.iter().chain(stride).any(|&number| number < 0) {
        return false;
    }
    // libtorch counts bits in 64 bits in places; no element has more than 128.
    if size.iter().try_fold(128i64, |product, &length| product.checked_mul(length.max(1))).is_none() {
        return false;
    }
    if size.contains(&0) {
        return offset <= available;
    }
    let last = size.iter().zip(stride).try_fold(offset, |at, (length, stride)| {
        (length - 1).checked_mul(*stride).and_then(|reach| at.checked_add(reach))
    });
    last.is_some_and(|last| last < available)
}

fn with_grad(tensor: Tensor, requires_grad: bool) -> Result<Tensor, TorchError> {
    match requires_grad && tensor.defined() {
        true => Ok(tensor.f_set_requires_grad(true)?),
        false => Ok(tensor),
    }
}

#[cfg(test)]
mod tests {
    use super::lies_inside;

    #[test]
    fn views_outside_of_their_storage_are_refused() {
        assert!(lies_inside(6, 0, &[2, 3], &[3, 1]));
        assert!(lies_inside(6, 5, &[], &[]));
        assert!(lies_inside(1, 0, &[1000], &[0]));
        assert!(lies_inside(0, 0, &[0, 3], &[3, 1]));
        assert!(!lies_inside(6, 1, &[2, 3], &[3, 1]));
        assert!(!lies_inside(6, 6, &[], &[]));
        assert!(!lies_inside(6, -1, &[2], &[1]));
        assert!(!lies_inside(6, 3, &[2], &[-1]));
        assert!(!lies_inside(6, 0, &[2], &[1, 1]));
        assert!(!lies_inside(6, 0, &[2, i64::MAX], &[1, 0]));
        assert!(!lies_inside(6, 0, &[3], &[i64::MAX]));
    }
}
