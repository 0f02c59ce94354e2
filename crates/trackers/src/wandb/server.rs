//! [`Server`]: W&B's server, as a run sees it.

use std::env;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::credentials;
use super::queries::Query;
use super::record::RunInfo;
use super::state::{Before, RunState};
use crate::backoff::Backoff;
use crate::error::TrackerError;
use crate::http::{Answer, Body, Client, encode, later, unreachable};
use crate::pace::Pace;
use crate::service::Failure;

const REMEDY: &str = "correct WANDB_BASE_URL, or set offline=true and send later with `fulgurite sync` or `wandb sync`";

/// How long to wait before a refused key is tried again.
const AFTER_DENIAL: Duration = Duration::from_secs(60);

/// A server of W&B, and who asks.
#[derive(Debug, Clone)]
pub struct Server {
    client: Arc<Client>,
    /// Files go where the server says, which must not learn the key.
    uploads: Arc<Client>,
    url: String,
    pub(super) pace: Pace,
}

/// Whether a run goes on with the one of its identifier on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resume {
    /// If it is there.
    #[default]
    Allow,
    /// It has to be there.
    Must,
    /// It must not be there.
    Never,
}

/// Why an answer is of no use.
#[derive(Debug)]
pub(super) enum Problem {
    /// It may be another one later, or nothing more can be sent.
    Failed(Failure),
    /// The server takes this never.
    Refused(String),
}

