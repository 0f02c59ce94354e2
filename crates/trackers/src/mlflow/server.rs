//! [`Server`]: an MLflow server, its experiments and runs.

use std::collections::BTreeMap;
use std::env;
use std::thread;

use serde_json::{Value, json};

use super::credentials::{self, VARIABLES};
use super::target::{NewRun, Run, without_keys};
use crate::backoff::Backoff;
use crate::error::TrackerError;
use crate::http::{Address, Answer, Body, Client, encode, unreachable};
use crate::pace::Pace;
use crate::random::run_id;

/// A mark of this program's attempt to create a run, by which it finds the run if the answer was lost.
const TOKEN_TAG: &str = "fulgurite.token";

const REMEDY: &str = "start it with `mlflow server`, correct tracking_uri or the variable MLFLOW_TRACKING_URI, or set offline=true and send later with `fulgurite sync`";

/// An MLflow server.
#[derive(Debug)]
pub struct Server {
    client: Client,
    url: String,
    pace: Pace,
    tries: u32,
}

impl Server {
    /// The server at an address, with the credentials of MLflow's variables. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// Fails if it is no `http` or `https` address.
    pub fn from_env(tracking_uri: &str, pace: Pace) -> Result<Server, TrackerError> {
        Server::new(tracking_uri, pace, &|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    pub(super) fn new(
        tracking_uri: &str,
        pace: Pace,
        var: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Server, TrackerError> {
        let Some(address) = Address::parse(tracking_uri) else { return Err(no_server(tracking_uri)) };
        let authorization = credentials::authorization(address.user.as_deref(), var);
        Ok(Server { client: Client::new(authorization, &pace), url: address.url, pace, tries: pace.tries_at_start })
    }

    /// The server for `fulgurite sync`, which has more patience. An outbox is data, which must not decide who gets a key: keys
    /// are sent only to the server that `MLFLOW_TRACKING_URI` names.
    pub(crate) fn for_sync(
        address: &str,
        pace: Pace,
        var: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Server, TrackerError> {
        let own = var("MLFLOW_TRACKING_URI");
        let is_own = own.as_deref().is_some_and(|own| without_keys(own) == without_keys(address));
        let server = match own.filter(|_| is_own) {
            Some(own) => Server::new(&own, pace, var)?,
            None => Server::new(address, pace, &|_| None)?,
        };
        Ok(Server { tries: pace.tries_of_sync, ..server })
    }

    /// The address without keys.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The number of the experiment, which is created if it is not there.
    ///
    /// # Errors
    ///
    /// Fails if the server cannot be reached, refuses the key or the name, or the experiment was deleted.
    pub fn experiment(&self, new: &NewRun) -> Result<String, TrackerError> {
        if let Some(id) = &new.experiment_id {
            let answer = self.ask("GET", &format!("experiments/get?experiment_id={}", encode(id)), None)?;
            return self.experiment_of(&answer, id);
        }
        let name = &new.experiment_name;
        if let Some(id) = self.experiment_named(name)? {
            return Ok(id);
        }
        let mut create = json!({ "name": name });
        if let Some(location) = &new.artifact_location {
            create["artifact_location"] = location.as_str().into();
        }
        let answer = self.ask("POST", "experiments/create", Some(&create))?;
        if code(&answer) == "RESOURCE_ALREADY_EXISTS" {
            // Another program was faster.
            return self.experiment_named(name)?.ok_or_else(|| self.refused("experiment", name, &answer));
        }
        let id = self.json(&answer, || self.refused("experiment", name, &answer))?;
        plain(&id["experiment_id"]).ok_or_else(|| self.is_no_mlflow())
    }

    fn experiment_named(&self, name: &str) -> Result<Option<String>, TrackerError> {
        let path = format!("experiments/get-by-name?experiment_name={}", encode(name));
        let answer = self.ask("GET", &path, None)?;
        if code(&answer) == "RESOURCE_DOES_NOT_EXIST" {
            return Ok(None);
        }
        self.experiment_of(&answer, name).map(Some)
    }

    fn experiment_of(&self, answer: &Answer, name: &str) -> Result<String, TrackerError> {
        let json = self.json(answer, || self.refused("experiment", name, answer))?;
        let experiment = &json["experiment"];
        if experiment["lifecycle_stage"] == "deleted" {
            return Err(TrackerError::Refused(format!(
                "the experiment {name:?} of {} was deleted; choose another experiment_name, or restore it with `mlflow experiments restore`",
                self.url
            )));
        }
        plain(&experiment["experiment_id"]).ok_or_else(|| self.is_no_mlflow())
    }

    /// Creates a run, and its experiment if need be.
    ///
    /// # Errors
    ///
    /// Fails as [`experiment`](Server::experiment) does.
    pub fn start(&self, new: &NewRun) -> Result<Run, TrackerError> {
        let experiment = self.experiment(new)?;
        self.create_run(&experiment, new)
    }

    /// Creates a run of an experiment.
    ///
    /// # Errors
    ///
    /// Fails if the server cannot be reached or refuses the run.
    pub fn create_run(&self, experiment: &str, new: &NewRun) -> Result<Run, TrackerError> {
        let token = run_id();
        let tag = |key: &str, value: &str| json!({ "key": key, "value": value });
        let mut tags: Vec<Value> = new.tags_to_send().map(|(key, value)| tag(key, value)).collect();
        tags.push(tag(TOKEN_TAG, &token));
        let mut create = json!({ "experiment_id": experiment, "start_time": new.start_ms, "tags": tags });
        if let Some(name) = &new.run_name {
            create["run_name"] = name.as_str().into();
        }
        if let Some((_, user)) = new.tags.iter().find(|(key, _)| key == "mlflow.user") {
            create["user_id"] = user.as_str().into();
        }
        let mut backoff = Backoff::new(&self.pace);
        loop {
            let why = match self.once("POST", "runs/create", Some(&create)) {
                Ok(answer) if !answer.is_for_now() => {
                    let json =
                        self.json(&answer, || self.refused("run", new.run_name.as_deref().unwrap_or(""), &answer))?;
                    return self.run_of(&json["run"]);
                }
                Ok(answer) => answer.reason(),
                Err(why) => why,
            };
            let wait = backoff.next(None);
            if backoff.failures() >= self.tries {
                return Err(unreachable(&self.url, &why, REMEDY));
            }
            thread::sleep(wait);
            // It may have been created, and only the answer lost.
            let filter = format!("tags.`{TOKEN_TAG}` = '{token}'");
            let search = json!({ "experiment_ids": [experiment], "filter": filter, "max_results": 1 });
            let found = self.ask("POST", "runs/search", Some(&search))?.json().unwrap_or_default();
            if let Some(run) = found["runs"].get(0) {
                return self.run_of(run);
            }
        }
    }

    /// The run with this identifier; `None` if it is not there or was deleted.
    ///
    /// # Errors
    ///
    /// Fails if the server cannot be reached or refuses the key.
    pub fn find_run(&self, run_id: &str) -> Result<Option<Run>, TrackerError> {
        let answer = self.ask("GET", &format!("runs/get?run_id={}", encode(run_id)), None)?;
        if code(&answer) == "RESOURCE_DOES_NOT_EXIST" {
            return Ok(None);
        }
        let json = self.json(&answer, || self.refused("run", run_id, &answer))?;
        if json["run"]["info"]["lifecycle_stage"] == "deleted" {
            return Ok(None);
        }
        self.run_of(&json["run"]).map(Some)
    }

    fn run_of(&self, run: &Value) -> Result<Run, TrackerError> {
        let info = &run["info"];
        let (Some(experiment_id), Some(run_id)) = (plain(&info["experiment_id"]), plain(&info["run_id"])) else {
            return Err(self.is_no_mlflow());
        };
        let artifact_uri = info["artifact_uri"].as_str().unwrap_or_default().to_owned();
        let params = run["data"]["params"].as_array().into_iter().flatten();
        let text = |param: &Value, key: &str| param[key].as_str().unwrap_or_default().to_owned();
        let params: BTreeMap<_, _> = params.map(|param| (text(param, "key"), text(param, "value"))).collect();
        Ok(Run { experiment_id, run_id, artifact_uri, params: params.into_iter().collect() })
    }

    /// Asks once. Fails with the reason if there is no whole answer.
    pub(super) fn once(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        let url = format!("{}/api/2.0/mlflow/{path}", self.url);
        self.client.ask(method, &url, &body.map_or(Body::Nothing, Body::Json))
    }

    /// Puts a file where the server keeps artifacts.
    pub(super) fn put(&self, path: &str, body: &Body) -> Result<Answer, String> {
        let parts: Vec<String> =
            path.split('/').filter(|part| !part.is_empty()).map(|part| encode(&part.replace('%', "%25"))).collect();
        let url = format!("{}/api/2.0/mlflow-artifacts/artifacts/{}", self.url, parts.join("/"));
        self.client.ask("PUT", &url, body)
    }

    /// Asks at the start of a run, a few times. Refused keys are errors here, because a run that logs nothing should not begin.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, TrackerError> {
        let mut backoff = Backoff::new(&self.pace);
        loop {
            let (why, after) = match self.once(method, path, body) {
                Ok(answer) if answer.is_denied() => return Err(self.denied(&answer)),
                Ok(answer) if !answer.is_for_now() => return Ok(answer),
                Ok(answer) => (answer.reason(), answer.retry_after),
                Err(why) => (why, None),
            };
            let wait = backoff.next(after);
            if backoff.failures() >= self.tries {
                return Err(unreachable(&self.url, &why, REMEDY));
            }
            thread::sleep(wait);
        }
    }

    fn json(&self, answer: &Answer, refused: impl FnOnce() -> TrackerError) -> Result<Value, TrackerError> {
        if !answer.is_success() {
            return Err(if answer.is_denied() { self.denied(answer) } else { refused() });
        }
        answer.json().ok_or_else(|| self.is_no_mlflow())
    }

    fn denied(&self, answer: &Answer) -> TrackerError {
        TrackerError::Refused(self.denial(answer))
    }

    /// What to do about a refused key.
    pub(super) fn denial(&self, answer: &Answer) -> String {
        format!("{} refuses access ({}); set {VARIABLES}", self.url, answer.reason())
    }

    fn refused(&self, what: &str, name: &str, answer: &Answer) -> TrackerError {
        TrackerError::Refused(format!("{} refuses the {what} {name:?}: {}", self.url, answer.reason()))
    }

    fn is_no_mlflow(&self) -> TrackerError {
        TrackerError::Refused(format!(
            "what answers at {} is no MLflow server; correct tracking_uri or the variable MLFLOW_TRACKING_URI",
            self.url
        ))
    }
}

/// MLflow's name of an error.
pub(super) fn code(answer: &Answer) -> String {
    let json = if answer.is_success() { None } else { answer.json() };
    json.and_then(|json| Some(json.get("error_code")?.as_str()?.to_owned())).unwrap_or_default()
}

/// A number or identifier that may name a folder.
fn plain(value: &Value) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    value.as_str().filter(|id| (1..=64).contains(&id.len()) && id.chars().all(is_plain)).map(str::to_owned)
}

fn no_server(tracking_uri: &str) -> TrackerError {
    let why = match tracking_uri {
        "" => "no MLflow server is named".to_owned(),
        "databricks" => "tracking_uri=\"databricks\" is not supported in this version".to_owned(),
        other => {
            // It may hold a key.
            let scheme = other.split_once(':').map_or("", |(scheme, _)| scheme);
            format!(
                "tracking_uri is no http or https address (it begins with {scheme:?}), and MLflow itself no longer keeps runs in files"
            )
        }
    };
    TrackerError::Refused(format!(
        "{why}; give tracking_uri or set MLFLOW_TRACKING_URI, such as http://127.0.0.1:5000, where `mlflow server` runs, or set offline=true and send later with `fulgurite sync`"
    ))
}
