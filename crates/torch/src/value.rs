//! [`Value`]: the tree of plain data in state dicts, hyper-parameters and checkpoints.
//!
//! It represents what `torch.load(weights_only=True)` accepts, so every value but an [`Opaque`] object can be written
//! to a `.ckpt` file that Python opens.

mod cat;
mod json;
mod opaque;

pub use opaque::Opaque;
use tch::Tensor;

/// A node of a state tree: the plain data that PyTorch's `weights_only` unpickler accepts.
///
/// ```
/// use fulgurite_torch::{Dict, Value};
///
/// let mut state = Dict::new();
/// state.set("step", 3);
/// state.set("betas", Value::Tuple(vec![0.9.into(), 0.999.into()]));
/// assert_eq!(state.int("step").unwrap(), 3);
/// ```
#[derive(Debug, Default)]
pub enum Value {
    /// Python's `None`.
    #[default]
    None,
    /// Python's `bool`.
    Bool(bool),
    /// Python's `int`.
    Int(i64),
    /// Python's `float`.
    Float(f64),
    /// Python's `str`.
    Str(String),
    /// Python's `bytes`.
    Bytes(Vec<u8>),
    /// A tensor. Cloning the tree clones the handle, not the data.
    Tensor(Tensor),
    /// Python's `list`.
    List(Vec<Value>),
    /// Python's `tuple`.
    Tuple(Vec<Value>),
    /// Python's `dict`, in insertion order.
    Dict(Dict),
    /// An object that is not plain data, which cannot be written to a file.
    Opaque(Opaque),
}

/// An error of looking up a key of a [`Dict`].
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueError {
    /// The key is absent.
    #[error("no entry `{key}`; there are: {}", .present.join(", "))]
    Missing {
        /// The requested key.
        key: String,
        /// The existing keys.
        present: Vec<String>,
    },
    /// The value of the key has another type.
    #[error("entry `{key}` is {found}, expected {expected}")]
    WrongType {
        /// The requested key.
        key: String,
        /// The type found.
        found: &'static str,
        /// The requested type.
        expected: &'static str,
    },
    /// [`Value::cat`] of values that are not alike.
    #[error("values cannot be concatenated: {0}")]
    Cat(String),
}

/// Python's `dict`: keys and values in insertion order. Keys are usually strings; optimizer states use integers.
#[derive(Debug, Default)]
pub struct Dict(Vec<(Value, Value)>);

impl Value {
    /// Python's name of the type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::Bytes(_) => "bytes",
            Value::Tensor(_) => "tensor",
            Value::List(_) => "list",
            Value::Tuple(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::Opaque(_) => "an object that is not plain data",
        }
    }

    /// The integer, if this is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(i) => Some(*i),
            Value::Bool(b) => Some(i64::from(*b)),
            _ => None,
        }
    }

    /// The number as `f64`, if this is an integer or a float.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Value::Float(x) => Some(*x),
            Value::Int(i) => Some(*i as f64),
            _ => None,
        }
    }

    /// The boolean, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }

    /// The tensor, if this is one.
    pub fn as_tensor(&self) -> Option<&Tensor> {
        match self {
            Value::Tensor(t) => Some(t),
            _ => None,
        }
    }

    /// The items, if this is a list or a tuple.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(items) | Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// The dict, if this is one.
    pub fn as_dict(&self) -> Option<&Dict> {
        match self {
            Value::Dict(d) => Some(d),
            _ => None,
        }
    }

    /// Applies `f` to every tensor of the tree.
    pub fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Value {
        match self {
            Value::Tensor(t) => Value::Tensor(f(t)),
            Value::List(items) => Value::List(items.iter().map(|v| v.map_tensors(f)).collect()),
            Value::Tuple(items) => Value::Tuple(items.iter().map(|v| v.map_tensors(f)).collect()),
            Value::Dict(d) => Value::Dict(d.map_tensors(f)),
            other => other.clone(),
        }
    }

    /// The tree with [`Value::None`] for every tensor and every opaque object.
    #[must_use]
    pub fn without_tensors(self) -> Value {
        match self {
            Value::Tensor(_) | Value::Opaque(_) => Value::None,
            Value::List(items) => Value::List(items.into_iter().map(Value::without_tensors).collect()),
            Value::Tuple(items) => Value::Tuple(items.into_iter().map(Value::without_tensors).collect()),
            Value::Dict(d) => Value::Dict(d.into_iter().map(|(k, v)| (k, v.without_tensors())).collect()),
            plain => plain,
        }
    }
}

