//! The messages that the supervisors of several nodes exchange through the store of the first one.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fulgurite_torch::TorchError;
use fulgurite_torch::distributed::{Store, TcpStoreOptions};

use super::LaunchPlan;
use super::failure::Failure;
use super::listener::Event;
use crate::environments::rendezvous::ended_key;
use crate::environments::run_token::{RUN_TOKEN, RunToken};

/// How often a supervisor checks for events on other nodes.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How long the first one keeps the store open for others to read of a failure.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it keeps the store open for ranks of other nodes that are not done yet.
const DONE_TIMEOUT: Duration = Duration::from_secs(60);
/// After so many of its own periods without a heartbeat the first node considers another one lost. It counts periods rather
/// than reading a clock, which advances while processes are stopped. A connection to the store times out after as long
/// (`end_silent_connections`).
const MAX_MISSED: u32 = 60;
/// The key of the first [`Failure`], signed.
const FAILED: &str = "fulgurite/failed";
/// The key of the token that the first node generated; the value is empty if the user gave it one.
const TOKEN: &str = "fulgurite/token";
/// The key of a signature of the empty message, by which nodes that were given a token verify that it is the same.
const PROOF: &str = "fulgurite/proof";

/// The store and the token of the first node.
pub(super) struct Host {
    pub store: Store,
    pub token: RunToken,
    /// Whether the user gave the token, so that the other nodes have it already.
    pub was_given: bool,
}

impl Host {
    /// Publishes the token to the other nodes, or a proof with which they verify theirs.
    fn publish(&self) -> Result<(), TorchError> {
        self.store.set(PROOF, &self.token.sign(PROOF, b""))?;
        self.store.set(TOKEN, if self.was_given { b"" } else { self.token.as_str().as_bytes() })
    }
}

/// The token of the run, on a node that is not the first.
fn read_token(store: &Store, given: Option<RunToken>) -> Result<RunToken, String> {
    let get = |key| {
        store.get(key).map_err(|error| format!("the launcher of the first node did not publish its token: {error}"))
    };
    let published = get(TOKEN)?;
    let remedy = format!("set {RUN_TOKEN} to the same text on all nodes, or on none");
    match (given, published.is_empty()) {
        (Some(token), true) if token.verify(PROOF, &get(PROOF)?).is_some() => Ok(token),
        (None, false) => RunToken::parse_published(&published)
            .ok_or_else(|| format!("the first node published an invalid token; {remedy}")),
        (Some(_), true) => Err(format!("the first node has a different {RUN_TOKEN}; {remedy}")),
        (Some(_), false) => Err(format!("{RUN_TOKEN} is set on this node, but not on the first node; {remedy}")),
        (None, true) => Err(format!("{RUN_TOKEN} is set on the first node, but not on this node; {remedy}")),
    }
}

/// A message of a supervisor to the others.
enum Message {
    Exited { rank: usize, how: String },
    Failed(Failure),
    Done,
}

/// The connection to the other supervisors.
pub(super) struct Peers {
    messages: Sender<Message>,
    exchange: JoinHandle<()>,
    /// How long to wait for the exchange to finish.
    pub leave_timeout: Duration,
}

impl Peers {
    /// `host` is set on the first node; other nodes connect to its store at the address of the plan.
    pub(super) fn connect(
        plan: &LaunchPlan,
        host: Option<Host>,
        given: Option<RunToken>,
        port: u16,
        events: Sender<Event>,
    ) -> std::io::Result<Peers> {
        let (sender, messages) = channel();
        let options = TcpStoreOptions {
            host: plan.main_address.clone(),
            port,
            timeout: plan.timeout,
            wait_for_workers: false,
            ..TcpStoreOptions::default()
        };
        let (node, nodes) = (plan.node_rank, plan.num_nodes);
        let is_host = host.is_some();
        let exchange = move || {
            let fail = |message: String| _ = events.send(Event::RemoteFailure(Failure { message, code: 1 }));
            let (store, token) = match join(host, options, given) {
                Ok(joined) => joined,
                Err(problem) => return fail(problem),
            };
            _ = events.send(Event::Connected(token.clone()));
            let others = (0..nodes).filter(|other| *other != node && is_host).collect();
            let exchange = Exchange { store, token, node, others, events: &events };
            if exchange.run(&messages).is_err() && !is_host {
                fail("the connection to the launcher of the first node was lost".to_owned());
            }
        };
        let exchange = thread::Builder::new().name("fulgurite-peers".into()).spawn(exchange)?;
        let leave_timeout = if is_host { DONE_TIMEOUT + FAILURE_TIMEOUT } else { FAILURE_TIMEOUT };
        Ok(Peers { messages: sender, exchange, leave_timeout })
    }

    pub(super) fn publish_exit(&self, rank: usize, how: &str) {
        _ = self.messages.send(Message::Exited { rank, how: how.to_owned() });
    }

    pub(super) fn publish_failure(&self, failure: Failure) {
        _ = self.messages.send(Message::Failed(failure));
    }

    pub(super) fn publish_done(&self) {
        _ = self.messages.send(Message::Done);
    }

    /// Whether the exchange has finished.
    pub(super) fn are_done(&self) -> bool {
        self.exchange.is_finished()
    }
}

