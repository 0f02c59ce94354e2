//! Comet: an archive that `comet upload` takes, or its server.
//!
//! What is logged is a list of messages, those of Comet's archives. Without a server they are put into one.
//!
//! ```
//! use fulgurite_trackers::comet::{Experiment, archive, metrics};
//! use fulgurite_trackers::{Courier, Outbox, Number};
//!
//! # let folder = tempfile::tempdir()?;
//! let experiment = Experiment::new("digits");
//! let outbox = Outbox::open(folder.path(), "comet", &experiment.offline().to_value())?;
//! let path = outbox.path().to_owned();
//! let courier = Courier::without_service(outbox);
//! courier.post(&metrics([("loss", Number(0.5))], Some(7), Some(0.0)))?;
//! courier.save()?;
//! drop(courier);
//! let archive = archive(&path, folder.path())?.unwrap();
//! assert_eq!(archive.path.file_name().unwrap().to_string_lossy(), format!("{}.zip", experiment.key));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod archive;
mod experiment;
mod left;
mod message;
mod server;
#[cfg(test)]
mod tests;
mod writer;

pub use archive::{Archive, archive};
pub use experiment::{Experiment, Mode, Target};
pub(crate) use left::send;
pub use message::{Asset, Kind, metrics, other, parameters};
pub use server::Server;
pub use writer::Writer;

/// The name of the service in outboxes.
pub const SERVICE: &str = "comet";
