//! [`Parzen`]: the density of observations, a kernel around each.

use rand::RngExt;

use super::super::random::on_grid;
use super::super::sampler::Rng;
use super::truncnorm::{log_density, log_mass, quantile};
use crate::distribution::Distribution;
use crate::space::SearchSpace;

/// A mixture of products: each observation is a kernel with a factor for every parameter, and one more is the prior.
pub(super) struct Parzen {
    weights: Vec<f64>,
    factors: Vec<Factor>,
}

/// The kernels of one parameter.
enum Factor {
    Numbers(Numbers),
    /// The probability of each choice, by kernel.
    Choices(Vec<Vec<f64>>),
}

struct Numbers {
    mus: Vec<f64>,
    sigmas: Vec<f64>,
    low: f64,
    high: f64,
    is_log: bool,
    step: Option<f64>,
}

impl Parzen {
    pub(super) fn new(observations: &[Vec<f64>], space: &SearchSpace) -> Parzen {
        let mut weights = weights(observations.len());
        weights.push(1.0);
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        let column = |index: usize| observations.iter().map(|row| row[index]).collect::<Vec<f64>>();
        let factors = space.iter().enumerate().map(|(index, (_, of))| Factor::new(&column(index), of));
        Parzen { weights, factors: factors.collect() }
    }

    pub(super) fn sample(&self, rng: &mut Rng) -> Vec<f64> {
        let kernel = pick(&self.weights, rng);
        self.factors.iter().map(|factor| factor.sample(kernel, rng)).collect()
    }

    pub(super) fn log_density(&self, x: &[f64]) -> f64 {
        let of_kernel = |(kernel, weight): (usize, &f64)| {
            let factors = self.factors.iter().zip(x).map(|(factor, x)| factor.log_density(kernel, *x));
            factors.sum::<f64>() + weight.ln()
        };
        let logs: Vec<f64> = self.weights.iter().enumerate().map(of_kernel).collect();
        let max = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let max = if max == f64::NEG_INFINITY { 0.0 } else { max };
        logs.iter().map(|log| (log - max).exp()).sum::<f64>().ln() + max
    }
}

/// Old observations count less, once there are more than 25.
fn weights(count: usize) -> Vec<f64> {
    const RECENT: usize = 25;
    let Some(old) = count.checked_sub(RECENT) else { return vec![1.0; count] };
    let first = 1.0 / count as f64;
    let ramp = (0..old).map(|index| match old {
        1 => first,
        _ => first + (1.0 - first) * index as f64 / (old - 1) as f64,
    });
    ramp.chain([1.0; RECENT]).collect()
}

/// An index, each with its weight.
fn pick(weights: &[f64], rng: &mut Rng) -> usize {
    let mut rest = rng.random::<f64>();
    for (index, weight) in weights.iter().enumerate() {
        rest -= weight;
        if rest < 0.0 {
            return index;
        }
    }
    weights.len() - 1
}

impl Factor {
    fn new(observed: &[f64], of: &Distribution) -> Factor {
        match of {
            Distribution::Categorical { choices } => Factor::Choices(choice_kernels(observed, choices.len())),
            Distribution::Float { low, high, log, step } => {
                Factor::Numbers(Numbers::new(observed, *low, *high, *log, *step))
            }
            Distribution::Int { low, high, log, step } => {
                Factor::Numbers(Numbers::new(observed, *low as f64, *high as f64, *log, Some(*step as f64)))
            }
        }
    }

    fn sample(&self, kernel: usize, rng: &mut Rng) -> f64 {
        match self {
            Factor::Choices(kernels) => pick(&kernels[kernel], rng) as f64,
            Factor::Numbers(numbers) => numbers.sample(kernel, rng),
        }
    }

    fn log_density(&self, kernel: usize, x: f64) -> f64 {
        match self {
            Factor::Choices(kernels) => kernels[kernel].get(x as usize).map_or(f64::NEG_INFINITY, |p| p.ln()),
            Factor::Numbers(numbers) => numbers.log_density(kernel, x),
        }
    }
}

