//! Precision and checkpoints in the background, as a user's crate sees them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod async_checkpoint_io;
mod precision;
