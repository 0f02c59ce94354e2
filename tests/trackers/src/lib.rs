//! Runs that log to experiment trackers, and these read by the trackers' own software: see `tests`. Here is what stands in for
//! servers that cannot run here.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

pub mod comet;
pub mod http;
pub mod wandb;
