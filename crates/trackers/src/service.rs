//! [`Service`]: what a courier sends to.

use std::time::Duration;

use crate::entry::Entry;

/// A run on a server, which takes the entries of an outbox, or of another file, in their order. Entries may be sent again after
/// a failure, so a service must take one twice without harm.
pub trait Service<E = Entry>: Send {
    /// Sends entries.
    fn send(&mut self, entries: &[E]) -> Sent;

    /// There was nothing to send for [`Pace::idle_after`](crate::Pace): the server may want to know that the run is alive.
    /// Nobody waits for it.
    fn idle(&mut self) -> Sent {
        Sent::default()
    }
}

/// What became of entries.
#[derive(Debug, Default)]
pub struct Sent {
    /// So many of them, from the first on, are done: sent, or refused for good.
    pub done: usize,
    /// What the user should know of those that were refused.
    pub warnings: Vec<String>,
    /// Why the next one is not done.
    pub failure: Option<Failure>,
    /// The user asks on the server that the run ends.
    pub stop: bool,
}

/// Why entries are not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It may work later.
    Later {
        /// The reason.
        why: String,
        /// How long the server asks to wait.
        after: Option<Duration>,
    },
    /// Nothing more can be sent to this run, which may have been deleted.
    Closed(String),
}

/// Who an outbox is sent to.
pub(crate) struct Addressee {
    pub writer: Box<dyn Service>,
    /// For messages.
    pub name: String,
}
