//! [`Timer`]: measures the stages of a run, and ends training when its time is over.

use std::any::Any;
use std::time::{Duration, Instant};

use fulgurite_optim::Interval;
use fulgurite_torch::Dict;

use super::{Callback, Role};
use crate::error::Result;
use crate::loss::Loss;
use crate::module::ModuleView;
use crate::state::{Stage, TrainerFn, TrainerState};

/// Measures how long training, validation and test take, and ends training when its time is over.
///
/// The time spent is part of checkpoints, so a resumed run has what is left of it; one that has none left ends at once.
/// [`parse_time`](crate::config::parse_time) reads a time such as `00:12:00:00`. `Trainer::builder().max_time(..)` adds
/// a timer.
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
    duration: Option<Duration>,
    interval: Interval,
    verbose: bool,
    clocks: [Clock; 5],
    /// Training time of the run this one was resumed from.
    offset: Duration,
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
        Timer {
            duration: duration.into(),
            interval: Interval::Step,
            verbose: true,
            clocks: [Clock::default(); 5],
            offset: Duration::ZERO,
        }
    }

    /// Whether to look at the clock after every batch (the default) or after every epoch.
    pub fn interval(mut self, interval: Interval) -> Self {
        self.interval = interval;
        self
    }

    /// Whether to print a line when the time is over (it does).
    pub fn verbose(mut self, verbose: bool) -> Self {
        self.verbose = verbose;
        self
    }

    /// When a stage was entered last.
    pub fn start_time(&self, stage: Stage) -> Option<Instant> {
        self.clocks[stage as usize].start
    }

    /// When a stage was left last.
    pub fn end_time(&self, stage: Stage) -> Option<Instant> {
        self.clocks[stage as usize].end
    }

    /// How long a stage took, the last time it ran; for training, runs that this one was resumed from count too.
    pub fn time_elapsed(&self, stage: Stage) -> Duration {
        let offset = if stage == Stage::Train { self.offset } else { Duration::ZERO };
        let Clock { start, end } = self.clocks[stage as usize];
        let since = |start: Instant| end.map_or_else(|| start.elapsed(), |end| end.saturating_duration_since(start));
        offset + start.map_or(Duration::ZERO, since)
    }

    /// How much training time is left; `None` without a limit.
    pub fn time_remaining(&self) -> Option<Duration> {
        Some(self.duration?.saturating_sub(self.time_elapsed(Stage::Train)))
    }

    fn start(&mut self, stage: Stage) {
        self.clocks[stage as usize] = Clock { start: Some(Instant::now()), end: None };
    }

    fn stop(&mut self, stage: Stage) {
        self.clocks[stage as usize].end = Some(Instant::now());
    }

    fn check(&self, trainer: &mut TrainerState) {
        let elapsed = self.time_elapsed(Stage::Train);
        if trainer.entry_point() != TrainerFn::Fit || self.duration.is_none_or(|duration| elapsed < duration) {
            return;
        }
        let message =
            format!("Time limit reached. Elapsed time is {}. Signaling Trainer to stop.", clock_time(elapsed));
        if self.verbose {
            trainer.print(&message);
        }
        trainer.request_stop(message);
    }
}

impl Callback for Timer {
    fn role(&self) -> Role {
        Role::Timer
    }

    fn state_dict(&self) -> Dict {
        let elapsed = |stage: Stage| (key(stage).into(), self.time_elapsed(stage).as_secs_f64().into());
        Dict::new().with("time_elapsed", STAGES.into_iter().map(elapsed).collect::<Dict>())
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        let seconds = state.dict("time_elapsed")?.float(key(Stage::Train)).unwrap_or(0.0);
        self.offset = Duration::try_from_secs_f64(seconds)?;
        Ok(())
    }

    /// Whatever the interval: a resumed run may have no time left.
    fn on_fit_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
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
        if self.interval == Interval::Step {
            self.check(trainer);
        }
        Ok(())
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if self.interval == Interval::Epoch {
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
