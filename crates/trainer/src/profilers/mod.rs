//! Profilers: where the time of a run goes.

mod profiler;

pub use profiler::Profiler;
