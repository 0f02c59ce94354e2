//! [`TpeSampler`]: the tree-structured Parzen estimator.

mod parzen;
mod truncnorm;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::parzen::Parzen;
use super::random::draw;
use super::sampler::{Draw, Rng, Sampler, generator};
use crate::distribution::Distribution;
use crate::error::{Result, SearchError};
use crate::space::SearchSpace;
use crate::trial::{Direction, Trial, TrialState};
use crate::view::View;

/// The options of a [`TpeSampler`], with Optuna's names and defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TpeOptions {
    /// How many trials must have ended before the estimator is used; those before are random.
    pub n_startup_trials: usize,
    /// How many candidates the best is chosen of.
    pub n_ei_candidates: usize,
    /// The seed; without one, each search is another.
    pub seed: Option<u64>,
    /// Whether parameters are drawn together, as they depend on each other.
    pub multivariate: bool,
    /// Whether trials that run count as bad ones, so that several at once do not try the same.
    pub constant_liar: bool,
}

impl Default for TpeOptions {
    fn default() -> TpeOptions {
        TpeOptions { n_startup_trials: 10, n_ei_candidates: 24, seed: None, multivariate: true, constant_liar: true }
    }
}

/// Draws where good trials lie more densely than others (Bergstra et al. 2011, Watanabe 2023): Optuna's `TPESampler` for one
/// objective.
#[derive(Debug, Clone)]
pub struct TpeSampler {
    options: TpeOptions,
}

/// The good trials and the others, by number.
struct Split<'a> {
    below: Vec<&'a Trial>,
    above: Vec<&'a Trial>,
}

/// Two densities of the same parameters, of the good trials and of the others.
struct Densities {
    below: Parzen,
    above: Parzen,
}

impl TpeSampler {
    /// A sampler with these options.
    ///
    /// # Errors
    ///
    /// Fails if there are no candidates.
    pub fn new(options: TpeOptions) -> Result<TpeSampler> {
        if options.n_ei_candidates == 0 {
            return Err(SearchError::Options("`n_ei_candidates` is 0; it must be at least 1".into()));
        }
        Ok(TpeSampler { options })
    }

    /// `log l(x) − log g(x)` of candidates, each with a value for every parameter of `space`: how much more likely each is among
    /// the good trials. A trial is drawn where this is largest.
    pub fn acquisition(
        &self,
        study: &View<'_>,
        trial: &Trial,
        space: &SearchSpace,
        candidates: &[Vec<f64>],
    ) -> Vec<f64> {
        self.densities(study, trial, space).acquisition(candidates)
    }

    fn densities(&self, study: &View<'_>, trial: &Trial, space: &SearchSpace) -> Densities {
        let Split { below, above } = self.split(study, trial);
        let estimate = |trials: Vec<&Trial>| Parzen::new(&observations(&trials, space), space);
        Densities { below: estimate(below), above: estimate(above) }
    }

    fn split<'a>(&self, study: &View<'a>, trial: &Trial) -> Split<'a> {
        let others = || study.trials.iter().copied().filter(|other| other.id != trial.id);
        let of = |state| others().filter(move |other| other.state == state);
        let (mut complete, mut pruned): (Vec<&Trial>, Vec<&Trial>) =
            (of(TrialState::Complete).collect(), of(TrialState::Pruned).collect());
        // As Optuna computes it: of 70 trials 8, by rounding.
        let good = ((0.1 * (complete.len() + pruned.len()) as f64).ceil() as usize).min(25);
        let value = |trial: &Trial| study.direction.minimized(trial.value.unwrap_or(f64::NAN));
        complete.sort_by(|a, b| value(a).total_cmp(&value(b)));
        pruned.sort_by(|a, b| {
            let (a, b) = (pruned_score(a, study.direction), pruned_score(b, study.direction));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        let of_complete = good.min(complete.len());
        let of_pruned = (good - of_complete).min(pruned.len());
        let above = [complete.split_off(of_complete), pruned.split_off(of_pruned)].concat();
        let (mut below, mut above) = ([complete, pruned].concat(), above);
        if self.options.constant_liar {
            above.extend(of(TrialState::Running));
        }
        below.sort_by_key(|trial| trial.number);
        above.sort_by_key(|trial| trial.number);
        Split { below, above }
    }

    fn best(&self, study: &View<'_>, trial: &Trial, space: &SearchSpace, rng: &mut Rng) -> Draw {
        let densities = self.densities(study, trial, space);
        let candidates: Vec<Vec<f64>> =
            (0..self.options.n_ei_candidates).map(|_| densities.below.sample(rng)).collect();
        let gains = densities.acquisition(&candidates);
        // The first of equal ones.
        let best = (0..gains.len()).rev().max_by(|a, b| gains[*a].total_cmp(&gains[*b])).unwrap_or_default();
        space.names().map(str::to_owned).zip(candidates[best].iter().copied()).collect()
    }
}

