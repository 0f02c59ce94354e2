//! What hooks may see and do, by subject.

mod logging;
mod optimization;
mod progress;
mod ranks;
mod requests;
