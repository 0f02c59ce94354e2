//! What loggers send to experiment trackers, without libtorch: the program `fulgurite` sends what a run could not.
//!
//! Training never waits for a network. What is logged goes into an [outbox](Outbox), a file beside the run's checkpoints, at
//! once; a thread, the [`Courier`], sends it from there. So nothing is lost when a server is away or the process is killed,
//! and memory is bounded whatever the server does. [`sync`](mod@sync) empties outboxes later.
//!
//! ```
//! use fulgurite_trackers::{Entry, Outbox};
//!
//! # let folder = tempfile::tempdir()?;
//! let mut outbox = Outbox::open(folder.path(), "mlflow", &"a target".into())?;
//! outbox.append(&Entry::metrics([("loss", 0.5), ("acc", f64::NAN)], 7))?;
//! outbox.sync()?;
//! # Ok::<(), std::io::Error>(())
//! ```

mod backoff;
pub mod comet;
mod courier;
mod drain;
mod entry;
mod error;
#[cfg(test)]
mod fake;
mod git;
mod http;
mod lock;
pub mod mlflow;
mod outbox;
mod own_files;
mod pace;
mod random;
mod service;
mod store;
pub mod sync;
mod synced;
mod time;
pub mod trackio;
pub mod wandb;

pub use courier::{Courier, Finished, Left};
pub use entry::{Entry, Number, RunEnd, now_ms};
pub use error::TrackerError;
pub use git::Checkout;
pub use outbox::Outbox;
pub use pace::Pace;
pub use random::run_id;
pub use service::{Failure, Sent, Service};
pub use time::utc_now;
