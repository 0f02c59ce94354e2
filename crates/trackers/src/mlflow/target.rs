//! [`Target`]: where the entries of an outbox go.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tags::RUN_NAME;
use crate::entry::now_ms;
use crate::http::Address;

/// A run on a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The experiment's number.
    pub experiment_id: String,
    /// The run's identifier.
    pub run_id: String,
    /// Where the server wants the run's files.
    pub artifact_uri: String,
    /// The hyper-parameters that it has already.
    #[serde(skip)]
    pub params: Vec<(String, String)>,
}

/// A run to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewRun {
    /// The experiment's name.
    pub experiment_name: String,
    /// The experiment's number, which wins over its name.
    pub experiment_id: Option<String>,
    /// Where a new experiment keeps files; the server chooses by default.
    pub artifact_location: Option<String>,
    /// The run's name; the server invents one by default.
    pub run_name: Option<String>,
    /// Labels of the run.
    pub tags: Vec<(String, String)>,
    /// When it began, in milliseconds since 1970.
    pub start_ms: i64,
}

impl NewRun {
    /// A run of the experiment of this name, which begins now.
    ///
    /// ```
    /// use fulgurite_trackers::mlflow::NewRun;
    ///
    /// assert_eq!(NewRun::new("digits").experiment_name, "digits");
    /// ```
    pub fn new(experiment_name: impl Into<String>) -> NewRun {
        NewRun { experiment_name: experiment_name.into(), start_ms: now_ms(), ..NewRun::default() }
    }

    /// The tags that are sent: without the tag of the name if that is given, because the server refuses two names.
    pub(super) fn tags_to_send(&self) -> impl Iterator<Item = &(String, String)> {
        self.tags.iter().filter(|(key, _)| key != RUN_NAME || self.run_name.is_none())
    }
}

/// Where the entries of an outbox go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Target {
    /// The server's address, without keys; empty if it was not known.
    pub server: String,
    /// The run.
    pub run: RunOrPlan,
}

/// A run that is there, or one that is created when the outbox is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOrPlan {
    /// It is there.
    Run(Run),
    /// It is to be created.
    New(NewRun),
}

impl Target {
    /// A run that is there, at the address of a server.
    pub fn run(server: &str, run: &Run) -> Target {
        let run = Run { params: Vec::new(), ..run.clone() };
        Target { server: without_keys(server), run: RunOrPlan::Run(run) }
    }

    /// A run that is created when the outbox is sent to `server`, which may be unknown yet.
    pub fn offline(server: &str, new: NewRun) -> Target {
        Target { server: without_keys(server), run: RunOrPlan::New(new) }
    }

    /// As it stands in the outbox.
    pub fn to_value(&self) -> Value {
        // These fields are texts and numbers, which always have a JSON.
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// An address without keys; empty if it is none.
pub(super) fn without_keys(address: &str) -> String {
    Address::parse(address).map(|address| address.url).unwrap_or_default()
}
