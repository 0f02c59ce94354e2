//! [`Pruner`]: whether a trial should be stopped.

mod halving;
mod percentile;
mod verdict;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::halving::{Halving, Hyperband};
pub use self::halving::{HalvingOptions, HyperbandOptions};
use self::percentile::{is_due, percentile};
use self::verdict::{Steps, Verdict, at_least, best};
use crate::error::{Result, SearchError};
use crate::trial::{Direction, Trial};
use crate::view::View;

/// A pruner as a configuration names it, with Optuna's options and defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PrunerConfig {
    /// Nothing is stopped.
    None {},
    /// Stops a trial whose best value so far is worse than the median of what complete trials had at the same step.
    Median {
        /// How many trials must be complete before any is stopped.
        #[serde(default = "five")]
        n_startup_trials: usize,
        /// Steps in which nothing is stopped.
        #[serde(default)]
        n_warmup_steps: i64,
        /// The distance of the steps at which trials are judged.
        #[serde(default = "one")]
        interval_steps: i64,
        /// How many complete trials must have reported the step.
        #[serde(default = "one_trial")]
        n_min_trials: usize,
    },
    /// The same with another percentile than 50: `25` keeps the best quarter.
    Percentile {
        /// The percentile, from 0 to 100.
        percentile: f64,
        /// How many trials must be complete before any is stopped.
        #[serde(default = "five")]
        n_startup_trials: usize,
        /// Steps in which nothing is stopped.
        #[serde(default)]
        n_warmup_steps: i64,
        /// The distance of the steps at which trials are judged.
        #[serde(default = "one")]
        interval_steps: i64,
        /// How many complete trials must have reported the step.
        #[serde(default = "one_trial")]
        n_min_trials: usize,
    },
    /// Asynchronous successive halving (Li et al. 2018), ASHA: at steps that grow by a factor, only the best part goes on.
    #[serde(alias = "asha")]
    SuccessiveHalving(HalvingOptions),
    /// Hyperband (Li et al. 2018): successive halving with several first steps at once.
    Hyperband(HyperbandOptions),
    /// Stops a trial whose last value is beyond a bound, or NaN.
    Threshold {
        /// Values below are stopped.
        #[serde(default)]
        lower: Option<f64>,
        /// Values above are stopped.
        #[serde(default)]
        upper: Option<f64>,
        /// Steps in which nothing is stopped.
        #[serde(default)]
        n_warmup_steps: i64,
        /// The distance of the steps at which trials are judged.
        #[serde(default = "one")]
        interval_steps: i64,
    },
    /// Stops a trial only if it has not improved for some steps, and another pruner would stop it too, if there is one.
    Patient {
        /// The pruner that decides then.
        #[serde(default)]
        wrapped: Option<Box<PrunerConfig>>,
        /// Steps without an improvement.
        patience: usize,
        /// What counts as one.
        #[serde(default)]
        min_delta: f64,
    },
}

fn five() -> usize {
    5
}

fn one() -> i64 {
    1
}

fn one_trial() -> usize {
    1
}

/// Decides whether a trial should be stopped, by what it and others have reported.
#[derive(Debug, Clone)]
pub struct Pruner(Kind);

#[derive(Debug, Clone)]
enum Kind {
    None,
    Percentile { percentile: f64, n_startup_trials: usize, n_min_trials: usize, at: Steps },
    Halving(Halving),
    Hyperband(Hyperband),
    Threshold { lower: f64, upper: f64, at: Steps },
    Patient { wrapped: Option<Box<Pruner>>, patience: usize, min_delta: f64 },
}