impl Densities {
    fn acquisition(&self, candidates: &[Vec<f64>]) -> Vec<f64> {
        candidates.iter().map(|x| self.below.log_density(x) - self.above.log_density(x)).collect()
    }
}

impl Sampler for TpeSampler {
    fn sample(&mut self, study: &View<'_>, trial: &Trial, space: &SearchSpace) -> Result<Option<Draw>> {
        let mut rng = generator(self.options.seed, trial.number);
        let ended = |trial: &&&Trial| matches!(trial.state, TrialState::Complete | TrialState::Pruned);
        let ended: Vec<&Trial> = study.trials.iter().filter(ended).copied().collect();
        if ended.len() < self.options.n_startup_trials {
            return Ok(Some(space.iter().map(|(name, of)| (name.to_owned(), draw(of, &mut rng))).collect()));
        }
        // What only some trials have, for example because the space has grown, is drawn by itself.
        let in_all = |name: &str| ended.iter().all(|trial| trial.param(name).is_some());
        let mut together = SearchSpace::new();
        let mut drawn: Draw = Vec::new();
        for (name, of) in space.iter() {
            let alone = SearchSpace::new().with(name, of.clone());
            match of {
                _ if of.is_single() => drawn.push((name.to_owned(), draw(of, &mut rng))),
                _ if self.options.multivariate && in_all(name) => together = together.with(name, of.clone()),
                _ => drawn.extend(self.best(study, trial, &alone, &mut rng)),
            }
        }
        if !together.is_empty() {
            drawn.extend(self.best(study, trial, &together, &mut rng));
        }
        let place = |name: &str| space.names().position(|other| other == name);
        drawn.sort_by_key(|(name, _)| place(name));
        Ok(Some(drawn))
    }
}

/// Trials that got further come first, and of these the better. One that reported nothing comes last.
fn pruned_score(trial: &Trial, direction: Direction) -> (i64, f64) {
    match trial.last() {
        Some((step, value)) if value.is_nan() => (0i64.saturating_sub(step), f64::INFINITY),
        Some((step, value)) => (0i64.saturating_sub(step), direction.minimized(value)),
        None => (1, 0.0),
    }
}

/// The internal values of the trials that have every parameter of the space, a row for each.
fn observations(trials: &[&Trial], space: &SearchSpace) -> Vec<Vec<f64>> {
    let row = |trial: &&Trial| {
        let relative = relative_params(trial);
        let value = |(name, of): (&str, &Distribution)| match (trial.param(name), relative.get(name)) {
            (Some(param), _) => of.internal(&param.value()).or(Some(param.internal)),
            (None, Some(value)) => of.internal(value),
            (None, None) => None,
        };
        space.iter().map(value).collect::<Option<Vec<f64>>>()
    };
    trials.iter().filter_map(row).collect()
}

/// What an Optuna process has drawn for a trial that runs, and sets one after the other.
fn relative_params(trial: &Trial) -> Map<String, Value> {
    if trial.state != TrialState::Running {
        return Map::new();
    }
    let part = |index: usize| trial.system_attrs.get(&format!("tpe:relative_params:{index}"))?.as_str();
    let text: String = (0..).map_while(part).collect();
    serde_json::from_str(&text).unwrap_or_default()
}