/// The namespace of the run in the store, and its token; or an error message.
fn join(host: Option<Host>, options: TcpStoreOptions, given: Option<RunToken>) -> Result<(Store, RunToken), String> {
    let (store, token) = match host {
        Some(host) => {
            host.publish().map_err(|error| error.to_string())?;
            (host.store, host.token)
        }
        None => {
            let unreachable = |error| format!("the launcher of the first node did not respond: {error}");
            let store = Store::tcp(options).map_err(unreachable)?;
            let token = read_token(&store, given)?;
            (store, token)
        }
    };
    let namespace = store.prefixed(&token.namespace()).map_err(|error| error.to_string())?;
    Ok((namespace, token))
}

/// The heartbeat of another node, as the first node last read it.
struct Heartbeat {
    node: usize,
    count: i64,
    /// Periods since the count changed.
    missed: u32,
}

struct Exchange<'a> {
    /// The namespace whose name only processes of the run know.
    store: Store,
    token: RunToken,
    node: usize,
    /// The nodes that the first node waits for.
    others: Vec<usize>,
    events: &'a Sender<Event>,
}

impl Exchange<'_> {
    fn run(&self, messages: &Receiver<Message>) -> Result<(), TorchError> {
        let mut heartbeats: Vec<Heartbeat> =
            self.others.iter().map(|node| Heartbeat { node: *node, count: 0, missed: 0 }).collect();
        loop {
            match messages.recv_timeout(POLL_INTERVAL) {
                Ok(Message::Exited { rank, how }) => self.publish(&ended_key(rank), how.as_bytes())?,
                Ok(Message::Failed(failure)) => {
                    if self.failure()?.is_none() {
                        self.publish(FAILED, &serde_json::to_vec(&failure).unwrap_or_default())?;
                    }
                    self.store.set(&self.key("heard", self.node), b"")?;
                    return self.wait_for_others("heard", FAILURE_TIMEOUT);
                }
                Ok(Message::Done) => {
                    self.store.set(&self.key("done", self.node), b"")?;
                    return self.wait_until_others_are_done();
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.forward_failure()? {
                        return self.wait_for_others("heard", FAILURE_TIMEOUT);
                    }
                    self.store.add(&self.key("pulse", self.node), 1)?;
                    for heartbeat in &mut heartbeats {
                        if self.is_lost(heartbeat)? {
                            return self.declare_lost(heartbeat.node);
                        }
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Reads the heartbeat of a node. Returns whether it has missed too many.
    fn is_lost(&self, heartbeat: &mut Heartbeat) -> Result<bool, TorchError> {
        let count = self.store.add(&self.key("pulse", heartbeat.node), 0)?;
        let is_unchanged = count == heartbeat.count && count > 0;
        let has_missed = is_unchanged && !self.store.check(&[&self.key("done", heartbeat.node)])?;
        *heartbeat = Heartbeat { count, missed: if has_missed { heartbeat.missed + 1 } else { 0 }, ..*heartbeat };
        Ok(heartbeat.missed > MAX_MISSED)
    }

    fn declare_lost(&self, node: usize) -> Result<(), TorchError> {
        let (silence, code) = (POLL_INTERVAL * MAX_MISSED, 1);
        let message =
            format!("no heartbeat from node {node} for {silence:?}: it is down or unreachable from this node");
        let failure = Failure { message, code };
        self.publish(FAILED, &serde_json::to_vec(&failure).unwrap_or_default())?;
        _ = self.events.send(Event::RemoteFailure(failure));
        self.wait_for_others("heard", FAILURE_TIMEOUT)
    }

    fn forward_failure(&self) -> Result<bool, TorchError> {
        let Some(failure) = self.failure()? else { return Ok(false) };
        _ = self.events.send(Event::RemoteFailure(failure));
        self.store.set(&self.key("heard", self.node), b"")?;
        Ok(true)
    }

    fn publish(&self, key: &str, message: &[u8]) -> Result<(), TorchError> {
        self.store.set(key, &self.token.sign(key, message))
    }

    /// The failure that a node of the run reported. Messages of processes outside the run are ignored.
    fn failure(&self) -> Result<Option<Failure>, TorchError> {
        if !self.store.check(&[FAILED])? {
            return Ok(None);
        }
        let reported = self.store.get(FAILED)?;
        Ok(self.token.verify(FAILED, &reported).and_then(Failure::parse))
    }

    /// Keeps the store open, since the ranks of other nodes may need it until they exit.
    fn wait_until_others_are_done(&self) -> Result<(), TorchError> {
        let began = std::time::Instant::now();
        while began.elapsed() < DONE_TIMEOUT && self.wait_for_others("done", POLL_INTERVAL).is_err() {
            if self.forward_failure()? {
                return self.wait_for_others("heard", FAILURE_TIMEOUT);
            }
        }
        Ok(())
    }

    fn wait_for_others(&self, what: &str, timeout: Duration) -> Result<(), TorchError> {
        let keys: Vec<String> = self.others.iter().map(|node| self.key(what, *node)).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        if keys.is_empty() { Ok(()) } else { self.store.wait(&keys, timeout) }
    }

    fn key(&self, what: &str, node: usize) -> String {
        format!("fulgurite/node/{node}/{what}")
    }
}
