//! Trees as JSON, and as structs.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::{Dict, Value};

impl Value {
    /// The tree as JSON, if it contains neither tensors nor bytes nor objects. Tuples become arrays, integer keys text,
    /// and numbers that are not finite `null`.
    pub fn to_json(&self) -> Option<serde_json::Value> {
        use serde_json::Value as Json;
        Some(match self {
            Value::None => Json::Null,
            Value::Bool(on) => (*on).into(),
            Value::Int(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Str(text) => text.as_str().into(),
            Value::List(items) | Value::Tuple(items) => {
                items.iter().map(Value::to_json).collect::<Option<Vec<_>>>()?.into()
            }
            Value::Dict(entries) => {
                let key =
                    |key: &Value| key.as_str().map(str::to_owned).or_else(|| key.as_int().map(|int| int.to_string()));
                let entries = entries.iter().map(|(k, v)| Some((key(k)?, v.to_json()?)));
                Json::Object(entries.collect::<Option<_>>()?)
            }
            Value::Bytes(_) | Value::Tensor(_) | Value::Opaque(_) => return None,
        })
    }
}

impl Dict {
    /// A struct of options as a dict, such as hyper-parameters of a configuration. Enums without data become strings,
    /// `None` and numbers that are not finite become `None`.
    ///
    /// ```
    /// use fulgurite_torch::Dict;
    ///
    /// #[derive(serde::Serialize)]
    /// struct Config {
    ///     lr: f64,
    ///     layers: Vec<i64>,
    /// }
    ///
    /// let dict = Dict::from_serialize(&Config { lr: 0.1, layers: vec![64, 10] });
    /// assert_eq!(dict, Dict::new().with("lr", 0.1).with("layers", vec![64, 10]));
    /// ```
    pub fn from_serialize(options: &impl serde::Serialize) -> Dict {
        match serde_json::to_value(options).map(Value::from) {
            Ok(Value::Dict(dict)) => dict,
            _ => Dict::new(),
        }
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Value {
        use serde_json::Value as Json;
        match json {
            Json::Null => Value::None,
            Json::Bool(on) => Value::Bool(on),
            Json::Number(number) => match number.as_i64() {
                Some(int) => Value::Int(int),
                None => number.as_f64().map_or(Value::None, Value::Float),
            },
            Json::String(text) => Value::Str(text),
            Json::Array(items) => Value::List(items.into_iter().map(Value::from).collect()),
            Json::Object(entries) => Value::Dict(entries.into_iter().map(|(k, v)| (k.into(), v.into())).collect()),
        }
    }
}

/// Whatever JSON has: a list, a number, a text and so on. A number that is an integer is [`Value::Int`].
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        serde_json::Value::deserialize(deserializer).map(Value::from)
    }
}

/// A JSON object, for options whose names are not known before.
impl<'de> Deserialize<'de> for Dict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Dict, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Dict(dict) => Ok(dict),
            other => Err(D::Error::custom(format!("invalid type: {}, expected a dict", other.type_name()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    #[test]
    fn plain_data_becomes_json_and_tensors_do_not() {
        let plain = Value::from(Dict::new().with("betas", (0.9, 0.999)).with(0, vec![true]).with("none", ()));
        assert_eq!(plain.to_json().unwrap().to_string(), r#"{"betas":[0.9,0.999],"0":[true],"none":null}"#);
        assert_eq!(Value::from(vec![Tensor::from(1i64)]).to_json(), None);
    }

    #[test]
    fn a_dict_is_read_as_what_it_was() {
        let dict = Dict::new().with("b", 1).with("a", Dict::new().with("lr", 0.5).with("names", vec!["x"]));
        let json = Value::from(dict.clone()).to_json().unwrap();
        assert_eq!(serde_json::from_value::<Dict>(json).unwrap(), dict);
        let error = serde_json::from_str::<Dict>("[1]").unwrap_err().to_string();
        assert!(error.starts_with("invalid type: list, expected a dict"), "{error}");
    }
}
