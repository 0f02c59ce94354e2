//! Profilers in whole runs.

mod line;
mod pytorch;
mod reports;
mod trainer;
