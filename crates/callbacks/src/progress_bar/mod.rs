//! [`ProgressBar`]: shows the progress, speed and metrics of a run.

mod line;
mod screen;
mod task;

use std::any::Any;
use std::time::{Duration, Instant};

use derive_setters::Setters;
use fulgurite_engine::config::{Configurable, Maximum, spelling};
use fulgurite_engine::{Callback, DefaultCallback, Error, Loss, ModuleView, Result, Stage, TrainerFn, TrainerState};
use fulgurite_torch::Value;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::line::value;
use self::screen::Screen;
use self::task::Task;

/// How often to check whether a log line is due.
const LINE_CHECK: Duration = Duration::from_secs(1);

/// Shows the progress and speed of the run, and the values logged with `prog_bar`.
///
/// On a terminal a line moves, and validation nests below it:
///
/// ```text
/// Epoch 2/19 450/450 0:00:43 38.2it/s train_loss: 0.298 val_acc: 0.978 v_num: 0
/// Epoch 3/19 ━━━━━━━━━━━━━━━━━━━━ 450/450 0:00:42 • 0:00:00 38.1it/s train_loss: 0.312 val_acc: 0.978 v_num: 0
///   Validation ━━━━━━━╸──────────────────────────────── 12/64 0:00:00 • 0:00:02 24.9it/s
/// ```
///
/// A finished epoch leaves its line, with its metrics (Lightning clears it): one sees what was learned.
/// [`leave(false)`](ProgressBar::leave) leaves that of the last epoch only. In a terminal, epochs shorter than the
/// [`refresh_rate`](ProgressBar::refresh_rate) leave a line now and then.
///
/// The times are those elapsed and remaining, of the epoch or evaluation; where only the remaining fits, it has a minus
/// sign. Time spent in validation counts as elapsed, and not against the rate. In a narrow terminal the bar shrinks,
/// then the logger's version, the elapsed time and metrics from the right are left out; lines never wrap. Values are
/// written as Lightning's tqdm bar writes them: at least three significant digits, in five columns where possible.
///
/// In a pipe or a log file nothing moves, and there are no control characters: a line is printed at the end of every
/// epoch, however short, and on the way at every tenth of it, at least 10 s apart (every minute if its length is not known).
///
/// A step costs a look at the clock. Metrics are read, which waits for the device, only when something is drawn.
pub struct ProgressBar {
    options: ProgressBarOptions,
    /// `None` where lines cannot move, and are printed.
    screen: Option<Screen>,
    version: Option<String>,
    epoch: Option<Task>,
    eval: Option<Task>,
    /// The metrics as last read.
    metrics: Vec<(String, String)>,
    /// The time of the next check.
    due: Instant,
    last_kept: Option<Instant>,
}

const A_YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Options of [`ProgressBar`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(generate_delegates(ty = "ProgressBar", field = "options"))]
#[non_exhaustive]
pub struct ProgressBarOptions {
    /// The refresh interval; seconds in files. (In Lightning: batches.)
    #[serde(with = "spelling::seconds")]
    #[schemars(with = "f64")]
    pub refresh_rate: Duration,
    /// Whether every finished epoch leaves its line, or only the last.
    pub leave: bool,
}

impl Default for ProgressBarOptions {
    fn default() -> ProgressBarOptions {
        ProgressBarOptions { refresh_rate: Duration::from_millis(250), leave: true }
    }
}

impl Configurable for ProgressBar {
    const ALIASES: &'static [&'static str] = &["RichProgressBar", "TQDMProgressBar"];
    type Options = ProgressBarOptions;

    fn from_options(options: ProgressBarOptions) -> Result<ProgressBar, Error> {
        Ok(ProgressBar { options, ..ProgressBar::new() })
    }
}

impl Default for ProgressBar {
    fn default() -> ProgressBar {
        ProgressBar::new()
    }
}

impl ProgressBar {
    /// A bar that is drawn four times a second.
    pub fn new() -> ProgressBar {
        ProgressBar {
            options: ProgressBarOptions::default(),
            screen: None,
            version: None,
            epoch: None,
            eval: None,
            metrics: Vec::new(),
            due: Instant::now(),
            last_kept: None,
        }
    }

    /// Draws the bar, or prints a log line if one is due.
    fn redraw(&mut self, trainer: &mut TrainerState, now: Instant) -> Result<()> {
        for task in self.epoch.iter_mut().chain(&mut self.eval) {
            task.measure(now);
        }
        if self.screen.is_some() {
            self.due = now + self.period();
            self.read_metrics(trainer)?;
            self.draw(now);
            return Ok(());
        }
        self.due = now + LINE_CHECK;
        if let Some(task) = self.eval.as_mut().or(self.epoch.as_mut())
            && task.is_line_due(now)
        {
            self.read_metrics(trainer)?;
            self.print_line(trainer, now, false);
        }
        Ok(())
    }

