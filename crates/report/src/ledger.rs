//! [`Ledger`]: the account of a run's time, over all starts of its program.

use crate::record::{ACTIVITIES, Record, Segment};

/// What became of the time of a run.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Ledger {
    /// Seconds of each activity, without those that are lost.
    pub(crate) spent: [f64; ACTIVITIES.len()],
    /// Seconds of steps that were done again after a restart.
    pub(crate) redone: f64,
    /// Seconds from the last sign of life of a run that did not come to its end until it was started again.
    pub(crate) down: f64,
    /// Steps that were done again.
    pub(crate) steps_redone: f64,
    /// Optimizer steps, batches of a process, and samples of all, also those that were lost.
    pub(crate) steps: f64,
    pub(crate) batches: f64,
    pub(crate) samples: f64,
    /// Seconds of training and of waiting for its data, also those that were lost.
    pub(crate) busy: f64,
    pub(crate) restarts: Vec<Restart>,
}

/// Where a run went on that had not come to its end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Restart {
    /// Where it went on.
    pub(crate) step: f64,
    pub(crate) epoch: f64,
    /// How far it had come before.
    pub(crate) reached: f64,
    pub(crate) down: f64,
}

/// A fit whose steps may turn out to be lost.
struct Done {
    first: f64,
    last: f64,
    training: f64,
    data: f64,
}

impl Ledger {
    pub(crate) fn of(record: &Record) -> Ledger {
        let mut ledger = Ledger::default();
        let mut done: Vec<Done> = Vec::new();
        let mut before: Option<&Segment> = None;
        for segment in &record.segments {
            if let Some(unfinished) = before.filter(|before| !before.has_succeeded()) {
                let down = (segment.begun - unfinished.last().time).max(0.0);
                ledger.down += down;
                if segment.is_fit() && unfinished.is_fit() {
                    ledger.restart(segment, &mut done, down);
                }
            } else if segment.is_fit() {
                // It goes on on purpose, or anew.
                done.clear();
            }
            ledger.add(segment, &mut done);
            before = Some(segment);
        }
        ledger
    }

    fn add(&mut self, segment: &Segment, done: &mut Vec<Done>) {
        let last = segment.last();
        self.spent.iter_mut().zip(last.spent).for_each(|(sum, spent)| *sum += spent);
        self.steps += segment.steps();
        self.batches += last.batches;
        self.samples += last.samples;
        if let Some(training) = &segment.training {
            let (trained, waited) = (last.spent_on("training"), last.spent_on("data"));
            self.busy += trained + waited;
            done.push(Done { first: training.step, last: last.step, training: trained, data: waited });
        }
    }

    /// What an earlier start did beyond the step from which this one goes on is done again.
    fn restart(&mut self, segment: &Segment, done: &mut [Done], down: f64) {
        let Some(training) = &segment.training else { return };
        let reached = done.iter().map(|done| done.last).fold(0.0, f64::max);
        self.restarts.push(Restart { step: training.step, epoch: training.epoch, reached, down });
        for done in done.iter_mut() {
            let steps = done.last - done.first;
            let lost = (done.last - training.step.max(done.first)).max(0.0);
            if steps > 0.0 && lost > 0.0 {
                let share = lost / steps;
                self.move_to_redone("training", done.training * share);
                self.move_to_redone("data", done.data * share);
                self.steps_redone += lost;
                (done.training, done.data) = (done.training * (1.0 - share), done.data * (1.0 - share));
                done.last -= lost;
            }
        }
    }

    fn move_to_redone(&mut self, activity: &str, seconds: f64) {
        let Some(at) = ACTIVITIES.iter().position(|name| *name == activity) else { return };
        self.spent[at] -= seconds;
        self.redone += seconds;
    }

    /// Seconds of all, from the first start to the last sign of life, without the time between ends and new starts.
    pub(crate) fn total(&self) -> f64 {
        self.spent.iter().sum::<f64>() + self.redone + self.down
    }

    /// The part of the time in which training came forward. `None` if none was trained.
    pub(crate) fn goodput(&self) -> Option<f64> {
        let training = self.spent[0];
        (self.busy > 0.0 && self.total() > 0.0).then(|| training / self.total())
    }

    /// So many in each second of training and of waiting for its data.
    pub(crate) fn rate(&self, count: f64) -> Option<f64> {
        (self.busy > 0.0 && count > 0.0).then(|| count / self.busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{End, Progress, Training};

    fn fit(begun: f64, from: f64, to: f64, training: f64, status: Option<&str>) -> Segment {
        let mut progress =
            Progress { time: begun + training + 1.0, step: to, batches: to - from, ..Progress::default() };
        progress.spent[0] = training;
        progress.spent[6] = 1.0;
        Segment {
            entry: "fit".into(),
            begun,
            training: Some(Training { step: from, epoch: 0.0, resumed_from: None }),
            progress: vec![progress],
            end: status.map(|status| End { status: status.into(), error: None }),
            ..Segment::default()
        }
    }

    #[test]
    fn what_was_done_twice_is_lost() {
        // Killed at step 100, and again at step 90, then done.
        let segments = vec![
            fit(1000.0, 0.0, 100.0, 50.0, None),
            fit(1061.0, 80.0, 90.0, 5.0, Some("failed")),
            fit(1067.0, 80.0, 200.0, 60.0, Some("success")),
        ];
        let ledger = Ledger::of(&Record { segments });
        assert_eq!(ledger.restarts.len(), 2);
        assert_eq!((ledger.restarts[0].step, ledger.restarts[0].reached, ledger.restarts[0].down), (80.0, 100.0, 10.0));
        assert_eq!((ledger.restarts[1].reached, ledger.restarts[1].down), (90.0, 0.0));
        assert_eq!((ledger.steps_redone, ledger.redone, ledger.down), (30.0, 15.0, 10.0));
        assert_eq!((ledger.spent[0], ledger.spent[6], ledger.total()), (100.0, 3.0, 128.0));
        assert_eq!((ledger.steps, ledger.goodput()), (230.0, Some(100.0 / 128.0)));
    }

    #[test]
    fn what_follows_an_end_is_not_lost() {
        let segments = vec![fit(0.0, 0.0, 10.0, 5.0, Some("success")), fit(9000.0, 5.0, 10.0, 5.0, Some("success"))];
        let ledger = Ledger::of(&Record { segments });
        assert_eq!((ledger.restarts.len(), ledger.redone, ledger.down, ledger.total()), (0, 0.0, 0.0, 12.0));
        assert_eq!(Ledger::of(&Record::default()).goodput(), None);
    }
}
