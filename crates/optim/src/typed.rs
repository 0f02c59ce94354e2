//! Options and state as entries of a state dict, by way of serde: tuples stay tuples, and a number may be written as any
//! of Python's.

use std::fmt::{self, Display};

use fulgurite_torch::{Dict, Value};
use serde::de::value::SeqDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};
use serde::ser::{self, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple};

use crate::OptimError;

/// What an entry cannot be.
#[derive(Debug)]
pub(crate) struct Unfit(String);

impl Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

impl ser::Error for Unfit {
    fn custom<T: Display>(message: T) -> Unfit {
        Unfit(message.to_string())
    }
}

impl de::Error for Unfit {
    fn custom<T: Display>(message: T) -> Unfit {
        Unfit(message.to_string())
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Unfit {
        Unfit(format!("is out of range, expected {expected}"))
    }

    fn invalid_length(len: usize, expected: &dyn de::Expected) -> Unfit {
        Unfit(format!("has {len} items, expected {expected}"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Unfit {
        let names: Vec<String> = expected.iter().map(|name| format!("`{name}`")).collect();
        Unfit(format!("is `{variant}`, expected {}", names.join(" or ")))
    }
}

/// Whether a state dict can hold the options.
///
/// # Errors
///
/// Fails if an option is not plain data, such as an enum with data.
pub(crate) fn check(owner: &'static str, options: &impl Serialize) -> Result<(), OptimError> {
    match options.serialize(ToValue) {
        Ok(Value::Dict(_)) => Ok(()),
        Ok(other) => Err(OptimError::other(owner, format!("its options are {}, no struct", other.type_name()))),
        Err(error) => {
            Err(OptimError::other(owner, format!("{error}; write the option as numbers, texts or lists of them")))
        }
    }
}

/// A struct as the dict of its fields.
pub(crate) fn to_dict(options: &impl Serialize) -> Dict {
    match to_value(options) {
        Value::Dict(dict) => dict,
        _ => Dict::new(),
    }
}

/// Plain data as Python has it; what is none is `None`.
pub(crate) fn to_value(data: &impl Serialize) -> Value {
    data.serialize(ToValue).unwrap_or_default()
}

/// Takes what `state` has of the fields of `options`; the rest stays as it is.
///
/// # Errors
///
/// Fails if an entry has the wrong type; the error names it.
pub(crate) fn update<T: Serialize + DeserializeOwned>(options: &mut T, state: &Dict) -> Result<(), String> {
    let saved = |(key, value): (Value, Value)| {
        let value = state.get_value(&key).cloned().unwrap_or(value);
        (key, value)
    };
    let fields: Dict = to_dict(options).into_iter().map(saved).collect();
    *options = T::deserialize(FromValue(&Value::Dict(fields))).map_err(|error| error.0)?;
    Ok(())
}

/// Reads one entry, if it is there.
///
/// # Errors
///
/// Fails if an entry has the wrong type; the error names it.
pub(crate) fn load<T: DeserializeOwned>(state: &Dict, key: &str, field: &mut T) -> Result<(), String> {
    if let Some(value) = state.get(key) {
        *field = T::deserialize(FromValue(value)).map_err(|error| format!("entry `{key}` {error}"))?;
    }
    Ok(())
}

/// A Python number: `float`, `int`, or a tensor of one element (PyTorch allows a learning rate to be one).
pub(crate) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Tensor(tensor) if tensor.numel() == 1 => tensor.f_reshape([0i64; 0]).ok()?.f_double_value(&[]).ok(),
        other => other.as_float(),
    }
}

// To values -----------------------------------------------------------------------------------------------------------

struct ToValue;

fn unsupported<T>(what: &str) -> Result<T, Unfit> {
    Err(Unfit(format!("a state dict cannot hold {what}")))
}

macro_rules! ints {
    ($($method:ident($type:ty)),*) => {
        $(fn $method(self, value: $type) -> Result<Value, Unfit> {
            i64::try_from(value).map(Value::Int).or_else(|_| unsupported("an integer beyond 64 bits"))
        })*
    };
}

impl ser::Serializer for ToValue {
    type Ok = Value;
    type Error = Unfit;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Impossible<Value, Unfit>;
    type SerializeTupleVariant = Impossible<Value, Unfit>;
    type SerializeMap = Entries;
    type SerializeStruct = Entries;
    type SerializeStructVariant = Impossible<Value, Unfit>;

    ints! {
        serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64), serialize_u8(u8),
        serialize_u16(u16), serialize_u32(u32), serialize_u64(u64)
    }

    fn serialize_bool(self, value: bool) -> Result<Value, Unfit> {
        Ok(Value::Bool(value))
    }

    fn serialize_f32(self, value: f32) -> Result<Value, Unfit> {
        Ok(Value::Float(value.into()))
    }

    fn serialize_f64(self, value: f64) -> Result<Value, Unfit> {
        Ok(Value::Float(value))
    }

    fn serialize_char(self, value: char) -> Result<Value, Unfit> {
        Ok(Value::Str(value.into()))
    }

    fn serialize_str(self, value: &str) -> Result<Value, Unfit> {
        Ok(Value::Str(value.into()))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Value, Unfit> {
        Ok(Value::Bytes(value.into()))
    }

    fn serialize_none(self) -> Result<Value, Unfit> {
        Ok(Value::None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Unfit> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, Unfit> {
        Ok(Value::None)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, Unfit> {
        Ok(Value::None)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Value, Unfit> {
        Ok(Value::Str(variant.into()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Value, Unfit> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Value, Unfit> {
        unsupported("an enum with data")
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items, Unfit> {
        Ok(Items { items: Vec::new(), is_tuple: false })
    }

    fn serialize_tuple(self, _: usize) -> Result<Items, Unfit> {
        Ok(Items { items: Vec::new(), is_tuple: true })
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Unfit> {
        unsupported("a struct without names")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Unfit> {
        unsupported("an enum with data")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Entries, Unfit> {
        Ok(Entries { dict: Dict::new(), key: Value::None })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Entries, Unfit> {
        Ok(Entries { dict: Dict::new(), key: Value::None })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Unfit> {
        unsupported("an enum with data")
    }
}

struct Items {
    items: Vec<Value>,
    is_tuple: bool,
}

impl SerializeSeq for Items {
    type Ok = Value;
    type Error = Unfit;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.items.push(value.serialize(ToValue)?);
        Ok(())
    }

    fn end(self) -> Result<Value, Unfit> {
        Ok(if self.is_tuple { Value::Tuple(self.items) } else { Value::List(self.items) })
    }
}

impl SerializeTuple for Items {
    type Ok = Value;
    type Error = Unfit;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<Value, Unfit> {
        SerializeSeq::end(self)
    }
}

struct Entries {
    dict: Dict,
    key: Value,
}

impl SerializeMap for Entries {
    type Ok = Value;
    type Error = Unfit;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unfit> {
        self.key = key.serialize(ToValue)?;
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.dict.push(std::mem::take(&mut self.key), value.serialize(ToValue)?);
        Ok(())
    }

    fn end(self) -> Result<Value, Unfit> {
        Ok(Value::Dict(self.dict))
    }
}

impl SerializeStruct for Entries {
    type Ok = Value;
    type Error = Unfit;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Unfit> {
        self.dict.push(key, value.serialize(ToValue)?);
        Ok(())
    }

    fn end(self) -> Result<Value, Unfit> {
        Ok(Value::Dict(self.dict))
    }
}

// From values ---------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy)]
struct FromValue<'a>(&'a Value);

impl<'de> IntoDeserializer<'de, Unfit> for FromValue<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl FromValue<'_> {
    fn unfit<T>(self, expected: impl Display) -> Result<T, Unfit> {
        let found = match self.0 {
            Value::Str(text) => format!("`{text}`"),
            other => other.type_name().into(),
        };
        Err(Unfit(format!("is {found}, expected {expected}")))
    }

    fn float<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        number(self.0).map_or_else(|| self.unfit("a number"), |number| visitor.visit_f64(number))
    }

    fn int<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        self.0.as_int().map_or_else(|| self.unfit("an int"), |int| visitor.visit_i64(int))
    }

    fn items<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        let Some(items) = self.0.as_list() else { return self.unfit("a list or tuple") };
        let mut items = SeqDeserializer::new(items.iter().map(FromValue));
        let made = visitor.visit_seq(&mut items)?;
        items.end()?;
        Ok(made)
    }
}

macro_rules! read_as {
    ($way:ident: $($method:ident),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
            self.$way(visitor)
        })*
    };
}

impl<'de> de::Deserializer<'de> for FromValue<'_> {
    type Error = Unfit;

    read_as!(float: deserialize_f32, deserialize_f64);
    read_as!(int: deserialize_i8, deserialize_i16, deserialize_i32, deserialize_i64);
    read_as!(int: deserialize_u8, deserialize_u16, deserialize_u32, deserialize_u64);
    read_as!(items: deserialize_seq);
    read_as!(deserialize_any: deserialize_char, deserialize_str, deserialize_string, deserialize_identifier);
    read_as!(deserialize_any: deserialize_bytes, deserialize_byte_buf, deserialize_unit, deserialize_map);

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self.0 {
            Value::None => visitor.visit_unit(),
            Value::Bool(on) => visitor.visit_bool(*on),
            Value::Int(int) => visitor.visit_i64(*int),
            Value::Str(text) => visitor.visit_str(text),
            Value::Bytes(bytes) => visitor.visit_bytes(bytes),
            Value::Float(_) | Value::Tensor(_) => self.float(visitor),
            Value::List(_) | Value::Tuple(_) => self.items(visitor),
            Value::Opaque(_) => self.unfit("plain data"),
            Value::Dict(dict) => visitor.visit_map(Fields { rest: dict.iter(), value: None }),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        self.0.as_bool().map_or_else(|| self.unfit("a bool"), |on| visitor.visit_bool(on))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self.0 {
            Value::None => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unfit> {
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Unfit> {
        self.items(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        self.items(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        match self.0 {
            Value::Dict(_) => self.deserialize_any(visitor),
            _ => self.unfit("a dict"),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        match self.0 {
            Value::Str(name) => visitor.visit_enum(name.as_str().into_deserializer()),
            _ => self.unfit(names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_unit()
    }
}

/// The entries of a dict; errors name the key.
struct Fields<'a, I: Iterator<Item = (&'a Value, &'a Value)>> {
    rest: I,
    value: Option<(&'a Value, &'a Value)>,
}

impl<'de, 'a, I: Iterator<Item = (&'a Value, &'a Value)>> de::MapAccess<'de> for Fields<'a, I> {
    type Error = Unfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Unfit> {
        self.value = self.rest.next();
        self.value.map(|(key, _)| seed.deserialize(FromValue(key))).transpose()
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Unfit> {
        let Some((key, value)) = self.value.take() else { return unsupported("a value without a key") };
        seed.deserialize(FromValue(value)).map_err(|error| match error.0.starts_with("entry `") {
            true => error,
            false => Unfit(format!("entry `{}` {error}", key.as_str().unwrap_or_default())),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::PerGroup;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Options {
        lr: f64,
        betas: (f64, f64),
        eps: (Option<f64>, f64),
        steps: u32,
        mode: crate::Mode,
        momentum: PerGroup,
        names: Vec<String>,
        limit: f64,
    }

    impl Default for Options {
        fn default() -> Options {
            Options {
                lr: 0.5,
                betas: (0.9, 0.99),
                eps: (None, 1e-3),
                steps: 7,
                mode: crate::Mode::Max,
                momentum: PerGroup::Each(vec![0.1, 0.2]),
                names: vec!["a".into()],
                limit: f64::INFINITY,
            }
        }
    }

    #[test]
    fn options_come_back_as_they_were() {
        let saved = to_dict(&Options::default());
        assert_eq!(saved.get("betas"), Some(&Value::Tuple(vec![0.9.into(), 0.99.into()])));
        assert_eq!(saved.get("eps"), Some(&Value::Tuple(vec![Value::None, 1e-3.into()])));
        assert_eq!(saved.get("mode"), Some(&"max".into()));
        let mut read = Options { lr: 0.0, steps: 0, limit: 0.0, names: Vec::new(), ..Options::default() };
        update(&mut read, &saved).unwrap();
        assert_eq!(read, Options::default());
    }

    #[test]
    fn what_is_not_there_stays_and_numbers_are_pythons() {
        let mut read = Options::default();
        let lr = fulgurite_torch::tch::Tensor::from(0.25);
        update(&mut read, &Dict::new().with("lr", lr).with("betas", vec![1, 0]).with("other", 3)).unwrap();
        assert_eq!(read, Options { lr: 0.25, betas: (1.0, 0.0), ..Options::default() });
    }

    #[test]
    fn an_entry_of_the_wrong_type_is_named() {
        let wrong = |key: &str, value: Value| {
            let error = update(&mut Options::default(), &Dict::new().with(key, value)).unwrap_err();
            error.strip_prefix(&format!("entry `{key}` ")).unwrap_or(&error).to_owned()
        };
        assert_eq!(wrong("lr", "fast".into()), "is `fast`, expected a number");
        assert_eq!(wrong("betas", vec![0.9].into()), "has 1 items, expected a tuple of size 2");
        assert_eq!(wrong("steps", (-1).into()), "is out of range, expected u32");
        assert_eq!(wrong("mode", "most".into()), "is `most`, expected `min` or `max`");
        assert_eq!(wrong("names", 3.into()), "is int, expected a list or tuple");
    }

    #[test]
    fn what_a_state_dict_cannot_hold_is_refused_at_once() {
        #[derive(Serialize)]
        enum Kind {
            At { step: u32 },
        }
        #[derive(Serialize)]
        struct Foreign {
            kind: Kind,
        }
        let error = check("Mine", &Foreign { kind: Kind::At { step: 3 } }).unwrap_err().to_string();
        assert_eq!(
            error,
            "Mine: a state dict cannot hold an enum with data; write the option as numbers, texts or lists of them"
        );
    }
}
