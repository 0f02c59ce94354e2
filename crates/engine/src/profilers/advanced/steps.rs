//! [`Steps`]: the time of every step, cut into its phases.

use super::histogram::Histogram;
use super::phase::Phase;
use crate::profilers::report::{Table, milliseconds, percent, seconds, significant};
use crate::stage::Stage;

const STAGES: [Stage; 4] = [Stage::Train, Stage::Validate, Stage::Test, Stage::Predict];
const PHASES: usize = Phase::ALL.len();

/// The steps of a run, per stage. Every nanosecond of a step counts for exactly one phase: that of the innermost action
/// that has one.
#[derive(Debug, Clone, Default)]
pub(super) struct Steps {
    stages: [StageSteps; STAGES.len()],
    current: Option<Current>,
}

#[derive(Debug, Clone, Default)]
struct StageSteps {
    whole: Histogram,
    phases: [Histogram; PHASES],
}

/// The current step.
#[derive(Debug, Clone)]
struct Current {
    stage: Stage,
    phases: [u64; PHASES],
    /// Up to when its time is accounted for.
    until: u64,
}

impl Steps {
    pub(super) fn begin(&mut self, stage: Stage, now: u64) {
        // The sanity check is no part of training, and its first batches are slow.
        self.current =
            (stage != Stage::SanityCheck).then_some(Current { stage, phases: Default::default(), until: now });
    }

    /// The time since the last call went to `phase`.
    pub(super) fn spend(&mut self, phase: Phase, now: u64) {
        if let Some(current) = &mut self.current {
            current.phases[phase as usize] += now - current.until;
            current.until = now;
        }
    }

    pub(super) fn end(&mut self) {
        let Some(current) = self.current.take() else { return };
        let Some(place) = STAGES.iter().position(|stage| *stage == current.stage) else { return };
        let stage = &mut self.stages[place];
        stage.whole.add(current.phases.iter().sum());
        stage.phases.iter_mut().zip(current.phases).for_each(|(histogram, time)| histogram.add(time));
    }

    /// A table per stage that had steps.
    pub(super) fn report(&self) -> String {
        STAGES
            .iter()
            .zip(&self.stages)
            .filter(|(_, steps)| steps.whole.count > 0)
            .map(|(s, steps)| steps.report(*s))
            .collect()
    }
}

impl StageSteps {
    fn report(&self, stage: Stage) -> String {
        let mut table = Table::new(&["Phase", "Mean (ms)", "p50 (ms)", "p90 (ms)", "p99 (ms)", "Total (s)", "Share %"]);
        let whole = self.whole.total;
        let row = |name: &str, times: &Histogram| {
            let mut cells = vec![name.to_owned(), milliseconds(times.mean())];
            cells.extend([0.5, 0.9, 0.99].map(|share| milliseconds(times.percentile(share))));
            cells.extend([significant(seconds(times.total), 5), percent(times.total, whole)]);
            cells
        };
        for phase in Phase::ALL {
            let times = &self.phases[phase as usize];
            if times.total > 0 {
                table.row(row(phase.name(), times));
            }
        }
        table.rule();
        table.row(row("step", &self.whole));
        let (count, s) = (self.whole.count, if self.whole.count == 1 { "" } else { "s" });
        format!("\nInside a step: {}, {count} step{s}\n{}", stage.info().noun, table.render())
    }
}
