//! Layers as a user's crate sees them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod layers;
mod mistakes;
mod sequences;
