//! Successive halving and Hyperband.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::verdict::{Verdict, at_least};
use crate::error::{Result, SearchError};
use crate::journal::as_number;
use crate::trial::{Direction, Trial, TrialState};
use crate::view::View;

/// The options of successive halving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HalvingOptions {
    /// The first step at which trials are judged; without it, a hundredth of what the first complete trials have reached.
    pub min_resource: Option<i64>,
    /// Only one of so many goes on.
    pub reduction_factor: i64,
    /// How many times later than `min_resource` the first judgement is, as a power of the factor.
    pub min_early_stopping_rate: u32,
    /// How many trials must have reached a judgement before any goes on from it.
    pub bootstrap_count: usize,
}

impl Default for HalvingOptions {
    fn default() -> HalvingOptions {
        HalvingOptions { min_resource: None, reduction_factor: 4, min_early_stopping_rate: 0, bootstrap_count: 0 }
    }
}

/// The options of Hyperband.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HyperbandOptions {
    /// The first step of the bracket that judges earliest.
    pub min_resource: i64,
    /// The last step of a trial plus one; without it, that of the first complete trials.
    pub max_resource: Option<i64>,
    /// Only one of so many goes on.
    pub reduction_factor: i64,
    /// How many trials must have reached a judgement before any goes on from it.
    pub bootstrap_count: usize,
}

impl Default for HyperbandOptions {
    fn default() -> HyperbandOptions {
        HyperbandOptions { min_resource: 1, max_resource: None, reduction_factor: 3, bootstrap_count: 0 }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Halving(HalvingOptions);

impl Halving {
    pub(super) fn new(options: &HalvingOptions) -> Result<Halving> {
        at_least("reduction_factor", options.reduction_factor, 2)?;
        options.min_resource.map_or(Ok(()), |least| at_least("min_resource", least, 1))?;
        if options.bootstrap_count > 0 && options.min_resource.is_none() {
            return Err(SearchError::Options("`bootstrap_count` needs `min_resource`".into()));
        }
        Ok(Halving(options.clone()))
    }

    /// A rung is a step at which trials are judged. What a trial had there is noted, for those that come later.
    pub(super) fn judge(&mut self, trials: &[&Trial], direction: Direction, trial: &Trial) -> Verdict {
        let mut verdict = Verdict::from(false);
        let Some((step, value)) = trial.last() else { return verdict };
        let mut rung = (0..).find(|rung| !trial.system_attrs.contains_key(&rung_key(*rung))).unwrap_or(0);
        let Some(min_resource) = self.0.min_resource.or_else(|| estimated_min_resource(trials)) else { return verdict };
        // Once estimated it stays, or rungs would move.
        self.0.min_resource = Some(min_resource);
        loop {
            let times = self.0.reduction_factor.checked_pow(self.0.min_early_stopping_rate.saturating_add(rung));
            let Some(at) = times.and_then(|times| min_resource.checked_mul(times)) else { return verdict };
            if step < at {
                return verdict;
            }
            if value.is_nan() {
                return Verdict { prune: true, ..verdict };
            }
            verdict.notes.push((rung_key(rung), value));
            let of_others = trials.iter().filter(|other| other.id != trial.id);
            let mut values: Vec<f64> =
                of_others.filter_map(|other| as_number(other.system_attrs.get(&rung_key(rung))?)).collect();
            values.push(value);
            if values.len() <= self.0.bootstrap_count || !goes_on(value, values, self.0.reduction_factor, direction) {
                return Verdict { prune: true, ..verdict };
            }
            rung += 1;
        }
    }
}

/// Whether a value is among the best part of those at its rung.
fn goes_on(value: f64, mut values: Vec<f64>, reduction_factor: i64, direction: Direction) -> bool {
    values.sort_by(f64::total_cmp);
    let last = (values.len() / reduction_factor as usize).saturating_sub(1);
    match direction {
        Direction::Maximize => value >= values[values.len() - 1 - last],
        Direction::Minimize => value <= values[last],
    }
}

fn rung_key(rung: u32) -> String {
    format!("completed_rung_{rung}")
}

fn last_step_of_complete(trials: &[&Trial]) -> Option<i64> {
    let complete = trials.iter().filter(|trial| trial.state == TrialState::Complete);
    complete.filter_map(|trial| trial.last().map(|(step, _)| step)).max()
}

fn estimated_min_resource(trials: &[&Trial]) -> Option<i64> {
    last_step_of_complete(trials).map(|last| (last.div_euclid(100)).max(1))
}

#[derive(Debug, Clone)]
pub(super) struct Hyperband {
    options: HyperbandOptions,
    /// Of each the pruner, and how many trials it gets of all. Empty until the last step is known.
    brackets: Vec<(Halving, u64)>,
}

impl Hyperband {
    pub(super) fn new(options: &HyperbandOptions) -> Result<Hyperband> {
        at_least("reduction_factor", options.reduction_factor, 2)?;
        at_least("min_resource", options.min_resource, 1)?;
        options.max_resource.map_or(Ok(()), |most| at_least("max_resource", most, options.min_resource))?;
        if options.bootstrap_count > 0 && options.max_resource.is_none() {
            return Err(SearchError::Options("`bootstrap_count` needs `max_resource`".into()));
        }
        Ok(Hyperband { options: options.clone(), brackets: Vec::new() })
    }

    pub(super) fn judge(&mut self, study: &View<'_>, trial: &Trial) -> Verdict {
        if self.brackets.is_empty() {
            let last = || last_step_of_complete(&study.trials).map(|last| last.saturating_add(1));
            let Some(max_resource) = self.options.max_resource.or_else(last) else { return false.into() };
            self.brackets = self.brackets(max_resource);
        }
        let own = self.bracket_of(study.name, trial.number);
        let others: Vec<&Trial> =
            study.trials.iter().copied().filter(|other| self.bracket_of(study.name, other.number) == own).collect();
        match self.brackets.get_mut(own) {
            Some((halving, _)) => halving.judge(&others, study.direction, trial),
            None => false.into(),
        }
    }

    fn brackets(&self, max_resource: i64) -> Vec<(Halving, u64)> {
        let HyperbandOptions { min_resource, reduction_factor, bootstrap_count, .. } = self.options;
        let ratio = (max_resource as f64 / min_resource as f64).max(1.0);
        let count = (ratio.ln() / (reduction_factor as f64).ln()).floor() as u32 + 1;
        let bracket = |bracket: u32| {
            let halvings = count - 1 - bracket;
            let trials = f64::from(count) * (reduction_factor as f64).powi(halvings as i32) / f64::from(halvings + 1);
            let options = HalvingOptions {
                min_resource: Some(min_resource),
                reduction_factor,
                min_early_stopping_rate: bracket,
                bootstrap_count,
            };
            (Halving(options), trials.ceil() as u64)
        };
        (0..count).map(bracket).collect()
    }

    /// Trials are spread over the brackets by a hash, so that all processes agree.
    fn bracket_of(&self, study: &str, number: usize) -> usize {
        let all: u128 = self.brackets.iter().map(|(_, trials)| u128::from(*trials)).sum();
        let mut place = u64::from(crc32fast::hash(format!("{study}_{number}").as_bytes()));
        // A larger number than the hash leaves it as it is.
        if u128::from(place) >= all {
            place %= (all as u64).max(1);
        }
        for (bracket, (_, trials)) in self.brackets.iter().enumerate() {
            match place.checked_sub(*trials) {
                Some(rest) => place = rest,
                None => return bracket,
            }
        }
        0
    }
}
