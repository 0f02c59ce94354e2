//! HTTP with one server: what every tracker needs of it.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use ureq::{Agent, SendBody};

use crate::backoff::Backoff;
use crate::error::TrackerError;
use crate::pace::Pace;
use crate::random::run_id;
use crate::service::Failure;

/// What is read of an answer; more is no answer of a tracker.
const LONGEST_ANSWER: u64 = 64 << 20;

/// A server, and what it is told of who asks. Neither is ever printed: an address may hold a password.
pub(crate) struct Client {
    agent: Agent,
    /// What says who asks: a header and its value.
    key: Option<(&'static str, String)>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("has_key", &self.key.is_some()).finish_non_exhaustive()
    }
}

/// What is sent.
pub(crate) enum Body<'a> {
    Nothing,
    Json(&'a Value),
    Bytes(&'a [u8]),
    File(&'a File, u64),
    Form(Form<'a>),
}

/// A form with one file.
pub(crate) struct Form<'a> {
    /// The names of its field and of the file, which need no quoting.
    pub field: &'a str,
    pub file_name: &'a str,
    pub content: Content<'a>,
    /// Another field, and its text.
    pub text: Option<(&'a str, &'a str)>,
}

/// What a file has.
pub(crate) enum Content<'a> {
    Bytes(&'a [u8]),
    File(&'a File, u64),
}

impl Form<'_> {
    /// What stands around the content, and the type that says how it is told apart.
    fn around(&self) -> (String, String, String) {
        let boundary = run_id();
        let Form { field, file_name, text, .. } = self;
        let text = text.map(|(name, text)| {
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
        });
        let before = format!(
            "{}--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{file_name}\"\r\nContent-Type: application/octet-stream\r\n\r\n",
            text.unwrap_or_default()
        );
        (before, format!("\r\n--{boundary}--\r\n"), format!("multipart/form-data; boundary={boundary}"))
    }
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub text: String,
    pub retry_after: Option<Duration>,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the same request may succeed later.
    pub(crate) fn is_for_now(&self) -> bool {
        matches!(self.status, 408 | 429 | 500 | 502 | 503 | 504)
    }

    pub(crate) fn is_denied(&self) -> bool {
        matches!(self.status, 401 | 403)
    }

    /// The content. An answer that is cut off, or comes from something else than the tracker, is none.
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.text).ok()
    }

    /// What the server says is wrong, on one line and without what a terminal would obey.
    pub(crate) fn reason(&self) -> String {
        const MOST: usize = 300;
        let json = self.json().unwrap_or_default();
        let said = ["message", "error", "msg"].iter().find_map(|key| json.get(key)?.as_str());
        let is_page = said.is_none() && self.text.trim_start().starts_with('<');
        let said = if is_page { "" } else { said.unwrap_or(self.text.as_str()) };
        let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let said: String = said.chars().filter(|c| !c.is_control()).take(MOST).collect();
        if said.is_empty() {
            format!("it answers {}", self.status)
        } else {
            format!("it answers {}: {said}", self.status)
        }
    }
}

impl Client {
    pub(crate) fn new(authorization: Option<String>, pace: &Pace) -> Client {
        Client::with_key(authorization.map(|value| ("Authorization", value)), pace)
    }

    /// For servers that want their key in a header of its own.
    pub(crate) fn with_key(key: Option<(&'static str, String)>, pace: &Pace) -> Client {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(pace.connect))
            .timeout_resolve(Some(pace.connect))
            .timeout_send_request(Some(pace.answer))
            .timeout_per_write(Some(pace.answer))
            .timeout_per_read(Some(pace.answer))
            .timeout_recv_response(Some(pace.answer))
            .user_agent(concat!("fulgurite/", env!("CARGO_PKG_VERSION")))
            .build();
        Client { agent: config.new_agent(), key }
    }

    /// Asks once.
    ///
    /// # Errors
    ///
    /// Fails with the reason if there is no whole answer.
    pub(crate) fn ask(&self, method: &str, url: &str, body: &Body) -> Result<Answer, String> {
        self.ask_with(method, url, &[], body)
    }

    /// Asks once, with headers.
    ///
    /// # Errors
    ///
    /// Fails with the reason if there is no whole answer.
    pub(crate) fn ask_with(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &Body,
    ) -> Result<Answer, String> {
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some((header, value)) = &self.key {
            request = request.header(*header, value);
        }
        let json;
        let answer = match body {
            Body::Nothing => self.agent.run(request.body(()).map_err(wrong)?),
            Body::Json(value) => {
                json = value.to_string();
                let request = request.header("Content-Type", "application/json");
                self.agent.run(request.body(json.as_str()).map_err(wrong)?)
            }
            Body::Bytes(bytes) => {
                let request = request.header("Content-Type", "application/octet-stream");
                self.agent.run(request.body(*bytes).map_err(wrong)?)
            }
            Body::File(file, len) => {
                let request = request.header("Content-Type", "application/octet-stream").header("Content-Length", *len);
                // A file that grows meanwhile is sent as it was.
                let mut file = file.take(*len);
                self.agent.run(request.body(SendBody::from_reader(&mut file)).map_err(wrong)?)
            }
            Body::Form(form) => {
                let (before, after, kind) = form.around();
                let (content, len): (Box<dyn Read + '_>, u64) = match form.content {
                    Content::Bytes(bytes) => (Box::new(bytes), bytes.len() as u64),
                    // A file that grows meanwhile is sent as it was.
                    Content::File(file, len) => (Box::new(file.take(len)), len),
                };
                let len = before.len() as u64 + len + after.len() as u64;
                let request = request.header("Content-Type", kind).header("Content-Length", len);
                let mut whole = before.as_bytes().chain(content).chain(after.as_bytes());
                self.agent.run(request.body(SendBody::from_reader(&mut whole)).map_err(wrong)?)
            }
        };
        let mut answer = answer.map_err(|error| in_words(&error))?;
        let retry_after =
            answer.headers().get("Retry-After").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let text = answer.body_mut().with_config().limit(LONGEST_ANSWER).lossy_utf8(true).read_to_string();
        Ok(Answer {
            status: answer.status().as_u16(),
            text: text.map_err(|error| format!("its answer is cut off ({})", in_words(&error)))?,
            retry_after: retry_after.map(Duration::from_secs),
        })
    }
}

/// The error without the address, which may hold a key.
fn in_words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Timeout(_) => "it does not answer in time".into(),
        ureq::Error::HostNotFound => "there is no such host".into(),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "the address is not one of HTTP".into(),
        other => other.to_string(),
    }
}

