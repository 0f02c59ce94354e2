//! [`Timer`]: measures the stages of a run, and enforces a time limit on training.

use std::any::Any;
use std::time::{Duration, Instant};

use derive_setters::Setters;
use fulgurite_engine::config::{Configurable, spelling};
use fulgurite_engine::{Callback, DefaultCallback, Error, Loss, ModuleView, Result, Stage, TrainerFn, TrainerState};
use fulgurite_optim::Interval;
use fulgurite_torch::Dict;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::before_loading::BeforeLoading;

/// Measures the time spent in training, validation and test, and ends training when the time limit is reached.
///
/// Checkpoints include the elapsed time, so a resumed run has only the rest; if none is left, it ends immediately.
/// [`parse_time`](fulgurite_engine::config::parse_time) parses a time such as `00:12:00:00`.
/// `Trainer::builder().max_time(..)` adds a timer.
///
/// ```
/// use std::time::Duration;
/// use fulgurite::prelude::*;
///
/// let twelve_hours = Timer::new(Duration::from_secs(12 * 60 * 60)).interval(Interval::Epoch);
/// let trainer = Trainer::builder().callback(twelve_hours);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Timer {
    options: TimerOptions,
    clocks: [Clock; 5],
    /// Training time of the run this one was resumed from.
    offset: Duration,
    before_loading: BeforeLoading<Duration>,
}

/// Options of [`Timer`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, generate_delegates(ty = "Timer", field = "options"))]
#[non_exhaustive]
pub struct TimerOptions {
    /// The time after which training ends, `DD:HH:MM:SS` in files; null to measure only.
    #[setters(skip)]
    #[serde(with = "spelling::optional_time")]
    #[schemars(with = "Option<String>")]
    pub duration: Option<Duration>,
    /// Whether to check the time after every batch or after every epoch.
    pub interval: Interval,
    /// Whether to print a message when the time limit is reached.
    pub verbose: bool,
}

impl Default for TimerOptions {
    fn default() -> TimerOptions {
        TimerOptions { duration: None, interval: Interval::Step, verbose: true }
    }
}

impl Configurable for Timer {
    type Options = TimerOptions;

    fn from_options(options: TimerOptions) -> Result<Timer, Error> {
        Ok(Timer::with_options(options))
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    start: Option<Instant>,
    end: Option<Instant>,
}

const STAGES: [Stage; 5] = [Stage::Train, Stage::SanityCheck, Stage::Validate, Stage::Test, Stage::Predict];

impl Timer {
    /// Ends training after `duration`; `None` to measure only.
    pub fn new(duration: impl Into<Option<Duration>>) -> Timer {
        Timer::with_options(TimerOptions { duration: duration.into(), ..TimerOptions::default() })
    }

    fn with_options(options: TimerOptions) -> Timer {
        Timer {
            options,
            clocks: [Clock::default(); 5],
            offset: Duration::ZERO,
            before_loading: BeforeLoading::default(),
        }
    }

    /// When a stage last started.
    pub fn start_time(&self, stage: Stage) -> Option<Instant> {
        self.clocks[stage as usize].start
    }

    /// When a stage last ended.
    pub fn end_time(&self, stage: Stage) -> Option<Instant> {
        self.clocks[stage as usize].end
    }

    /// The duration of the last run of a stage; for training, including the runs that this one was resumed from.
    pub fn time_elapsed(&self, stage: Stage) -> Duration {
        let offset = if stage == Stage::Train { self.offset } else { Duration::ZERO };
        let Clock { start, end } = self.clocks[stage as usize];
        let since = |start: Instant| end.map_or_else(|| start.elapsed(), |end| end.saturating_duration_since(start));
        offset + start.map_or(Duration::ZERO, since)
    }

    /// The remaining training time; `None` without a limit.
    pub fn time_remaining(&self) -> Option<Duration> {
        Some(self.options.duration?.saturating_sub(self.time_elapsed(Stage::Train)))
    }

    fn start(&mut self, stage: Stage) {
        self.clocks[stage as usize] = Clock { start: Some(Instant::now()), end: None };
    }

    fn stop(&mut self, stage: Stage) {
        self.clocks[stage as usize].end = Some(Instant::now());
    }

    fn check(&self, trainer: &mut TrainerState) {
        let elapsed = self.time_elapsed(Stage::Train);
        if trainer.entry_point() != TrainerFn::Fit || self.options.duration.is_none_or(|duration| elapsed < duration) {
            return;
        }
        let message =
            format!("Time limit reached. Elapsed time is {}. Signaling Trainer to stop.", clock_time(elapsed));
        if self.options.verbose {
            trainer.print(&message);
        }
        trainer.request_stop_for_time(message);
    }
}

impl Callback for Timer {
    fn stands_for(&self) -> Option<DefaultCallback> {
        Some(DefaultCallback::Timer)
    }

    fn state_dict(&self) -> Result<Dict> {
        let elapsed = |stage: Stage| (key(stage).into(), self.time_elapsed(stage).as_secs_f64().into());
        Ok(Dict::new().with("time_elapsed", STAGES.into_iter().map(elapsed).collect::<Dict>()))
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        let seconds = state.dict("time_elapsed")?.float(key(Stage::Train)).unwrap_or(0.0);
        self.before_loading.load(|| self.offset);
        self.offset = Duration::try_from_secs_f64(seconds)?;
        Ok(())
    }

    fn setup(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        if let Some(before) = self.before_loading.setup(stage) {
            self.offset = before;
        }
        Ok(())
    }

    fn teardown(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView, _: TrainerFn) -> Result<()> {
        self.before_loading.teardown();
        Ok(())
    }

    /// Checked for every interval: a resumed run may have no time left.
    fn on_fit_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.before_loading.fit_starts();
        self.clocks[Stage::Train as usize] = Clock::default();
        self.check(trainer);
        Ok(())
    }

    fn on_train_start(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.start(Stage::Train);
        Ok(())
    }

    fn on_train_end(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.stop(Stage::Train);
        Ok(())
    }

    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &Loss,
        _: &dyn Any,
        _: usize,
    ) -> Result<()> {
        if self.options.interval == Interval::Step {
            self.check(trainer);
        }
        Ok(())
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if self.options.interval == Interval::Epoch {
            self.check(trainer);
        }
        Ok(())
    }

    fn on_validation_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.start(trainer.stage());
        Ok(())
    }

    fn on_validation_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.stop(trainer.stage());
        Ok(())
    }

    fn on_test_start(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.start(Stage::Test);
        Ok(())
    }

    fn on_test_end(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.stop(Stage::Test);
        Ok(())
    }

    fn on_predict_start(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.start(Stage::Predict);
        Ok(())
    }

    fn on_predict_end(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.stop(Stage::Predict);
        Ok(())
    }
}

/// Lightning's name of a stage in checkpoints.
fn key(stage: Stage) -> &'static str {
    match stage {
        Stage::Train => "train",
        Stage::SanityCheck => "sanity_check",
        Stage::Validate => "validate",
        Stage::Test => "test",
        Stage::Predict => "predict",
    }
}

/// `3:05:07`, with days in front if there are any, as Python prints it.
fn clock_time(time: Duration) -> String {
    let seconds = time.as_secs();
    let days = match seconds / 86_400 {
        0 => String::new(),
        1 => "1 day, ".to_owned(),
        days => format!("{days} days, "),
    };
    format!("{days}{}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}
