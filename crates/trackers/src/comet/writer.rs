//! [`Writer`]: sends messages to an experiment on the server.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::experiment::Experiment;
use super::message::{self, File, Source};
use super::server::{Run, Server};
use crate::entry::{Entry, RunEnd, now_ms};
use crate::error::TrackerError;
use crate::http::{Answer, Content, Form, encode, later};
use crate::own_files::OwnFiles;
use crate::service::{Failure, Sent, Service};

/// What one call has.
const MOST_VALUES: usize = 1000;

/// What is warned of at most; more would say nothing new.
const MOST_WARNINGS: usize = 20;

/// How long to wait before a refused key is tried again.
const AFTER_DENIAL: Duration = Duration::from_secs(60);

const METRICS: &str = "batch/logger/experiment/metric";
const PARAMETERS: &str = "batch/logger/experiment/parameter";

/// Sends messages to an experiment.
#[derive(Debug)]
pub struct Writer {
    server: Server,
    run: Run,
    tags: Vec<String>,
    warned: BTreeSet<String>,
    /// For an outbox that somebody else may have written.
    own_files: Option<OwnFiles>,
    is_unsupported: Arc<AtomicBool>,
}

impl Server {
    /// Begins an experiment, or goes on with it. `None` if the server does not know what Comet's own client asks, so that only an
    /// archive is left.
    ///
    /// # Errors
    ///
    /// Fails if the server cannot be reached, or refuses the key, the experiment or its names.
    pub fn begin(self, experiment: &Experiment) -> Result<Option<Writer>, TrackerError> {
        let Some(run) = self.start(experiment)? else { return Ok(None) };
        let (tags, warned, is_unsupported) = (experiment.tags.clone(), BTreeSet::new(), Arc::default());
        Ok(Some(Writer { server: self, run, tags, warned, own_files: None, is_unsupported }))
    }
}

impl Writer {
    pub(super) fn only_files_of(self, own: OwnFiles) -> Writer {
        Writer { own_files: Some(own), ..self }
    }

    /// Whether the server turned out not to know a call of Comet's client, so that only an archive is left.
    pub fn unsupported(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_unsupported)
    }

    /// Says whether the experiment goes on.
    fn report(&mut self, is_alive: bool, sent: &mut Sent) -> Result<(), Failure> {
        let Run { key, run_id, project_id } = &self.run;
        let body = json!({
            "experimentKey": key, "runId": run_id, "projectId": project_id, "is_alive": is_alive,
            "local_timestamp": now_ms(), "offline": false,
        });
        let answer = self.server.once("status-report/update", &self.server.with_key(body));
        self.accept(answer, "the state of the experiment", sent)
    }

    fn add_tags(&mut self, sent: &mut Sent) -> Result<(), Failure> {
        if self.tags.is_empty() {
            return Ok(());
        }
        let body = json!({ "experimentKey": self.run.key, "addedTags": self.tags });
        let answer = self.server.once("tags/add-tags-to-experiment", &self.server.with_key(body));
        self.accept(answer, "the tags", sent)?;
        self.tags.clear();
        Ok(())
    }

    /// Values of metrics or parameters. A call that is refused is halved until what is wrong is alone.
    fn log(&mut self, call: &str, values: &[Value], sent: &mut Sent) -> Result<(), Failure> {
        for values in values.chunks(MOST_VALUES) {
            let body = json!({ "experimentKey": self.run.key, "values": values });
            let answer = self.server.once(call, &body);
            let Err(refusal) = self.judge(answer)? else { continue };
            if let [value] = values {
                let name = value["metricName"].as_str().or(value["parameterName"].as_str()).unwrap_or_default();
                self.warn(sent, name, format!("Comet refuses `{name}`: {}", refusal.reason()));
                continue;
            }
            let (first, second) = values.split_at(values.len() / 2);
            self.log(call, first, sent)?;
            self.log(call, second, sent)?;
        }
        Ok(())
    }

    fn log_other(&mut self, payload: &Value, sent: &mut Sent) -> Result<(), Failure> {
        let body = json!({ "experimentKey": self.run.key, "key": payload["key"], "value": payload["value"] });
        let answer = self.server.once_rest("write/experiment/log-other", &body);
        self.accept(answer, "what else is known of the experiment", sent)
    }

    fn upload(&mut self, file: &File, sent: &mut Sent) -> Result<(), Failure> {
        let payload = &file.message["payload"];
        let path = path_and_query(payload, &self.run);
        let metadata = payload["metadata"].as_object().filter(|metadata| !metadata.is_empty());
        let metadata = metadata.map(|metadata| Value::Object(metadata.clone()).to_string());
        let text = metadata.as_deref().map(|metadata| ("metadata", metadata));
        let form = |content| Form { field: "file", file_name: "file", content, text };
        match &file.source {
            Source::Content(content) => {
                let answer = self.server.upload(&path, form(Content::Bytes(content)));
                self.accept(answer, "a file", sent)
            }
            Source::Path { from, remove } => {
                // What is gone was replaced by a better checkpoint.
                let Ok(held) = fs::File::open(from) else { return Ok(()) };
                let Some(len) = held.metadata().ok().filter(|held| held.is_file()).map(|held| held.len()) else {
                    return Ok(());
                };
                if self.own_files.as_ref().is_some_and(|own| !own.may_send(from)) {
                    let why =
                        format!("{} is not sent: it is no checkpoint, and not in the outbox's folder", from.display());
                    self.warn(sent, "file", why);
                    return Ok(());
                }
                let answer = self.server.upload(&path, form(Content::File(&held, len)));
                self.accept(answer, "a file", sent)?;
                if *remove && self.own_files.as_ref().is_none_or(|own| own.holds(from)) {
                    // What stays costs space, and nothing else.
                    let _ = fs::remove_file(from);
                }
                Ok(())
            }
        }
    }

    fn accept(&mut self, answer: Result<Answer, String>, what: &str, sent: &mut Sent) -> Result<(), Failure> {
        if let Err(refusal) = self.judge(answer)? {
            self.warn(sent, what, format!("Comet refuses {what}: {}", refusal.reason()));
        }
        Ok(())
    }

    fn warn(&mut self, sent: &mut Sent, subject: &str, why: String) {
        if self.warned.len() < MOST_WARNINGS && self.warned.insert(subject.to_owned()) {
            sent.warnings.push(why);
        }
    }

    /// What an answer means: a success, a refusal for good, or a failure if what is to be sent must wait.
    fn judge(&self, answer: Result<Answer, String>) -> Result<Result<(), Answer>, Failure> {
        let url = self.server.url();
        let answer =
            answer.map_err(|why| Failure::Later { why: format!("{url} cannot be reached: {why}"), after: None })?;
        if answer.is_success() {
            return Ok(Ok(()));
        }
        if let Some(denial) = self.server.denial(&answer) {
            return Err(Failure::Later { why: denial, after: Some(AFTER_DENIAL) });
        }
        if answer.is_for_now() {
            return Err(later(url, &answer));
        }
        if answer.status == 404 {
            self.is_unsupported.store(true, Ordering::Relaxed);
            return Err(Failure::Closed(format!("{url} does not know a call of Comet's client")));
        }
        Ok(Err(answer))
    }

    fn send_in_order(&mut self, entries: &[Entry], sent: &mut Sent) -> Result<(), Failure> {
        self.add_tags(sent)?;
        let mut waiting = Waiting::default();
        for (index, entry) in entries.iter().enumerate() {
            match entry {
                Entry::Record(record) if message::file(record).is_none() => {
                    message::messages(record).iter().for_each(|message| waiting.add(message));
                    continue;
                }
                _ => {}
            }
            self.send_waiting(&mut waiting, sent)?;
            sent.done = index;
            match entry {
                Entry::Record(record) => {
                    if let Some(file) = message::file(record) {
                        self.upload(&file, sent)?;
                    }
                }
                Entry::Status { status, .. } => self.report(*status == RunEnd::Running, sent)?,
                _ => {}
            }
            sent.done = index + 1;
        }
        self.send_waiting(&mut waiting, sent)?;
        sent.done = entries.len();
        Ok(())
    }

    fn send_waiting(&mut self, waiting: &mut Waiting, sent: &mut Sent) -> Result<(), Failure> {
        let Waiting { metrics, parameters, others } = std::mem::take(waiting);
        self.log(METRICS, &metrics, sent)?;
        self.log(PARAMETERS, &parameters, sent)?;
        others.iter().try_for_each(|other| self.log_other(other, sent))
    }
}

