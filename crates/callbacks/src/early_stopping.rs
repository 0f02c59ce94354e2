//! [`EarlyStopping`]: stops training when a monitored value no longer improves.

use derive_setters::Setters;
use fulgurite_engine::config::{Configurable, ValCheckInterval};
use fulgurite_engine::logging::LoggedValue;
use fulgurite_engine::{Callback, Error, ModuleView, Result, TrainerFn, TrainerState};
use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, Value, to_host_f64};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Mode;
use super::model_checkpoint::{missing_monitor, python_float, python_str};

/// Why [`EarlyStopping`] ended a run. Checkpoints store the discriminant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StoppingReason {
    /// It did not end the run.
    #[default]
    NotStopped = 0,
    /// The value became better than `stopping_threshold`.
    StoppingThreshold = 1,
    /// The value became worse than `divergence_threshold`.
    DivergenceThreshold = 2,
    /// `patience` checks without improvement.
    PatienceExhausted = 3,
    /// The value became NaN or infinite.
    NonFiniteMetric = 4,
}

/// Ends `fit` when a monitored value no longer improves, like Lightning's callback of the same name.
///
/// Each check tests, in this order, whether the value is finite, better than the stopping threshold, worse than the
/// divergence threshold, and better than the best so far. Checks run at the end of the training epoch if validation
/// runs once at its end or not at all, and otherwise at the end of each validation.
///
/// ```
/// use fulgurite::prelude::*;
///
/// let stopping = EarlyStopping::monitor("val_acc").mode(Mode::Max).patience(5).min_delta(0.001);
/// let trainer = Trainer::builder().callback(stopping);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct EarlyStopping {
    options: EarlyStoppingOptions,

    wait_count: u64,
    /// `None` before the first check.
    best_score: Option<f64>,
    stopped_epoch: u64,
    stopping_reason: StoppingReason,
    stopping_reason_message: Option<String>,
    /// The state was restored from a checkpoint.
    restored: bool,
}

/// Options of [`EarlyStopping`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, generate_delegates(ty = "EarlyStopping", field = "options"))]
#[non_exhaustive]
pub struct EarlyStoppingOptions {
    /// The name of the metric to monitor.
    #[setters(skip)]
    pub monitor: String,
    /// The minimum change that counts as an improvement; the change must be greater than this.
    pub min_delta: f64,
    /// Checks (not epochs) without improvement after which the run ends.
    pub patience: u64,
    /// Whether a lower or a higher value is better.
    pub mode: Mode,
    /// Whether a missing value is an error, or the check is skipped.
    pub strict: bool,
    /// Whether NaN and infinity end the run.
    pub check_finite: bool,
    /// Ends the run as soon as the value is better than this.
    pub stopping_threshold: Option<f64>,
    /// Ends the run as soon as the value is worse than this.
    pub divergence_threshold: Option<f64>,
    /// Whether to check at the end of the training epoch or at the end of validation.
    #[setters(strip_option = false, into)]
    pub check_on_train_epoch_end: Option<bool>,
    /// Prints a line for each improvement and for the end.
    pub verbose: bool,
}

impl Default for EarlyStoppingOptions {
    fn default() -> EarlyStoppingOptions {
        EarlyStoppingOptions {
            monitor: String::new(),
            min_delta: 0.0,
            patience: 3,
            mode: Mode::Min,
            strict: true,
            check_finite: true,
            stopping_threshold: None,
            divergence_threshold: None,
            check_on_train_epoch_end: None,
            verbose: false,
        }
    }
}

impl Configurable for EarlyStopping {
    type Options = EarlyStoppingOptions;

    fn from_options(options: EarlyStoppingOptions) -> Result<EarlyStopping, Error> {
        if options.monitor.is_empty() {
            return Err(Error::Config("EarlyStopping needs `monitor`, the name of a logged value".into()));
        }
        Ok(EarlyStopping {
            options,
            wait_count: 0,
            best_score: None,
            stopped_epoch: 0,
            stopping_reason: StoppingReason::NotStopped,
            stopping_reason_message: None,
            restored: false,
        })
    }
}

impl EarlyStopping {
    /// Monitors the metric `name`, which should decrease; three checks without improvement end the run.
    pub fn monitor(name: impl Into<String>) -> EarlyStopping {
        EarlyStopping {
            options: EarlyStoppingOptions { monitor: name.into(), ..Default::default() },
            wait_count: 0,
            best_score: None,
            stopped_epoch: 0,
            stopping_reason: StoppingReason::NotStopped,
            stopping_reason_message: None,
            restored: false,
        }
    }
}

