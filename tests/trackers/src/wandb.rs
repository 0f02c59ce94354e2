//! W&B's server, as far as runs need it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::http::{Backend, Request};

/// What the server has.
#[derive(Debug, Default)]
pub struct Wandb {
    /// By project and identifier.
    pub runs: BTreeMap<String, Run>,
    pub artifacts: Vec<Artifact>,
    /// The user has pressed Stop.
    pub stopped: bool,
    /// The name of each operation.
    pub operations: Vec<String>,
}

#[derive(Debug, Default, Clone, PartialEq)]
pub struct Run {
    /// What the last `UpsertBucket` said, but for what is empty.
    pub info: BTreeMap<String, Value>,
    pub history: Vec<String>,
    pub events: Vec<String>,
    pub log: Vec<String>,
    pub summary: String,
    pub files: BTreeMap<String, Vec<u8>>,
    pub exit_code: Option<i64>,
    pub is_complete: bool,
}

#[derive(Debug, Default, Clone, PartialEq)]
pub struct Artifact {
    pub input: Value,
    pub manifest: Vec<u8>,
    pub files: BTreeMap<String, Vec<u8>>,
    pub is_committed: bool,
}

impl Backend for Wandb {
    fn answer(&mut self, request: &Request, url: &str) -> (u16, String) {
        let path: Vec<String> = request.path.trim_matches('/').split('/').map(decoded).collect();
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("POST", ["graphql"]) => {
                let asked: Value = serde_json::from_slice(&request.body).unwrap();
                let operation = asked["operationName"].as_str().unwrap_or_default();
                self.operations.push(operation.to_owned());
                match self.operation(operation, &asked["variables"], url) {
                    Some(data) => (200, json!({ "data": data }).to_string()),
                    None => (400, json!({"errors": [{"message": format!("no operation {operation}")}]}).to_string()),
                }
            }
            ("POST", ["files", _, project, run, "file_stream"]) => {
                let stopped = self.stopped;
                let run = self.runs.get_mut(&format!("{project}/{run}")).unwrap();
                run.take(&serde_json::from_slice(&request.body).unwrap());
                (200, json!({"exitcode": null, "limits": {}, "stopped": stopped}).to_string())
            }
            ("PUT", ["run", project, run, file]) => {
                let run = self.runs.get_mut(&format!("{project}/{run}")).unwrap();
                run.files.insert((*file).to_owned(), request.body.clone());
                (200, String::new())
            }
            ("PUT", ["artifact", index, file]) => {
                let artifact = &mut self.artifacts[index.parse::<usize>().unwrap()];
                match *file {
                    "wandb_manifest.json" => artifact.manifest = request.body.clone(),
                    file => drop(artifact.files.insert(file.to_owned(), request.body.clone())),
                }
                (200, String::new())
            }
            _ => (404, json!({"error": "not found"}).to_string()),
        }
    }
}

