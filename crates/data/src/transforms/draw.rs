//! Random numbers of transforms. They are made of the generator's bits here, so that a new version of a dependency does not
//! change what a run draws.

use std::f64::consts::TAU;

use super::functional::setting;
use crate::seed::{below, shuffle, unit};
use crate::{DataError, ItemRng};

/// A range of a parameter: a pair is its ends, and what a single number means is said by each transform.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Interval {
    /// A single number.
    Single(f64),
    /// The lowest and the highest value.
    Between(f64, f64),
}

impl From<f64> for Interval {
    fn from(number: f64) -> Interval {
        Interval::Single(number)
    }
}

impl From<(f64, f64)> for Interval {
    fn from((low, high): (f64, f64)) -> Interval {
        Interval::Between(low, high)
    }
}

impl From<[f64; 2]> for Interval {
    fn from([low, high]: [f64; 2]) -> Interval {
        Interval::Between(low, high)
    }
}

impl Interval {
    /// The ends, where a single number `x` stands for `around(x)`. They are within `bounds` and in order.
    pub(crate) fn ends(
        self,
        around: impl Fn(f64) -> (f64, f64),
        bounds: (f64, f64),
        name: &str,
    ) -> Result<(f64, f64), DataError> {
        let (low, high) = match self {
            Interval::Single(number) if number.is_nan() || number < 0.0 => {
                return setting(format!("{name} was given {number}; a single number is 0 or more"));
            }
            Interval::Single(number) => around(number),
            Interval::Between(low, high) => (low, high),
        };
        if bounds.0 <= low && low <= high && high <= bounds.1 {
            return Ok((low, high));
        }
        setting(format!("{name} was given the range from {low} to {high}; it lies within {bounds:?}, in order"))
    }

    /// [`ends`](Interval::ends) of a range where a single number means from minus itself to itself.
    pub(crate) fn symmetric(self, name: &str) -> Result<(f64, f64), DataError> {
        self.ends(|most| (-most, most), (f64::MIN, f64::MAX), name)
    }
}

/// A number between `low` and `high`.
pub(crate) fn uniform(rng: &mut ItemRng, (low, high): (f64, f64)) -> f64 {
    low + (high - low) * (1.0 - unit(rng))
}

/// One of `0..n`. `n` is above 0.
pub(crate) fn index(rng: &mut ItemRng, n: i64) -> i64 {
    below(rng, n.max(1) as u64) as i64
}

/// `true` with the probability `p`.
pub(crate) fn happens(rng: &mut ItemRng, p: f64, name: &str) -> Result<bool, DataError> {
    if !(0.0..=1.0).contains(&p) {
        return setting(format!("{name} was given the probability {p}; it is between 0 and 1"));
    }
    Ok(1.0 - unit(rng) < p)
}

/// `0..N` in a random order.
pub(crate) fn permutation(rng: &mut ItemRng, n: usize) -> Vec<usize> {
    let mut order = Vec::from_iter(0..n);
    shuffle(&mut order, rng);
    order
}

/// A number of the standard normal distribution (Box and Muller).
pub(crate) fn normal(rng: &mut ItemRng) -> f64 {
    (-2.0 * unit(rng).ln()).sqrt() * (TAU * unit(rng)).cos()
}

/// A number of the distribution Beta(`alpha`, `alpha`): `x / (x + y)` of two numbers of Gamma(`alpha`, 1), whose logarithms
/// do not vanish where `alpha` is small.
pub(crate) fn beta(rng: &mut ItemRng, alpha: f64) -> f64 {
    let (x, y) = (ln_gamma_variate(rng, alpha), ln_gamma_variate(rng, alpha));
    1.0 / (1.0 + (y - x).exp())
}

/// The logarithm of a number of Gamma(`shape`, 1) (Marsaglia and Tsang, "A simple method for generating gamma variables").
fn ln_gamma_variate(rng: &mut ItemRng, shape: f64) -> f64 {
    if shape < 1.0 {
        return ln_gamma_variate(rng, shape + 1.0) + unit(rng).ln() / shape;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && unit(rng).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d.ln() + v.ln();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{Purpose, generator};

    const DRAWS: usize = 40_000;

    fn moments(mut draw: impl FnMut(&mut ItemRng) -> f64) -> (f64, f64) {
        let mut rng = generator(7, 0, Purpose::Item);
        let all = Vec::from_iter((0..DRAWS).map(|_| draw(&mut rng)));
        let mean = all.iter().sum::<f64>() / DRAWS as f64;
        (mean, all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / DRAWS as f64)
    }

    #[track_caller]
    fn near(found: (f64, f64), mean: f64, variance: f64) {
        let close = |x: f64, y: f64| (x - y).abs() < 0.02 * (1.0 + y.abs());
        assert!(close(found.0, mean) && close(found.1, variance), "{found:?}, not {mean} and {variance}");
    }

    #[test]
    fn distributions_have_their_moments() {
        near(moments(|rng| uniform(rng, (-1.0, 3.0))), 1.0, 16.0 / 12.0);
        near(moments(normal), 0.0, 1.0);
        for shape in [0.3, 1.0, 4.5] {
            near(moments(|rng| ln_gamma_variate(rng, shape).exp()), shape, shape);
        }
        for alpha in [0.2, 1.0, 8.0] {
            near(moments(|rng| beta(rng, alpha)), 0.5, 1.0 / (4.0 * (2.0 * alpha + 1.0)));
        }
        let mut rng = generator(7, 0, Purpose::Item);
        let extreme = Vec::from_iter((0..100).map(|_| beta(&mut rng, 1e-6)));
        assert!(extreme.iter().all(|x| *x < 1e-6 || *x > 1.0 - 1e-6), "{extreme:?}");
    }

    #[test]
    fn ranges_are_checked() {
        let ends =
            |interval: Interval| interval.ends(|x| (1.0 - x, 1.0 + x), (0.0, 2.0), "Thing").map_err(|e| e.to_string());
        assert_eq!(ends(0.5.into()), Ok((0.5, 1.5)));
        assert_eq!(ends((0.25, 2.0).into()), Ok((0.25, 2.0)));
        assert_eq!(ends((-0.5).into()), Err("Thing was given -0.5; a single number is 0 or more".into()));
        let outside = "Thing was given the range from 1 to 0; it lies within (0.0, 2.0), in order";
        assert_eq!(ends([1.0, 0.0].into()), Err(outside.into()));
    }
}
