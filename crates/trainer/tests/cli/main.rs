//! The command line: what it understands, what it answers, and what a run makes of it.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod errors;
mod files;
mod huge;
mod layering;
mod own_classes;
mod program;
mod runs;
mod texts;
mod written;
