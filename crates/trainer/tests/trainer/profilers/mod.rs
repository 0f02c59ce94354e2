//! Profilers in whole runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod line;
mod pytorch;
mod reports;
mod trainer;