impl EarlyStopping {
    /// Checks since the last improvement.
    pub fn wait_count(&self) -> u64 {
        self.wait_count
    }

    /// The best value so far; infinite before the first check.
    pub fn best_score(&self) -> f64 {
        self.best_score.unwrap_or(self.options.mode.worst())
    }

    /// The epoch, 0-based, at which it ended the run; 0 if it did not.
    pub fn stopped_epoch(&self) -> u64 {
        self.stopped_epoch
    }

    /// The reason why the run ended.
    pub fn stopping_reason(&self) -> StoppingReason {
        self.stopping_reason
    }

    /// The reason why the run ended, as a sentence.
    pub fn stopping_reason_message(&self) -> Option<&str> {
        self.stopping_reason_message.as_deref()
    }
}

impl Callback for EarlyStopping {
    fn reads_epoch_end_of_module(&self) -> bool {
        true
    }

    fn state_key(&self) -> String {
        format!(
            "EarlyStopping{{'monitor': {}, 'mode': '{}'}}",
            python_str(&self.options.monitor),
            self.options.mode.name()
        )
    }

    fn state_dict(&self) -> Result<Dict> {
        Ok(Dict::new()
            .with("wait_count", self.wait_count)
            .with("stopped_epoch", self.stopped_epoch)
            .with("best_score", Tensor::from(self.best_score()))
            .with("patience", self.options.patience)
            .with("stopping_reason", self.stopping_reason as i64)
            .with("stopping_reason_message", self.stopping_reason_message.clone()))
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        let count = |key| state.int(key).map(|n| u64::try_from(n).unwrap_or(0));
        self.wait_count = count("wait_count")?;
        self.stopped_epoch = count("stopped_epoch")?;
        self.options.patience = count("patience")?;
        self.best_score = Some(match state.require("best_score")? {
            Value::Tensor(tensor) => to_host_f64(tensor)?,
            _ => state.float("best_score")?,
        });
        self.stopping_reason = StoppingReason::from_number(state.int("stopping_reason").unwrap_or(0));
        self.stopping_reason_message = match state.get("stopping_reason_message") {
            None | Some(Value::None) => None,
            Some(_) => Some(state.str("stopping_reason_message")?.into()),
        };
        self.restored = true;
        Ok(())
    }

    fn setup(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView, _: TrainerFn) -> Result<()> {
        // What an evaluation, or a fit that failed, restored is nothing that this run is resumed from.
        self.restored = false;
        let min_delta = self.options.min_delta;
        if min_delta.is_nan() || min_delta < 0.0 {
            return Err(Error::Config(format!(
                "EarlyStopping::min_delta({min_delta}) is the least change that counts, whichever the mode; write 0.0 or more"
            ))
            .into());
        }
        Ok(())
    }

    /// A run that was stopped stays stopped when it is resumed.
    fn on_fit_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if std::mem::take(&mut self.restored)
            && self.stopping_reason != StoppingReason::NotStopped
            && let Some(message) = &self.stopping_reason_message
        {
            trainer.print(&format!("EarlyStopping had ended the run resumed from: {message}"));
            trainer.request_stop(message.clone());
        }
        Ok(())
    }

    fn on_train_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if !self.checks_on_train_epoch_end(trainer) && !trainer.validates() {
            trainer.warn("EarlyStopping will check nothing in this run, because it checks at the end of validation, and this run does not validate; leave check_on_train_epoch_end out, or give a validation loader with data");
        }
        Ok(())
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if self.checks_on_train_epoch_end(trainer) { self.run_check(trainer) } else { Ok(()) }
    }

    fn on_validation_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        if self.checks_on_train_epoch_end(trainer) { Ok(()) } else { self.run_check(trainer) }
    }
}

impl EarlyStopping {
    fn checks_on_train_epoch_end(&self, trainer: &TrainerState) -> bool {
        let config = trainer.config();
        let once_per_epoch =
            config.val_check_interval == ValCheckInterval::Fraction(1.0) && config.check_val_every_n_epoch == Some(1);
        self.options.check_on_train_epoch_end.unwrap_or(once_per_epoch || !trainer.validates())
    }