/// Tensors are compared by kind, shape and every element (NaN equals nothing, as in PyTorch).
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::None, Value::None) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::Str(a), Value::Str(b)) => a == b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Tensor(a), Value::Tensor(b)) => a.kind() == b.kind() && a.size() == b.size() && a.equal(b),
            (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => a == b,
            (Value::Dict(a), Value::Dict(b)) => a == b,
            (Value::Opaque(a), Value::Opaque(b)) => a == b,
            _ => false,
        }
    }
}

impl Clone for Value {
    fn clone(&self) -> Value {
        match self {
            Value::None => Value::None,
            Value::Bool(b) => Value::Bool(*b),
            Value::Int(i) => Value::Int(*i),
            Value::Float(x) => Value::Float(*x),
            Value::Str(s) => Value::Str(s.clone()),
            Value::Bytes(b) => Value::Bytes(b.clone()),
            Value::Tensor(t) => Value::Tensor(t.shallow_clone()),
            Value::List(items) => Value::List(items.clone()),
            Value::Tuple(items) => Value::Tuple(items.clone()),
            Value::Dict(d) => Value::Dict(d.clone()),
            Value::Opaque(object) => Value::Opaque(object.clone()),
        }
    }
}

impl PartialEq for Dict {
    fn eq(&self, other: &Dict) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|(k, v)| other.get_value(k) == Some(v))
    }
}

impl Clone for Dict {
    fn clone(&self) -> Dict {
        Dict(self.0.clone())
    }
}

impl Dict {
    /// An empty dict.
    pub const fn new() -> Dict {
        Dict(Vec::new())
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets `key` (a string, or an integer), replacing its value.
    pub fn set(&mut self, key: impl Into<Value>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some((_, held)) => *held = value,
            None => self.0.push((key, value)),
        }
    }

    /// [`Dict::set`] that can be chained.
    #[must_use]
    pub fn with(mut self, key: impl Into<Value>, value: impl Into<Value>) -> Dict {
        self.set(key, value);
        self
    }

    /// Appends an entry without checking for an earlier one of the same key; for building large dicts.
    pub fn push(&mut self, key: impl Into<Value>, value: impl Into<Value>) {
        self.0.push((key.into(), value.into()));
    }