impl Server {
    /// The server that `WANDB_BASE_URL` names, or W&B's own, with the key of `WANDB_API_KEY` or `~/.netrc`. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// Fails if there is no key, or the address is none.
    pub fn from_env() -> Result<Server, TrackerError> {
        Server::new(Server::pace(), &|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// How much W&B's own client sends at once, and when.
    pub(super) fn pace() -> Pace {
        Pace {
            flush_items: 20_000,
            flush_after: Duration::from_secs(15),
            idle_after: Some(Duration::from_secs(30)),
            ..Pace::default()
        }
    }

    pub(crate) fn new(pace: Pace, var: &dyn Fn(&str) -> Option<String>) -> Result<Server, TrackerError> {
        let url = credentials::address(var).map_err(|_| {
            TrackerError::Refused(
                "WANDB_BASE_URL is no http or https address; correct it, or unset it for W&B's own".into(),
            )
        })?;
        let Some(authorization) = credentials::authorization(&url, var) else {
            return Err(TrackerError::Refused(format!(
                "there is no key for {url}; set WANDB_API_KEY to the one that https://wandb.ai/authorize shows, or run `wandb login`, or set offline=true and send later"
            )));
        };
        let client = Arc::new(Client::new(Some(authorization), &pace));
        Ok(Server { client, uploads: Arc::new(Client::new(None, &pace)), url, pace })
    }

    /// The address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Who asks: the name of the user or team to which runs belong that name none.
    ///
    /// # Errors
    ///
    /// Fails if the server cannot be reached, or refuses the key.
    pub fn viewer(&self) -> Result<String, TrackerError> {
        let data = self.at_start(Query::VIEWER, &json!({}))?;
        let name = data["viewer"]["entity"].as_str().map(str::to_owned);
        name.ok_or_else(|| TrackerError::Refused(self.denial("it knows no user of this key")))
    }

    /// Asks whether a run may begin or go on, and begins it. The answer is the run with its user or team.
    ///
    /// # Errors
    ///
    /// Fails if the server cannot be reached, or refuses the key or the run.
    pub(super) fn admit(&self, mut run: RunInfo, resume: Resume) -> Result<RunInfo, TrackerError> {
        if run.entity.is_empty() {
            run.entity = self.viewer()?;
        }
        let asked = json!({ "project": run.project, "entity": run.entity, "name": run.id });
        let data = self.at_start(Query::STATUS, &asked)?;
        let before = &data["model"]["bucket"];
        let place = format!("{}/{} of {}", run.entity, run.project, self.url);
        match (resume, before.is_null()) {
            (Resume::Must, true) => {
                return Err(TrackerError::Refused(format!(
                    "there is no run {} in {place}, and resume=must asks for it; correct id or WANDB_RUN_ID, or set resume=allow",
                    run.id
                )));
            }
            (Resume::Never, false) => {
                return Err(TrackerError::Refused(format!(
                    "the run {} is in {place} already, and resume=never forbids to go on with it; leave id out, or set resume=allow",
                    run.id
                )));
            }
            _ => {}
        }
        let state = RunState::new(run.clone(), Before::of_status(&self.url, &run.entity, before));
        self.at_start(Query::UPSERT, &state.upsert())?;
        Ok(run)
    }

    /// Asks at the start of a run, a few times: a run that logs nothing should not begin.
    pub(super) fn at_start(&self, query: Query, variables: &Value) -> Result<Value, TrackerError> {
        let mut backoff = Backoff::new(&self.pace);
        loop {
            let (why, after) = match self.query_once(query, variables) {
                Ok(answer) if answer.is_denied() => {
                    return Err(TrackerError::Refused(self.denial(&answer.reason())));
                }
                Ok(answer) if !is_for_now(&answer) => {
                    return self.data(&answer).map_err(|why| {
                        TrackerError::Refused(format!("{} refuses {}: {why}", self.url, query.purpose))
                    });
                }
                Ok(answer) => (answer.reason(), answer.retry_after),
                Err(why) => (why, None),
            };
            let wait = backoff.next(after);
            if backoff.failures() >= self.pace.tries_at_start {
                return Err(unreachable(&self.url, &why, REMEDY));
            }
            thread::sleep(wait);
        }
    }

    /// Asks once, from the thread that sends.
    pub(super) fn query(&self, query: Query, variables: &Value) -> Result<Value, Problem> {
        let answer = self.judge(self.query_once(query, variables))?;
        self.data(&answer).map_err(Problem::Refused)
    }

    fn query_once(&self, query: Query, variables: &Value) -> Result<Answer, String> {
        let body = json!({ "operationName": query.name, "query": query.text, "variables": variables });
        self.client.ask("POST", &format!("{}/graphql", self.url), &Body::Json(&body))
    }

    /// What a query was asked for.
    fn data(&self, answer: &Answer) -> Result<Value, String> {
        let json = answer.json().unwrap_or_default();
        let said = json["errors"].as_array().and_then(|errors| errors.first()?["message"].as_str());
        match (said, json.get("data").filter(|data| data.is_object())) {
            (None, Some(data)) if answer.is_success() => Ok(data.clone()),
            (Some(said), _) => Err(Answer { status: answer.status, text: said.to_owned(), retry_after: None }.reason()),
            (None, _) if answer.is_success() => Err("what answers is no W&B server".into()),
            (None, _) => Err(answer.reason()),
        }
    }

    /// Adds lines to the files of a run; whether the user wants it to end.
    pub(super) fn stream(&self, entity: &str, project: &str, run: &str, body: &Value) -> Result<bool, Problem> {
        let path = [entity, project, run].map(encode).join("/");
        let url = format!("{}/files/{path}/file_stream", self.url);
        let answer = self.judge(self.client.ask("POST", &url, &Body::Json(body)))?;
        if !answer.is_success() {
            return Err(Problem::Refused(answer.reason()));
        }
        match answer.json() {
            Some(json) if json.is_object() => Ok(json["stopped"] == true),
            // Something between here and the server may have answered.
            _ => Err(Problem::Failed(Failure::Later {
                why: format!("what answers at {} is no W&B server", self.url),
                after: None,
            })),
        }
    }

    /// Puts a file where the server said, with the headers that it asked for.
    pub(super) fn upload(&self, url: &str, headers: &Value, body: &Body) -> Result<(), Problem> {
        let url = if url.starts_with('/') { format!("{}{url}", self.url) } else { url.to_owned() };
        let headers: Vec<(&str, &str)> =
            headers.as_array().into_iter().flatten().filter_map(|header| header.as_str()?.split_once(':')).collect();
        let answer = self.uploads.ask_with("PUT", &url, &headers, body);
        if let Ok(answer) = &answer
            && answer.is_denied()
        {
            // The address was given for a while, and another one is asked for next.
            return Err(Problem::Failed(later("the storage of W&B", answer)));
        }
        let answer = self.judge(answer)?;
        if answer.is_success() { Ok(()) } else { Err(Problem::Refused(answer.reason())) }
    }

    /// An answer that says something about what was asked.
    fn judge(&self, answer: Result<Answer, String>) -> Result<Answer, Problem> {
        let failed = |why: String, after| Problem::Failed(Failure::Later { why, after });
        let answer = answer.map_err(|why| failed(format!("{} cannot be reached: {why}", self.url), None))?;
        if answer.is_denied() {
            return Err(failed(self.denial(&answer.reason()), Some(AFTER_DENIAL)));
        }
        if is_for_now(&answer) {
            return Err(Problem::Failed(later(&self.url, &answer)));
        }
        Ok(answer)
    }

    fn denial(&self, why: &str) -> String {
        format!(
            "{} refuses the key ({why}); set WANDB_API_KEY to the one that https://wandb.ai/authorize shows, or set offline=true and send later",
            self.url
        )
    }
}

/// 409: another request changes the same run.
fn is_for_now(answer: &Answer) -> bool {
    answer.is_for_now() || answer.status == 409
}
