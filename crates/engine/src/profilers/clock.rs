//! [`Clock`]: the time since a profiler was created.

use std::time::Instant;

/// Nanoseconds since it was created; in tests, set by the test.
#[derive(Debug, Clone)]
pub(super) enum Clock {
    Real(Instant),
    #[cfg(test)]
    Told(std::sync::Arc<std::sync::atomic::AtomicU64>),
}

impl Clock {
    pub(super) fn now(&self) -> u64 {
        match self {
            Clock::Real(start) => u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
            #[cfg(test)]
            Clock::Told(time) => time.load(std::sync::atomic::Ordering::Relaxed),
        }
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::Real(Instant::now())
    }
}