    /// The refresh interval, limited to what clocks can represent.
    fn period(&self) -> Duration {
        self.options.refresh_rate.min(A_YEAR)
    }

    /// Draws at the start of a task, unless the last draw was very recent.
    fn redraw_soon(&mut self, trainer: &mut TrainerState) -> Result<()> {
        let now = Instant::now();
        if now + self.period().mul_f32(0.8) >= self.due { self.redraw(trainer, now) } else { Ok(()) }
    }

    fn draw(&mut self, now: Instant) {
        let Some(screen) = &mut self.screen else { return };
        // Metrics go with the outermost line.
        let mut metrics = Some((self.metrics.as_slice(), self.version.as_deref()));
        for (row, task) in [&self.epoch, &self.eval].into_iter().enumerate() {
            let Some(task) = task else {
                screen.show(row, None);
                continue;
            };
            let (metrics, version) = metrics.take().unwrap_or_default();
            let label = task.full_label();
            screen.show(row, Some(line::Line { version, ..task.line(&label, metrics, now) }));
        }
    }

    /// Prints the final line of the current task.
    fn print_line(&mut self, trainer: &TrainerState, now: Instant, is_finished: bool) {
        let Some(task) = self.eval.as_ref().or(self.epoch.as_ref()) else { return };
        let line = if is_finished {
            task.finished_line(&task.label, &self.metrics, now)
        } else {
            task.line(&task.label, &self.metrics, now)
        };
        let line = line::Line { version: self.version.as_deref(), ..line };
        match &mut self.screen {
            Some(screen) => {
                let text = Screen::fit(line);
                screen.clear();
                trainer.print(&text);
            }
            None => trainer.print(&line.unfitted()),
        }
        self.due = now;
    }

    fn read_metrics(&mut self, trainer: &mut TrainerState) -> Result<()> {
        let metrics = trainer.progress_bar_metrics()?;
        self.metrics = metrics.iter().map(|(name, logged)| (name.clone(), value(logged.to_f64()))).collect();
        Ok(())
    }

    // Training --------------------------------------------------------------------------------------------------------

    fn begin_epoch(&mut self, trainer: &TrainerState, position: u64) {
        let epoch = trainer.current_epoch();
        let label = match trainer.max_epochs().finite().and_then(|epochs| epochs.checked_sub(1)) {
            Some(last) => format!("Epoch {epoch}/{last}"),
            None => format!("Epoch {epoch}"),
        };
        let total = trainer.num_training_batches().map(|n| n as u64);
        self.epoch = trainer.is_global_zero().then(|| Task::begin(label, position, total));
    }

    /// Prints the final line of the current epoch.
    fn end_epoch(&mut self, trainer: &TrainerState, now: Instant) {
        self.leave_evaluation(now);
        self.print_line(trainer, now, true);
        self.epoch = None;
        self.last_kept = Some(now);
    }

    // Evaluation ------------------------------------------------------------------------------------------------------

    fn begin_evaluation(&mut self, trainer: &mut TrainerState) -> Result<()> {
        if !trainer.is_global_zero() {
            return Ok(());
        }
        let label = match (trainer.stage(), trainer.entry_point()) {
            (Stage::SanityCheck, _) => "Sanity checking",
            (Stage::Test, _) => "Testing",
            (Stage::Predict, _) => "Predicting",
            (_, TrainerFn::Fit) => "  Validation",
            _ => "Validation",
        };
        let batches = match trainer.stage() {
            Stage::SanityCheck => trainer.num_sanity_val_batches(),
            _ => trainer.num_eval_batches().to_vec(),
        };
        let total = batches.into_iter().sum::<Option<usize>>().map(|n| n as u64);
        self.eval = Some(Task::begin(label.to_owned(), 0, total));
        if let Some(epoch) = &mut self.epoch {
            let now = Instant::now();
            epoch.measure(now);
            epoch.pause(now);
        }
        self.redraw_soon(trainer)
    }

    fn end_evaluation_batch(&mut self, trainer: &mut TrainerState, dataloader_idx: usize) -> Result<()> {
        let Some(task) = &mut self.eval else { return Ok(()) };
        task.advance_to(task.position + 1);
        task.dataloader_idx = (trainer.num_eval_batches().len() > 1).then_some(dataloader_idx);
        let now = Instant::now();
        if now < self.due { Ok(()) } else { self.redraw(trainer, now) }
    }

    fn end_evaluation(&mut self, trainer: &mut TrainerState) -> Result<()> {
        let now = Instant::now();
        if let Some(task) = &mut self.eval
            && trainer.entry_point() != TrainerFn::Fit
        {
            task.complete();
            self.read_metrics(trainer)?;
            self.print_line(trainer, now, true);
        }
        self.leave_evaluation(now);
        Ok(())
    }

