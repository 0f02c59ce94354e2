//! [`DataWait`]: detects whether training is limited by data loading.

use std::time::{Duration, Instant};

/// Warm-up batches that are not measured: workers start, kernels are selected.
const WARM_UP: u32 = 5;
/// The minimum number of measured batches for a report, at the end of an epoch and within one.
const ENOUGH: u32 = 30;
const PLENTY: u32 = 200;
/// Shorter waits than this do not justify a worker.
const SHORTEST: Duration = Duration::from_micros(500);

/// Time spent waiting for data and time spent training, over the first batches.
#[derive(Debug, Default)]
pub(super) struct DataWait {
    waited: Duration,
    worked: Duration,
    /// The number of batches, including the warm-up.
    batches: u32,
    reported: bool,
}

/// The phase that time is attributed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waiting for the next batch.
    Wait,
    /// Training on it.
    Work,
}

impl DataWait {
    /// Starts a timer; `None` once the report was made.
    pub(super) fn start_timer(&self) -> Option<Instant> {
        (!self.reported).then(Instant::now)
    }

    /// Stops a timer, and adds its time to a phase.
    pub(super) fn stop_timer(&mut self, phase: Phase, timer: Option<Instant>) {
        if let Some(timer) = timer {
            self.record(phase, timer.elapsed());
        }
    }

    fn record(&mut self, phase: Phase, took: Duration) {
        if self.batches >= WARM_UP {
            match phase {
                Phase::Wait => self.waited += took,
                Phase::Work => self.worked += took,
            }
        }
        self.batches += u32::from(phase == Phase::Work);
    }

    /// Whether enough was measured.
    pub(super) fn is_due(&self, epoch_is_over: bool) -> bool {
        let enough = WARM_UP + if epoch_is_over { ENOUGH } else { PLENTY };
        !self.reported && self.batches >= enough
    }

    /// The warning, once: most of the time was spent waiting for data.
    pub(super) fn report(&mut self) -> Option<String> {
        self.reported = true;
        let batches = self.batches.saturating_sub(WARM_UP).max(1);
        let each = self.waited / batches;
        let share = self.waited.as_secs_f64() / (self.waited + self.worked).as_secs_f64();
        if share <= 0.5 || each < SHORTEST {
            return None;
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Some(format!(
            "data loading bounds the training, not compute: a step waited {:.1} ms for its batch and took {:.1} ms to train on it, so {:.0}% of the time went into waiting (over {batches} batches). Load with more threads, `DataLoader::num_workers(n)` (this process may use {processors} processor(s)), or do less work per sample",
            1e3 * each.as_secs_f64(),
            1e3 * (self.worked / batches).as_secs_f64(),
            100.0 * share
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(batches: u32, wait: Duration, work: Duration) -> DataWait {
        let mut measured = DataWait::default();
        for batch in 0..batches {
            // The first batches are slow, and must not count.
            let factor = if batch < WARM_UP { 1000 } else { 1 };
            measured.record(Phase::Wait, wait * factor);
            measured.record(Phase::Work, work);
        }
        measured
    }

    #[test]
    fn waiting_most_of_the_time_is_reported_once() {
        let ms = Duration::from_millis;
        let mut slow = run(35, ms(9), ms(3));
        assert!(slow.is_due(true) && !slow.is_due(false));
        let warning = slow.report().unwrap();
        assert!(warning.contains("waited 9.0 ms for its batch and took 3.0 ms to train on it, so 75%"), "{warning}");
        assert!(warning.contains("(over 30 batches)"), "{warning}");
        assert!(!slow.is_due(true) && slow.start_timer().is_none());

        assert!(!run(34, ms(9), ms(3)).is_due(true), "too few to say");
        assert!(run(205, ms(9), ms(3)).is_due(false), "a long epoch is not waited for");
        assert_eq!(run(35, ms(3), ms(4)).report(), None);
        assert_eq!(
            run(35, Duration::from_micros(400), Duration::from_micros(10)).report(),
            None,
            "too short to matter"
        );
    }
}
