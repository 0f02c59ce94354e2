//! [`Pace`]: how much is sent at once, and how long to wait.

use std::time::Duration;

/// How much is sent at once, and how long to wait for what.
///
/// ```
/// assert_eq!(fulgurite_trackers::Pace::default().flush_items, 1000);
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Pace {
    /// As soon as so many values are there, they are sent.
    pub flush_items: usize,
    /// Values are sent when they are this old.
    pub flush_after: Duration,
    /// The server is told that the run is alive when there was nothing to send for so long; never, if it is `None`.
    pub idle_after: Option<Duration>,
    /// The first wait after a failure; each next one is twice as long.
    pub first_wait: Duration,
    /// The longest wait after a failure.
    pub longest_wait: Duration,
    /// How long a connection may take.
    pub connect: Duration,
    /// How long a server may be silent.
    pub answer: Duration,
    /// How often a request at the start of a run is tried.
    pub tries_at_start: u32,
    /// How often a request of `fulgurite sync` is tried.
    pub tries_of_sync: u32,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            flush_items: 1000,
            flush_after: Duration::from_secs(5),
            idle_after: None,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(60),
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(120),
            tries_at_start: 3,
            tries_of_sync: 5,
        }
    }
}
