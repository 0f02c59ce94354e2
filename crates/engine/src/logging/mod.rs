//! Logging: records and reduces the values of `step.log`, and passes them to loggers, progress bar and callbacks.

mod connector;
mod entry;
mod many;
mod media;
mod options;
mod over_ranks;
mod results;

pub use entry::{LogEntries, LogEntry};
pub use many::{LogValues, Mixed, OfOneType};
pub use options::Reduce;
pub use results::LoggedValue;

pub(crate) use connector::Metrics;
pub(crate) use options::LogOptions;
pub(crate) use results::ResultStore;
