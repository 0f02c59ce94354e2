//! What a program hears of a run that it has started as a child process, and what the run hears of that program.

mod lines;
mod parent;
mod prune;
mod reporter;

pub(crate) use self::lines::{ReportLines, VARIABLE as REPORT};
pub(crate) use self::parent::{VARIABLE as PARENT, watch as watch_parent};
pub(crate) use self::prune::{VARIABLE as PRUNE, is_pruned_by_signals};
pub(crate) use self::reporter::Reporter;
