//! The messages of which an experiment consists, as entries of an outbox: each entry a list of messages, or one file.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::entry::{Entry, Number, now_ms};
use crate::random::run_id;

/// Values at a step and an epoch, now.
pub fn metrics<'a>(
    values: impl IntoIterator<Item = (&'a str, Number)>,
    step: Option<i64>,
    epoch: Option<f64>,
) -> Entry {
    let ms = now_ms();
    // Comet's epochs are whole numbers.
    let epoch = epoch.filter(|epoch| epoch.is_finite()).map(|epoch| epoch as i64);
    let message = |(name, value)| {
        let metric = json!({ "metricName": name, "metricValue": value, "step": step, "epoch": epoch });
        json!({ "type": "metric_msg", "payload": { "metric": metric, "local_timestamp": ms } })
    };
    Entry::Record(values.into_iter().map(message).collect())
}

/// Hyper-parameters: numbers, texts, switches, nothing, and lists of those.
pub fn parameters(values: impl IntoIterator<Item = (String, Value)>) -> Entry {
    let ms = now_ms();
    let message = |(name, value): (String, Value)| {
        let field = if value.is_array() { "params" } else { "param" };
        let param = json!({ "paramName": name, "paramValue": value, "source": "manual", "step": null });
        json!({ "type": "parameter_msg", "payload": { field: param, "local_timestamp": ms } })
    };
    Entry::Record(values.into_iter().map(message).collect())
}

/// What else is known of the experiment.
pub fn other(key: &str, value: impl Into<Value>) -> Entry {
    Entry::Record(json!([{ "type": "log_other", "payload": { "key": key, "value": value.into() } }]))
}

/// What a file is to Comet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An image.
    Image,
    /// A text.
    Text,
    /// A histogram.
    Histogram,
    /// A file of the model of this name.
    Model(String),
}

/// A file of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Asset {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The step it belongs to.
    pub step: Option<i64>,
    /// What else is known of it.
    pub metadata: Map<String, Value>,
}

impl Asset {
    /// With this content.
    pub fn with(&self, content: &[u8]) -> Entry {
        Entry::Record(json!({ "message": self.message(), "content": STANDARD.encode(content) }))
    }

    /// With the content of a file at the time it is sent; `remove` if it lies there only for that. Without the file, nothing is
    /// sent.
    pub fn of_file(&self, from: &Path, remove: bool) -> Entry {
        Entry::Record(json!({ "message": self.message(), "from": from.to_string_lossy(), "remove": remove }))
    }

    fn message(&self) -> Value {
        let id = run_id();
        let extension = Path::new(&self.name).extension().map(|extension| extension.to_string_lossy());
        let (kind, params) = match &self.kind {
            Kind::Image => {
                let params = json!({ "figName": self.name, "figCounter": 0, "imageId": id });
                ("visualization", params)
            }
            Kind::Text => ("text-sample", json!({ "type": "text-sample", "fileName": self.name, "assetId": id })),
            Kind::Histogram => ("histogram3d", json!({ "type": "histogram3d", "fileName": self.name, "assetId": id })),
            Kind::Model(model) => {
                let params = json!({
                    "type": "model-element", "fileName": self.name, "assetId": id, "groupingName": model, "extension": extension,
                });
                ("model-element", params)
            }
        };
        let mut params = params;
        params["context"] = Value::Null;
        params["step"] = self.step.into();
        params["overwrite"] = false.into();
        let payload = json!({
            "file_path": id, "upload_type": kind, "clean": true, "metadata": self.metadata, "additional_params": params,
            "local_timestamp": now_ms(),
        });
        json!({ "type": "file_upload", "payload": payload })
    }
}

/// A file that stands in an outbox.
pub(super) struct File<'a> {
    pub message: &'a Value,
    pub source: Source,
}

/// Where its content is.
pub(super) enum Source {
    Content(Vec<u8>),
    Path { from: PathBuf, remove: bool },
}

/// The file of a record; `None` if it is a list of messages, or damaged.
pub(super) fn file(record: &Value) -> Option<File<'_>> {
    let message = record.get("message").filter(|message| message["type"] == "file_upload")?;
    let source = match (record["content"].as_str(), record["from"].as_str()) {
        (Some(content), _) => Source::Content(STANDARD.decode(content).ok()?),
        (None, Some(from)) => Source::Path { from: from.into(), remove: record["remove"] == true },
        (None, None) => return None,
    };
    Some(File { message, source })
}

/// The messages of a record that is a list of them.
pub(super) fn messages(record: &Value) -> &[Value] {
    record.as_array().map_or(&[], Vec::as_slice)
}
