//! [`Ledger`]: what the time of a run is spent on.

use std::time::{Duration, Instant};

use serde::ser::{Serialize, SerializeMap, Serializer};

/// What time is spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// Everything before the first batch, and trials of the tuner.
    SetUp,
    Training,
    /// Also the sanity check.
    Validation,
    Test,
    Prediction,
    /// Waiting for a batch, in any stage.
    Data,
    /// Collecting and writing checkpoints, without what happens in the background.
    Checkpoints,
    Teardown,
}

const ALL: [(Activity, &str); 8] = [
    (Activity::SetUp, "setup"),
    (Activity::Training, "training"),
    (Activity::Validation, "validation"),
    (Activity::Test, "test"),
    (Activity::Prediction, "prediction"),
    (Activity::Data, "data"),
    (Activity::Checkpoints, "checkpoints"),
    (Activity::Teardown, "teardown"),
];

/// The time of an entry point, each moment of which belongs to one activity. The clock is read when the activity changes, twice
/// for each batch.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    spent: [Duration; ALL.len()],
    activity: Activity,
    begun: Instant,
    since: Instant,
}

impl Ledger {
    /// The time from now on is spent on set-up.
    pub(super) fn begin() -> Ledger {
        let now = Instant::now();
        Ledger { spent: [Duration::ZERO; ALL.len()], activity: Activity::SetUp, begun: now, since: now }
    }

    pub(super) fn activity(&self) -> Activity {
        self.activity
    }

    /// Begins an activity, and returns the one that it ends.
    pub(super) fn enter(&mut self, activity: Activity) -> Activity {
        if activity == self.activity { activity } else { self.enter_at(activity, Instant::now()) }
    }

    fn enter_at(&mut self, activity: Activity, now: Instant) -> Activity {
        self.spent[self.activity as usize] += now.saturating_duration_since(self.since);
        self.since = now;
        std::mem::replace(&mut self.activity, activity)
    }

    /// How long it had lasted when the present activity began.
    pub(super) fn lasted(&self) -> Duration {
        self.since - self.begun
    }

    /// Adds what the present activity took so far.
    pub(super) fn settle(&mut self) {
        self.enter_at(self.activity, Instant::now());
    }
}

/// Seconds by name, of what took any time.
impl Serialize for Ledger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (activity, name) in ALL {
            let spent = self.spent[activity as usize];
            if !spent.is_zero() {
                map.serialize_entry(name, &seconds(spent))?;
            }
        }
        map.end()
    }
}

/// With as many digits as are worth their place.
pub(super) fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_moment_belongs_to_one_activity() {
        let mut ledger = Ledger::begin();
        let at = |ms| ledger.begun + Duration::from_millis(ms);
        let times = [at(10), at(30), at(31), at(41)];
        let activities = [Activity::Training, Activity::Data, Activity::Training, Activity::Teardown];
        for (activity, now) in activities.into_iter().zip(times) {
            ledger.enter_at(activity, now);
        }
        assert_eq!(serde_json::to_string(&ledger).unwrap(), r#"{"setup":0.01,"training":0.03,"data":0.001}"#);
        assert_eq!(ledger.lasted(), Duration::from_millis(41));
        assert_eq!((ledger.enter(Activity::Teardown), ledger.activity()), (Activity::Teardown, Activity::Teardown));
    }

    #[test]
    fn the_names_stand_in_the_order_of_the_activities() {
        assert!(ALL.iter().enumerate().all(|(at, (activity, _))| *activity as usize == at));
    }
}
