//! [`Entry`]: a line of an outbox.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What was logged by one call, with the time at which it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// Values at a step.
    Metrics {
        /// The step.
        step: i64,
        /// Milliseconds since 1970.
        ms: i64,
        /// Names and values.
        values: Vec<(String, Number)>,
    },
    /// Hyper-parameters.
    Params(Vec<(String, String)>),
    /// Labels of the run.
    Tags(Vec<(String, String)>),
    /// A file to upload. One that is gone by then is left out.
    File {
        /// Its path among the run's artifacts.
        path: String,
        /// Where it lies.
        from: PathBuf,
        /// It lies there only to be sent, and is removed then.
        #[serde(default)]
        remove: bool,
        /// Texts that are uploaded with it: their paths and contents.
        #[serde(default)]
        with: Vec<(String, String)>,
    },
    /// A small file, with its content.
    Content {
        /// Its path among the run's artifacts.
        path: String,
        /// Its bytes.
        #[serde(with = "base64_text")]
        bytes: Vec<u8>,
    },
    /// What the service's own logger wrote, in the service's own form: a line, whatever it holds.
    Record(serde_json::Value),
    /// The run began again, or ended.
    Status {
        /// How.
        status: RunEnd,
        /// Milliseconds since 1970.
        ms: i64,
    },
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunEnd {
    /// It goes on.
    Running,
    /// It ended as it should.
    Success,
    /// An error ended it.
    Failed,
    /// A signal ended it.
    Interrupted,
}

impl Entry {
    /// Values at `step`, now.
    ///
    /// ```
    /// use fulgurite_trackers::Entry;
    ///
    /// assert_eq!(Entry::metrics([("loss", 0.5)], 3).items(), 1);
    /// ```
    pub fn metrics(values: impl IntoIterator<Item = (impl Into<String>, f64)>, step: i64) -> Entry {
        let values = values.into_iter().map(|(name, value)| (name.into(), Number(value)));
        Entry::Metrics { step, ms: now_ms(), values: values.collect() }
    }

    /// The state of the run, now.
    pub fn status(status: RunEnd) -> Entry {
        Entry::Status { status, ms: now_ms() }
    }

    /// How many values it has.
    pub fn items(&self) -> usize {
        match self {
            Entry::Metrics { values, .. } => values.len(),
            Entry::Params(values) | Entry::Tags(values) => values.len(),
            Entry::File { .. } | Entry::Content { .. } | Entry::Record(_) | Entry::Status { .. } => 1,
        }
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A value. Where JSON has no number for it, it is one of the texts `NaN`, `Infinity` and `-Infinity`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Number(pub f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            value if value.is_finite() => serializer.serialize_f64(value),
            f64::INFINITY => serializer.serialize_str("Infinity"),
            f64::NEG_INFINITY => serializer.serialize_str("-Infinity"),
            _ => serializer.serialize_str("NaN"),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelling {
            Number(f64),
            Text(String),
        }
        Ok(Number(match Spelling::deserialize(deserializer)? {
            Spelling::Number(value) => value,
            Spelling::Text(text) if text == "Infinity" => f64::INFINITY,
            Spelling::Text(text) if text == "-Infinity" => f64::NEG_INFINITY,
            Spelling::Text(_) => f64::NAN,
        }))
    }
}

mod base64_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_lines_of_json_and_come_back() {
        let values = [("a", 0.1), ("b", f64::INFINITY), ("c", f64::NEG_INFINITY)];
        let Entry::Metrics { values, .. } = Entry::metrics(values, 0) else { panic!() };
        let entries = [
            Entry::Metrics { step: -1, ms: 5, values },
            Entry::Params(vec![("lr\n".into(), "ü".into())]),
            Entry::File { path: "a/b".into(), from: "c".into(), remove: true, with: vec![("d".into(), "e".into())] },
            Entry::Content { path: "a.png".into(), bytes: vec![0, 255] },
            Entry::Record(serde_json::json!({ "a": [1, null, "\n"] })),
            Entry::Status { status: RunEnd::Interrupted, ms: 9 },
        ];
        for entry in entries {
            let line = serde_json::to_string(&entry).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Entry>(&line).unwrap(), entry);
        }
        assert_eq!(serde_json::to_string(&Number(f64::NAN)).unwrap(), "\"NaN\"");
        assert!(serde_json::from_str::<Number>("\"NaN\"").unwrap().0.is_nan());
    }
}