impl Pruner {
    /// A pruner with these options.
    ///
    /// # Errors
    ///
    /// Fails if an option is out of its range.
    pub fn new(config: &PrunerConfig) -> Result<Pruner> {
        let percentile = |percentile: f64, startup: usize, warmup: i64, interval: i64, min: usize| {
            if !(0.0..=100.0).contains(&percentile) {
                return Err(SearchError::Options(format!("`percentile` is {percentile}; it must be from 0 to 100")));
            }
            at_least("n_min_trials", min as i64, 1)?;
            let at = Steps::new(warmup, interval)?;
            Ok(Kind::Percentile { percentile, n_startup_trials: startup, n_min_trials: min, at })
        };
        Ok(Pruner(match *config {
            PrunerConfig::None {} => Kind::None,
            PrunerConfig::Median { n_startup_trials, n_warmup_steps, interval_steps, n_min_trials } => {
                percentile(50.0, n_startup_trials, n_warmup_steps, interval_steps, n_min_trials)?
            }
            PrunerConfig::Percentile {
                percentile: of,
                n_startup_trials,
                n_warmup_steps,
                interval_steps,
                n_min_trials,
            } => percentile(of, n_startup_trials, n_warmup_steps, interval_steps, n_min_trials)?,
            PrunerConfig::SuccessiveHalving(ref options) => Kind::Halving(Halving::new(options)?),
            PrunerConfig::Hyperband(ref options) => Kind::Hyperband(Hyperband::new(options)?),
            PrunerConfig::Threshold { lower, upper, n_warmup_steps, interval_steps } => {
                if lower.is_none() && upper.is_none() {
                    return Err(SearchError::Options("`threshold` needs `lower`, `upper` or both".into()));
                }
                let (lower, upper) = (lower.unwrap_or(f64::NEG_INFINITY), upper.unwrap_or(f64::INFINITY));
                if lower > upper {
                    return Err(SearchError::Options(format!("`lower` is {lower}, which is above `upper`, {upper}")));
                }
                Kind::Threshold { lower, upper, at: Steps::new(n_warmup_steps, interval_steps)? }
            }
            PrunerConfig::Patient { ref wrapped, patience, min_delta } => {
                if min_delta.is_nan() || min_delta < 0.0 {
                    return Err(SearchError::Options(format!("`min_delta` is {min_delta}; it must not be negative")));
                }
                let wrapped = wrapped.as_deref().map(Pruner::new).transpose()?.map(Box::new);
                Kind::Patient { wrapped, patience, min_delta }
            }
        }))
    }

    pub(crate) fn judge(&mut self, study: &View<'_>, trial: &Trial) -> Verdict {
        let Some((step, last)) = trial.last() else { return false.into() };
        match &mut self.0 {
            Kind::None => false.into(),
            Kind::Percentile { percentile: of, n_startup_trials, n_min_trials, at } => {
                percentile(study, trial, *of, *n_startup_trials, *n_min_trials, *at).into()
            }
            Kind::Halving(halving) => halving.judge(&study.trials, study.direction, trial),
            Kind::Hyperband(hyperband) => hyperband.judge(study, trial),
            Kind::Threshold { lower, upper, at } => {
                (is_due(trial, step, *at) && !(*lower..=*upper).contains(&last)).into()
            }
            Kind::Patient { wrapped, patience, min_delta } => {
                if !has_stalled(trial, study.direction, *patience, *min_delta) {
                    return false.into();
                }
                wrapped.as_mut().map_or(true.into(), |wrapped| wrapped.judge(study, trial))
            }
        }
    }
}

/// Whether the best of the last `patience + 1` values is worse than the best before, by more than `min_delta`.
fn has_stalled(trial: &Trial, direction: Direction, patience: usize, min_delta: f64) -> bool {
    let values: Vec<f64> = trial.intermediate_values.values().copied().collect();
    let Some(split) = values.len().checked_sub(patience.saturating_add(1)).filter(|split| *split > 0) else {
        return false;
    };
    let (before, after) = (best(&values[..split], direction), best(&values[split..], direction));
    match direction {
        Direction::Minimize => before + min_delta < after,
        Direction::Maximize => before - min_delta > after,
    }
}
