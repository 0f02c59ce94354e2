//! Process groups, the reducer and the checkpoint writer, as a user's crate sees them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod distributed;
mod faults;
mod processes;
mod reducer;
mod store;
mod sync_batch_norm;
