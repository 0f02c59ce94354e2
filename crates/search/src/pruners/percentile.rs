//! Trials that are worse than others were at the same step.

use super::verdict::{Steps, best};
use crate::trial::{Direction, Trial, TrialState};
use crate::view::View;

pub(super) fn percentile(
    study: &View<'_>,
    trial: &Trial,
    percentile: f64,
    n_startup_trials: usize,
    n_min_trials: usize,
    at: Steps,
) -> bool {
    let complete: Vec<&&Trial> = study.trials.iter().filter(|trial| trial.state == TrialState::Complete).collect();
    let Some((step, _)) = trial.last() else { return false };
    if complete.is_empty() || complete.len() < n_startup_trials || !is_due(trial, step, at) {
        return false;
    }
    let values: Vec<f64> = trial.intermediate_values.values().copied().collect();
    let own = best(&values, study.direction);
    if own.is_nan() {
        return true;
    }
    let others: Vec<f64> = complete.iter().filter_map(|trial| trial.intermediate_values.get(&step).copied()).collect();
    if others.len() < n_min_trials {
        return false;
    }
    match study.direction {
        Direction::Maximize => own < nan_percentile(others, 100.0 - percentile),
        Direction::Minimize => own > nan_percentile(others, percentile),
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
