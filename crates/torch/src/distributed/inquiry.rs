//! Diagnosis of failed operations: ranks whose operation failed report it to each other through the store.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use super::{DistributedError, Store};
use crate::error::TorchError;

/// The timeout of the store.
const STORE_ANSWERS: Duration = Duration::from_secs(3);

/// The address of this machine from which `store` is reached, if it is on a network. No packet is sent.
pub(super) fn own_address(store: &Store) -> Option<IpAddr> {
    let (host, port) = (store.host()?, store.port()?);
    (host, port).to_socket_addrs().ok()?.find_map(address_towards)
}

fn address_towards(store: SocketAddr) -> Option<IpAddr> {
    let any = if store.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(store).ok()?;
    let address = socket.local_addr().ok()?.ip();
    let is_link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    (!address.is_loopback() && !address.is_unspecified() && !is_link_local).then_some(address)
}

/// What a rank that joins a group publishes about itself.
pub(super) fn arrival_key(rank: usize) -> String {
    format!("rank/{rank}")
}

fn key(rank: usize) -> String {
    format!("gave up/{rank}")
}

/// A rank whose operation failed.
pub(super) struct Inquiry {
    pub store: Store,
    pub rank: usize,
    pub global_ranks: Vec<usize>,
    pub operation: &'static str,
    /// How long to wait for the reports of the other ranks.
    pub patience: Duration,
}

/// What is known about the other ranks.
enum Answer {
    /// The store works.
    Reached,
    Received(Vec<Other>),
    Failed(String),
}

/// Another rank.
struct Other {
    rank: usize,
    /// Empty if all ranks are on one machine.
    address: String,
    /// The operation that failed on it.
    operation: Option<String>,
}

impl Inquiry {
    /// Reports the failure to the other ranks, collects their reports, and returns the conclusion.
    pub(super) fn ask(self) -> String {
        let (sender, answers) = mpsc::channel();
        let (patience, operation, size) = (self.patience, self.operation, self.global_ranks.len());
        let place = self.store.place().to_owned();
        let silent = || format!("{place} does not respond either: that machine is down, or unreachable from this one");
        // A call to an unreachable store may block for long.
        let begun = thread::Builder::new().name("fulgurite-inquiry".into()).spawn(move || {
            let reports = self.collect(&sender).unwrap_or_else(|error| Answer::Failed(error.to_string()));
            _ = sender.send(reports);
        });
        if begun.is_err() || size == 1 {
            return "nothing is known about the others".to_owned();
        }
        let mut left = STORE_ANSWERS;
        loop {
            match answers.recv_timeout(left) {
                Ok(Answer::Reached) => left = patience + STORE_ANSWERS,
                Ok(Answer::Received(others)) => return verdict(&others, operation),
                Ok(Answer::Failed(error)) => return error,
                Err(_) => return silent(),
            }
        }
    }

    fn collect(&self, sender: &Sender<Answer>) -> Result<Answer, TorchError> {
        self.store.set(&key(self.rank), self.operation.as_bytes())?;
        _ = sender.send(Answer::Reached);
        let keys: Vec<String> = (0..self.global_ranks.len()).map(key).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let missing = match self.store.wait(&keys, self.patience) {
            Ok(()) => Vec::new(),
            Err(error) => missing_keys(error)?,
        };
        let text = |key: &str| Ok::<_, TorchError>(String::from_utf8_lossy(&self.store.get(key)?).into_owned());
        let others = (0..keys.len()).filter(|&rank| rank != self.rank);
        let others = others.map(|rank| {
            let gave_up = !missing.contains(&key(rank));
            let operation = if gave_up { Some(text(&key(rank))?) } else { None };
            Ok(Other { rank: self.global_ranks[rank], address: text(&arrival_key(rank))?, operation })
        });
        others.collect::<Result<_, TorchError>>().map(Answer::Received)
    }
}

fn missing_keys(error: TorchError) -> Result<Vec<String>, TorchError> {
    if let TorchError::Distributed(distributed) = &error
        && let DistributedError::KeysMissing { keys, .. } = distributed.as_ref()
    {
        return Ok(keys.clone());
    }
    Err(error)
}

fn verdict(others: &[Other], operation: &str) -> String {
    let silent: Vec<String> = others.iter().filter(|other| other.operation.is_none()).map(Other::name).collect();
    if !silent.is_empty() {
        let (does, it) = if silent.len() == 1 { ("does", "it is") } else { ("do", "they are") };
        return format!("{} {does} not respond: {it} gone, unreachable, or not in this operation", silent.join(", "));
    }
    let elsewhere = others.iter().filter_map(|other| {
        let theirs = other.operation.as_deref().filter(|theirs| *theirs != operation)?;
        Some(format!("{} in {theirs}", other.name()))
    });
    let elsewhere: Vec<String> = elsewhere.collect();
    if elsewhere.is_empty() {
        return "all ranks waited for it, so the network between them did not carry it in time".to_owned();
    }
    format!("the ranks call different operations; {}", elsewhere.join(", "))
}

impl Other {
    fn name(&self) -> String {
        if self.address.is_empty() {
            format!("rank {}", self.rank)
        } else {
            format!("rank {} at {}", self.rank, self.address)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(rank: usize, address: &str, operation: Option<&str>) -> Other {
        Other { rank, address: address.into(), operation: operation.map(str::to_owned) }
    }

    #[test]
    fn what_is_said_of_the_others() {
        let waits = other(1, "10.0.0.1", Some("barrier"));
        assert_eq!(
            verdict(&[waits, other(2, "10.0.0.2", None)], "barrier"),
            "rank 2 at 10.0.0.2 does not respond: it is gone, unreachable, or not in this operation"
        );
        let others = [other(1, "", Some("barrier")), other(2, "", Some("reduce"))];
        assert_eq!(verdict(&others, "barrier"), "the ranks call different operations; rank 2 in reduce");
        assert!(verdict(&others[..1], "barrier").starts_with("all ranks waited for it"));
    }

    #[test]
    fn this_machine_is_no_address_on_a_network() {
        assert_eq!(address_towards(([127, 0, 0, 1], 1).into()), None);
    }
}
