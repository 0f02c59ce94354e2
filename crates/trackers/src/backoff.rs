//! [`Backoff`]: the wait between tries.

use std::time::Duration;

use crate::pace::Pace;
use crate::random::fraction;

/// No server decides that nothing is sent for longer.
const LONGEST_REQUESTED: Duration = Duration::from_secs(600);

/// Waits that double from try to try, spread so that many runs do not come back at the same moment.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(pace: &Pace) -> Backoff {
        Backoff { first: pace.first_wait, longest: pace.longest_wait, failures: 0 }
    }

    /// The wait after one more failure; the server may have asked for a longer one.
    pub(crate) fn next(&mut self, requested: Option<Duration>) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(20)).min(self.longest);
        self.failures += 1;
        let spread = doubled.mul_f64(0.5 + fraction() / 2.0);
        spread.max(requested.unwrap_or_default().min(LONGEST_REQUESTED))
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_are_spread_and_obey_the_server() {
        let mut backoff = Backoff::new(&Pace::default());
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = backoff.next(None).as_secs_f64();
            assert!((f64::from(seconds) / 2.0..=f64::from(seconds)).contains(&wait), "{seconds}: {wait}");
        }
        backoff.succeeded();
        assert_eq!(backoff.next(Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(backoff.next(Some(Duration::MAX)), LONGEST_REQUESTED);
    }
}
