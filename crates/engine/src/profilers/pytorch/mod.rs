//! [`PyTorchProfiler`]: every operator of some batches.

mod options;
mod schedule;
mod table;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use fulgurite_torch::profiler as kineto;
use fulgurite_torch::tch::{Cuda, Device};

use self::schedule::BatchAction;
use super::{ProfiledRun, Profiler, report};
use crate::config::Configurable;
use crate::error::{Error, Result};
use crate::stage::Stage;

pub use self::options::{PyTorchProfilerOptions, SortKey};
pub use self::schedule::ProfilerSchedule;

/// Records every operator of some batches with libtorch's profiler: a trace that <https://ui.perfetto.dev> opens, and a
/// table of operators.
///
/// Training, validation, test and prediction have a schedule each: by default one batch is skipped, one is for
/// the profiler's warm-up, and three are recorded. The trainer's actions are in the trace as `[pl][profile]…`,
/// batches as `ProfilerStep#…`. A stage with fewer batches than the default schedule needs is recorded from its first
/// batch.
///
/// Files: `<stage>[-<filename>]-<train|validate|test|predict>.<milliseconds>.pt.trace.json`, and the report in
/// `<stage>-<filename>.txt` if there is a file name. Lightning's `emit_nvtx`, `record_module_names`, `with_stack` and
/// `export_to_flame_graph` depend on Python and are not available.
///
/// ```
/// use fulgurite::prelude::*;
///
/// let profiler = PyTorchProfiler::new().profile_memory(true).record_shapes(true).row_limit(30);
/// let trainer = Trainer::builder().profiler(profiler);
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct PyTorchProfiler {
    options: PyTorchProfilerOptions,
    run: Option<ProfiledRun>,
    stages: [StageProgress; 4],
    /// The stage whose cycle is warming up or being recorded; batches of others do not count meanwhile.
    owner: Option<Stage>,
    recording: bool,
    /// The batch that the recording began with.
    first: u64,
    /// The actions that have begun, and whether they are a range of the recording.
    open: Vec<(String, bool)>,
    report: String,
    traces: Vec<PathBuf>,
}

/// The progress of a stage.
#[derive(Debug, Clone, Copy, Default)]
struct StageProgress {
    /// Batches seen.
    seen: u64,
    schedule: Option<ProfilerSchedule>,
}

impl Configurable for PyTorchProfiler {
    type Options = PyTorchProfilerOptions;

    fn from_options(options: PyTorchProfilerOptions) -> Result<PyTorchProfiler, Error> {
        if let Some(schedule) = &options.schedule {
            schedule.check()?;
        }
        if options.group_by_input_shapes && !options.record_shapes {
            return Err(Error::Config(
                "group_by_input_shapes needs the shapes; set record_shapes to true, or leave it out".into(),
            ));
        }
        Ok(PyTorchProfiler { options, ..PyTorchProfiler::default() })
    }
}

impl PyTorchProfiler {
    /// Records three batches of each stage.
    pub fn new() -> PyTorchProfiler {
        PyTorchProfiler::default()
    }

    /// The traces written by the last entry point.
    pub fn traces(&self) -> &[PathBuf] {
        &self.traces
    }

    fn kineto_options(&self) -> kineto::Options {
        kineto::Options {
            record_shapes: self.options.record_shapes,
            profile_memory: self.options.profile_memory,
            with_flops: self.options.with_flops,
            cuda: self.cuda().is_some(),
        }
    }

    /// The CUDA device of the run.
    fn cuda(&self) -> Option<usize> {
        match self.run.as_ref()?.device {
            Device::Cuda(index) => Some(index),
            _ => None,
        }
    }

    /// The schedule of a stage whose epoch has so many batches.
    fn schedule_of(&mut self, stage: Stage, batches: Option<usize>) -> ProfilerSchedule {
        let place = place(stage);
        if let Some(schedule) = self.options.schedule.or(self.stages[place].schedule) {
            return schedule;
        }
        let default = ProfilerSchedule::default();
        let schedule = match batches.map(|n| n as u64).filter(|n| *n < default.cycle()) {
            Some(few) => ProfilerSchedule::shortened(few),
            None => default,
        };
        self.stages[place].schedule = Some(schedule);
        schedule
    }

    fn begin_recording(&mut self, first: u64) -> Result<()> {
        kineto::start(&self.kineto_options())?;
        self.recording = true;
        self.first = first;
        for (action, in_trace) in &mut self.open {
            *in_trace = push(action);
        }
        Ok(())
    }

