//! Runs with loggers of experiment trackers.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod comet;
mod mlflow;
mod model;
mod news;
mod service;
mod trackio;
mod wandb;
