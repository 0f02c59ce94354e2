//! Profilers: how the time of a run is spent.
//!
//! | profiler | name | output |
//! |---|---|---|
//! | [`SimpleProfiler`] | `simple` | the number and duration of calls of every hook and action |
//! | [`AdvancedProfiler`] | `advanced` | the phases of a step, with percentiles |
//! | [`PyTorchProfiler`] | `pytorch` | every operator: a trace for Perfetto, and a table |
//!
//! The report is printed at the end of the entry point, also after an error, or appended to a file. Parts of your own
//! code are measured with [`Step::profile`](crate::Step::profile) and
//! [`TrainerState::profile`](crate::TrainerState::profile). Without a profiler nothing is allocated and no clock is
//! read.

mod advanced;
mod choice;
mod clock;
mod profiler;
mod profiling;
mod pytorch;
mod report;
mod simple;

pub use advanced::{AdvancedProfiler, AdvancedProfilerOptions};
pub use choice::{PROFILERS, ProfilerChoice, profiler};
pub use profiler::{ProfiledRun, Profiler};
pub(crate) use profiling::{Action, Profiling};
pub use pytorch::{ProfilerSchedule, PyTorchProfiler, PyTorchProfilerOptions, SortKey};
pub use simple::{ActionRecord, SimpleProfiler, SimpleProfilerOptions};

use report::append_report;
