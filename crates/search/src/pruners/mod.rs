//! [`Pruner`]: whether a trial should be stopped.

mod halving;
mod percentile;
mod verdict;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::halving::{Halving, Hyperband};
pub use self::halving::{HalvingOptions, HyperbandOptions};
pub use self::percentile::{MedianOptions, PercentileOptions};
use self::percentile::{Percentile, is_due};
use self::verdict::{Steps, Verdict, best};
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
    Median(MedianOptions),
    /// The same with another percentile than 50: `25` keeps the best quarter.
    Percentile(PercentileOptions),
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

fn one() -> i64 {
    1
}

/// Decides whether a trial should be stopped, by what it and others have reported.
#[derive(Debug, Clone)]
pub struct Pruner(Kind);

#[derive(Debug, Clone)]
enum Kind {
    None,
    Percentile(Percentile),
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
        Ok(Pruner(match *config {
            PrunerConfig::None {} => Kind::None,
            PrunerConfig::Median(ref others) => {
                Kind::Percentile(Percentile::new(&PercentileOptions { percentile: 50.0, others: others.clone() })?)
            }
            PrunerConfig::Percentile(ref options) => Kind::Percentile(Percentile::new(options)?),
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
            Kind::Percentile(percentile) => percentile.judge(study, trial).into(),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::distribution::Distribution;
    use crate::samplers::{Sampler, TpeOptions, TpeSampler};
    use crate::space::SearchSpace;
    use crate::trial::{Param, TrialState};

    /// A trial that has reported at the first and last steps that there are.
    fn extreme(number: usize, state: TrialState, of: &Distribution) -> Trial {
        let steps = [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX];
        let values = [f64::MAX, f64::MIN, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e-320];
        let value = |(index, step): (usize, i64)| (step, values[(index + number) % values.len()]);
        Trial {
            number,
            id: number,
            state,
            params: vec![("x".into(), Param { distribution: of.clone(), internal: 0.0 })],
            value: (state == TrialState::Complete).then_some(number as f64),
            intermediate_values: steps.into_iter().enumerate().map(value).collect(),
            user_attrs: serde_json::Map::new(),
            system_attrs: serde_json::Map::new(),
            started: None,
            ended: None,
        }
    }

    #[test]
    fn steps_and_options_at_the_ends_of_their_types_overflow_nothing() {
        let largest = i64::MAX;
        let pruners = [
            json!({ "median": { "n_startup_trials": 0, "n_warmup_steps": largest, "interval_steps": largest } }),
            json!({ "median": { "n_startup_trials": 1, "interval_steps": largest, "n_min_trials": usize::MAX } }),
            json!({ "percentile": { "percentile": 100.0, "n_startup_trials": 1, "n_warmup_steps": 1 } }),
            json!({ "successive_halving": {} }),
            json!({ "successive_halving": { "min_resource": largest, "reduction_factor": largest } }),
            json!({ "asha": { "min_resource": 1, "min_early_stopping_rate": u32::MAX, "bootstrap_count": usize::MAX } }),
            json!({ "hyperband": {} }),
            json!({ "hyperband": { "min_resource": 1, "max_resource": largest, "reduction_factor": 2 } }),
            json!({ "hyperband": { "min_resource": largest, "max_resource": largest, "reduction_factor": largest } }),
            json!({ "threshold": { "upper": 0.0, "n_warmup_steps": largest, "interval_steps": largest } }),
            json!({ "patient": { "patience": usize::MAX } }),
            json!({ "patient": { "patience": 0, "min_delta": f64::MAX, "wrapped": { "median": {} } } }),
        ];
        let widest = Distribution::int(-i64::MAX / 2, i64::MAX / 2, false, 1).unwrap();
        use TrialState::{Complete, Fail, Pruned, Running};
        let states = [Complete, Complete, Pruned, Fail, Complete, Pruned, Complete, Running];
        let trials: Vec<Trial> = (0..).zip(states).map(|(number, state)| extreme(number, state, &widest)).collect();
        for direction in [Direction::Minimize, Direction::Maximize] {
            let study = View { name: "s", direction, trials: trials.iter().collect() };
            for pruner in &pruners {
                let config: PrunerConfig = serde_json::from_value(pruner.clone()).unwrap();
                let mut pruner = Pruner::new(&config).unwrap();
                trials.iter().for_each(|trial| drop(pruner.judge(&study, trial)));
            }
            let space = SearchSpace::new().with("x", widest.clone());
            let options = TpeOptions { n_startup_trials: 1, ..TpeOptions::default() };
            let drawn = TpeSampler::new(options).unwrap().sample(&study, &trials[7], &space).unwrap().unwrap();
            assert!(widest.contains(drawn[0].1), "{drawn:?}");
        }
    }

    #[test]
    fn what_is_no_option_is_said() {
        let read = |given| serde_json::from_value::<PrunerConfig>(given).unwrap_err().to_string();
        for (given, said) in [
            (json!({ "median": { "warmup": 1 } }), "unknown field `warmup`, expected one of `n_startup_trials`"),
            (json!({ "percentile": { "percentile": 25.0, "warmup": 1 } }), "unknown field `warmup`"),
            (json!({ "percentile": {} }), "missing field `percentile`"),
        ] {
            let error = read(given);
            assert!(error.contains(said), "{error}");
        }
        let given = json!({ "percentile": { "percentile": 25.0, "n_min_trials": 3 } });
        let PrunerConfig::Percentile(options) = serde_json::from_value(given).unwrap() else { unreachable!() };
        assert_eq!(options.others, MedianOptions { n_min_trials: 3, ..MedianOptions::default() });
    }
}
