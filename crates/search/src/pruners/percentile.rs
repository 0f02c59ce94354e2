//! Trials that are worse than others were at the same step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::verdict::{Steps, at_least, best};
use crate::error::{Result, SearchError};
use crate::trial::{Direction, Trial, TrialState};
use crate::view::View;

/// The options of the median pruner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MedianOptions {
    /// How many trials must be complete before any is stopped.
    pub n_startup_trials: usize,
    /// Steps in which nothing is stopped.
    pub n_warmup_steps: i64,
    /// The distance of the steps at which trials are judged.
    pub interval_steps: i64,
    /// How many complete trials must have reported the step.
    pub n_min_trials: usize,
}

impl Default for MedianOptions {
    fn default() -> MedianOptions {
        MedianOptions { n_startup_trials: 5, n_warmup_steps: 0, interval_steps: 1, n_min_trials: 1 }
    }
}

/// The options of the percentile pruner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PercentileOptions {
    /// The percentile, from 0 to 100.
    pub percentile: f64,
    /// The rest.
    #[serde(flatten)]
    pub others: MedianOptions,
}

#[derive(Debug, Clone)]
pub(super) struct Percentile {
    options: PercentileOptions,
    at: Steps,
}

impl Percentile {
    pub(super) fn new(options: &PercentileOptions) -> Result<Percentile> {
        let PercentileOptions { percentile, others } = options;
        if !(0.0..=100.0).contains(percentile) {
            return Err(SearchError::Options(format!("`percentile` is {percentile}; it must be from 0 to 100")));
        }
        at_least("n_min_trials", i64::try_from(others.n_min_trials).unwrap_or(i64::MAX), 1)?;
        Ok(Percentile { options: options.clone(), at: Steps::new(others.n_warmup_steps, others.interval_steps)? })
    }

    pub(super) fn judge(&self, study: &View<'_>, trial: &Trial) -> bool {
        let PercentileOptions { percentile, others: MedianOptions { n_startup_trials, n_min_trials, .. } } =
            self.options;
        let complete: Vec<&&Trial> = study.trials.iter().filter(|trial| trial.state == TrialState::Complete).collect();
        let Some((step, _)) = trial.last() else { return false };
        if complete.is_empty() || complete.len() < n_startup_trials || !is_due(trial, step, self.at) {
            return false;
        }
        let values: Vec<f64> = trial.intermediate_values.values().copied().collect();
        let own = best(&values, study.direction);
        if own.is_nan() {
            return true;
        }
        let others: Vec<f64> =
            complete.iter().filter_map(|trial| trial.intermediate_values.get(&step).copied()).collect();
        if others.len() < n_min_trials {
            return false;
        }
        match study.direction {
            Direction::Maximize => own < nan_percentile(others, 100.0 - percentile),
            Direction::Minimize => own > nan_percentile(others, percentile),
        }
    }
}

/// Whether a trial has just reached a step at which it is judged: the first one reported in its interval.
pub(super) fn is_due(trial: &Trial, step: i64, at: Steps) -> bool {
    let Some(since) = step.checked_sub(at.n_warmup_steps).filter(|since| *since >= 0) else { return false };
    let begin = since / at.interval_steps * at.interval_steps + at.n_warmup_steps;
    let before = trial.intermediate_values.keys().copied().filter(|other| *other != step).max().unwrap_or(-1);
    before < begin
}

/// NumPy's `nanpercentile`, with its rounding.
fn nan_percentile(mut values: Vec<f64>, percentile: f64) -> f64 {
    values.retain(|value| !value.is_nan());
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let place = last as f64 * (percentile / 100.0);
    let below = place.floor();
    let (a, b) = (values[below as usize], values[(below as usize + 1).min(last)]);
    let part = place - below;
    if part >= 0.5 { b - (b - a) * (1.0 - part) } else { a + (b - a) * part }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_interpolated() {
        assert_eq!(nan_percentile(vec![3.0, 1.0, f64::NAN, 2.0, 4.0], 50.0), 2.5);
        assert_eq!(nan_percentile(vec![5.0], 25.0), 5.0);
        assert_eq!(nan_percentile(vec![1.0, 2.0], 100.0), 2.0);
        assert!(nan_percentile(vec![f64::NAN], 50.0).is_nan());
    }
}
