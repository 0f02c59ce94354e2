//! Points in time as text.

use crate::entry::now_ms;

/// This moment, as in `2026-11-27T07:57:50.029+00:00`.
///
/// ```
/// assert!(fulgurite_trackers::utc_now().ends_with("+00:00"));
/// ```
pub fn utc_now() -> String {
    iso(now_ms())
}

/// A time in milliseconds since 1970 as in `2026-11-27T07:57:50.029+00:00`.
pub(crate) fn iso(ms: i64) -> String {
    let (days, ms) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}+00:00", ms % 1000)
}

/// A time in seconds since 1970 as in `20261127_075750`.
pub(crate) fn stamp(seconds: i64) -> String {
    let plain: String = iso(seconds * 1000).chars().filter(|c| !"-:".contains(*c)).take(15).collect();
    plain.replace('T', "_")
}

/// Year, month and day, so many days after 1970. A year is counted from March, so that the odd day is its last one.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::{iso, stamp};

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000+00:00"),
            (-1, "1969-12-31T23:59:59.999+00:00"),
            (951_782_400_000, "2000-02-29T00:00:00.000+00:00"),
            (1_795_766_270_029, "2026-11-27T07:57:50.029+00:00"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000+00:00"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000+00:00"),
        ] {
            assert_eq!(iso(ms), text);
        }
        assert_eq!(stamp(951_782_399), "20000228_235959");
    }
}