impl Service for Writer {
    fn send(&mut self, entries: &[Entry]) -> Sent {
        let mut sent = Sent::default();
        let failure = self.send_in_order(entries, &mut sent);
        sent.failure = failure.err();
        sent
    }

    fn idle(&mut self) -> Sent {
        let mut sent = Sent::default();
        // It is said again.
        let _ = self.report(true, &mut sent);
        sent
    }
}

/// Messages, as the values of calls.
#[derive(Default)]
struct Waiting {
    metrics: Vec<Value>,
    parameters: Vec<Value>,
    others: Vec<Value>,
}

impl Waiting {
    fn add(&mut self, message: &Value) {
        let payload = &message["payload"];
        let timestamp = &payload["local_timestamp"];
        if message["type"] == "metric_msg" {
            let metric = &payload["metric"];
            self.metrics.push(json!({
                "metricName": metric["metricName"], "metricValue": metric["metricValue"], "step": metric["step"],
                "epoch": metric["epoch"], "context": null, "timestamp": timestamp,
            }));
        } else if message["type"] == "parameter_msg" {
            let param = payload.get("param").or(payload.get("params")).unwrap_or(&Value::Null);
            self.parameters.push(json!({
                "parameterName": param["paramName"], "parameterValue": param["paramValue"], "step": param["step"],
                "source": param["source"], "context": null, "timestamp": timestamp,
            }));
        } else if message["type"] == "log_other" {
            self.others.push(payload.clone());
        }
    }
}

/// Where a file is uploaded to, with what it is.
fn path_and_query(payload: &Value, run: &Run) -> String {
    let path = if payload["upload_type"] == "visualization" { "visualizations/upload" } else { "asset/upload" };
    let mut query =
        format!("experimentId={}&projectId={}&runId={}", run.key, encode(&run.project_id), encode(&run.run_id));
    for (name, value) in payload["additional_params"].as_object().into_iter().flatten() {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            // As Comet's client writes them.
            Value::Bool(on) => (if *on { "True" } else { "False" }).to_owned(),
            other => other.to_string(),
        };
        query.push_str(&format!("&{}={}", encode(name), encode(&text).replace('+', "%2B")));
    }
    format!("{path}?{query}")
}
