//! [`Experiment`]: what an archive or a server has to know of one, and [`Target`], where it is sent.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::entry::now_ms;
use crate::random::run_id;

/// An experiment of Comet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Experiment {
    /// Its key, of 32 to 50 letters and digits.
    pub key: String,
    /// The project; Comet's own default without one.
    pub project: Option<String>,
    /// The workspace; the user's default without one.
    pub workspace: Option<String>,
    /// Labels.
    pub tags: Vec<String>,
    /// Whether it may, must or must not be there already.
    pub mode: Mode,
    /// When it began, in milliseconds since 1970.
    pub start_ms: i64,
}

/// Whether an experiment may, must or must not be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It goes on if it is there, and is created otherwise.
    #[default]
    GetOrCreate,
    /// It is there, and goes on.
    Get,
    /// It is created.
    Create,
}

impl Experiment {
    /// A new experiment of a project, which begins now.
    pub fn new(project: impl Into<String>) -> Experiment {
        Experiment {
            key: run_id(),
            project: Some(project.into()),
            workspace: None,
            tags: Vec::new(),
            mode: Mode::GetOrCreate,
            start_ms: now_ms(),
        }
    }

    /// Whether a text can be a key.
    ///
    /// ```
    /// use fulgurite_trackers::comet::Experiment;
    ///
    /// assert!(Experiment::is_key(&Experiment::new("digits").key));
    /// assert!(!Experiment::is_key("../x"));
    /// ```
    pub fn is_key(text: &str) -> bool {
        (32..=50).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    }

    /// To be put into an archive.
    pub fn offline(&self) -> Target {
        Target { server: None, experiment: self.clone() }
    }

    /// To be sent to the server at this address.
    pub fn at(&self, server: &str) -> Target {
        Target { server: Some(server.to_owned()), experiment: self.clone() }
    }
}

/// Where the entries of an outbox go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Target {
    /// The server's address, without keys; none for an archive.
    pub server: Option<String>,
    /// The experiment.
    pub experiment: Experiment,
}

impl Target {
    /// As it stands in the outbox.
    pub fn to_value(&self) -> Value {
        // These fields are texts and numbers, which always have a JSON.
        serde_json::to_value(self).unwrap_or_default()
    }
}