    /// Ends the recording, if there is one: writes the trace, and adds the table to the report.
    fn end_recording(&mut self) -> Result<()> {
        self.close_ranges(0);
        let Some(stage) = self.owner.take() else { return Ok(()) };
        if !std::mem::take(&mut self.recording) {
            // It did not get beyond the warm-up.
            return Ok(kineto::cancel(&self.kineto_options())?);
        }
        if let Some(index) = self.cuda() {
            Cuda::synchronize(index as i64);
        }
        let mut trace = kineto::stop()?;
        let last = self.stages[place(stage)].seen.max(self.first + 1) - 1;
        self.report += &format!("\nOperators of {} batches {} to {last}", stage.info().noun, self.first);
        if self.options.export_to_chrome {
            let path = self.trace_path(stage);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            trace.save(&path)?;
            self.report += &format!("; the trace is {}", path.display());
            self.traces.push(path);
        }
        let default = if self.cuda().is_some() { SortKey::CudaTimeTotal } else { SortKey::CpuTimeTotal };
        let rows = trace.key_averages(self.options.group_by_input_shapes);
        let sort_by = self.options.sort_by_key.unwrap_or(default);
        self.report += &format!("\n{}", table::key_averages_table(rows, &self.options, sort_by));
        Ok(())
    }

    fn trace_path(&self, stage: Stage) -> PathBuf {
        let run = self.run.as_ref();
        let folder = self.options.dirpath.as_deref().or(run.map(|run| run.log_dir.as_path())).unwrap_or(Path::new("."));
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let stage = ["train", "validate", "test", "predict"][place(stage)];
        let ending = format!(".{}.pt.trace.json", since.as_millis());
        folder.join(report::file_name(run, self.options.filename.as_deref(), Some(stage), &ending))
    }

    /// Ends the ranges of the actions from this place on; the actions continue.
    fn close_ranges(&mut self, from: usize) {
        for (_, in_trace) in self.open[from..].iter_mut().rev() {
            if std::mem::take(in_trace) {
                kineto::pop_range();
            }
        }
    }
}

impl Profiler for PyTorchProfiler {
    fn setup(&mut self, run: &ProfiledRun) -> Result<()> {
        self.teardown()?;
        // Options that were set in code are checked here.
        *self = PyTorchProfiler::from_options(self.options.clone())?;
        self.run = Some(run.clone());
        Ok(())
    }

    fn start(&mut self, action: &str) {
        let in_trace = self.recording && push(action);
        self.open.push((action.to_owned(), in_trace));
    }

    fn stop(&mut self, action: &str) {
        if let Some(place) = self.open.iter().rposition(|(open, _)| open == action) {
            self.close_ranges(place);
            self.open.truncate(place);
        }
    }

    fn batch_start(&mut self, stage: Stage, batches: Option<usize>) -> Result<()> {
        if stage == Stage::SanityCheck || self.owner.is_some_and(|owner| owner != stage) {
            return Ok(());
        }
        let batch = self.stages[place(stage)].seen;
        match self.schedule_of(stage, batches).action(batch) {
            BatchAction::Leave => {}
            BatchAction::WarmUp => {
                if self.owner.is_none() {
                    kineto::prepare(&self.kineto_options())?;
                    self.owner = Some(stage);
                }
            }
            BatchAction::Record { .. } => {
                if !self.recording {
                    self.begin_recording(batch)?;
                    self.owner = Some(stage);
                }
                self.start(&step_name(batch));
            }
        }
        Ok(())
    }

    fn batch_end(&mut self, stage: Stage) -> Result<()> {
        if stage == Stage::SanityCheck || self.owner.is_some_and(|owner| owner != stage) {
            return Ok(());
        }
        let batch = self.stages[place(stage)].seen;
        self.stages[place(stage)].seen += 1;
        if self.recording {
            self.stop(&step_name(batch));
            if self.schedule_of(stage, None).action(batch) == (BatchAction::Record { is_last: true }) {
                self.end_recording()?;
            }
        }
        Ok(())
    }

    fn summary(&mut self) -> Result<String> {
        self.end_recording()?;
        if self.report.is_empty() {
            self.report = "\nNothing was recorded: the run ended before the schedule's first active batch\n".into();
        }
        Ok(report::title(self.run.as_ref()) + &self.report)
    }

    fn report_path(&self) -> Option<PathBuf> {
        report::report_path(self.run.as_ref(), self.options.dirpath.as_deref(), self.options.filename.as_deref())
    }

    fn teardown(&mut self) -> Result<()> {
        self.close_ranges(0);
        self.open.clear();
        self.recording = false;
        match self.owner.take() {
            Some(_) => Ok(kineto::cancel(&self.kineto_options())?),
            None => Ok(()),
        }
    }
}

/// Opens a range for an action, under the name by which PyTorch's tools know Lightning's.
fn push(action: &str) -> bool {
    let is_step = action.starts_with("ProfilerStep#");
    let name = if is_step { action.to_owned() } else { format!("[pl][profile]{action}") };
    kineto::push_range(&name).is_ok()
}

fn step_name(batch: u64) -> String {
    format!("ProfilerStep#{batch}")
}

fn place(stage: Stage) -> usize {
    match stage {
        Stage::Train => 0,
        Stage::SanityCheck | Stage::Validate => 1,
        Stage::Test => 2,
        Stage::Predict => 3,
    }
}
