//! [`Settings`]: what is saved of a rule or a schedule, described once for saving and loading.

use fulgurite_torch::{Dict, Value};

/// The entries of a state dict that a rule or schedule has of its own. [`settings`] writes the methods.
pub trait Settings {
    /// Appends the entries.
    fn save(&self, state: &mut Dict);

    /// Takes what `state` has of the entries; the rest stays as it is. The error says what is wrong.
    fn load(&mut self, state: &Dict) -> Result<(), String>;
}

/// The type of an entry.
pub(crate) trait Setting: Sized {
    /// For messages.
    const EXPECTED: &'static str;
    fn to_value(&self) -> Value;
    fn from_value(value: &Value) -> Option<Self>;
}

/// Reads one entry, if it is there.
pub(crate) fn load<T: Setting>(state: &Dict, key: &str, field: &mut T) -> Result<(), String> {
    if let Some(value) = state.get(key) {
        *field = T::from_value(value)
            .ok_or_else(|| format!("entry `{key}` is {}, expected {}", describe(value), T::EXPECTED))?;
    }
    Ok(())
}

fn describe(value: &Value) -> String {
    match value {
        Value::Str(text) => format!("`{text}`"),
        other => other.type_name().into(),
    }
}

/// Writes the methods of [`Settings`] for fields whose types are [`Setting`]s.
macro_rules! settings {
    ($($key:literal = $($field:ident).+),* $(,)?) => {
        fn save(&self, state: &mut fulgurite_torch::Dict) {
            $(state.push($key, $crate::settings::Setting::to_value(&self.$($field).+));)*
        }

        fn load(&mut self, state: &fulgurite_torch::Dict) -> Result<(), String> {
            $($crate::settings::load(state, $key, &mut self.$($field).+)?;)*
            Ok(())
        }
    };
}
pub(crate) use settings;

/// A [`Setting`] for an enum that PyTorch writes as a string (or `None`).
macro_rules! setting_enum {
    ($type:ty, $expected:literal, $($value:expr => $variant:path),* $(,)?) => {
        impl $crate::settings::Setting for $type {
            const EXPECTED: &'static str = $expected;

            fn to_value(&self) -> fulgurite_torch::Value {
                match self {
                    $($variant => $value.into(),)*
                }
            }

            fn from_value(value: &fulgurite_torch::Value) -> Option<Self> {
                $(if *value == fulgurite_torch::Value::from($value) {
                    return Some($variant);
                })*
                None
            }
        }
    };
}
pub(crate) use setting_enum;

/// A Python number: `float`, `int`, or a tensor of one element (PyTorch allows a learning rate to be one).
pub(crate) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Tensor(tensor) if tensor.numel() == 1 => tensor.f_reshape([0i64; 0]).ok()?.f_double_value(&[]).ok(),
        other => other.as_float(),
    }
}

impl Setting for f64 {
    const EXPECTED: &'static str = "a number";

    fn to_value(&self) -> Value {
        Value::Float(*self)
    }

    fn from_value(value: &Value) -> Option<f64> {
        number(value)
    }
}

impl Setting for i64 {
    const EXPECTED: &'static str = "an int";

    fn to_value(&self) -> Value {
        Value::Int(*self)
    }

    fn from_value(value: &Value) -> Option<i64> {
        value.as_int()
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "a bool";

    fn to_value(&self) -> Value {
        Value::Bool(*self)
    }

    fn from_value(value: &Value) -> Option<bool> {
        value.as_bool()
    }
}

impl Setting for Option<f64> {
    const EXPECTED: &'static str = "a number or None";

    fn to_value(&self) -> Value {
        (*self).into()
    }

    fn from_value(value: &Value) -> Option<Option<f64>> {
        match value {
            Value::None => Some(None),
            other => number(other).map(Some),
        }
    }
}

impl Setting for Vec<f64> {
    const EXPECTED: &'static str = "a list of numbers";

    fn to_value(&self) -> Value {
        self.clone().into()
    }

    fn from_value(value: &Value) -> Option<Vec<f64>> {
        value.as_list()?.iter().map(number).collect()
    }
}

impl<const N: usize> Setting for [f64; N] {
    const EXPECTED: &'static str = "a tuple of as many numbers as it has here";

    fn to_value(&self) -> Value {
        Value::Tuple(self.iter().map(|&x| x.into()).collect())
    }

    fn from_value(value: &Value) -> Option<[f64; N]> {
        Vec::from_value(value)?.try_into().ok()
    }
}

impl<const N: usize> Setting for [Option<f64>; N] {
    const EXPECTED: &'static str = "a tuple of as many numbers (or None) as it has here";

    fn to_value(&self) -> Value {
        Value::Tuple(self.iter().map(|&x| x.into()).collect())
    }

    fn from_value(value: &Value) -> Option<[Option<f64>; N]> {
        value.as_list()?.iter().map(Option::from_value).collect::<Option<Vec<_>>>()?.try_into().ok()
    }
}
