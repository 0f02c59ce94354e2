//! [`GridSampler`].

use serde_json::Value;

use super::sampler::{Draw, Sampler};
use crate::distribution::Distribution;
use crate::error::{Result, SearchError};
use crate::space::SearchSpace;
use crate::trial::{Trial, TrialState};
use crate::view::View;

/// More would never end.
const MAX_COMBINATIONS: usize = 1_000_000;

/// Tries every combination once, the last parameter changing first: Optuna's `GridSampler`, whose order is by chance.
#[derive(Debug, Clone)]
pub struct GridSampler {
    /// The internal values of each parameter.
    axes: Vec<(String, Vec<f64>)>,
    /// The combination that was chosen last.
    chosen: Option<usize>,
}

const GRID_ID: &str = "grid_id";

impl GridSampler {
    /// The grid of a space.
    ///
    /// # Errors
    ///
    /// Fails if a parameter is a number without `step`, of which there are too many values, or if there are more than a million
    /// combinations.
    pub fn new(space: &SearchSpace) -> Result<GridSampler> {
        let axes: Vec<(String, Vec<f64>)> =
            space.iter().map(|(name, of)| Ok((name.to_owned(), values(name, of)?))).collect::<Result<_>>()?;
        let combinations = axes.iter().try_fold(1usize, |product, (_, values)| product.checked_mul(values.len()));
        match combinations {
            Some(..=MAX_COMBINATIONS) => Ok(GridSampler { axes, chosen: None }),
            _ => Err(SearchError::Options(format!(
                "the grid has more than {MAX_COMBINATIONS} combinations: use a larger `step`, or the sampler `tpe` or `random`"
            ))),
        }
    }

    /// How many combinations there are.
    pub fn combinations(&self) -> usize {
        self.axes.iter().map(|(_, values)| values.len()).product()
    }

    fn combination(&self, mut index: usize) -> Draw {
        let mut draw: Draw = Vec::with_capacity(self.axes.len());
        for (name, values) in self.axes.iter().rev() {
            draw.push((name.clone(), values[index % values.len()]));
            index /= values.len();
        }
        draw.reverse();
        draw
    }
}

impl Sampler for GridSampler {
    fn sample(&mut self, study: &View<'_>, trial: &Trial, _: &SearchSpace) -> Result<Option<Draw>> {
        // One that failed is not tried again, or a combination that always does would never end.
        let others = study.trials.iter().filter(|other| other.id != trial.id && other.state != TrialState::Waiting);
        let taken = |other: &&Trial| other.system_attrs.get(GRID_ID).and_then(Value::as_u64);
        let mut taken: Vec<u64> = others.filter_map(taken).collect();
        taken.sort_unstable();
        self.chosen = (0..self.combinations()).find(|index| taken.binary_search(&(*index as u64)).is_err());
        Ok(self.chosen.map(|index| self.combination(index)))
    }

    fn notes(&self) -> Vec<(String, Value)> {
        self.chosen.map(|index| (GRID_ID.to_owned(), index.into())).into_iter().collect()
    }
}

fn values(name: &str, of: &Distribution) -> Result<Vec<f64>> {
    let steps = |low: f64, high: f64, step: f64| {
        let count = ((high - low) / step).round() as usize;
        (0..=count.min(MAX_COMBINATIONS)).map(|index| (low + index as f64 * step).min(high)).collect()
    };
    match *of {
        Distribution::Float { low, high, step: Some(step), .. } => Ok(steps(low, high, step)),
        Distribution::Float { low, high, .. } if low == high => Ok(vec![low]),
        Distribution::Float { .. } => Err(SearchError::Space {
            name: name.to_owned(),
            problem: "a grid needs a `step` for numbers that are not whole, or `choice: [a, b, …]`".into(),
        }),
        Distribution::Int { low, high, step, .. } => Ok(steps(low as f64, high as f64, step as f64)),
        Distribution::Categorical { ref choices } => Ok((0..choices.len()).map(|index| index as f64).collect()),
    }
}