    fn run_check(&mut self, trainer: &mut TrainerState) -> Result<()> {
        let is_fit = trainer.entry_point() == TrainerFn::Fit && !trainer.is_sanity_checking();
        if !is_fit || trainer.config().fast_dev_run > 0 {
            return Ok(());
        }
        let Some(current) = trainer.callback_metrics()?.get(&self.options.monitor).map(LoggedValue::to_f64) else {
            let missing = missing_monitor(trainer, "EarlyStopping", &self.options.monitor);
            if self.options.strict {
                return Err(missing.into());
            }
            if self.options.verbose {
                trainer.warn(&format!("{missing} (strict is off, so the check is left out)"));
            }
            return Ok(());
        };
        let current = trainer.broadcast_number(current)?;
        match self.evaluate(current) {
            Verdict::Improved(message) if self.options.verbose => trainer.print(&message),
            Verdict::Improved(_) | Verdict::Waiting => {}
            Verdict::Stop(reason, message) => {
                self.stopping_reason = reason;
                self.stopped_epoch = trainer.current_epoch();
                if self.options.verbose {
                    trainer.print(&message);
                }
                trainer.request_stop(message.clone());
                self.stopping_reason_message = Some(message);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, value: f64) -> Verdict {
        let (monitor, mode, best) = (&self.options.monitor, self.options.mode, self.best_score());
        let (better, worse) = match mode {
            Mode::Min => ("<", ">"),
            Mode::Max => (">", "<"),
        };
        let shown = python_float(value);
        if self.options.check_finite && !value.is_finite() {
            let message = format!(
                "Monitored metric {monitor} = {shown} is not finite. Previous best value was {best:.3}. Signaling Trainer to stop."
            );
            return Verdict::Stop(StoppingReason::NonFiniteMetric, message);
        }
        if let Some(threshold) = self.options.stopping_threshold
            && mode.is_better(value, in_precision_of(value, threshold))
        {
            let message = format!(
                "Stopping threshold reached: {monitor} = {shown} {better} {}. Signaling Trainer to stop.",
                python_float(threshold)
            );
            return Verdict::Stop(StoppingReason::StoppingThreshold, message);
        }
        if let Some(threshold) = self.options.divergence_threshold
            && mode.is_better(in_precision_of(value, threshold), value)
        {
            let message = format!(
                "Divergence threshold reached: {monitor} = {shown} {worse} {}. Signaling Trainer to stop.",
                python_float(threshold)
            );
            return Verdict::Stop(StoppingReason::DivergenceThreshold, message);
        }
        let handicap = match mode {
            Mode::Min => self.options.min_delta,
            Mode::Max => -self.options.min_delta,
        };
        if mode.is_better(in_precision_of(value, value + in_precision_of(value, handicap)), best) {
            let message = if best.is_finite() {
                let (change, min_delta) = ((best - value).abs(), python_float(self.options.min_delta));
                format!(
                    "Metric {monitor} improved by {change:.3} >= min_delta = {min_delta}. New best score: {value:.3}"
                )
            } else {
                format!("Metric {monitor} improved. New best score: {value:.3}")
            };
            self.best_score = Some(value);
            self.wait_count = 0;
            return Verdict::Improved(message);
        }
        self.wait_count += 1;
        if self.wait_count < self.options.patience {
            return Verdict::Waiting;
        }
        let message = format!(
            "Monitored metric {} did not improve in the last {} records. Best score: {best:.3}. Signaling Trainer to stop.",
            self.options.monitor, self.wait_count
        );
        Verdict::Stop(StoppingReason::PatienceExhausted, message)
    }
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Improved(String),
    Waiting,
    Stop(StoppingReason, String),
}

/// `x` in the precision of `value`: single if `value` is an `f32`, as losses are. In double precision 0.9 would have
/// improved on 1.0 by more than 0.1, because the nearest `f32` is smaller.
fn in_precision_of(value: f64, x: f64) -> f64 {
    if f64::from(value as f32) == value { f64::from(x as f32) } else { x }
}

impl StoppingReason {
    fn from_number(number: i64) -> StoppingReason {
        match number {
            1 => StoppingReason::StoppingThreshold,
            2 => StoppingReason::DivergenceThreshold,
            3 => StoppingReason::PatienceExhausted,
            4 => StoppingReason::NonFiniteMetric,
            _ => StoppingReason::NotStopped,
        }
    }
}
