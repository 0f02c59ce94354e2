//! [`Throughput`]: how much work is done per second, over a window of updates.

use std::collections::VecDeque;

/// An invalid update.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ThroughputError {
    /// A total did not increase.
    #[error(
        "{what} is a total since the start and changed from {last} to {current}; it must increase with every update"
    )]
    NotGrowing {
        /// The total, such as `time`.
        what: &'static str,
        /// The previous value.
        last: f64,
        /// The given value.
        current: f64,
    },
    /// Fewer of the smaller unit than of the larger.
    #[error("{count} {what} in {of_count} {of}: each of the {of} has at least one")]
    TooFew {
        /// The smaller unit, such as `samples`.
        what: &'static str,
        /// The count.
        count: u64,
        /// The larger unit, such as `batches`.
        of: &'static str,
        /// The count.
        of_count: u64,
    },
    /// Items that were counted in some updates only.
    #[error("the items were counted in some updates and not in others; give `lengths` every time or never")]
    LengthsNotAlways,
    /// A window of fewer than two updates.
    #[error("window_size={0} updates have no beginning and end; rates need 2 or more")]
    Window(usize),
}

/// The totals since the start, as of one update.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Work {
    /// The elapsed time in seconds.
    pub time: f64,
    /// Batches, on this device.
    pub batches: u64,
    /// Samples, on this device.
    pub samples: u64,
    /// Items of the samples, such as tokens, on this device.
    pub lengths: Option<u64>,
    /// Floating-point operations *since the update before*, on this device.
    pub flops: Option<f64>,
}

/// Counts work, and computes rates over the most recent updates: `lightning.fabric.utilities.throughput.Throughput`.
///
/// Rates are available once the window is full. They are taken between its first and its last update, so a window of
/// `n` updates measures `n - 1` batches.
///
/// | key | value |
/// |---|---|
/// | `time`, `batches`, `samples`, `lengths` | totals |
/// | `device/batches_per_sec`, `device/samples_per_sec`, `device/items_per_sec`, `device/flops_per_sec` | rates of this device |
/// | `device/mfu` | the share of [`available_flops`](Throughput::available_flops) that is used |
/// | `batches_per_sec`, `samples_per_sec`, `items_per_sec`, `flops_per_sec` | rates of all devices, if there are several |
///
/// ```
/// use fulgurite_fabric::{Throughput, Work};
///
/// let mut throughput = Throughput::new(2)?;
/// for batch in 1..=3 {
///     throughput.update(Work { time: 0.5 * batch as f64, batches: batch, samples: 8 * batch, ..Work::default() })?;
/// }
/// let metrics = throughput.compute();
/// assert!(metrics.contains(&("device/samples_per_sec".into(), 16.0)));
/// # Ok::<(), fulgurite_fabric::ThroughputError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Throughput {
    window_size: usize,
    world_size: usize,
    available_flops: Option<f64>,
    separator: String,
    window: VecDeque<Work>,
}

impl Throughput {
    /// Rates over `window_size` updates (100 in the original), on one device.
    ///
    /// # Errors
    ///
    /// Fails if the window has fewer than 2 updates.
    pub fn new(window_size: usize) -> Result<Throughput, ThroughputError> {
        if window_size < 2 {
            return Err(ThroughputError::Window(window_size));
        }
        let window = VecDeque::with_capacity(window_size.min(1 << 10) + 1);
        Ok(Throughput { window_size, world_size: 1, available_flops: None, separator: "/".into(), window })
    }

    /// The floating-point operations per second of the device's peak performance:
    /// [`peak_flops`](crate::peak_flops::peak_flops). `mfu` is computed with it.
    pub fn available_flops(mut self, flops: impl Into<Option<f64>>) -> Self {
        self.available_flops = flops.into();
        self
    }

    /// The number of devices that do the same work.
    pub fn world_size(mut self, world_size: usize) -> Self {
        self.world_size = world_size.max(1);
        self
    }

    /// The separator between `device` and the rest of a key; `/` by default.
    pub fn separator(mut self, separator: impl Into<String>) -> Self {
        self.separator = separator.into();
        self
    }

    /// Adds an update. On a GPU, synchronize before reading the clock.
    ///
    /// # Errors
    ///
    /// Fails if a total does not increase, or if the totals contradict each other.
    pub fn update(&mut self, work: Work) -> Result<(), ThroughputError> {
        let last = self.window.back().copied().unwrap_or(Work { time: f64::NEG_INFINITY, ..Work::default() });
        let is_first = self.window.is_empty();
        let grows = |what, last: f64, current: f64| match current > last {
            true => Ok(()),
            false => Err(ThroughputError::NotGrowing { what, last, current }),
        };
        let enough = |what, count: u64, of, of_count: u64| match count >= of_count {
            true => Ok(()),
            false => Err(ThroughputError::TooFew { what, count, of, of_count }),
        };
        grows("time", last.time, work.time)?;
        enough("samples", work.samples, "batches", work.batches)?;
        if !is_first {
            grows("batches", last.batches as f64, work.batches as f64)?;
            grows("samples", last.samples as f64, work.samples as f64)?;
        }
        if let Some(lengths) = work.lengths {
            enough("items", lengths, "samples", work.samples)?;
            if let Some(last) = last.lengths {
                grows("lengths", last as f64, lengths as f64)?;
            }
        }
        if !is_first && last.lengths.is_some() != work.lengths.is_some() {
            return Err(ThroughputError::LengthsNotAlways);
        }
        self.window.push_back(work);
        if self.window.len() > self.window_size {
            self.window.pop_front();
        }
        Ok(())
    }

