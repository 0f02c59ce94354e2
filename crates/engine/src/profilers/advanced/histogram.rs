//! [`Histogram`]: durations, in little memory however many there are.

use std::collections::BTreeMap;

/// Durations in nanoseconds. Percentiles are off by no more than 0.2 %.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    pub count: u64,
    pub total: u64,
    min: u64,
    max: u64,
    /// Counts by bucket; each power of two is cut into 256.
    buckets: BTreeMap<u32, u64>,
}

const BITS: u32 = 8;

impl Histogram {
    pub(super) fn add(&mut self, duration: u64) {
        self.min = if self.count == 0 { duration } else { self.min.min(duration) };
        self.max = self.max.max(duration);
        self.count += 1;
        self.total += duration;
        *self.buckets.entry(bucket(duration)).or_default() += 1;
    }

    /// The mean; 0 of nothing.
    pub(super) fn mean(&self) -> u64 {
        self.total.checked_div(self.count).unwrap_or(0)
    }

    /// The smallest duration that so large a share (0.0 to 1.0) of all is not above; 0 of nothing.
    pub(super) fn percentile(&self, share: f64) -> u64 {
        let rank = ((share * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (&bucket, &count) in &self.buckets {
            seen += count;
            if seen >= rank {
                return middle(bucket).clamp(self.min, self.max);
            }
        }
        0
    }
}

fn bucket(duration: u64) -> u32 {
    let shift = (u64::BITS - duration.leading_zeros()).saturating_sub(BITS + 1);
    // At most nine bits are left, so nothing is cut off.
    (shift << BITS) + (duration >> shift) as u32
}

fn middle(bucket: u32) -> u64 {
    let shift = (bucket >> BITS).saturating_sub(1);
    let low = u64::from(bucket - (shift << BITS)) << shift;
    low + ((1u64 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_lies_near_its_middle() {
        for duration in (0..100_000).chain((17..64).map(|bit| (1u64 << bit) - 1)).chain((17..64).map(|bit| 1 << bit)) {
            let off = middle(bucket(duration)).abs_diff(duration);
            assert!(off as f64 <= duration as f64 / 500.0, "{duration} is off by {off}");
        }
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.mean(), histogram.percentile(0.5)), (0, 0));
        (1..=100).rev().for_each(|duration| histogram.add(duration));
        let told = [0.0, 0.5, 0.9, 0.99, 1.0].map(|share| histogram.percentile(share));
        assert_eq!(told, [1, 50, 90, 99, 100]);
        assert_eq!((histogram.mean(), histogram.total), (50, 5050));
    }

    #[test]
    fn one_duration_is_every_percentile_exactly() {
        let mut histogram = Histogram::default();
        histogram.add(123_456_789);
        assert_eq!((histogram.percentile(0.5), histogram.percentile(0.99)), (123_456_789, 123_456_789));
    }
}
