//! [`AdvancedProfiler`]: how the time of a step is spent.

mod histogram;
mod phase;
mod steps;

use std::path::PathBuf;

use derive_setters::Setters;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::histogram::Histogram;
use self::phase::Phase;
use self::steps::Steps;
use super::clock::Clock;
use super::report::{self, Table, milliseconds, percent, seconds, significant};
use super::{ProfiledRun, Profiler};
use crate::config::Configurable;
use crate::error::{Error, Result};
use crate::stage::Stage;

/// Measures the phases of a step: data wait, forward, backward, optimizer, callbacks, logging, … with
/// percentiles. The phases add up to the step. A second table has every action, with and without what ran inside it.
///
/// Times are the host's: on a CUDA device, which works on its own, take [`PyTorchProfiler`](super::PyTorchProfiler).
/// Lightning's profiler of this name prints the Python functions that each action called; a compiled program has none.
///
/// ```
/// use fulgurite::prelude::*;
///
/// let trainer = Trainer::builder().profiler(AdvancedProfiler::new().line_count_restriction(20.0));
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct AdvancedProfiler {
    options: AdvancedProfilerOptions,
    clock: Clock,
    run: Option<ProfiledRun>,
    began: u64,
    actions: IndexMap<String, ActionTimes>,
    open: Vec<OpenAction>,
    steps: Steps,
}

/// Options of [`AdvancedProfiler`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, generate_delegates(ty = "AdvancedProfiler", field = "options"))]
#[non_exhaustive]
pub struct AdvancedProfilerOptions {
    /// The folder of the report's file; the run's log folder by default.
    #[setters(into)]
    pub dirpath: Option<PathBuf>,
    /// Adds the report to the file `<stage>-<filename>.txt` instead of printing it.
    #[setters(into)]
    pub filename: Option<String>,
    /// How much of the table of actions to show: up to 1.0 a fraction of its lines, above a number of lines.
    pub line_count_restriction: f64,
}

impl Default for AdvancedProfilerOptions {
    fn default() -> AdvancedProfilerOptions {
        AdvancedProfilerOptions { dirpath: None, filename: None, line_count_restriction: 1.0 }
    }
}

#[derive(Debug, Clone, Default)]
struct ActionTimes {
    whole: Histogram,
    /// Without what ran inside it.
    alone: u64,
    phase: Option<Phase>,
}

#[derive(Debug, Clone)]
struct OpenAction {
    index: usize,
    start: u64,
    /// Time of the actions inside it.
    inside: u64,
    /// The phase of the action, or that of the enclosing action.
    phase: Phase,
}

impl Configurable for AdvancedProfiler {
    type Options = AdvancedProfilerOptions;

    fn from_options(options: AdvancedProfilerOptions) -> Result<AdvancedProfiler, Error> {
        let lines = options.line_count_restriction;
        if !(lines > 0.0 && lines.is_finite()) {
            return Err(Error::Config(format!(
                "line_count_restriction={lines} is not above 0; write a fraction up to 1.0, or a number of lines"
            )));
        }
        Ok(AdvancedProfiler { options, ..AdvancedProfiler::default() })
    }
}

impl AdvancedProfiler {
    /// Prints its report.
    pub fn new() -> AdvancedProfiler {
        AdvancedProfiler::default()
    }

    fn phase(&self) -> Phase {
        self.open.last().map_or(Phase::Loop, |action| action.phase)
    }

    /// Ends the actions from this place of the stack on.
    fn close_from(&mut self, place: usize) {
        let now = self.clock.now();
        self.steps.spend(self.phase(), now);
        while self.open.len() > place
            && let Some(action) = self.open.pop()
        {
            let duration = now - action.start;
            if let Some(around) = self.open.last_mut() {
                around.inside += duration;
            }
            let times = &mut self.actions[action.index];
            times.whole.add(duration);
            times.alone += duration - action.inside;
        }
    }

    fn table(&self) -> String {
        let run = self.clock.now() - self.began;
        let mut actions: Vec<_> = self.actions.iter().filter(|(_, times)| times.whole.count > 0).collect();
        actions.sort_by_key(|(_, times)| std::cmp::Reverse(times.alone));
        let restriction = self.options.line_count_restriction;
        let lines = if restriction <= 1.0 { (restriction * actions.len() as f64).round() } else { restriction };
        let calls: u64 = actions.iter().map(|(_, times)| times.whole.count).sum();
        let mut table = Table::new(&[
            "Action",
            "Num calls",
            "Self (s)",
            "Self %",
            "Total (s)",
            "Mean (ms)",
            "p50 (ms)",
            "p90 (ms)",
            "p99 (ms)",
        ]);
        let number = |time: u64| significant(seconds(time), 5);
        let mut whole = vec!["Total".to_owned(), calls.to_string(), number(run), percent(run, run), number(run)];
        whole.resize(9, "-".to_owned());
        table.row(whole);
        table.rule();
        for (action, times) in actions.iter().take(lines.max(1.0) as usize) {
            let mut cells = vec![action.to_string(), times.whole.count.to_string(), number(times.alone)];
            cells.extend([percent(times.alone, run), number(times.whole.total), milliseconds(times.whole.mean())]);
            cells.extend([0.5, 0.9, 0.99].map(|share| milliseconds(times.whole.percentile(share))));
            table.row(cells);
        }
        format!("\nActions, by their time without what ran inside them\n{}", table.render())
    }
}

impl Profiler for AdvancedProfiler {
    fn setup(&mut self, run: &ProfiledRun) -> Result<()> {
        // Options that were set in code are checked here.
        let AdvancedProfiler { options, clock, .. } = std::mem::take(self);
        *self = AdvancedProfiler { clock, run: Some(run.clone()), ..AdvancedProfiler::from_options(options)? };
        self.began = self.clock.now();
        Ok(())
    }

    fn start(&mut self, action: &str) {
        let start = self.clock.now();
        let around = self.phase();
        self.steps.spend(around, start);
        let index = match self.actions.get_index_of(action) {
            Some(index) => index,
            None => {
                let times = ActionTimes { phase: Phase::of(action), ..ActionTimes::default() };
                self.actions.insert_full(action.to_owned(), times).0
            }
        };
        let phase = self.actions[index].phase.unwrap_or(around);
        self.open.push(OpenAction { index, start, inside: 0, phase });
    }

    fn stop(&mut self, action: &str) {
        let index = self.actions.get_index_of(action);
        if let Some(place) = self.open.iter().rposition(|open| Some(open.index) == index) {
            self.close_from(place);
        }
    }

    fn batch_start(&mut self, stage: Stage, _: Option<usize>) -> Result<()> {
        self.steps.begin(stage, self.clock.now());
        Ok(())
    }

    fn batch_end(&mut self, _: Stage) -> Result<()> {
        self.steps.spend(self.phase(), self.clock.now());
        self.steps.end();
        Ok(())
    }

    fn summary(&mut self) -> Result<String> {
        // Actions that an error left open.
        self.close_from(0);
        Ok(report::title(self.run.as_ref()) + &self.steps.report() + &self.table())
    }

    fn report_path(&self) -> Option<PathBuf> {
        report::report_path(self.run.as_ref(), self.options.dirpath.as_deref(), self.options.filename.as_deref())
    }
}

#[cfg(test)]
mod tests;
