//! The command line: what it understands, what it answers, and what a run makes of it.

mod errors;
mod files;
mod huge;
mod layering;
mod own_classes;
mod program;
mod runs;
mod texts;
mod written;
