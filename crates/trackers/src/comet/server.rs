//! [`Server`]: Comet's server, and what it is asked when an experiment begins.

use std::env;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::experiment::{Experiment, Mode};
use crate::entry::now_ms;
use crate::error::TrackerError;
use crate::http::{Address, Answer, Body, Client, Form, patiently, unreachable};
use crate::pace::Pace;

/// Comet's own server.
const OWN: &str = "https://www.comet.com/clientlib/";

/// What this version speaks as.
const LIBRARY: &str = "3.58.8";

const REMEDY: &str =
    "correct COMET_URL_OVERRIDE if it is set, or set online=false and send the archive later with `comet upload`";

/// Comet's numbers of errors.
const KEY_UNKNOWN: i64 = 90212;
const ALREADY_THERE: i64 = 90999;

type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Comet's server.
pub struct Server {
    client: Client,
    /// Without a slash at the end.
    base: String,
    key: String,
    pace: Pace,
    tries: u32,
}

impl fmt::Debug for Server {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("base", &self.base).finish_non_exhaustive()
    }
}

/// An experiment that a server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub key: String,
    pub run_id: String,
    pub project_id: String,
}

impl Server {
    /// The server of `COMET_URL_OVERRIDE`, or Comet's own, with this key or that of `COMET_API_KEY` or `~/.comet.config`. Nothing
    /// is asked yet.
    ///
    /// # Errors
    ///
    /// Fails if there is no key, or the address is none.
    pub fn from_env(api_key: Option<&str>, pace: Pace) -> Result<Server, TrackerError> {
        Server::new(api_key, pace, &|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    pub(super) fn new(api_key: Option<&str>, pace: Pace, var: Variables) -> Result<Server, TrackerError> {
        let address = var("COMET_URL_OVERRIDE").unwrap_or_else(|| OWN.to_owned());
        let Some(Address { url, .. }) = Address::parse(&address) else {
            return Err(TrackerError::Refused(
                "COMET_URL_OVERRIDE is no http or https address; write one such as https://www.comet.com/clientlib/"
                    .into(),
            ));
        };
        let Some(key) = api_key.map(str::to_owned).or_else(|| var("COMET_API_KEY")).or_else(|| key_of_file(var)) else {
            return Err(TrackerError::Refused(
                "Comet wants a key; set COMET_API_KEY, or online=false to write an archive for `comet upload`".into(),
            ));
        };
        let client = Client::new(Some(key.clone()), &pace);
        Ok(Server { client, base: url, key, pace, tries: pace.tries_at_start })
    }

    /// As for a run, with more patience.
    pub(super) fn for_sync(self) -> Server {
        Server { tries: self.pace.tries_of_sync, ..self }
    }

    /// The address, without keys.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Begins an experiment, or goes on with it. `None` if the server does not know this call of Comet's client.
    pub(super) fn start(&self, experiment: &Experiment) -> Result<Option<Run>, TrackerError> {
        let common = json!({ "apiKey": self.key, "local_timestamp": now_ms(), "libVersion": LIBRARY });
        let (path, mut body) = match experiment.mode {
            Mode::Get => ("logger/get/run", json!({ "previousExperiment": experiment.key })),
            Mode::GetOrCreate | Mode::Create => (
                "logger/add/run",
                json!({
                    "experimentKey": experiment.key,
                    "offline": false,
                    "projectName": experiment.project,
                    "teamName": experiment.workspace,
                    "getOrCreateEnabled": experiment.mode == Mode::GetOrCreate,
                }),
            ),
        };
        merge(&mut body, common);
        let answer = patiently(&self.pace, self.tries, || self.once(path, &body));
        let answer = answer.map_err(|why| unreachable(&self.base, &why, REMEDY))?;
        if answer.status == 404 {
            return Ok(None);
        }
        if let Some(denial) = self.denial(&answer) {
            return Err(TrackerError::Refused(denial));
        }
        if !answer.is_success() {
            let remedy = match code(&answer) {
                Some(ALREADY_THERE) => "it is there already; write mode=get_or_create, or another experiment_key",
                _ => "correct workspace, project or experiment_key",
            };
            let (base, key) = (&self.base, &experiment.key);
            return Err(TrackerError::Refused(format!(
                "{base} refuses the experiment {key} ({}); {remedy}",
                answer.reason()
            )));
        }
        let json = answer.json().unwrap_or_default();
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        let Some(run_id) = text("runId") else {
            return Err(TrackerError::Refused(format!("what answers at {} is no Comet; {REMEDY}", self.base)));
        };
        let project_id = text("project_id").or_else(|| text("projectId")).unwrap_or_default();
        Ok(Some(Run { key: experiment.key.clone(), run_id, project_id }))
    }

    /// Asks once. Fails with the reason if there is no whole answer.
    pub(super) fn once(&self, path: &str, body: &Value) -> Result<Answer, String> {
        self.client.ask("POST", &format!("{}/{path}", self.base), &Body::Json(body))
    }

    /// Asks the documented interface once.
    pub(super) fn once_rest(&self, path: &str, body: &Value) -> Result<Answer, String> {
        let root = self.base.strip_suffix("/clientlib").unwrap_or(&self.base);
        self.client.ask("POST", &format!("{root}/api/rest/v2/{path}"), &Body::Json(body))
    }

    /// Uploads a file; the query says what it is.
    pub(super) fn upload(&self, path_and_query: &str, form: Form) -> Result<Answer, String> {
        self.client.ask("POST", &format!("{}/{path_and_query}", self.base), &Body::Form(form))
    }

    /// A body with what every call needs.
    pub(super) fn with_key(&self, mut body: Value) -> Value {
        merge(&mut body, json!({ "apiKey": self.key }));
        body
    }

    /// What to do about a refused key, if the answer refuses it.
    pub(super) fn denial(&self, answer: &Answer) -> Option<String> {
        let is_denied = answer.is_denied() || answer.status == 400 && code(answer) == Some(KEY_UNKNOWN);
        is_denied.then(|| format!("{} refuses access ({}); set COMET_API_KEY to your key", self.base, answer.reason()))
    }
}

fn code(answer: &Answer) -> Option<i64> {
    answer.json()?["sdk_error_code"].as_i64()
}

fn merge(body: &mut Value, more: Value) {
    if let (Value::Object(body), Value::Object(more)) = (body, more) {
        body.extend(more);
    }
}

/// The key of Comet's own file.
fn key_of_file(var: Variables) -> Option<String> {
    let file = var("COMET_CONFIG").map(PathBuf::from);
    let file = file.or_else(|| var("HOME").map(|home| PathBuf::from(home).join(".comet.config")))?;
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().filter_map(|line| line.split_once('=')).find(|(name, _)| name.trim() == "api_key")?.1;
    Some(value.trim().trim_matches('"').to_owned()).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_of_the_option_the_variable_or_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        fs::write(&file, "[comet]\napi_key = \"of-file\"\n").unwrap();
        let var = |with_key: bool| {
            let file = file.display().to_string();
            move |name: &str| match name {
                "COMET_API_KEY" => with_key.then(|| "of-variable".to_owned()),
                "COMET_CONFIG" => Some(file.clone()),
                _ => None,
            }
        };
        let key =
            |given: Option<&str>, with_key: bool| Server::new(given, Pace::default(), &var(with_key)).unwrap().key;
        assert_eq!(key(Some("given"), true), "given");
        assert_eq!(key(None, true), "of-variable");
        assert_eq!(key(None, false), "of-file");
    }
}
