//! Trackio: files in the inbox of the dashboard on this machine, or values sent to a dashboard elsewhere.
//!
//! ```
//! use std::time::Duration;
//!
//! use fulgurite_trackers::trackio::{Inbox, Run, Target, number};
//! use fulgurite_trackers::{Courier, Outbox};
//!
//! # let folder = tempfile::tempdir()?;
//! # let (logs, trackio) = (folder.path().join("logs"), folder.path().join("trackio"));
//! let run = Run { project: "digits".into(), name: "first".into(), id: fulgurite_trackers::run_id() };
//! let inbox = Inbox::open(&trackio)?;
//! let outbox = Outbox::open(&logs, "trackio", &Target::Inbox.to_value())?;
//! let courier = Courier::start(outbox, Box::new(inbox), Inbox::pace())?;
//! courier.post(&run.metrics([("loss", number(0.5))], 7, None))?;
//! assert_eq!(courier.finish(Duration::from_secs(60))?.left, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod inbox;
mod left;
mod names;
mod record;
mod server;
mod target;
#[cfg(test)]
mod tests;
mod writer;

pub use inbox::Inbox;
pub(crate) use left::addressee;
pub use names::{check_project, metric_key};
pub use record::{Run, histogram, image, markdown, number};
pub use server::Server;
pub use target::{Place, Target};
pub use writer::Writer;

/// The name of the service in outboxes.
pub const SERVICE: &str = "trackio";
