//! [`Service`]: what a courier sends to.

use std::time::Duration;

use crate::entry::Entry;

/// A run on a server, which takes the entries of an outbox in their order. Entries may be sent again after a failure, so a
/// service must take one twice without harm.
pub trait Service: Send {
    /// Sends entries.
    fn send(&mut self, entries: &[Entry]) -> Sent;
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
