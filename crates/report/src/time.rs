//! Moments and times.

use std::time::SystemTime;

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64())
}

/// So long, as one says it.
pub(crate) fn lasting(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..100 => format!("{whole} s"),
        100..7200 => format!("{} min", whole.div_ceil(60)),
        7200..172_800 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} days {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::lasting;

    #[test]
    fn times_are_read_easily() {
        assert_eq!([4.0, 300.0, 9000.0, 200_000.0].map(lasting), ["4 s", "5 min", "2 h 30 min", "2 days 7 h"]);
    }
}
