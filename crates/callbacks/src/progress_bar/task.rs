//! [`Task`]: the progress and speed of an epoch or evaluation.

use std::time::{Duration, Instant};

use super::line::Line;

/// The averaging window of the displayed rate, in seconds.
const MEMORY: f64 = 15.0;
/// Lines of a log file are at least this far apart.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// The same, if the total is unknown.
const LINE_INTERVAL_WITHOUT_TOTAL: Duration = Duration::from_secs(60);

/// An epoch, or an evaluation.
pub(super) struct Task {
    pub label: String,
    /// The current loader, if there are several.
    pub dataloader_idx: Option<usize>,
    pub position: u64,
    total: Option<u64>,
    first: u64,
    began: Instant,
    /// When the task was paused, for example by validation.
    paused: Option<Instant>,
    time_paused: Duration,
    meter: Meter,
    /// When the last log line was written, and at which position.
    last_line: (Instant, u64),
}

/// Steps and seconds, the older ones counting less.
struct Meter {
    steps: f64,
    seconds: f64,
    at: Instant,
    position: u64,
}

impl Task {
    /// Begins at `position`, which is not 0 when resuming.
    pub(super) fn begin(label: String, position: u64, total: Option<u64>) -> Task {
        let now = Instant::now();
        Task {
            label,
            dataloader_idx: None,
            position,
            // Data that changed may have fewer.
            total: total.filter(|total| position <= *total),
            first: position,
            began: now,
            paused: None,
            time_paused: Duration::ZERO,
            meter: Meter { steps: 0.0, seconds: 0.0, at: now, position },
            last_line: (now, position),
        }
    }

    /// Sets the number of completed steps, which may exceed the expected total.
    pub(super) fn advance_to(&mut self, position: u64) {
        self.position = position;
        self.total = self.total.filter(|total| position <= *total);
    }

    /// Marks the task as complete, whatever the expected total.
    pub(super) fn complete(&mut self) {
        self.total = self.total.map(|_| self.position);
    }

    /// Pauses the clock of the task.
    pub(super) fn pause(&mut self, now: Instant) {
        self.paused.get_or_insert(now);
    }

    /// Resumes the clock of the task.
    pub(super) fn resume(&mut self, now: Instant) {
        if let Some(since) = self.paused.take() {
            let pause = now - since;
            self.time_paused += pause;
            self.meter.at += pause;
        }
    }

    /// Records the steps since the last measurement.
    pub(super) fn measure(&mut self, now: Instant) {
        if self.paused.is_none() {
            self.meter.measure(now, self.position);
        }
    }

    /// Whether a log line is due: every tenth of the total, rate-limited.
    pub(super) fn is_line_due(&mut self, now: Instant) -> bool {
        let (at, position) = self.last_line;
        let is_due = match self.total {
            Some(total) => now >= at + LINE_INTERVAL && (self.position - position) * 10 >= total,
            None => now >= at + LINE_INTERVAL_WITHOUT_TOTAL,
        };
        if is_due {
            self.last_line = (now, self.position);
        }
        is_due
    }

    /// The line of a task in progress.
    pub(super) fn line<'a>(&self, label: &'a str, metrics: &'a [(String, String)], now: Instant) -> Line<'a> {
        Line {
            label,
            position: self.position,
            total: self.total,
            elapsed: now - self.began,
            rate: self.meter.rate(),
            metrics,
            version: None,
            is_finished: false,
        }
    }

    /// The line of a finished task, with its average rate.
    pub(super) fn finished_line<'a>(&self, label: &'a str, metrics: &'a [(String, String)], now: Instant) -> Line<'a> {
        let elapsed = now - self.began;
        let seconds = elapsed.saturating_sub(self.time_paused).as_secs_f64();
        let steps = (self.position - self.first) as f64;
        Line {
            rate: (steps > 0.0 && seconds > 0.0).then(|| steps / seconds),
            is_finished: true,
            ..self.line(label, metrics, now)
        }
    }

    /// The label, with the current loader if there are several.
    pub(super) fn full_label(&self) -> String {
        match self.dataloader_idx {
            Some(index) => format!("{} DataLoader {index}", self.label),
            None => self.label.clone(),
        }
    }
}

impl Meter {
    fn measure(&mut self, now: Instant, position: u64) {
        let seconds = (now - self.at).as_secs_f64();
        let decay = (-seconds / MEMORY).exp();
        self.steps = self.steps * decay + (position - self.position) as f64;
        self.seconds = self.seconds * decay + seconds;
        (self.at, self.position) = (now, position);
    }

    fn rate(&self) -> Option<f64> {
        (self.steps > 0.0 && self.seconds > 0.0).then(|| self.steps / self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn a_steady_rate_is_measured_exactly_whatever_came_between() {
        let mut task = Task::begin("Epoch 0".into(), 100, Some(200));
        let t = task.began;
        task.position = 120;
        task.measure(t + seconds(10));
        assert!((task.meter.rate().unwrap() - 2.0).abs() < 1e-12);
        task.pause(t + seconds(10));
        task.measure(t + seconds(40));
        task.resume(t + seconds(50));
        task.position = 140;
        task.measure(t + seconds(60));
        assert!((task.meter.rate().unwrap() - 2.0).abs() < 1e-12);
        let line = task.finished_line("", &[], t + seconds(60));
        assert_eq!((line.elapsed, line.rate), (seconds(60), Some(2.0)));
    }

    #[test]
    fn a_rate_follows_a_change_of_speed() {
        let mut task = Task::begin("Epoch 0".into(), 0, None);
        let t = task.began;
        task.position = 10;
        task.measure(t + seconds(10));
        task.position = 110;
        task.measure(t + seconds(20));
        let rate = task.meter.rate().unwrap();
        assert!(rate > 6.0 && rate < 10.0, "{rate}");
    }

    #[test]
    fn a_log_file_gets_a_line_every_tenth_but_not_more_often_than_every_ten_seconds() {
        let mut task = Task::begin("Epoch 0".into(), 0, Some(100));
        let t = task.began;
        let mut due = |position, at| {
            task.position = position;
            task.is_line_due(t + seconds(at))
        };
        assert!(!due(50, 9), "too soon");
        assert!(due(50, 10));
        assert!(!due(59, 100), "less than a tenth further");
        assert!(due(60, 100));
    }

    #[test]
    fn without_a_total_a_line_comes_every_minute() {
        let mut task = Task::begin("Epoch 0".into(), 0, None);
        let t = task.began;
        assert!(!task.is_line_due(t + seconds(59)));
        assert!(task.is_line_due(t + seconds(60)));
        assert!(!task.is_line_due(t + seconds(61)));
    }
}
