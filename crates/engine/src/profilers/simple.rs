//! [`SimpleProfiler`]: the number and duration of calls of every action.

use std::path::PathBuf;
use std::time::Duration;

use derive_setters::Setters;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::clock::Clock;
use super::report::{self, Table, significant};
use super::{ProfiledRun, Profiler};
use crate::config::Configurable;
use crate::error::{Error, Result};

/// Measures the number and duration of calls of every action, and reports them as a table, the longest first.
///
/// Actions nest, so their times add up to more than the run's. A report covers its entry point (Lightning's continues
/// where the one before ended), and an action may run within itself (Lightning refuses).
///
/// ```
/// use fulgurite::prelude::*;
///
/// let printed = Trainer::builder().profiler("simple");
/// let in_a_file = Trainer::builder().profiler(SimpleProfiler::new().filename("perf"));
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct SimpleProfiler {
    options: SimpleProfilerOptions,
    clock: Clock,
    run: Option<ProfiledRun>,
    began: u64,
    records: IndexMap<String, ActionRecord>,
    /// Running actions: the index of their record, and the start time.
    open: Vec<(usize, u64)>,
}

/// Options of [`SimpleProfiler`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, generate_delegates(ty = "SimpleProfiler", field = "options"))]
#[non_exhaustive]
pub struct SimpleProfilerOptions {
    /// The folder of the report's file; the run's log folder by default.
    #[setters(into)]
    pub dirpath: Option<PathBuf>,
    /// Adds the report to the file `<stage>-<filename>.txt` instead of printing it.
    #[setters(into)]
    pub filename: Option<String>,
    /// Whether to show the number of calls and the share of the run's time, too.
    pub extended: bool,
}

impl Default for SimpleProfilerOptions {
    fn default() -> SimpleProfilerOptions {
        SimpleProfilerOptions { dirpath: None, filename: None, extended: true }
    }
}

/// The number and duration of calls of an action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActionRecord {
    /// The number of calls.
    pub calls: u64,
    /// The total time of all calls.
    pub total: Duration,
}

impl Configurable for SimpleProfiler {
    type Options = SimpleProfilerOptions;

    fn from_options(options: SimpleProfilerOptions) -> Result<SimpleProfiler, Error> {
        Ok(SimpleProfiler { options, ..SimpleProfiler::default() })
    }
}

impl SimpleProfiler {
    /// Prints its report.
    pub fn new() -> SimpleProfiler {
        SimpleProfiler::default()
    }

    /// The measurements of the last entry point, in the order first seen.
    pub fn records(&self) -> impl Iterator<Item = (&str, ActionRecord)> {
        self.records.iter().map(|(action, record)| (action.as_str(), *record))
    }

    /// Ends the actions from this place of the stack on.
    fn close_from(&mut self, place: usize) {
        let now = self.clock.now();
        for (index, start) in self.open.drain(place..) {
            let record = &mut self.records[index];
            record.calls += 1;
            record.total += Duration::from_nanos(now - start);
        }
    }

    fn table(&self) -> Table {
        let run = Duration::from_nanos(self.clock.now() - self.began);
        let number = |duration: Duration| significant(duration.as_secs_f64(), 5);
        let mean = |record: &ActionRecord| record.total.as_secs_f64() / record.calls as f64;
        let mut records: Vec<_> = self.records.iter().filter(|(_, record)| record.calls > 0).collect();
        if !self.options.extended {
            records.sort_by(|(_, a), (_, b)| mean(b).total_cmp(&mean(a)));
            let mut table = Table::new(&["Action", "Mean duration (s)", "Total time (s)"]);
            for (action, record) in records {
                table.row(vec![action.clone(), significant(mean(record), 5), number(record.total)]);
            }
            return table;
        }
        records.sort_by_key(|(_, record)| std::cmp::Reverse(record.total));
        let calls: u64 = records.iter().map(|(_, record)| record.calls).sum();
        let mut table = Table::new(&["Action", "Mean duration (s)", "Num calls", "Total time (s)", "Percentage %"]);
        table.row(vec!["Total".into(), "-".into(), calls.to_string(), number(run), "100 %".into()]);
        table.rule();
        for (action, record) in records {
            let share = if run.is_zero() { 0.0 } else { 100.0 * record.total.as_secs_f64() / run.as_secs_f64() };
            table.row(vec![
                action.clone(),
                significant(mean(record), 5),
                record.calls.to_string(),
                number(record.total),
                significant(share, 5),
            ]);
        }
        table
    }
}

impl Profiler for SimpleProfiler {
    fn setup(&mut self, run: &ProfiledRun) -> Result<()> {
        self.run = Some(run.clone());
        self.records.clear();
        self.open.clear();
        self.began = self.clock.now();
        Ok(())
    }

    fn start(&mut self, action: &str) {
        let index = match self.records.get_index_of(action) {
            Some(index) => index,
            None => self.records.insert_full(action.to_owned(), ActionRecord::default()).0,
        };
        self.open.push((index, self.clock.now()));
    }