    /// The value of a string key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(_, v)| v)
    }

    /// The value of a string key, mutably.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.0.iter_mut().find(|(k, _)| k.as_str() == Some(key)).map(|(_, value)| value)
    }

    /// The value of a key of any type.
    pub fn get_value(&self, key: &Value) -> Option<&Value> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// Removes a string key, and returns its value.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.0.iter().position(|(k, _)| k.as_str() == Some(key))?;
        Some(self.0.remove(at).1)
    }

    /// The entries in insertion order.
    pub fn iter(&self) -> impl Iterator<Item = (&Value, &Value)> {
        self.0.iter().map(|(k, v)| (k, v))
    }

    /// The string keys in insertion order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|(k, _)| k.as_str())
    }

    /// Applies `f` to every tensor of the tree.
    pub fn map_tensors(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Dict {
        Dict(self.0.iter().map(|(k, v)| (k.clone(), v.map_tensors(f))).collect())
    }

    /// The value of `key`, or an error that lists the existing keys.
    pub fn require(&self, key: &str) -> Result<&Value, ValueError> {
        self.get(key)
            .ok_or_else(|| ValueError::Missing { key: key.into(), present: self.keys().map(String::from).collect() })
    }

    /// The integer under `key`.
    pub fn int(&self, key: &str) -> Result<i64, ValueError> {
        self.typed(key, "int", Value::as_int)
    }

    /// The number under `key`.
    pub fn float(&self, key: &str) -> Result<f64, ValueError> {
        self.typed(key, "float", Value::as_float)
    }

    /// The boolean under `key`.
    pub fn bool(&self, key: &str) -> Result<bool, ValueError> {
        self.typed(key, "bool", Value::as_bool)
    }

    /// The text under `key`.
    pub fn str(&self, key: &str) -> Result<&str, ValueError> {
        self.typed(key, "str", Value::as_str)
    }

    /// The tensor under `key`.
    pub fn tensor(&self, key: &str) -> Result<&Tensor, ValueError> {
        self.typed(key, "tensor", Value::as_tensor)
    }

    /// The items under `key`, a list or a tuple.
    pub fn list(&self, key: &str) -> Result<&[Value], ValueError> {
        self.typed(key, "list", Value::as_list)
    }

    /// The dict under `key`.
    pub fn dict(&self, key: &str) -> Result<&Dict, ValueError> {
        self.typed(key, "dict", Value::as_dict)
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, ValueError> {
        let value = self.require(key)?;
        read(value).ok_or(ValueError::WrongType { key: key.into(), found: value.type_name(), expected })
    }
}

impl FromIterator<(Value, Value)> for Dict {
    fn from_iter<I: IntoIterator<Item = (Value, Value)>>(entries: I) -> Dict {
        Dict(entries.into_iter().collect())
    }
}

impl IntoIterator for Dict {
    type Item = (Value, Value);
    type IntoIter = std::vec::IntoIter<(Value, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

macro_rules! value_from {
    ($($from:ty => |$v:ident| $into:expr),* $(,)?) => {
        $(impl From<$from> for Value {
            fn from($v: $from) -> Value {
                $into
            }
        })*
    };
}

value_from! {
    () => |_v| Value::None,
    bool => |v| Value::Bool(v),
    i32 => |v| Value::Int(v.into()),
    i64 => |v| Value::Int(v),
    u32 => |v| Value::Int(v.into()),
    // Counters: they never come near 2^63.
    u64 => |v| Value::Int(v as i64),
    usize => |v| Value::Int(v as i64),
    f32 => |v| Value::Float(v.into()),
    f64 => |v| Value::Float(v),
    &str => |v| Value::Str(v.into()),
    String => |v| Value::Str(v),
    Tensor => |v| Value::Tensor(v),
    &Tensor => |v| Value::Tensor(v.shallow_clone()),
    Dict => |v| Value::Dict(v),
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Value {
        Value::List(items.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(item: Option<T>) -> Value {
        item.map_or(Value::None, Into::into)
    }
}

impl<A: Into<Value>, B: Into<Value>> From<(A, B)> for Value {
    fn from((a, b): (A, B)) -> Value {
        Value::Tuple(vec![a.into(), b.into()])
    }
}

impl From<Opaque> for Value {
    fn from(object: Opaque) -> Value {
        Value::Opaque(object)
    }
}

impl Value {
    /// The object, if this is one that is not plain data.
    pub fn as_opaque(&self) -> Option<&Opaque> {
        match self {
            Value::Opaque(object) => Some(object),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_set_again_keeps_its_place() {
        let mut dict = Dict::new().with("a", 1).with("b", 2).with(3, "three");
        dict.set("a", 10);
        assert_eq!(dict.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(dict.int("a").unwrap(), 10);
        assert_eq!(dict.get_value(&3.into()), Some(&"three".into()));
        assert_eq!(dict.remove("b"), Some(Value::Int(2)));
        assert_eq!(dict.len(), 2);
    }

    #[test]
    fn dicts_are_equal_in_any_order_and_lists_are_not() {
        assert_eq!(Dict::new().with("a", 1).with("b", 2), Dict::new().with("b", 2).with("a", 1));
        assert_ne!(Value::from(vec![1, 2]), Value::from(vec![2, 1]));
        assert_ne!(Value::List(vec![]), Value::Tuple(vec![]));
    }

    #[test]
    fn tensors_are_compared_by_kind_shape_and_elements() {
        let tensor = Tensor::from_slice(&[1.0f32, 2.0]);
        assert_eq!(Value::from(&tensor), Value::from(tensor.copy()));
        assert_ne!(Value::from(&tensor), Value::from(tensor.to_kind(tch::Kind::Double)));
        assert_ne!(Value::from(&tensor), Value::from(tensor.view([2, 1])));
    }

    #[test]
    fn what_is_not_there_or_of_another_type_says_so() {
        let dict = Dict::new().with("lr", 0.1).with("steps", 3);
        assert_eq!(dict.int("step").unwrap_err().to_string(), "no entry `step`; there are: lr, steps");
        assert_eq!(dict.int("lr").unwrap_err().to_string(), "entry `lr` is float, expected int");
        assert_eq!(dict.float("steps").unwrap(), 3.0);
    }

    #[test]
    fn every_tensor_of_the_tree_is_mapped() {
        let tree = Value::List(vec![Tensor::from(1i64).into(), Dict::new().with("t", Tensor::from(2i64)).into()]);
        let expected = Value::List(vec![Tensor::from(2i64).into(), Dict::new().with("t", Tensor::from(3i64)).into()]);
        assert_eq!(tree.map_tensors(&mut |tensor| tensor + 1), expected);
    }
}
