//! [`RunState`]: what the records so far say of a run, as the server wants to hear it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::record::{Item, Metric, Record, RunInfo, VERSION, json_number, json_text};

/// What W&B's own client sends at most.
const LONGEST_LINE: usize = (10 << 20) - (100 << 10);

/// What the server had of the run before a file. It is remembered beside the file, so that whoever goes on counts from there too.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Before {
    /// The address of the server.
    pub server: String,
    /// The user or team.
    pub entity: String,
    /// Lines of the history.
    pub history: u64,
    /// Lines of statistics.
    pub events: u64,
    /// The number of the first row.
    pub step: i64,
    /// Last values.
    pub summary: BTreeMap<String, Value>,
    /// Hyper-parameters.
    pub config: BTreeMap<String, Value>,
}

impl Before {
    const NAME: &str = ".fulgurite-server";

    /// What was noted in the folder of a file.
    pub(super) fn noted(folder: &Path) -> Option<Before> {
        serde_json::from_slice(&fs::read(folder.join(Before::NAME)).ok()?).ok()
    }

    pub(super) fn note(&self, folder: &Path) -> std::io::Result<()> {
        let beside = folder.join(".fulgurite-server.tmp");
        fs::write(&beside, serde_json::to_vec(self)?)?;
        fs::rename(beside, folder.join(Before::NAME))
    }

    /// What the answer to `RunResumeStatus` says; nothing if the run is not there.
    pub(super) fn of_status(server: &str, entity: &str, bucket: &Value) -> Before {
        let parsed =
            |text: &Value| serde_json::from_str::<Value>(text.as_str().unwrap_or_default()).unwrap_or_default();
        let entries = |text: &Value| match parsed(text) {
            Value::Object(entries) => entries.into_iter().collect(),
            _ => BTreeMap::new(),
        };
        let history = bucket["historyLineCount"].as_u64().unwrap_or_default();
        let tail = parsed(&bucket["historyTail"]);
        let last = tail.as_array().and_then(|lines| lines.last()).map(parsed).unwrap_or_default();
        let next = last["_step"].as_f64().map_or(0, |step| step as i64 + 1);
        let mut config: BTreeMap<String, Value> = entries(&bucket["config"]);
        config.remove("_wandb");
        let config = config.into_iter().filter_map(|(key, mut value)| Some((key, value.get_mut("value")?.take())));
        Before {
            server: server.to_owned(),
            entity: entity.to_owned(),
            history,
            events: bucket["eventsLineCount"].as_u64().unwrap_or_default(),
            // A count of rows above the last number means that the number is old.
            step: next.max(i64::try_from(history).unwrap_or_default()),
            summary: entries(&bucket["summaryMetrics"]),
            config: config.collect(),
        }
    }
}

/// What the records so far say. JSON is kept as it stands in the file, where `NaN` may stand as it is.
#[derive(Debug, Clone, Default)]
pub(super) struct RunState {
    pub run: RunInfo,
    before: Before,
    summary: BTreeMap<String, String>,
    config: BTreeMap<String, String>,
    metrics: Vec<Metric>,
    /// Where the next lines come.
    history_end: u64,
    events_end: u64,
    /// Lines that are not sent.
    history: Vec<String>,
    events: Vec<String>,
    has_new_summary: bool,
    has_new_config: bool,
}

impl RunState {
    pub(super) fn new(run: RunInfo, before: Before) -> RunState {
        let texts = |values: &BTreeMap<String, Value>| {
            values.iter().map(|(key, value)| (key.clone(), value.to_string())).collect()
        };
        RunState {
            run: RunInfo { entity: before.entity.clone(), ..run },
            summary: texts(&before.summary),
            config: texts(&before.config),
            history_end: before.history,
            events_end: before.events,
            before,
            ..RunState::default()
        }
    }

