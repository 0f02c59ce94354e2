//! [`Run`]: the lines in which a run of Trackio is written.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::names::{metric_key, project_folder, run_folder};
use crate::entry::{Entry, now_ms};
use crate::random::run_id;
use crate::time::iso;

/// The kinds of lines.
pub(super) const METRIC: &str = "metric";
pub(super) const SYSTEM_METRIC: &str = "system_metric";

/// A run of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The project's name.
    pub project: String,
    /// The run's name.
    pub name: String,
    /// The run's identifier, 32 hexadecimal digits.
    pub id: String,
}

impl Run {
    /// Values at a step, now; with the configuration of the run, which replaces the one that Trackio has.
    pub fn metrics<'a>(
        &self,
        values: impl IntoIterator<Item = (&'a str, Value)>,
        step: i64,
        config: Option<&Map<String, Value>>,
    ) -> Entry {
        let metrics: Map<String, Value> =
            values.into_iter().map(|(name, value)| (metric_key(name).into_owned(), value)).collect();
        let mut record = self.record(METRIC, metrics);
        record["step"] = step.into();
        record["config"] = config.map_or(Value::Null, |config| Value::Object(config.clone()));
        Entry::Record(record)
    }

    /// Statistics of the machine, now.
    pub fn system_metrics<'a>(&self, values: impl IntoIterator<Item = (&'a str, Value)>) -> Entry {
        let metrics = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Entry::Record(self.record(SYSTEM_METRIC, metrics))
    }

    fn record(&self, kind: &str, metrics: Map<String, Value>) -> Value {
        json!({
            "v": 1,
            "kind": kind,
            "project": self.project,
            "run": self.name,
            "run_id": self.id,
            "metrics": metrics,
            "timestamp": iso(now_ms()),
            // By it a line that arrives twice is kept once.
            "log_id": run_id(),
        })
    }

    /// A new image at a step: its file among Trackio's media.
    pub fn media(&self, step: i64) -> String {
        format!("{}/{}/{step}/{}.png", project_folder(&self.project), run_folder(&self.name), run_id())
    }
}

/// A number. Where JSON has none for it, it is one of the texts that Trackio takes for it.
///
/// ```
/// use fulgurite_trackers::trackio::number;
///
/// assert_eq!(number(0.5), 0.5);
/// assert_eq!(number(f64::NAN), "NaN");
/// ```
pub fn number(value: f64) -> Value {
    match value {
        value if value.is_finite() => value.into(),
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        _ => "NaN".into(),
    }
}

/// The image in a [file](Run::media).
pub fn image(media: &str) -> Value {
    json!({ "_type": "trackio.image", "file_path": media, "caption": null })
}

/// A text, which Trackio shows as Markdown.
pub fn markdown(text: &str) -> Value {
    json!({ "_type": "trackio.markdown", "_value": text })
}

/// How many values lie between each two edges, of which there is one more.
pub fn histogram(edges: &[f64], counts: &[f64]) -> Value {
    json!({ "_type": "trackio.histogram", "bins": edges, "values": counts })
}