    fn stop(&mut self, action: &str) {
        let index = self.records.get_index_of(action);
        if let Some(place) = self.open.iter().rposition(|(open, _)| Some(*open) == index) {
            self.close_from(place);
        }
    }

    fn summary(&mut self) -> Result<String> {
        // Actions that an error left open.
        self.close_from(0);
        Ok(report::title(self.run.as_ref()) + &self.table().render())
    }

    fn report_path(&self) -> Option<PathBuf> {
        report::report_path(self.run.as_ref(), self.options.dirpath.as_deref(), self.options.filename.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use expect_test::expect;
    use fulgurite_torch::tch::Device;

    use super::*;
    use crate::stage::TrainerFn;

    /// A profiler of a run, and its time in milliseconds.
    fn profiler(extended: bool) -> (SimpleProfiler, impl Fn(u64)) {
        let time = Arc::new(AtomicU64::new(0));
        let clock = Clock::Told(time.clone());
        let mut profiler = SimpleProfiler { clock, ..SimpleProfiler::new().extended(extended) };
        let run = ProfiledRun { entry_point: TrainerFn::Fit, log_dir: "logs".into(), rank: None, device: Device::Cpu };
        profiler.setup(&run).unwrap();
        (profiler, move |ms| time.store(ms * 1_000_000, Ordering::Relaxed))
    }

    fn two_steps(profiler: &mut SimpleProfiler, at: impl Fn(u64)) {
        at(100);
        profiler.start("run_training_epoch");
        for step in 0..2 {
            at(100 + step * 400);
            profiler.start("[Strategy]SingleDeviceStrategy.training_step");
            at(400 + step * 400);
            profiler.stop("[Strategy]SingleDeviceStrategy.training_step");
            profiler.start("save_checkpoint");
            profiler.stop("save_checkpoint");
        }
        at(900);
        profiler.stop("run_training_epoch");
        at(1234);
    }

    #[test]
    fn the_extended_report() {
        let (mut profiler, at) = profiler(true);
        two_steps(&mut profiler, at);
        expect![[r#"
            FIT Profiler Report
            --------------------------------------------------------------------------------------------------------------------------
            |  Action                                        |  Mean duration (s)  |  Num calls  |  Total time (s)  |  Percentage %  |
            --------------------------------------------------------------------------------------------------------------------------
            |  Total                                         |                  -  |          5  |           1.234  |         100 %  |
            --------------------------------------------------------------------------------------------------------------------------
            |  run_training_epoch                            |                0.8  |          1  |             0.8  |         64.83  |
            |  [Strategy]SingleDeviceStrategy.training_step  |                0.3  |          2  |             0.6  |        48.622  |
            |  save_checkpoint                               |                0.0  |          2  |             0.0  |           0.0  |
            --------------------------------------------------------------------------------------------------------------------------
        "#]]
        .assert_eq(&profiler.summary().unwrap());
    }

    #[test]
    fn the_short_report_is_ordered_by_mean() {
        let (mut profiler, at) = profiler(false);
        two_steps(&mut profiler, at);
        expect![[r#"
            FIT Profiler Report
            -------------------------------------------------------------------------------------------
            |  Action                                        |  Mean duration (s)  |  Total time (s)  |
            -------------------------------------------------------------------------------------------
            |  run_training_epoch                            |                0.8  |             0.8  |
            |  [Strategy]SingleDeviceStrategy.training_step  |                0.3  |             0.6  |
            |  save_checkpoint                               |                0.0  |             0.0  |
            -------------------------------------------------------------------------------------------
        "#]]
        .assert_eq(&profiler.summary().unwrap());
    }

    #[test]
    fn what_an_error_leaves_open_ends_with_what_is_around_it() {
        let (mut profiler, at) = profiler(true);
        profiler.start("run_training_epoch");
        profiler.start("encode");
        at(10);
        profiler.stop("never started");
        profiler.stop("run_training_epoch");
        profiler.start("[LightningModule]Line.teardown");
        at(15);
        profiler.summary().unwrap();
        let told: Vec<_> = profiler.records().map(|(a, r)| (a.to_owned(), r.calls, r.total.as_millis())).collect();
        let expected = [("run_training_epoch", 1, 10), ("encode", 1, 10), ("[LightningModule]Line.teardown", 1, 5)];
        assert_eq!(told, expected.map(|(a, calls, ms)| (a.to_owned(), calls, ms)));
        let run = profiler.run.clone().unwrap();
        profiler.setup(&run).unwrap();
        assert_eq!(profiler.records().count(), 0);
    }

    #[test]
    fn an_action_may_run_within_itself() {
        let (mut profiler, at) = profiler(true);
        profiler.start("visit");
        at(1);
        profiler.start("visit");
        at(3);
        profiler.stop("visit");
        at(4);
        profiler.stop("visit");
        let (_, record) = profiler.records().next().unwrap();
        assert_eq!((record.calls, record.total.as_millis()), (2, 6));
    }
}
