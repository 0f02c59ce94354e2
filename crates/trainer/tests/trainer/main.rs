//! What a run does, from its arguments to its files: every test of the trainer that needs no process to itself.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "a test may fail")]

mod anomaly;
mod arguments;
mod bad_input;
mod callbacks;
mod checkpoint_files;
mod cli;
mod determinism;
mod drawing;
mod events;
mod examples;
mod failures;
mod hook_order;
mod interrupt;
mod like_the_original;
mod mistakes;
mod model_summary;
mod modes;
mod nodes;
mod optimization;
mod optimizing;
mod precision;
mod profilers;
mod progress_bar;
mod ranks;
mod readable_errors;
mod record;
mod resume;
mod tuner;
mod tuner_leaves_no_trace;
