//! A backend of Comet: what its own client needs of one to upload an archive.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::http::{Backend, Request};

/// What an experiment has.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Experiment {
    /// Project, workspace and tags.
    pub begun: Option<Value>,
    pub tags: Vec<Value>,
    /// Name, step, epoch and value, sorted.
    pub metrics: Vec<String>,
    pub parameters: BTreeMap<String, Value>,
    pub others: BTreeMap<String, Value>,
    /// By type and name, how many bytes the form has.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Whether it is alive, as it was said.
    pub alive: Vec<bool>,
}

/// All experiments.
#[derive(Debug, Default)]
pub struct Comet {
    pub experiments: BTreeMap<String, Experiment>,
}

impl Backend for Comet {
    fn answer(&mut self, request: &Request, _: &str) -> (u16, String) {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let in_query =
            |name: &str| query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name));
        let key = body["experimentKey"].as_str().or(in_query("experimentId").map(|(_, key)| key)).unwrap_or_default();
        let experiment = self.experiments.entry(key.to_owned()).or_default();
        let values = || body["values"].as_array().cloned().unwrap_or_default();
        match path.trim_start_matches("/clientlib/") {
            "logger/add/run" => experiment.begun = Some(json!([body["projectName"], body["teamName"]])),
            "tags/add-tags-to-experiment" => experiment.tags = body["addedTags"].as_array().unwrap().clone(),
            "status-report/update" => experiment.alive.push(body["is_alive"] == true),
            "batch/logger/experiment/metric" => {
                let text = |value: &Value| {
                    let (name, value, at) =
                        (&value["metricName"], &value["metricValue"], (&value["step"], &value["epoch"]));
                    format!("{name} {value} at {} of {}", at.0, at.1)
                };
                experiment.metrics.extend(values().iter().map(text));
                experiment.metrics.sort();
            }
            "batch/logger/experiment/parameter" => {
                let pairs = values().into_iter();
                let pairs = pairs.map(|value| {
                    (value["parameterName"].as_str().unwrap().to_owned(), value["parameterValue"].clone())
                });
                experiment.parameters.extend(pairs);
            }
            "/api/rest/v2/write/experiment/log-other" => {
                experiment.others.insert(body["key"].as_str().unwrap().to_owned(), body["value"].clone());
            }
            "asset/upload" | "visualizations/upload" => {
                let of = |name: &str| in_query(name).map_or("", |(_, value)| value);
                let (kind, name) = (of("type"), [of("fileName"), of("figName")].concat());
                experiment.files.insert(format!("{kind} {name} {}", of("step")), request.body.clone());
            }
            _ => {}
        }
        let answer = json!({
            "runId": "r1", "project_id": "p1", "projectId": "p1", "link": "http://127.0.0.1/x", "msg": "ok", "assetId": "a",
            "version": "3.0.0", "is_alive_beat_duration_millis": 10_000, "gpu_monitor_interval_millis": 10_000,
        });
        (200, answer.to_string())
    }
}
