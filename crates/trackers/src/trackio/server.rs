//! [`Server`]: a dashboard that takes values over HTTP.

use std::env;
use std::fs;

use serde_json::{Value, json};

use super::target::{hugging_face, without_keys};
use crate::error::TrackerError;
use crate::http::{Address, Answer, Body, Client, Form, patiently, unreachable};
use crate::pace::Pace;

const REMEDY: &str = "start it with `trackio show`, correct server_url or the variable TRACKIO_SERVER_URL, or leave both out to log on this machine";

/// A dashboard of Trackio: a server of one's own, or a Space of Hugging Face.
#[derive(Debug)]
pub struct Server {
    client: Client,
    url: String,
    is_space: bool,
    pace: Pace,
    tries: u32,
}

type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Server {
    /// The server at an address. It wants a token, which stands in the address, as `trackio show` prints it, or in
    /// `TRACKIO_WRITE_TOKEN`. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// Fails if it is no `http` or `https` address, or there is no token.
    pub fn from_env(server_url: &str, pace: Pace) -> Result<Server, TrackerError> {
        Server::new(server_url, pace, &|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    pub(super) fn new(server_url: &str, pace: Pace, var: Variables) -> Result<Server, TrackerError> {
        let Some(address) = Address::parse(server_url) else {
            // It may hold a key.
            let scheme: String = server_url.split("://").next().unwrap_or_default().chars().take(20).collect();
            return Err(TrackerError::Refused(format!(
                "server_url is no http or https address (it begins with {scheme:?}); write one such as http://127.0.0.1:7860, or leave it out to log on this machine"
            )));
        };
        let Some(token) = token_of(server_url).or_else(|| var("TRACKIO_WRITE_TOKEN")) else {
            return Err(TrackerError::Refused(format!(
                "{} wants a token; set TRACKIO_WRITE_TOKEN to the one that `trackio show` prints",
                address.url
            )));
        };
        Ok(Server::with(address.url, false, Some(("X-Trackio-Write-Token", token)), pace))
    }

    /// A Space, `user/name`, with the token of `HF_TOKEN` or of `hf auth login`. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// Fails if the name is none.
    pub fn space_from_env(space_id: &str, pace: Pace) -> Result<Server, TrackerError> {
        Server::space(space_id, pace, &|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    pub(super) fn space(space_id: &str, pace: Pace, var: Variables) -> Result<Server, TrackerError> {
        let Some(url) = url_of_space(space_id) else {
            return Err(TrackerError::Refused(format!(
                "there can be no Space {space_id:?}; write space_id, or TRACKIO_SPACE_ID, as user/name"
            )));
        };
        let of_file = || fs::read_to_string(hugging_face(var).join("token")).ok().map(|token| token.trim().to_owned());
        let token = var("HF_TOKEN").or_else(of_file).filter(|token| !token.is_empty());
        Ok(Server::with(url, true, token.map(|token| ("Authorization", format!("Bearer {token}"))), pace))
    }

    fn with(url: String, is_space: bool, key: Option<(&'static str, String)>, pace: Pace) -> Server {
        Server { client: Client::with_key(key, &pace), url, is_space, pace, tries: pace.tries_at_start }
    }

    /// The server for `fulgurite sync`, which has more patience. An outbox is data, which must not decide who gets a token: it is
    /// sent only to the server that `TRACKIO_SERVER_URL` names.
    pub(super) fn for_sync(address: &str, pace: Pace, var: Variables) -> Result<Server, TrackerError> {
        let own = var("TRACKIO_SERVER_URL").filter(|own| without_keys(own) == without_keys(address));
        let Some(own) = own else {
            return Err(TrackerError::Refused(format!(
                "it is for {address}, which gets a token only if you name it; give --server {address} or set TRACKIO_SERVER_URL to it"
            )));
        };
        Ok(Server { tries: pace.tries_of_sync, ..Server::new(&own, pace, var)? })
    }

    /// The address without keys.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it is there, and takes values of whoever has this token.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be reached, is no dashboard of Trackio, or refuses the token.
    pub fn check(&self) -> Result<(), TrackerError> {
        let version = self.patiently("GET", "version", None)?;
        if version.json().is_none_or(|version| version["api_version"] != 1) {
            return Err(self.is_no_trackio());
        }
        // Nothing is a valid list of values.
        self.ask("bulk_log", &json!({ "hf_token": null, "logs": [] })).map(drop)
    }

    /// The identifier of the latest run of this name.
    ///
    /// # Errors
    ///
    /// Fails as [`check`](Server::check) does.
    pub fn find_run(&self, project: &str, name: &str) -> Result<Option<String>, TrackerError> {
        let runs = self.ask("get_runs_for_project", &json!({ "project": project }))?;
        let of_name = runs.as_array().into_iter().flatten().filter(|run| run["name"] == name);
        let latest = of_name.max_by_key(|run| run["created_at"].as_str().unwrap_or_default().to_owned());
        let is_id = |id: &&str| (1..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_hexdigit());
        Ok(latest.and_then(|run| run["id"].as_str().filter(is_id).map(str::to_owned)))
    }

    /// Asks once. Fails with the reason if there is no whole answer.
    pub(super) fn once(&self, call: &str, body: &Value) -> Result<Answer, String> {
        self.client.ask("POST", &format!("{}/api/{call}", self.url), &Body::Json(body))
    }

    /// Uploads a file, to be named in a call.
    pub(super) fn upload(&self, form: Form) -> Result<Answer, String> {
        self.client.ask("POST", &format!("{}/api/upload", self.url), &Body::Form(form))
    }

    fn patiently(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, TrackerError> {
        let url = format!("{}/{path}", self.url);
        let body = body.map_or(Body::Nothing, Body::Json);
        patiently(&self.pace, self.tries, || {
            let answer = self.client.ask(method, &url, &body)?;
            // Trackio answers 500 for tokens that a Space refuses.
            Ok(if self.denial(&answer).is_some() { Answer { status: 403, ..answer } } else { answer })
        })
        .map_err(|why| unreachable(&self.url, &why, REMEDY))
    }

    fn ask(&self, call: &str, body: &Value) -> Result<Value, TrackerError> {
        let answer = self.patiently("POST", &format!("api/{call}"), Some(body))?;
        if let Some(denial) = self.denial(&answer) {
            return Err(TrackerError::Refused(denial));
        }
        if answer.status == 404 || answer.is_success() && data(&answer).is_none() {
            return Err(self.is_no_trackio());
        }
        let refused = || TrackerError::Refused(format!("{} refuses the project: {}", self.url, answer.reason()));
        data(&answer).ok_or_else(refused)
    }

    /// What to do about a refused token, if the answer refuses it.
    pub(super) fn denial(&self, answer: &Answer) -> Option<String> {
        let is_about_token = || matches!(answer.status, 400 | 500) && answer.reason().contains("token");
        if !answer.is_denied() && !is_about_token() {
            return None;
        }
        let remedy = if self.is_space {
            "set HF_TOKEN to a token of Hugging Face that may write there"
        } else {
            "set TRACKIO_WRITE_TOKEN to the one that `trackio show` prints there"
        };
        Some(format!("{} refuses access ({}); {remedy}", self.url, answer.reason()))
    }

    fn is_no_trackio(&self) -> TrackerError {
        let remedy = if self.is_space {
            "open its page, and make it with `trackio` if it is not there"
        } else {
            "correct server_url or the variable TRACKIO_SERVER_URL"
        };
        TrackerError::Refused(format!("what answers at {} is no Trackio server; {remedy}", self.url))
    }
}

/// What a call returned.
pub(super) fn data(answer: &Answer) -> Option<Value> {
    if !answer.is_success() {
        return None;
    }
    match answer.json()? {
        Value::Object(mut body) if body.get("error").is_none_or(Value::is_null) => body.remove("data"),
        _ => None,
    }
}

/// The token of an address.
fn token_of(address: &str) -> Option<String> {
    let (_, query) = address.split_once('?')?;
    let query = query.split('#').next().unwrap_or_default();
    let token = query.split('&').find_map(|pair| pair.strip_prefix("write_token="))?;
    (!token.is_empty()).then(|| token.to_owned())
}

/// Where Hugging Face serves a Space.
fn url_of_space(space_id: &str) -> Option<String> {
    let (user, name) = space_id.split_once('/')?;
    let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !is_name(user) || !is_name(name) {
        return None;
    }
    let host = format!("{user}-{name}").to_lowercase().replace(['_', '.'], "-");
    Some(format!("https://{host}.hf.space"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_have_addresses() {
        assert_eq!(url_of_space("Ann_B/my.runs").as_deref(), Some("https://ann-b-my-runs.hf.space"));
        for wrong in ["", "a", "a/", "/b", "a/b/c", "a/b?c", "a@evil.example/b"] {
            assert_eq!(url_of_space(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tokens_of_addresses_are_found() {
        assert_eq!(token_of("http://h/?x=1&write_token=abc#y").as_deref(), Some("abc"));
        assert_eq!(token_of("http://h/?write_token="), None);
        assert_eq!(token_of("http://h/"), None);
    }
}
