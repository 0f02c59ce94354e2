//! What the supervisors of several nodes tell each other, through the store of the first one.

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

/// How often a supervisor looks whether something has happened elsewhere.
const PERIOD: Duration = Duration::from_millis(500);
/// How long the first one holds the store for others to hear of a failure.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long it holds the store for ranks of other nodes that are not done yet.
const OTHERS: Duration = Duration::from_secs(60);
/// After so many of its own periods the first one takes a node for lost. It counts and does not look at a clock, which
/// goes on while processes are stopped. A store is given up after as long (`end_silent_connections`).
const SILENCE: u32 = 60;
/// Holds the first [`Failure`], signed.
const FAILED: &str = "fulgurite/failed";
/// Holds the token that the first node made up, or nothing where it was given one.
const TOKEN: &str = "fulgurite/token";
/// Holds a signature of nothing, by which nodes that were given a token see that it is the same.
const PROOF: &str = "fulgurite/proof";

/// What the first node has.
pub(super) struct Host {
    pub store: Store,
    pub token: RunToken,
    /// Whether the user gave the token, so that the other nodes have it already.
    pub was_given: bool,
}

impl Host {
    /// Lets the other nodes know the token, or prove that theirs is the same.
    fn publish(&self) -> Result<(), TorchError> {
        self.store.set(PROOF, &self.token.seal(PROOF, b""))?;
        self.store.set(TOKEN, if self.was_given { b"" } else { self.token.as_str().as_bytes() })
    }
}

/// The token of the run, on a node that is not the first.
fn learn_token(store: &Store, given: Option<RunToken>) -> Result<RunToken, String> {
    let get = |key| {
        store.get(key).map_err(|error| format!("the launcher of the first node did not publish its token: {error}"))
    };
    let published = get(TOKEN)?;
    let remedy = format!("set {RUN_TOKEN} to the same text on all nodes, or on none");
    match (given, published.is_empty()) {
        (Some(token), true) if token.open(PROOF, &get(PROOF)?).is_some() => Ok(token),
        (None, false) => {
            RunToken::heard(&published).ok_or_else(|| format!("the first node published an invalid token; {remedy}"))
        }
        (Some(_), true) => Err(format!("the first node has another {RUN_TOKEN}; {remedy}")),
        (Some(_), false) => Err(format!("{RUN_TOKEN} is set here, and not on the first node; {remedy}")),
        (None, true) => Err(format!("{RUN_TOKEN} is set on the first node, and not here; {remedy}")),
    }
}

/// What a supervisor has to say.
enum Note {
    Ended { rank: usize, how: String },
    Failed(Failure),
    Done,
}

/// The other supervisors.
pub(super) struct Peers {
    notes: Sender<Note>,
    conversation: JoinHandle<()>,
    /// How long the end of the conversation is worth waiting for.
    pub patience: Duration,
}

impl Peers {
    /// `host` is the first node; elsewhere its store is looked for at the plan's address.
    pub(super) fn meet(
        plan: &LaunchPlan,
        host: Option<Host>,
        given: Option<RunToken>,
        port: u16,
        events: Sender<Event>,
    ) -> std::io::Result<Peers> {
        let (notes, said) = channel();
        let options = TcpStoreOptions {
            host: plan.main_address.clone(),
            port,
            timeout: plan.timeout,
            wait_for_workers: false,
            ..TcpStoreOptions::default()
        };
        let (node, nodes) = (plan.node_rank, plan.num_nodes);
        let is_host = host.is_some();
        let converse = move || {
            let gone = |message: String| _ = events.send(Event::Elsewhere(Failure { message, code: 1 }));
            let (store, token) = match enter(host, options, given) {
                Ok(met) => met,
                Err(problem) => return gone(problem),
            };
            _ = events.send(Event::Met(token.clone()));
            let others = (0..nodes).filter(|other| *other != node && is_host).collect();
            let conversation = Conversation { store, token, node, others, events: &events };
            if conversation.hold(&said).is_err() && !is_host {
                gone("the launcher of the first node is gone".to_owned());
            }
        };
        let conversation = thread::Builder::new().name("fulgurite-peers".into()).spawn(converse)?;
        let patience = if is_host { OTHERS + FAREWELL } else { FAREWELL };
        Ok(Peers { notes, conversation, patience })
    }

    pub(super) fn note_end(&self, rank: usize, how: &str) {
        _ = self.notes.send(Note::Ended { rank, how: how.to_owned() });
    }

    pub(super) fn note_failure(&self, failure: Failure) {
        _ = self.notes.send(Note::Failed(failure));
    }

    pub(super) fn note_done(&self) {
        _ = self.notes.send(Note::Done);
    }

    /// Whether everything is said.
    pub(super) fn have_parted(&self) -> bool {
        self.conversation.is_finished()
    }
}

