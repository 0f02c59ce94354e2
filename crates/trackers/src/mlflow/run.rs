//! [`RunWriter`]: sends entries to a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::batch::{Item, body, next_request};
use super::server::{Server, code};
use super::target::Run;
use crate::entry::{Entry, RunEnd};
use crate::http::{Answer, Body, later};
use crate::own_files::OwnFiles;
use crate::service::{Failure, Sent, Service};

/// What a run warns of at most; more would say nothing new.
const MOST_WARNINGS: usize = 20;

/// How long to wait before a refused key is tried again.
const AFTER_DENIAL: Duration = Duration::from_secs(60);

/// Sends entries to a run of MLflow.
#[derive(Debug)]
pub struct RunWriter {
    server: Server,
    run: Run,
    params: BTreeMap<String, String>,
    /// What was warned of.
    warned: BTreeSet<String>,
    /// Files elsewhere are uploaded only if they are checkpoints.
    own_files: Option<OwnFiles>,
}

impl Server {
    /// What writes to a run.
    pub fn writer(self, run: Run) -> RunWriter {
        let params = run.params.iter().cloned().collect();
        RunWriter { server: self, run, params, warned: BTreeSet::new(), own_files: None }
    }
}

impl RunWriter {
    /// For an outbox that somebody else may have written: only files in its folder and checkpoints are uploaded.
    pub(crate) fn only_files_of(self, folder: &Path) -> RunWriter {
        RunWriter { own_files: Some(OwnFiles::of(folder)), ..self }
    }

    /// What `log-batch` takes of an entry; `None` if it is not for that.
    fn items(&mut self, entry: &Entry, before: &[Item], sent: &mut Sent) -> Option<Vec<Item>> {
        Some(match entry {
            Entry::Metrics { step, ms, values } => {
                let item =
                    |(key, value): &(String, _)| Item::Metric { key: key.clone(), value: *value, ms: *ms, step: *step };
                values.iter().map(item).collect()
            }
            Entry::Tags(tags) => tags.iter().map(|(key, value)| Item::Tag(key.clone(), value.clone())).collect(),
            Entry::Params(params) => {
                let mut items = Vec::new();
                for (key, value) in params {
                    let waiting = before.iter().chain(&items).find_map(|item| match item {
                        Item::Param(other, held) if other == key => Some(held),
                        _ => None,
                    });
                    match self.params.get(key).or(waiting).cloned() {
                        None => items.push(Item::Param(key.clone(), value.clone())),
                        Some(held) if held == *value => {}
                        Some(held) => {
                            let why = format!(
                                "the hyper-parameter `{key}` is {value:?} now and {held:?} in the run of MLflow, which keeps the first value"
                            );
                            self.warn(sent, format!("param {key}"), why);
                        }
                    }
                }
                items
            }
            Entry::File { .. } | Entry::Content { .. } | Entry::Record(_) | Entry::Status { .. } => return None,
        })
    }

    fn warn(&mut self, sent: &mut Sent, subject: String, why: String) {
        if self.warned.len() < MOST_WARNINGS && self.warned.insert(subject) {
            sent.warnings.push(why);
        }
    }

