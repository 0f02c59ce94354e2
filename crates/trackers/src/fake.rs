//! A small MLflow server in this process, which can be told to fail.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// What happens to a request instead of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// This status, and a header.
    Status(u16, Option<u64>),
    /// The connection is closed at once.
    Reset,
    /// Nothing comes.
    Hang,
    /// The request is carried out, and half of the answer comes.
    Half,
    /// The request is carried out, and a page comes.
    Page,
    /// No fault: for one in the middle.
    None,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    pub faults: VecDeque<Fault>,
    /// This happens to all requests.
    pub down: Option<Fault>,
    /// The `Authorization` that is wanted.
    pub key: Option<String>,
    pub requests: Vec<String>,
    pub keys_seen: Vec<Option<String>>,
    /// Key, step, value and time of each metric that was stored; MLflow keeps one of the same four.
    pub metrics: Vec<(String, i64, String, i64)>,
    pub params: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
    pub files: BTreeMap<String, Vec<u8>>,
    pub statuses: Vec<String>,
    pub runs: Vec<Value>,
    pub deleted: bool,
    /// Another service than MLflow: what it answers.
    pub other: Option<Other>,
    /// What the other service was called with.
    pub calls: Vec<(String, Value)>,
}

/// Answers a request: its path and body.
pub(crate) type Other = fn(&mut Store, &str, &[u8]) -> (u16, Value);

pub(crate) struct Fake {
    pub url: String,
    store: Arc<Mutex<Store>>,
}

impl Fake {
    pub(crate) fn start() -> Fake {
        Fake::at("127.0.0.1:0", Arc::default())
    }

    fn at(address: &str, store: Arc<Mutex<Store>>) -> Fake {
        let listener = TcpListener::bind(address).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&store);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let store = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &store));
            }
        });
        Fake { url, store }
    }

    /// A server of another service.
    pub(crate) fn of(other: Other) -> Fake {
        Fake::at("127.0.0.1:0", Arc::new(Mutex::new(Store { other: Some(other), ..Store::default() })))
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.store().faults.extend(faults);
    }
}

fn serve(mut stream: TcpStream, store: &Mutex<Store>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap_or_default();
    let mut parts = line.split_whitespace();
    let (Some(method), Some(path)) = (parts.next(), parts.next()) else { return };
    let (mut length, mut key) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap_or_default();
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "authorization" | "x-trackio-write-token" => key = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
    store.requests.push(format!("{method} {path}"));
    store.keys_seen.push(key.clone());
    let fault = store.down.clone().or_else(|| store.faults.pop_front()).unwrap_or(Fault::None);
    match fault {
        Fault::Reset => return,
        Fault::Hang => {
            drop(store);
            thread::sleep(Duration::from_secs(5));
            return;
        }
        Fault::Status(status, retry_after) => {
            drop(store);
            let header = retry_after.map(|s| format!("Retry-After: {s}\r\n")).unwrap_or_default();
            let _ = write!(stream, "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: 0\r\n{header}\r\n");
            return;
        }
        Fault::Half | Fault::Page | Fault::None => {}
    }
    let (status, answer) = if let Some(other) = store.other {
        let (status, json) = other(&mut store, path, &body);
        (status, Answer::Json(json))
    } else if store.key.is_some() && store.key != key {
        (401, Answer::Text("<html>who?</html>".into()))
    } else {
        store.answer(method, path, &body)
    };
    drop(store);
    let text = match answer {
        Answer::Text(text) => text,
        Answer::Json(json) => json.to_string(),
    };
    let (sent, said) = match fault {
        Fault::Half => (&text[..text.len() / 2], text.len()),
        Fault::Page => ("<html>", 6),
        _ => (text.as_str(), text.len()),
    };
    let _ = write!(stream, "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {said}\r\n\r\n{sent}");
}

enum Answer {
    Text(String),
    Json(Value),
}

