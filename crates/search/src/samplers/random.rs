//! [`RandomSampler`].

use rand::RngExt;

use super::sampler::{Draw, Rng, Sampler, generator};
use crate::distribution::Distribution;
use crate::error::Result;
use crate::space::SearchSpace;
use crate::trial::Trial;
use crate::view::View;

/// Draws every parameter by itself: Optuna's `RandomSampler`.
#[derive(Debug, Clone)]
pub struct RandomSampler {
    seed: Option<u64>,
}

impl RandomSampler {
    /// With a seed, the parameters of a trial depend on it and on the trial's number alone.
    pub fn new(seed: Option<u64>) -> RandomSampler {
        RandomSampler { seed }
    }
}

impl Sampler for RandomSampler {
    fn sample(&mut self, _: &View<'_>, trial: &Trial, space: &SearchSpace) -> Result<Option<Draw>> {
        let mut rng = generator(self.seed, trial.number);
        Ok(Some(space.iter().map(|(name, of)| (name.to_owned(), draw(of, &mut rng))).collect()))
    }
}

/// A uniform internal value.
pub(super) fn draw(of: &Distribution, rng: &mut Rng) -> f64 {
    let mut between = |low: f64, high: f64| low + (high - low) * rng.random::<f64>();
    match *of {
        Distribution::Float { low, high, log: true, .. } => between(low.ln(), high.ln()).exp().clamp(low, high),
        Distribution::Float { low, high, step: Some(step), .. } => {
            let value = between(low - step / 2.0, high + step / 2.0);
            on_grid(value, low, high, step)
        }
        Distribution::Float { low, high, .. } => between(low, high),
        Distribution::Int { low, high, log, step } => {
            let (low, high, step) = (low as f64, high as f64, step as f64);
            let (first, last) = (low - step / 2.0, high + step / 2.0);
            let value = if log { between(first.ln(), last.ln()).exp() } else { between(first, last) };
            on_grid(value, low, high, step)
        }
        Distribution::Categorical { ref choices } => {
            between(0.0, choices.len() as f64).floor().min(choices.len() as f64 - 1.0)
        }
    }
}

/// The nearest value of a grid.
pub(super) fn on_grid(value: f64, low: f64, high: f64, step: f64) -> f64 {
    // Halves go to even numbers, as in NumPy.
    (low + ((value - low) / step).round_ties_even() * step).clamp(low, high)
}