    fn log(&mut self, items: &[Item], sent: &mut Sent) -> Result<(), Failure> {
        let mut rest = items;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(next_request(rest));
            self.log_batch(now, sent)?;
            for item in now {
                if let Item::Param(key, value) = item {
                    self.params.insert(key.clone(), value.clone());
                }
            }
            rest = later;
        }
        Ok(())
    }

    /// One request. MLflow takes all of it or nothing, so one that is refused is halved until what is wrong is alone.
    fn log_batch(&mut self, items: &[Item], sent: &mut Sent) -> Result<(), Failure> {
        let answer = self.server.once("POST", "runs/log-batch", Some(&body(&self.run.run_id, items)));
        let Some(refusal) = self.judge(answer)? else { return Ok(()) };
        if let [item] = items {
            let why = format!("MLflow refuses the {} `{}`: {}", item.kind(), item.key(), refusal.reason());
            self.warn(sent, format!("{} {}", item.kind(), item.key()), why);
            return Ok(());
        }
        let (first, second) = items.split_at(items.len() / 2);
        self.log_batch(first, sent)?;
        self.log_batch(second, sent)
    }

    fn set_status(&mut self, status: RunEnd, ms: i64, sent: &mut Sent) -> Result<(), Failure> {
        let name = match status {
            RunEnd::Running => "RUNNING",
            RunEnd::Success => "FINISHED",
            RunEnd::Failed => "FAILED",
            RunEnd::Interrupted => "KILLED",
        };
        let mut update = json!({ "run_id": self.run.run_id, "status": name });
        if status != RunEnd::Running {
            update["end_time"] = ms.into();
        }
        let answer = self.server.once("POST", "runs/update", Some(&update));
        if let Some(refusal) = self.judge(answer)? {
            self.warn(sent, "status".into(), format!("MLflow refuses the status {name}: {}", refusal.reason()));
        }
        Ok(())
    }

    fn upload(&mut self, path: &str, body: &Body, sent: &mut Sent) -> Result<(), Failure> {
        let Some(root) = artifact_root(&self.run.artifact_uri) else {
            let why = format!(
                "files cannot be uploaded to {}: this version knows servers that take artifacts themselves; start yours with `--serve-artifacts`, which is its default",
                scheme(&self.run.artifact_uri)
            );
            self.warn(sent, "artifacts".into(), why);
            return Ok(());
        };
        let answer = self.server.put(&format!("{root}/{path}"), body);
        // Uploads are answered without content.
        if let Ok(answer) = &answer
            && answer.is_success()
        {
            return Ok(());
        }
        if let Some(refusal) = self.judge(answer)? {
            self.warn(sent, format!("file {path}"), format!("MLflow refuses the file {path}: {}", refusal.reason()));
        }
        Ok(())
    }

    fn upload_file(
        &mut self,
        path: &str,
        from: &Path,
        with: &[(String, String)],
        sent: &mut Sent,
    ) -> Result<(), Failure> {
        // What is gone was replaced by a better checkpoint.
        let Ok(file) = File::open(from) else { return Ok(()) };
        let Ok(metadata) = file.metadata() else { return Ok(()) };
        if !metadata.is_file() {
            return Ok(());
        }
        if self.own_files.as_ref().is_some_and(|own| !own.may_send(from)) {
            let why =
                format!("{} is not uploaded: it is no checkpoint, and not in the outbox's folder", from.display());
            self.warn(sent, format!("file {path}"), why);
            return Ok(());
        }
        self.upload(path, &Body::File(&file, metadata.len()), sent)?;
        with.iter().try_for_each(|(path, text)| self.upload(path, &Body::Bytes(text.as_bytes()), sent))
    }

    /// Whether the file was put there by whoever wrote the outbox.
    fn is_own(&self, from: &Path) -> bool {
        self.own_files.as_ref().is_none_or(|own| own.holds(from))
    }

    /// What an answer means: `None` if all is well, the answer if the server will never take this, and a failure if what is to
    /// be sent must wait.
    fn judge(&self, answer: Result<Answer, String>) -> Result<Option<Answer>, Failure> {
        let url = self.server.url();
        let answer =
            answer.map_err(|why| Failure::Later { why: format!("{url} cannot be reached: {why}"), after: None })?;
        if answer.is_success() {
            // Something between here and the server may have answered.
            let is_whole = answer.json().is_some_and(|json| json.is_object());
            let why = || Failure::Later { why: format!("what answers at {url} is no MLflow server"), after: None };
            return if is_whole { Ok(None) } else { Err(why()) };
        }
        if answer.is_denied() {
            return Err(Failure::Later { why: self.server.denial(&answer), after: Some(AFTER_DENIAL) });
        }
        if answer.is_for_now() {
            return Err(later(url, &answer));
        }
        let run_id = &self.run.run_id;
        if code(&answer) == "RESOURCE_DOES_NOT_EXIST" {
            return Err(Failure::Closed(format!("the run {run_id} is not at {url}: {}", answer.reason())));
        }
        if answer.text.contains("must be in the 'active' state") {
            return Err(Failure::Closed(format!(
                "the run {run_id} of {url} was deleted; `mlflow runs restore --run-id {run_id}` brings it back"
            )));
        }
        Ok(Some(answer))
    }
}

impl Service for RunWriter {
    fn send(&mut self, entries: &[Entry]) -> Sent {
        let mut sent = Sent::default();
        let failure = self.send_in_order(entries, &mut sent);
        sent.failure = failure.err();
        sent
    }
}

impl RunWriter {
    fn send_in_order(&mut self, entries: &[Entry], sent: &mut Sent) -> Result<(), Failure> {
        let mut items = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            if let Some(more) = self.items(entry, &items, sent) {
                items.extend(more);
                continue;
            }
            self.log(&items, sent)?;
            items.clear();
            sent.done = index;
            match entry {
                Entry::File { path, from, remove, with } => {
                    self.upload_file(path, from, with, sent)?;
                    if *remove && self.is_own(from) {
                        // What stays costs space, and nothing else.
                        let _ = fs::remove_file(from);
                    }
                }
                Entry::Content { path, bytes } => self.upload(path, &Body::Bytes(bytes), sent)?,
                Entry::Status { status, ms } => self.set_status(*status, *ms, sent)?,
                Entry::Metrics { .. } | Entry::Params(_) | Entry::Tags(_) | Entry::Record(_) => {}
            }
            sent.done = index + 1;
        }
        self.log(&items, sent)?;
        sent.done = entries.len();
        Ok(())
    }
}

/// The path of a run's artifacts on a server that takes them itself.
fn artifact_root(uri: &str) -> Option<&str> {
    let path = uri.strip_prefix("mlflow-artifacts:")?;
    // With `//` there is a host: another server would need another key.
    (!path.starts_with("//")).then(|| path.trim_matches('/'))
}

fn scheme(uri: &str) -> String {
    let scheme = uri.split_once(':').map_or("a folder of the server", |(scheme, _)| scheme);
    scheme.chars().filter(|c| !c.is_control()).take(40).collect()
}