fn wrong(_: ureq::http::Error) -> String {
    "the address or the key has characters that HTTP does not allow".into()
}

/// Asks at the start of a run, a few times.
///
/// # Errors
///
/// Fails with the reason if there is no answer but those that say to ask later.
pub(crate) fn patiently(
    pace: &Pace,
    tries: u32,
    mut ask: impl FnMut() -> Result<Answer, String>,
) -> Result<Answer, String> {
    let mut backoff = Backoff::new(pace);
    loop {
        let (why, after) = match ask() {
            Ok(answer) if !answer.is_for_now() => return Ok(answer),
            Ok(answer) => (answer.reason(), answer.retry_after),
            Err(why) => (why, None),
        };
        let wait = backoff.next(after);
        if backoff.failures() >= tries {
            return Err(why);
        }
        thread::sleep(wait);
    }
}

/// Encodes one part of a path, so that it stays one part.
pub(crate) fn encode(part: &str) -> String {
    let mut encoded = String::new();
    for byte in part.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'=' | b':' | b'+' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// An address of a server: where it is, who asks, and nothing of that in what is printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Without user and password, and without a slash at the end.
    pub url: String,
    /// `user:password` of the address.
    pub user: Option<String>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Address {
    /// Takes an `http` or `https` address apart.
    pub(crate) fn parse(text: &str) -> Option<Address> {
        let (scheme, rest) = text.trim().split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https") {
            return None;
        }
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (user, host) = host.rsplit_once('@').map_or((None, host), |(user, host)| (Some(user.to_owned()), host));
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if host.is_empty() || !host.chars().all(is_host) {
            return None;
        }
        Some(Address { url: format!("{scheme}://{host}{}", path.trim_end_matches('/')), user })
    }
}

/// The failure of an answer that may be another one later.
pub(crate) fn later(server: &str, answer: &Answer) -> Failure {
    Failure::Later { why: format!("{server}: {}", answer.reason()), after: answer.retry_after }
}

/// The error of a server that gives no answer at the start of a run.
pub(crate) fn unreachable(server: &str, why: &str, remedy: &str) -> TrackerError {
    TrackerError::Unreachable(format!("{server} cannot be reached: {why}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_without_passwords() {
        let address = Address::parse("HTTP://ann:s3c@ret@host:5000/ml/flow/?x=1#y").unwrap();
        assert_eq!((address.url.as_str(), address.user.as_deref()), ("http://host:5000/ml/flow", Some("ann:s3c@ret")));
        assert_eq!(format!("{address:?}"), "http://host:5000/ml/flow");
        for wrong in ["databricks", "file:./mlruns", "ftp://a", "http://", "http://a b", "http://ü", "https:///x"] {
            assert!(Address::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn parts_of_paths_stay_parts() {
        assert_eq!(encode("a b/c#%ü=1"), "a%20b%2Fc%23%25%C3%BC=1");
    }

    #[test]
    fn reasons_are_one_line_that_no_terminal_obeys() {
        let answer = |text: &str| Answer { status: 400, text: text.into(), retry_after: None };
        assert_eq!(answer("{\"message\": \"no\\n\\u001b[2Jway\"}").reason(), "it answers 400: no [2Jway");
        assert_eq!(answer("<html>…").reason(), "it answers 400");
        assert!(answer(&"x".repeat(999)).reason().len() < 330);
    }
}
