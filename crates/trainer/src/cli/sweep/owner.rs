//! [`Owner`]: the process that runs a trial, which another one may find dead.

use std::fs;

use serde_json::{Value, json};

/// Notes of a trial have it under this name.
pub(super) const KEY: &str = "owner";

/// A process of this machine; one that has got its number later began at another time.
#[derive(PartialEq, Eq)]
pub(super) struct Owner {
    host: String,
    pid: u64,
    started: u64,
}

impl Owner {
    /// This process, where the system says when it began.
    pub(super) fn this() -> Option<Owner> {
        let pid = u64::from(std::process::id());
        Some(Owner { host: host()?, pid, started: started(pid)? })
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "host": self.host, "pid": self.pid, "started": self.started })
    }

    pub(super) fn from_json(value: &Value) -> Option<Owner> {
        let host = value.get("host")?.as_str()?.to_owned();
        Some(Owner { host, pid: value.get("pid")?.as_u64()?, started: value.get("started")?.as_u64()? })
    }

    /// Whether it has certainly ended.
    pub(super) fn is_gone(&self) -> bool {
        host().is_some_and(|host| host == self.host) && started(self.pid) != Some(self.started)
    }
}

fn host() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned())
}

/// When a process began, in ticks since the machine did.
fn started(pid: u64) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may have spaces and parentheses.
    let (_, fields) = status.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}
