//! MLflow, over its REST interface.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use fulgurite_trackers::mlflow::{NewRun, Server, Target};
//! use fulgurite_trackers::{Courier, Entry, Outbox, Pace, RunEnd};
//!
//! let pace = Pace::default();
//! let server = Server::from_env("http://127.0.0.1:5000", pace)?;
//! let run = server.start(&NewRun::new("digits"))?;
//! let target = Target::run(server.url(), &run);
//! let outbox = Outbox::open("logs".as_ref(), "mlflow", &target.to_value())?;
//! let courier = Courier::start(outbox, Box::new(server.writer(run)), pace)?;
//! courier.post(&Entry::metrics([("loss", 0.5)], 0))?;
//! courier.post(&Entry::status(RunEnd::Success))?;
//! assert_eq!(courier.finish(Duration::from_secs(60))?.left, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod credentials;
mod left;
mod names;
mod run;
mod server;
mod tags;
mod target;
#[cfg(test)]
mod tests;

pub(crate) use left::{addressee, is_there};
pub use names::{MAX_PARAM, metric_key};
pub use run::RunWriter;
pub use server::Server;
pub use tags::{RUN_NAME, context_tags};
pub use target::{NewRun, Run, Target};

/// The name of the service in outboxes.
pub const SERVICE: &str = "mlflow";