    /// Takes a record. What is not said in lines, summary or configuration is the caller's. `false` if the server would not take
    /// its line.
    pub(super) fn take(&mut self, record: &Record) -> bool {
        match record {
            Record::Metric(metric) => {
                self.metrics.push(metric.clone());
                self.has_new_config = true;
            }
            Record::Config(items) => {
                self.config.extend(items.iter().cloned());
                self.has_new_config = true;
            }
            Record::Summary(items) => {
                self.summary.extend(items.iter().filter(|(key, _)| key != "_step").cloned());
                self.has_new_summary = true;
            }
            Record::History { step, items } => {
                let step = ("_step".to_owned(), (step + self.before.step).to_string());
                let others = items.iter().filter(|(key, _)| key != "_step");
                let line = object(others.chain([&step]).map(pair));
                if line.len() > LONGEST_LINE {
                    return false;
                }
                self.history.push(line);
                self.summary.extend([step]);
                self.has_new_summary = true;
            }
            Record::Stats { ms, items } => {
                let seconds = |ms: i64| json_number(ms as f64 / 1000.0);
                let mut line = vec![
                    ("_wandb".to_owned(), "true".to_owned()),
                    ("_timestamp".to_owned(), seconds(*ms)),
                    ("_runtime".to_owned(), seconds(ms - self.run.start_ms)),
                ];
                line.extend(items.iter().map(|(key, json)| (format!("system.{key}"), json.clone())));
                self.events.push(object(line.iter().map(pair)));
            }
            _ => {}
        }
        true
    }

    pub(super) fn has_lines(&self) -> bool {
        !self.history.is_empty() || !self.events.is_empty() || self.has_new_summary
    }

    pub(super) fn has_new_config(&self) -> bool {
        self.has_new_config
    }

    /// What the file stream takes of it.
    pub(super) fn stream(&self) -> Value {
        let mut files = json!({});
        if !self.history.is_empty() {
            files["wandb-history.jsonl"] = json!({ "offset": self.history_end, "content": self.history });
        }
        if !self.events.is_empty() {
            files["wandb-events.jsonl"] = json!({ "offset": self.events_end, "content": self.events });
        }
        if self.has_new_summary {
            files["wandb-summary.json"] = json!({ "offset": 0, "content": [self.summary_json()] });
        }
        json!({ "files": files })
    }

    /// The lines are sent.
    pub(super) fn lines_are_sent(&mut self) {
        self.history_end += std::mem::take(&mut self.history).len() as u64;
        self.events_end += std::mem::take(&mut self.events).len() as u64;
        self.has_new_summary = false;
    }

    pub(super) fn config_is_sent(&mut self) {
        self.has_new_config = false;
    }

    pub(super) fn summary_json(&self) -> String {
        object(&self.summary)
    }

    /// The configuration as the server wants it, with what W&B says of itself.
    fn config_json(&self) -> String {
        let own = json!({ "value": { "m": self.definitions(), "t": { "12": VERSION } } }).to_string();
        let wrapped = self.config.iter().map(|(key, json)| (key.clone(), format!("{{\"value\":{json}}}")));
        let all: Vec<Item> = wrapped.chain([("_wandb".to_owned(), own)]).collect();
        object(all.iter().map(pair))
    }

    /// How metrics are shown, by the numbers of the fields of W&B's messages.
    fn definitions(&self) -> Vec<Value> {
        let index = |name: &str| self.metrics.iter().position(|metric| metric.name == name);
        let definition = |metric: &Metric| {
            let mut options = Vec::new();
            options.extend((!metric.step_metric.is_empty()).then_some(1));
            options.extend((!metric.is_glob()).then_some(3));
            let mut definition = json!({ "6": options, "7": [] });
            definition[if metric.is_glob() { "2" } else { "1" }] = metric.name.as_str().into();
            if let Some(index) = index(&metric.step_metric) {
                definition["5"] = (index + 1).into();
            }
            definition
        };
        self.metrics.iter().map(definition).collect()
    }

    /// The variables of `UpsertBucket`.
    pub(super) fn upsert(&self) -> Value {
        let run = &self.run;
        // What is not said here stays on the server as it is.
        let tags = if run.tags.is_empty() { Value::Null } else { json!(run.tags) };
        let some = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
        let (remote, commit) = run.git.clone().unwrap_or_default();
        json!({
            "name": run.id, "project": run.project, "entity": some(&run.entity), "groupName": some(&run.group),
            "displayName": some(&run.display_name), "notes": some(&run.notes), "commit": some(&commit),
            "repo": some(&remote), "config": self.config_json(), "host": some(&run.host),
            "jobType": some(&run.job_type), "sweep": some(&run.sweep_id), "tags": tags,
        })
    }

