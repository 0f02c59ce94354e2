//! [`ProfilerSchedule`]: which batches are recorded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Which batches [`PyTorchProfiler`](super::PyTorchProfiler) records, as `torch.profiler.schedule`: cycles of `wait`
/// batches that are skipped, `warmup` batches for the profiler's warm-up, and `active` batches that are
/// recorded.
///
/// ```
/// use fulgurite::prelude::*;
/// use fulgurite::profilers::ProfilerSchedule;
///
/// let schedule = ProfilerSchedule { skip_first: 100, active: 5, ..ProfilerSchedule::default() };
/// let trainer = Trainer::builder().profiler(PyTorchProfiler::new().schedule(schedule));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProfilerSchedule {
    /// Batches before the first cycle.
    pub skip_first: u64,
    /// Batches at the start of a cycle that are skipped.
    pub wait: u64,
    /// Batches of the profiler's warm-up.
    pub warmup: u64,
    /// Batches that are recorded.
    pub active: u64,
    /// Cycles; 0 for as many as there are batches.
    pub repeat: u64,
}

impl Default for ProfilerSchedule {
    fn default() -> ProfilerSchedule {
        ProfilerSchedule { skip_first: 0, wait: 1, warmup: 1, active: 3, repeat: 1 }
    }
}

/// The action for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchAction {
    Leave,
    WarmUp,
    Record {
        /// The cycle ends with it.
        is_last: bool,
    },
}

impl ProfilerSchedule {
    /// One that can be followed.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.active == 0 {
            return Err(Error::Config("schedule.active=0 would record nothing; write 1 or more".into()));
        }
        Ok(())
    }

    /// Batches of a cycle.
    pub(super) fn cycle(&self) -> u64 {
        self.wait + self.warmup + self.active
    }

    /// The action for a batch, by its 0-based index.
    pub(super) fn action(&self, batch: u64) -> BatchAction {
        let Some(batch) = batch.checked_sub(self.skip_first) else { return BatchAction::Leave };
        if self.repeat > 0 && batch / self.cycle() >= self.repeat {
            return BatchAction::Leave;
        }
        match batch % self.cycle() {
            place if place < self.wait => BatchAction::Leave,
            place if place < self.wait + self.warmup => BatchAction::WarmUp,
            place => BatchAction::Record { is_last: place + 1 == self.cycle() },
        }
    }

    /// One that fits into so few batches.
    pub(super) fn shortened(batches: u64) -> ProfilerSchedule {
        let active = ProfilerSchedule::default().active.min(batches.max(1));
        ProfilerSchedule { wait: 0, warmup: 0, active, ..ProfilerSchedule::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(schedule: ProfilerSchedule, batches: u64) -> String {
        let letter = |batch| match schedule.action(batch) {
            BatchAction::Leave => '.',
            BatchAction::WarmUp => 'w',
            BatchAction::Record { is_last: false } => 'r',
            BatchAction::Record { is_last: true } => 'S',
        };
        (0..batches).map(letter).collect()
    }

    /// As `torch.profiler.schedule` answers.
    #[test]
    fn batches_are_told_apart() {
        let default = ProfilerSchedule::default();
        assert_eq!(told(default, 8), ".wrrS...");
        assert_eq!(told(ProfilerSchedule { repeat: 2, skip_first: 2, ..default }, 14), "...wrrS.wrrS..");
        assert_eq!(told(ProfilerSchedule { repeat: 0, wait: 0, active: 1, ..default }, 5), "wSwSw");
        assert_eq!(told(ProfilerSchedule::shortened(2), 4), "rS..");
        assert!(ProfilerSchedule { active: 0, ..default }.check().is_err());
    }
}
