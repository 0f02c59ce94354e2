//! Optimizers and schedulers as a user's crate sees them.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod errors;
mod steps;