/// An observation makes its choice more likely, and the prior all alike.
fn choice_kernels(observed: &[f64], choices: usize) -> Vec<Vec<f64>> {
    let kernels = observed.len() + 1;
    let prior = 1.0 / kernels as f64;
    let kernel = |chosen: Option<&f64>| {
        let mut row = vec![prior; choices];
        if let Some(weight) = chosen.and_then(|chosen| row.get_mut(*chosen as usize)) {
            *weight += 1.0;
        }
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|weight| *weight /= sum);
        row
    };
    observed.iter().map(Some).chain([None]).map(kernel).collect()
}

impl Numbers {
    fn new(observed: &[f64], low: f64, high: f64, is_log: bool, step: Option<f64>) -> Numbers {
        let scale = |value: f64| if is_log { value.ln() } else { value };
        let half = step.unwrap_or(0.0) / 2.0;
        let (first, last) = (scale(low - half), scale(high + half));
        let mut mus: Vec<f64> = observed.iter().map(|value| scale(*value)).collect();
        let mut sigmas = sigmas(&mus, first, last);
        mus.push(0.5 * (first + last));
        sigmas.push(last - first);
        Numbers { mus, sigmas, low, high, is_log, step }
    }

    /// The ends of what is drawn from.
    fn ends(&self) -> (f64, f64) {
        let half = self.step.unwrap_or(0.0) / 2.0;
        (self.scale(self.low - half), self.scale(self.high + half))
    }

    fn scale(&self, value: f64) -> f64 {
        if self.is_log { value.ln() } else { value }
    }

    fn sample(&self, kernel: usize, rng: &mut Rng) -> f64 {
        let (mu, sigma, (first, last)) = (self.mus[kernel], self.sigmas[kernel], self.ends());
        let value = quantile(rng.random(), (first - mu) / sigma, (last - mu) / sigma) * sigma + mu;
        let value = if self.is_log { value.exp() } else { value };
        match self.step {
            Some(step) => on_grid(value, self.low, self.high, step),
            None => value.clamp(self.low, self.high),
        }
    }

    fn log_density(&self, kernel: usize, x: f64) -> f64 {
        let (mu, sigma, (first, last)) = (self.mus[kernel], self.sigmas[kernel], self.ends());
        let unit = |value: f64| (value - mu) / sigma;
        match self.step {
            Some(step) => {
                let (left, right) = (self.scale(x - step / 2.0), self.scale(x + step / 2.0));
                log_mass(unit(left), unit(right)) - log_mass(unit(first), unit(last))
            }
            None => log_density(unit(self.scale(x)), unit(first), unit(last)) - sigma.ln(),
        }
    }
}

/// The width of each kernel: the larger distance to a neighbour, within bounds that shrink as kernels become more.
fn sigmas(mus: &[f64], low: f64, high: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..mus.len()).collect();
    order.sort_by(|a, b| mus[*a].total_cmp(&mus[*b]));
    let sorted: Vec<f64> = [low].into_iter().chain(order.iter().map(|at| mus[*at])).chain([high]).collect();
    let kernels = mus.len() + 1;
    let smallest = (high - low) / 100f64.min(1.0 + kernels as f64);
    let mut widths = vec![0.0; mus.len()];
    for (rank, at) in order.into_iter().enumerate() {
        let (left, right) = (sorted[rank + 1] - sorted[rank], sorted[rank + 2] - sorted[rank + 1]);
        // The ends of the range are no neighbours, unless there are no others.
        let width = match mus.len() {
            0 | 1 => left.max(right),
            _ if rank == 0 => right,
            count if rank + 1 == count => left,
            _ => left.max(right),
        };
        widths[at] = width.clamp(smallest, high - low);
    }
    widths
}
