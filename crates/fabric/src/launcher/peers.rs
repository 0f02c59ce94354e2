//! What the supervisors of several nodes tell each other, through the store of the first one.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fulgurite_torch::TorchError;
use fulgurite_torch::distributed::{Store, TcpStoreOptions};
use serde::{Deserialize, Serialize};

use super::LaunchPlan;
use super::listener::Event;
use crate::environments::rendezvous::ended_key;

/// How often a supervisor looks whether something has happened elsewhere.
const PERIOD: Duration = Duration::from_millis(500);
/// How long the first one holds the store for others to hear of a failure.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long it holds the store for ranks of other nodes that are not done yet.
const OTHERS: Duration = Duration::from_secs(60);
/// After so many of its own periods the first one takes a node for lost. It counts and does not look at a clock, which goes
/// on while processes are stopped. A store is given up after as long (`end_silent_connections`).
const SILENCE: u32 = 60;
/// Holds the first [`Failure`].
const FAILED: &str = "fulgurite/failed";

/// A rank that died, and what its node ended with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub message: String,
    pub code: i32,
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
    /// `hosted` is the store on the first node; elsewhere it is looked for at the plan's address.
    pub(super) fn meet(
        plan: &LaunchPlan,
        hosted: Option<&Store>,
        port: u16,
        events: Sender<Event>,
    ) -> std::io::Result<Peers> {
        let (notes, said) = channel();
        let options = TcpStoreOptions {
            host: plan.main_address.clone(),
            port,
            wait_for_workers: false,
            ..TcpStoreOptions::default()
        };
        let (hosted, node, nodes) = (hosted.cloned(), plan.node_rank, plan.num_nodes);
        let is_host = hosted.is_some();
        let converse = move || {
            let gone = |message: String| _ = events.send(Event::Elsewhere(Failure { message, code: 1 }));
            let store = match hosted.map_or_else(|| Store::tcp(options), Ok) {
                Ok(store) => store,
                Err(error) => return gone(format!("the launcher of the first node did not answer: {error}")),
            };
            _ = events.send(Event::Met);
            let others = (0..nodes).filter(|other| *other != node && is_host).collect();
            let conversation = Conversation { store, node, others, events: &events };
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

/// What the first node last heard of another.
struct Pulse {
    node: usize,
    beats: i64,
    /// Periods since they changed.
    silent: u32,
}

struct Conversation<'a> {
    store: Store,
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
                Ok(Note::Ended { rank, how }) => self.store.set(&ended_key(rank), how.as_bytes())?,
                Ok(Note::Failed(failure)) => {
                    if !self.store.check(&[FAILED])? {
                        self.store.set(FAILED, &serde_json::to_vec(&failure).unwrap_or_default())?;
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
        self.store.set(FAILED, &serde_json::to_vec(&failure).unwrap_or_default())?;
        _ = self.events.send(Event::Elsewhere(failure));
        self.wait_for_others("heard", FAREWELL)
    }

    fn hears_of_failure(&self) -> Result<bool, TorchError> {
        if !self.store.check(&[FAILED])? {
            return Ok(false);
        }
        if let Ok(failure) = serde_json::from_slice(&self.store.get(FAILED)?) {
            _ = self.events.send(Event::Elsewhere(failure));
        }
        self.store.set(&self.key("heard", self.node), b"")?;
        Ok(true)
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