/// The room of the run in the store, and its token; or what is wrong.
fn enter(host: Option<Host>, options: TcpStoreOptions, given: Option<RunToken>) -> Result<(Store, RunToken), String> {
    let (store, token) = match host {
        Some(host) => {
            host.publish().map_err(|error| error.to_string())?;
            (host.store, host.token)
        }
        None => {
            let unreachable = |error| format!("the launcher of the first node did not answer: {error}");
            let store = Store::tcp(options).map_err(unreachable)?;
            let token = learn_token(&store, given)?;
            (store, token)
        }
    };
    let room = store.prefixed(&token.room()).map_err(|error| error.to_string())?;
    Ok((room, token))
}

/// What the first node last heard of another.
struct Pulse {
    node: usize,
    beats: i64,
    /// Periods since they changed.
    silent: u32,
}

struct Conversation<'a> {
    /// The room that only processes of the run know.
    store: Store,
    token: RunToken,
    node: usize,
    /// Those that the first node waits for.
    others: Vec<usize>,
    events: &'a Sender<Event>,
}

impl Conversation<'_> {
    fn hold(&self, said: &Receiver<Note>) -> Result<(), TorchError> {
        let mut pulses: Vec<Pulse> =
            self.others.iter().map(|node| Pulse { node: *node, beats: 0, silent: 0 }).collect();
        loop {
            match said.recv_timeout(PERIOD) {
                Ok(Note::Ended { rank, how }) => self.say(&ended_key(rank), how.as_bytes())?,
                Ok(Note::Failed(failure)) => {
                    if self.failure()?.is_none() {
                        self.say(FAILED, &serde_json::to_vec(&failure).unwrap_or_default())?;
                    }
                    self.store.set(&self.key("heard", self.node), b"")?;
                    return self.wait_for_others("heard", FAREWELL);
                }
                Ok(Note::Done) => {
                    self.store.set(&self.key("done", self.node), b"")?;
                    return self.see_the_others_off();
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.hears_of_failure()? {
                        return self.wait_for_others("heard", FAREWELL);
                    }
                    self.store.add(&self.key("pulse", self.node), 1)?;
                    for pulse in &mut pulses {
                        if self.feel(pulse)? {
                            return self.give_up(pulse.node);
                        }
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Whether nothing was heard from a node for too long.
    fn feel(&self, pulse: &mut Pulse) -> Result<bool, TorchError> {
        let beats = self.store.add(&self.key("pulse", pulse.node), 0)?;
        let waits = beats == pulse.beats && beats > 0 && !self.store.check(&[&self.key("done", pulse.node)])?;
        *pulse = Pulse { beats, silent: if waits { pulse.silent + 1 } else { 0 }, ..*pulse };
        Ok(pulse.silent > SILENCE)
    }

    fn give_up(&self, node: usize) -> Result<(), TorchError> {
        let (silence, code) = (PERIOD * SILENCE, 1);
        let message =
            format!("nothing was heard from node {node} for {silence:?}: it is down, or cut off from this one");
        let failure = Failure { message, code };
        self.say(FAILED, &serde_json::to_vec(&failure).unwrap_or_default())?;
        _ = self.events.send(Event::Elsewhere(failure));
        self.wait_for_others("heard", FAREWELL)
    }

    fn hears_of_failure(&self) -> Result<bool, TorchError> {
        let Some(failure) = self.failure()? else { return Ok(false) };
        _ = self.events.send(Event::Elsewhere(failure));
        self.store.set(&self.key("heard", self.node), b"")?;
        Ok(true)
    }

    fn say(&self, key: &str, message: &[u8]) -> Result<(), TorchError> {
        self.store.set(key, &self.token.seal(key, message))
    }

    /// The failure that a node of the run told of. What a stranger says is passed over.
    fn failure(&self) -> Result<Option<Failure>, TorchError> {
        if !self.store.check(&[FAILED])? {
            return Ok(None);
        }
        let said = self.store.get(FAILED)?;
        Ok(self.token.open(FAILED, &said).and_then(Failure::read))
    }

    /// The ranks of other nodes may need the store to their end.
    fn see_the_others_off(&self) -> Result<(), TorchError> {
        let began = std::time::Instant::now();
        while began.elapsed() < OTHERS && self.wait_for_others("done", PERIOD).is_err() {
            if self.hears_of_failure()? {
                return self.wait_for_others("heard", FAREWELL);
            }
        }
        Ok(())
    }

    fn wait_for_others(&self, what: &str, patience: Duration) -> Result<(), TorchError> {
        let keys: Vec<String> = self.others.iter().map(|node| self.key(what, *node)).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        if keys.is_empty() { Ok(()) } else { self.store.wait(&keys, patience) }
    }

    fn key(&self, what: &str, node: usize) -> String {
        format!("fulgurite/node/{node}/{what}")
    }
}