    /// The time of the last update in seconds; 0 before the first.
    pub fn time(&self) -> f64 {
        self.window.back().map_or(0.0, |last| last.time)
    }

    /// Totals and, once the window is full, rates. Nothing before the first update.
    pub fn compute(&self) -> Vec<(String, f64)> {
        let (Some(first), Some(last)) = (self.window.front(), self.window.back()) else { return Vec::new() };
        let mut metrics = vec![
            ("time".to_owned(), last.time),
            ("batches".to_owned(), last.batches as f64),
            ("samples".to_owned(), last.samples as f64),
        ];
        if let Some(lengths) = last.lengths {
            metrics.push(("lengths".to_owned(), lengths as f64));
        }
        if self.window.len() < self.window_size {
            return metrics;
        }
        let seconds = last.time - first.time;
        let world = self.world_size as f64;
        let mut rate = |name: &str, per_device: f64| {
            metrics.push((format!("device{}{name}", self.separator), per_device));
            if self.world_size > 1 {
                metrics.push((name.to_owned(), per_device * world));
            }
        };
        rate("batches_per_sec", (last.batches - first.batches) as f64 / seconds);
        rate("samples_per_sec", (last.samples - first.samples) as f64 / seconds);
        if let (Some(first), Some(last)) = (first.lengths, last.lengths) {
            rate("items_per_sec", (last - first) as f64 / seconds);
        }
        // The work of the first update was done before the window began.
        let flops: Option<f64> = self.window.iter().map(|work| work.flops).sum();
        if let (Some(all), Some(before)) = (flops, first.flops) {
            let per_second = (all - before) / seconds;
            rate("flops_per_sec", per_second);
            if let Some(available) = self.available_flops.filter(|flops| *flops > 0.0) {
                metrics.push((format!("device{}mfu", self.separator), per_second / available));
            }
        }
        metrics
    }

    /// Discards all updates.
    pub fn reset(&mut self) {
        self.window.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(time: f64, batches: u64, samples: u64) -> Work {
        Work { time, batches, samples, ..Work::default() }
    }

    fn of(metrics: &[(String, f64)], name: &str) -> Option<f64> {
        metrics.iter().find(|(other, _)| other == name).map(|(_, value)| *value)
    }

    #[test]
    fn rates_come_with_a_full_window_and_go_with_a_reset() {
        let mut throughput = Throughput::new(3).unwrap().available_flops(100.0);
        for i in 1..=2 {
            throughput
                .update(Work { flops: Some(60.0), ..work(f64::from(i), u64::from(i as u32), 4 * i as u64) })
                .unwrap();
            assert_eq!(throughput.compute().len(), 3);
        }
        // A slower batch moves the average over two batches, and the first leaves the window with the next.
        throughput.update(Work { flops: Some(60.0), ..work(5.0, 3, 12) }).unwrap();
        let metrics = throughput.compute();
        assert_eq!(of(&metrics, "device/batches_per_sec"), Some(0.5));
        assert_eq!(of(&metrics, "device/samples_per_sec"), Some(2.0));
        assert_eq!(of(&metrics, "device/flops_per_sec"), Some(30.0));
        assert_eq!(of(&metrics, "device/mfu"), Some(0.3));
        assert_eq!((of(&metrics, "samples_per_sec"), of(&metrics, "lengths")), (None, None));
        throughput.update(work(6.0, 4, 16)).unwrap();
        assert_eq!(of(&throughput.compute(), "device/batches_per_sec"), Some(0.5));
        assert_eq!(of(&throughput.compute(), "device/flops_per_sec"), None, "not every update counted them");
        throughput.reset();
        assert_eq!((throughput.compute(), throughput.time()), (vec![], 0.0));
    }

    #[test]
    fn totals_that_cannot_be_say_so() {
        let wrong = |first: Work, second: Work| {
            let mut throughput = Throughput::new(2).unwrap();
            throughput.update(first).and_then(|()| throughput.update(second)).unwrap_err().to_string()
        };
        let with = |lengths, work| Work { lengths, ..work };
        let cases = [
            (wrong(work(2.0, 1, 1), work(2.0, 2, 2)), "time is a total since the start and changed from 2 to 2"),
            (wrong(work(1.0, 2, 4), work(2.0, 2, 5)), "batches is a total"),
            (wrong(work(1.0, 1, 4), work(2.0, 2, 4)), "samples is a total"),
            (wrong(work(1.0, 1, 0), work(2.0, 2, 4)), "0 samples in 1 batches: each"),
            (wrong(with(Some(3), work(1.0, 1, 4)), work(2.0, 2, 8)), "3 items in 4 samples"),
            (wrong(with(Some(9), work(1.0, 1, 4)), with(Some(9), work(2.0, 2, 8))), "lengths is a total"),
            (wrong(with(Some(9), work(1.0, 1, 4)), work(2.0, 2, 8)), "the items were counted in some updates"),
            (Throughput::new(1).unwrap_err().to_string(), "window_size=1 updates have no beginning and end"),
        ];
        for (message, expected) in cases {
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