    /// Back to the epoch, if there is one.
    fn leave_evaluation(&mut self, now: Instant) {
        if self.eval.take().is_none() {
            return;
        }
        if let Some(epoch) = &mut self.epoch {
            epoch.resume(now);
        }
        if let Some(screen) = &mut self.screen {
            screen.show(1, None);
        }
    }
}

impl Callback for ProgressBar {
    fn stands_for(&self) -> Option<DefaultCallback> {
        Some(DefaultCallback::ProgressBar)
    }

    fn reads_epoch_end_of_module(&self) -> bool {
        true
    }

    fn setup(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView, _: TrainerFn) -> Result<()> {
        self.screen = Screen::new(trainer.console().bars());
        self.version =
            trainer.loggers().first().map(|logger| short_version(logger.version())).filter(|v| !v.is_empty());
        self.metrics.clear();
        self.due = Instant::now();
        self.last_kept = None;
        Ok(())
    }

    fn teardown(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView, stage: TrainerFn) -> Result<()> {
        let is_fit = stage == TrainerFn::Fit;
        let now = Instant::now();
        if is_fit {
            self.leave_evaluation(now);
        }
        // A task that is still here was cut short. If its values cannot be had any more, those last read have to do.
        if self.epoch.is_some() || self.eval.is_some() {
            if is_fit {
                self.read_metrics(trainer).ok();
            }
            self.print_line(trainer, now, true);
        }
        (self.epoch, self.eval) = (None, None);
        if let Some(mut screen) = self.screen.take() {
            screen.clear();
        }
        Ok(())
    }

    fn on_sanity_check_end(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.leave_evaluation(Instant::now());
        if let Some(screen) = &mut self.screen {
            screen.clear();
        }
        Ok(())
    }

    fn on_train_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        // A run resumed within an epoch does not start that epoch again.
        self.begin_epoch(trainer, trainer.progress().batch.current.ready);
        Ok(())
    }

    fn on_train_epoch_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.begin_epoch(trainer, 0);
        self.redraw_soon(trainer)
    }

    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &Loss,
        _: &dyn Any,
        batch_idx: usize,
    ) -> Result<()> {
        let Some(task) = &mut self.epoch else { return Ok(()) };
        task.advance_to(batch_idx as u64 + 1);
        if trainer.is_last_batch() {
            task.complete();
        }
        let now = Instant::now();
        if now < self.due {
            return Ok(());
        }
        // An evaluation that found no step to call does not end.
        self.leave_evaluation(now);
        self.redraw(trainer, now)
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        let now = Instant::now();
        // A terminal shows each of them on the moving line.
        let is_soon =
            self.screen.is_some() && self.last_kept.is_some_and(|kept| now < kept + self.options.refresh_rate);
        let is_last = trainer.max_epochs() == Maximum::Of(trainer.current_epoch() + 1);
        if (is_last || self.options.leave && !is_soon) && self.epoch.is_some() {
            self.read_metrics(trainer)?;
            self.end_epoch(trainer, now);
        }
        Ok(())
    }

    fn on_train_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if self.epoch.is_some() {
            self.read_metrics(trainer)?;
            self.end_epoch(trainer, Instant::now());
        }
        Ok(())
    }

    fn on_validation_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.begin_evaluation(trainer)
    }

    fn on_validation_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &Value,
        _: &dyn Any,
        _: usize,
        dataloader_idx: usize,
    ) -> Result<()> {
        self.end_evaluation_batch(trainer, dataloader_idx)
    }

    fn on_validation_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.end_evaluation(trainer)
    }

    fn on_test_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.begin_evaluation(trainer)
    }

    fn on_test_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &Value,
        _: &dyn Any,
        _: usize,
        dataloader_idx: usize,
    ) -> Result<()> {
        self.end_evaluation_batch(trainer, dataloader_idx)
    }

    fn on_test_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.end_evaluation(trainer)
    }

    fn on_predict_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.begin_evaluation(trainer)
    }

    fn on_predict_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &Value,
        _: &dyn Any,
        _: usize,
        dataloader_idx: usize,
    ) -> Result<()> {
        self.end_evaluation_batch(trainer, dataloader_idx)
    }

    fn on_predict_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.end_evaluation(trainer)
    }
}

/// `3` of `version_3`, and the last four characters of a version of the user's own, as Lightning shows it.
fn short_version(version: &str) -> String {
    if let Some(number) = version.strip_prefix("version_") {
        return number.to_owned();
    }
    let skipped = version.chars().count().saturating_sub(4);
    version.chars().skip(skipped).collect()
}

#[cfg(test)]
mod tests {
    use super::short_version;

    #[test]
    fn versions_are_short() {
        assert_eq!(short_version("version_12"), "12");
        assert_eq!(short_version("run-with-warmup"), "rmup");
        assert_eq!(short_version("v7"), "v7");
        assert_eq!(short_version(""), "");
    }
}