impl Wandb {
    fn operation(&mut self, name: &str, asked: &Value, url: &str) -> Option<Value> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Some(match name {
            "Viewer" => {
                json!({"viewer": {"id": "u", "entity": "ann", "username": "ann", "email": "a@b", "flags": "{}", "teams": {"edges": []}}})
            }
            "OrganizationCoreWeaveOrganizationID" => json!({}),
            "ServerFeaturesQuery" => json!({"serverInfo": {"features": []}}),
            "RunResumeStatus" => {
                let run = self.runs.get(&format!("{}/{}", text(&asked["project"]), text(&asked["name"])));
                json!({"model": {"id": "p", "name": asked["project"], "entity": {"id": "e", "name": "ann"}, "bucket": run.map(|run| run.status(&text(&asked["name"])))}})
            }
            "UpsertBucket" => {
                let (project, id) = (text(&asked["project"]), text(&asked["name"]));
                let key = format!("{project}/{id}");
                let inserted = !self.runs.contains_key(&key);
                let run = self.runs.entry(key).or_default();
                for (name, value) in asked.as_object().unwrap() {
                    if !value.is_null() && *value != "" && !["id", "entity"].contains(&name.as_str()) {
                        run.info.insert(name.clone(), value.clone());
                    }
                }
                if let Some(summary) = asked["summaryMetrics"].as_str() {
                    run.summary = summary.to_owned();
                }
                let project = json!({"id": "p", "name": project, "entity": {"id": "e", "name": "ann"}});
                json!({"upsertBucket": {"inserted": inserted, "bucket": {"id": format!("bucket-{id}"), "name": id, "displayName": run.info.get("displayName"), "description": null, "config": run.info.get("config"), "sweepName": null, "project": project, "historyLineCount": run.history.len()}}})
            }
            "CreateRunFiles" => {
                let base = format!("{url}/run/{}/{}", text(&asked["project"]), text(&asked["run"]));
                let file =
                    |name: &Value| json!({"name": name, "uploadUrl": format!("{base}/{}", encoded(&text(name)))});
                let files: Vec<Value> = asked["files"].as_array().unwrap().iter().map(file).collect();
                json!({"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}})
            }
            "CreateArtifact" => {
                let input = asked["input"].clone();
                let held = |artifact: &Artifact| artifact.is_committed && artifact.input["digest"] == input["digest"];
                let (index, state) = match self.artifacts.iter().position(held) {
                    Some(index) => (index, "COMMITTED"),
                    None => {
                        self.artifacts.push(Artifact { input, ..Artifact::default() });
                        (self.artifacts.len() - 1, "PENDING")
                    }
                };
                json!({"createArtifact": {"artifact": {"id": index.to_string(), "state": state, "artifactSequence": {"id": "s", "latestArtifact": null}}}})
            }
            "CreateArtifactManifest" => {
                let url = format!("{url}/artifact/{}/wandb_manifest.json", text(&asked["artifactID"]));
                let file = json!({"id": "f", "uploadUrl": url, "uploadHeaders": []});
                json!({"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}})
            }
            "CreateArtifactFiles" => {
                let node = |file: &Value| {
                    let (id, name) = (text(&file["artifactID"]), text(&file["name"]));
                    let md5 = format!("Content-MD5:{}", text(&file["md5"]));
                    json!({"node": {"storagePath": name, "uploadUrl": format!("{url}/artifact/{id}/{}", encoded(&name)), "uploadHeaders": [md5], "uploadMultipartUrls": null, "artifact": {"id": id}}})
                };
                let edges: Vec<Value> = asked["input"]["artifactFiles"].as_array().unwrap().iter().map(node).collect();
                json!({"createArtifactFiles": {"files": {"edges": edges}}})
            }
            "CommitArtifact" => {
                let artifact = &mut self.artifacts[text(&asked["artifactID"]).parse::<usize>().unwrap()];
                artifact.is_committed = true;
                json!({"commitArtifact": {"artifact": {"id": asked["artifactID"], "digest": artifact.input["digest"]}}})
            }
            _ => return None,
        })
    }
}

impl Run {
    /// What a run that goes on asks for.
    fn status(&self, name: &str) -> Value {
        // The server's answers are strict JSON.
        let strict = |text: &str| if text.is_empty() { "{}".to_owned() } else { json_with_nan(text).to_string() };
        let tail = |lines: &[String]| json!(lines.last().map_or_else(Vec::new, |line| vec![strict(line)])).to_string();
        let config = strict(self.info.get("config").and_then(Value::as_str).unwrap_or_default());
        let of_client = serde_json::from_str::<Value>(&config).unwrap()["_wandb"]["value"]["t"].clone();
        let of_client = if of_client.is_null() { json!({}) } else { json!({ "t": of_client }) };
        json!({
            "id": format!("bucket-{name}"), "name": name, "displayName": self.info.get("displayName"),
            "summaryMetrics": strict(&self.summary), "config": config, "tags": self.info.get("tags"), "notes": null, "wandbConfig": of_client.to_string(),
            "historyLineCount": self.history.len(), "eventsLineCount": self.events.len(), "logLineCount": self.log.len(),
            "historyTail": tail(&self.history), "eventsTail": tail(&self.events),
        })
    }

    /// One request of the file stream.
    fn take(&mut self, request: &Value) {
        for (name, part) in request["files"].as_object().into_iter().flatten() {
            let offset = part["offset"].as_u64().unwrap_or_default() as usize;
            let content = part["content"].as_array().into_iter().flatten();
            let content: Vec<String> = content.map(|line| line.as_str().unwrap().to_owned()).collect();
            let lines = match name.as_str() {
                "wandb-history.jsonl" => &mut self.history,
                "wandb-events.jsonl" => &mut self.events,
                "output.log" => &mut self.log,
                "wandb-summary.json" => {
                    self.summary = content.into_iter().next_back().unwrap_or_default();
                    continue;
                }
                other => panic!("an unknown file {other}"),
            };
            assert!(offset <= lines.len(), "{name} has {} lines, and more come at {offset}", lines.len());
            lines.truncate(offset);
            lines.extend(content);
        }
        if let Some(code) = request["exitcode"].as_i64() {
            self.exit_code = Some(code);
        }
        self.is_complete |= request["complete"] == true;
    }
}

fn encoded(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn decoded(part: &str) -> String {
    let mut bytes = part.bytes();
    let mut text = Vec::new();
    while let Some(byte) = bytes.next() {
        let digits = if byte == b'%' { [bytes.next(), bytes.next()].map(Option::unwrap_or_default) } else { [0; 2] };
        match u8::from_str_radix(&String::from_utf8_lossy(&digits), 16) {
            Ok(value) if byte == b'%' => text.push(value),
            _ => text.push(byte),
        }
    }
    String::from_utf8(text).unwrap()
}

/// A text that may hold bare `NaN` and `Infinity`, which become texts.
///
/// # Panics
///
/// If it is no JSON even so.
pub fn json_with_nan(text: &str) -> Value {
    let (mut out, mut in_text, mut rest) = (String::new(), false, text);
    'next: while let Some(c) = rest.chars().next() {
        if !in_text {
            for word in ["NaN", "-Infinity", "Infinity"] {
                if let Some(after) = rest.strip_prefix(word) {
                    out.push_str(&format!("\"{word}\""));
                    rest = after;
                    continue 'next;
                }
            }
        }
        let length = if in_text && c == '\\' { 2 } else { c.len_utf8() };
        in_text ^= c == '"';
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    numbers(serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// With all numbers as floating-point ones, since a client may write 1 for 1.0.
fn numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.into_iter().map(numbers).collect(),
        Value::Object(entries) => entries.into_iter().map(|(key, value)| (key, numbers(value))).collect(),
        other => other,
    }
}
