//! [`Writer`]: sends entries to a dashboard elsewhere.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::inbox::plain_path;
use super::record::SYSTEM_METRIC;
use super::server::{Server, data};
use crate::entry::Entry;
use crate::http::{Answer, Content, Form, later};
use crate::service::{Failure, Sent, Service};

/// What is warned of at most; more would say nothing new.
const MOST_WARNINGS: usize = 20;

/// How long to wait before a refused token is tried again.
const AFTER_DENIAL: Duration = Duration::from_secs(60);

/// Sends entries to a dashboard. A line that is sent again is kept once, by its `log_id`.
#[derive(Debug)]
pub struct Writer {
    server: Server,
    warned: BTreeSet<String>,
}

impl Server {
    /// What writes runs there.
    pub fn writer(self) -> Writer {
        Writer { server: self, warned: BTreeSet::new() }
    }
}

impl Service for Writer {
    fn send(&mut self, entries: &[Entry]) -> Sent {
        let mut sent = Sent::default();
        let failure = self.send_in_order(entries, &mut sent);
        sent.failure = failure.err();
        sent
    }
}

impl Writer {
    fn send_in_order(&mut self, entries: &[Entry], sent: &mut Sent) -> Result<(), Failure> {
        while let Some(entry) = entries.get(sent.done) {
            sent.done += match entry {
                Entry::Record(_) => {
                    let records = next_call(&entries[sent.done..]);
                    self.log(&records, sent)?;
                    records.len()
                }
                Entry::Content { path, bytes } => {
                    self.upload(path, bytes, sent)?;
                    1
                }
                _ => 1,
            };
        }
        Ok(())
    }

    /// One call. One that is refused is halved until what is wrong is alone.
    fn log(&mut self, records: &[&Value], sent: &mut Sent) -> Result<(), Failure> {
        let Some(first) = records.first() else { return Ok(()) };
        let call = if first["kind"] == SYSTEM_METRIC { "bulk_log_system" } else { "bulk_log" };
        let logs: Vec<Value> = records.iter().map(|record| as_log(record)).collect();
        let Some(refusal) = self.call(call, &json!({ "hf_token": null, "logs": logs }))? else { return Ok(()) };
        if records.len() == 1 {
            let why = format!("Trackio refuses the values of step {}: {}", first["step"], refusal.reason());
            self.warn(sent, refusal.reason(), why);
            return Ok(());
        }
        let (some, others) = records.split_at(records.len() / 2);
        self.log(some, sent)?;
        self.log(others, sent)
    }

    /// An image: first the file, then what it is.
    fn upload(&mut self, path: &str, bytes: &[u8], sent: &mut Sent) -> Result<(), Failure> {
        let parts: Vec<&str> = path.split('/').collect();
        let (Some(_), [project, run, step, name]) = (plain_path(path), parts.as_slice()) else { return Ok(()) };
        let form = Form { field: "files", file_name: "image.png", content: Content::Bytes(bytes), text: None };
        let refusal = match self.judge(self.server.upload(form))? {
            Err(refusal) => Some(refusal),
            Ok(answer) => {
                let json = answer.json().unwrap_or_default();
                let Some(place) = json["paths"][0].as_str() else { return Err(self.is_no_trackio()) };
                let file = json!({ "path": place, "meta": { "_type": "gradio.FileData" }, "orig_name": name });
                let step = step.parse::<i64>().unwrap_or_default();
                let upload = json!({ "project": project, "run": run, "step": step, "relative_path": null, "uploaded_file": file });
                self.call("bulk_upload_media", &json!({ "hf_token": null, "uploads": [upload] }))?
            }
        };
        if let Some(refusal) = refusal {
            self.warn(sent, "image".into(), format!("Trackio refuses an image: {}", refusal.reason()));
        }
        Ok(())
    }

    fn warn(&mut self, sent: &mut Sent, subject: String, why: String) {
        if self.warned.len() < MOST_WARNINGS && self.warned.insert(subject) {
            sent.warnings.push(why);
        }
    }

    /// Calls, and returns the answer if the server will never take this.
    fn call(&self, call: &str, body: &Value) -> Result<Option<Answer>, Failure> {
        match self.judge(self.server.once(call, body))? {
            Err(refusal) => Ok(Some(refusal)),
            Ok(answer) if data(&answer).is_some() => Ok(None),
            Ok(_) => Err(self.is_no_trackio()),
        }
    }

    /// What an answer means: a success, a refusal for good, or a failure if what is to be sent must wait.
    fn judge(&self, answer: Result<Answer, String>) -> Result<Result<Answer, Answer>, Failure> {
        let url = self.server.url();
        let answer =
            answer.map_err(|why| Failure::Later { why: format!("{url} cannot be reached: {why}"), after: None })?;
        if answer.is_success() {
            return Ok(Ok(answer));
        }
        if let Some(denial) = self.server.denial(&answer) {
            return Err(Failure::Later { why: denial, after: Some(AFTER_DENIAL) });
        }
        if answer.is_for_now() {
            return Err(later(url, &answer));
        }
        // Trackio says what is wrong; something between here and there does not.
        let is_of_trackio = answer.status != 404 && answer.json().is_some();
        if is_of_trackio || answer.status == 413 { Ok(Err(answer)) } else { Err(self.is_no_trackio()) }
    }

    fn is_no_trackio(&self) -> Failure {
        let why = format!("what answers at {} is no Trackio server", self.server.url());
        Failure::Later { why, after: None }
    }
}

/// Lines that one call takes: of one kind, and with a configuration only in the first, because a call keeps one.
fn next_call(entries: &[Entry]) -> Vec<&Value> {
    let mut records: Vec<&Value> = Vec::new();
    for entry in entries {
        let Entry::Record(record) = entry else { break };
        let fits = records.first().is_none_or(|first| first["kind"] == record["kind"] && record["config"].is_null());
        if !fits {
            break;
        }
        records.push(record);
    }
    records
}

/// A line of the inbox as it is logged by a call.
fn as_log(record: &Value) -> Value {
    let mut log = record.clone();
    if let Some(fields) = log.as_object_mut() {
        fields.shift_remove("v");
        fields.shift_remove("kind");
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trackio::record::METRIC;

    #[test]
    fn a_call_has_one_kind_and_one_configuration() {
        let record = |kind: &str, config: Value| Entry::Record(json!({ "kind": kind, "config": config }));
        let (row, new) = (record(METRIC, Value::Null), record(METRIC, json!({ "lr": 1 })));
        let entries = [new.clone(), row.clone(), row.clone(), new, row, record(SYSTEM_METRIC, Value::Null)];
        let counts = [0, 1, 3, 5, 6].map(|from| next_call(&entries[from..]).len());
        assert_eq!(counts, [3, 2, 2, 1, 0]);
    }
}
