//! [`Target`]: where the entries of an outbox go.

use std::env;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::http::Address;

/// Where the entries of an outbox go. It has no keys, and no folder: an outbox is data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Target {
    /// Trackio on the machine that sends the outbox.
    Inbox,
    /// The dashboard at this address.
    Server(String),
    /// This Space of Hugging Face.
    Space(String),
}

impl Target {
    /// As it stands in the outbox.
    pub fn to_value(&self) -> Value {
        // A text always has a JSON.
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Where a run is kept, with the keys that the user gave.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// Trackio's folder on this machine.
    Here(PathBuf),
    /// The dashboard at this address, which may end with `?write_token=…`.
    Server(String),
    /// This Space of Hugging Face, `user/name`.
    Space(String),
}

impl Place {
    /// What is given, or else what Trackio's variables say: `TRACKIO_SPACE_ID`, `TRACKIO_SERVER_URL` and `TRACKIO_DIR`. A Space
    /// wins over a server, and both over this machine.
    pub fn of(space_id: Option<&str>, server_url: Option<&str>) -> Place {
        Place::with(space_id, server_url, &|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    pub(super) fn with(
        space_id: Option<&str>,
        server_url: Option<&str>,
        var: &dyn Fn(&str) -> Option<String>,
    ) -> Place {
        let given = |text: Option<&str>, name: &str| text.map(str::to_owned).or_else(|| var(name));
        if let Some(space) = given(space_id, "TRACKIO_SPACE_ID") {
            return Place::Space(space);
        }
        given(server_url, "TRACKIO_SERVER_URL").map_or_else(|| Place::Here(folder(var)), Place::Server)
    }

    /// What an outbox may know of it.
    pub fn target(&self) -> Target {
        match self {
            Place::Here(_) => Target::Inbox,
            Place::Server(url) => Target::Server(without_keys(url)),
            Place::Space(id) => Target::Space(id.clone()),
        }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.target().fmt(f)
    }
}

/// Trackio's folder: `TRACKIO_DIR`, or that of Hugging Face's caches.
pub(super) fn folder(var: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    match var("TRACKIO_DIR") {
        Some(folder) => folder.into(),
        None => hugging_face(var).join("trackio"),
    }
}

/// The folder of Hugging Face's caches.
pub(super) fn hugging_face(var: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let home = || PathBuf::from(var("HOME").unwrap_or_else(|| ".".into()));
    let cache = || var("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from);
    var("HF_HOME").map_or_else(|| cache().join("huggingface"), PathBuf::from)
}

/// An address without keys; empty if it is none.
pub(super) fn without_keys(address: &str) -> String {
    Address::parse(address).map(|address| address.url).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_wins_and_a_space_wins_over_a_server() {
        let var = |name: &str| match name {
            "TRACKIO_SERVER_URL" => Some("http://h:1/?write_token=s3cret".to_owned()),
            "HOME" => Some("/home/ann".to_owned()),
            _ => None,
        };
        let nothing = |name: &str| var(name).filter(|_| name == "HOME");
        assert_eq!(Place::with(None, None, &nothing), Place::Here("/home/ann/.cache/huggingface/trackio".into()));
        let server = Place::with(None, None, &var);
        assert_eq!(server.target(), Target::Server("http://h:1".into()));
        assert_eq!(format!("{server:?}"), "Server(\"http://h:1\")");
        assert_eq!(Place::with(Some("a/b"), Some("http://x"), &var), Place::Space("a/b".into()));
        assert_eq!(Place::with(None, Some("http://x"), &var), Place::Server("http://x".into()));
    }
}
