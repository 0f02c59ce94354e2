//! Metrics as a user's crate sees them: their handles in a run, and what wrong input is told.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod errors;
mod handles;