impl Store {
    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Answer) {
        if let Some(path) = path.strip_prefix("/api/2.0/mlflow-artifacts/artifacts/") {
            self.files.insert(path.to_owned(), body.to_vec());
            return (200, Answer::Text(String::new()));
        }
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let path = path.strip_prefix("/api/2.0/mlflow/").unwrap_or_default();
        let (status, json) = match (method, path.split('?').next().unwrap_or_default()) {
            ("GET", "experiments/get-by-name") if path.ends_with("=gone") => {
                (200, json!({"experiment": {"experiment_id": "9", "lifecycle_stage": "deleted"}}))
            }
            ("GET", "experiments/get-by-name") if path.ends_with("=new") && self.runs.is_empty() => {
                (404, json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}))
            }
            ("GET", "experiments/get-by-name" | "experiments/get") => {
                (200, json!({"experiment": {"experiment_id": "1", "lifecycle_stage": "active"}}))
            }
            ("POST", "experiments/create") => (200, json!({"experiment_id": "1"})),
            ("POST", "runs/create") => {
                let id = format!("{:032x}", self.runs.len() + 1);
                let info = json!({"run_id": id, "experiment_id": json["experiment_id"], "artifact_uri": format!("mlflow-artifacts:/1/{id}/artifacts"), "lifecycle_stage": "active"});
                self.runs.push(json!({"info": info, "asked": json}));
                (200, json!({"run": self.runs.last()}))
            }
            ("POST", "runs/search") => {
                let filter = json["filter"].as_str().unwrap_or_default().to_owned();
                let has = |run: &&Value| {
                    run["asked"]["tags"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .any(|tag| filter.contains(&format!("'{}'", tag["value"].as_str().unwrap_or("?"))))
                };
                (200, json!({"runs": self.runs.iter().filter(has).collect::<Vec<_>>()}))
            }
            ("GET", "runs/get") => {
                match self.runs.iter().find(|run| path.ends_with(run["info"]["run_id"].as_str().unwrap())) {
                    Some(run) => {
                        let params: Vec<Value> =
                            self.params.iter().map(|(k, v)| json!({"key": k, "value": v})).collect();
                        (200, json!({"run": {"info": run["info"], "data": {"params": params}}}))
                    }
                    None => (404, json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such run"})),
                }
            }
            ("POST", "runs/update") => {
                self.statuses.push(json["status"].as_str().unwrap().to_owned());
                (200, json!({"run_info": {}}))
            }
            ("POST", "runs/log-batch") => self.log_batch(&json),
            _ => (404, json!({"error_code": "ENDPOINT_NOT_FOUND", "message": path})),
        };
        (status, Answer::Json(json))
    }

    fn log_batch(&mut self, batch: &Value) -> (u16, Value) {
        let invalid = |why: &str| (400, json!({"error_code": "INVALID_PARAMETER_VALUE", "message": why}));
        if self.deleted {
            return invalid("The run 1 must be in the 'active' state. Current state is deleted.");
        }
        let items = |kind: &str| batch[kind].as_array().unwrap().clone();
        let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let (metrics, params, tags) = (items("metrics"), items("params"), items("tags"));
        if metrics.len() + params.len() + tags.len() > 1000 || params.len() > 100 || tags.len() > 100 {
            return invalid("too many");
        }
        let mut keys: Vec<&Value> = metrics.iter().chain(&params).map(|item| &item["key"]).collect();
        if keys.iter().any(|key| key.as_str().unwrap().contains('@')) {
            return invalid("a name has @");
        }
        keys.clear();
        if params.iter().any(|p| self.params.get(&text(p, "key")).is_some_and(|held| *held != text(p, "value"))) {
            return invalid("Changing param values is not allowed");
        }
        for metric in &metrics {
            let row = (
                text(metric, "key"),
                metric["step"].as_i64().unwrap(),
                metric["value"].to_string(),
                metric["timestamp"].as_i64().unwrap(),
            );
            if !self.metrics.contains(&row) {
                self.metrics.push(row);
            }
        }
        self.params.extend(params.iter().map(|p| (text(p, "key"), text(p, "value"))));
        self.tags.extend(tags.iter().map(|t| (text(t, "key"), text(t, "value"))));
        (200, json!({}))
    }
}