    /// The configuration as a file: YAML, of which JSON is a part but for values that are not finite.
    pub(super) fn config_yaml(&self) -> String {
        let own = json!({ "value": { "m": self.definitions(), "t": { "12": VERSION } } });
        let mut text = format!("_wandb: {own}\n");
        for (key, json) in &self.config {
            text.push_str(&format!("{}:\n    value: {}\n", json_text(key), with_yaml_numbers(json)));
        }
        text
    }
}

fn pair((key, json): &Item) -> (&String, &String) {
    (key, json)
}

/// An object of keys and JSON.
fn object<'a>(items: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let mut text = String::from("{");
    for (key, json) in items {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&json_text(key));
        text.push(':');
        text.push_str(json);
    }
    text.push('}');
    text
}

/// `NaN` and `Infinity` as YAML writes them, but for those within texts.
fn with_yaml_numbers(json: &str) -> String {
    const WORDS: [(&str, &str); 3] = [("NaN", ".nan"), ("-Infinity", "-.inf"), ("Infinity", ".inf")];
    let (mut out, mut in_text, mut rest) = (String::new(), false, json);
    'next: while let Some(c) = rest.chars().next() {
        if !in_text {
            for (word, yaml) in WORDS {
                if let Some(after) = rest.strip_prefix(word) {
                    out.push_str(yaml);
                    rest = after;
                    continue 'next;
                }
            }
        }
        let length = if in_text && c == '\\' { 2 } else { c.len_utf8() };
        in_text ^= c == '"';
        let (now, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        out.push_str(now);
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_goes_on_counts_from_what_the_server_has() {
        let bucket = json!({
            "historyLineCount": 7, "eventsLineCount": 2, "historyTail": "[\"{\\\"_step\\\": 4}\"]",
            "summaryMetrics": "{\"a\": 1, \"_step\": 4}", "config": "{\"lr\": {\"value\": 0.1}, \"_wandb\": {\"value\": {}}}",
        });
        let before = Before::of_status("http://s", "ann", &bucket);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Before::noted(folder.path()), None);
        before.note(folder.path()).unwrap();
        assert_eq!(Before::noted(folder.path()), Some(before.clone()));

        let mut state = RunState::new(RunInfo { start_ms: 1000, ..RunInfo::default() }, before);
        let item = |key: &str, json: &str| (key.to_owned(), json.to_owned());
        state.take(&Record::Summary(vec![item("b", "NaN"), item("_step", "0")]));
        state.take(&Record::History { step: 0, items: vec![item("b", "NaN"), item("_step", "0")] });
        state.take(&Record::Stats { ms: 1500, items: vec![item("cpu", "5")] });
        state.take(&Record::Config(vec![item("lr", "0.2"), item("n \"N", "[Infinity, \"NaN\\\"\"]")]));
        assert_eq!(
            state.stream(),
            json!({"files": {
                "wandb-history.jsonl": {"offset": 7, "content": ["{\"b\":NaN,\"_step\":7}"]},
                "wandb-events.jsonl": {"offset": 2, "content": ["{\"_wandb\":true,\"_timestamp\":1.5,\"_runtime\":0.5,\"system.cpu\":5}"]},
                "wandb-summary.json": {"offset": 0, "content": ["{\"_step\":7,\"a\":1,\"b\":NaN}"]},
            }})
        );
        state.lines_are_sent();
        assert!(!state.has_lines() && state.has_new_config());
        assert!(
            state.upsert()["config"]
                .as_str()
                .unwrap()
                .starts_with("{\"lr\":{\"value\":0.2},\"n \\\"N\":{\"value\":[Infinity, \"NaN\\\"\"]},\"_wandb\":")
        );
        assert!(
            state.config_yaml().ends_with("\"lr\":\n    value: 0.2\n\"n \\\"N\":\n    value: [.inf, \"NaN\\\"\"]\n")
        );
        state.take(&Record::History { step: 1, items: Vec::new() });
        assert_eq!(state.stream()["files"]["wandb-history.jsonl"], json!({"offset": 8, "content": ["{\"_step\":8}"]}));
    }
}
