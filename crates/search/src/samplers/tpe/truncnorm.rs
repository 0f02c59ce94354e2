//! The normal distribution cut off at both sides, by logarithms, so that far tails keep their digits.

use std::f64::consts::{PI, SQRT_2};

/// `ln √(2π)`.
const LOG_SQRT_2_PI: f64 = 0.918_938_533_204_672_8;

/// The probability of values below `x`.
fn ndtr(x: f64) -> f64 {
    0.5 + 0.5 * libm::erf(x / SQRT_2)
}

/// The logarithm of the probability of values below `x`.
fn log_ndtr(x: f64) -> f64 {
    if x > 6.0 {
        return -0.5 * libm::erfc(x / SQRT_2);
    }
    if x > -20.0 {
        let x = x / SQRT_2;
        let probability = match x {
            _ if x < -1.0 / SQRT_2 => 0.5 * libm::erfc(-x),
            _ if x < 1.0 / SQRT_2 => 0.5 + 0.5 * libm::erf(x),
            _ => 1.0 - 0.5 * libm::erfc(x),
        };
        return probability.ln();
    }
    // The asymptotic series.
    let (mut sum, mut term, mut last) = (1.0, 1.0, 0.0f64);
    for n in 1..100 {
        if (sum - last).abs() <= f64::EPSILON {
            break;
        }
        last = sum;
        term *= -f64::from(2 * n - 1) / (x * x);
        sum += term;
    }
    -0.5 * x * x - (-x).ln() - LOG_SQRT_2_PI + sum.ln()
}

/// The logarithm of the probability of values between `a` and `b`.
pub(super) fn log_mass(a: f64, b: f64) -> f64 {
    let left_of_0 = |a: f64, b: f64| {
        let (low, high) = (log_ndtr(a), log_ndtr(b));
        high + (-(low - high).exp()).ln_1p()
    };
    match (a, b) {
        _ if b <= 0.0 => left_of_0(a, b),
        _ if a > 0.0 => left_of_0(-b, -a),
        _ => (-ndtr(a) - ndtr(-b)).ln_1p(),
    }
}

/// The logarithm of the density at `x` of the normal distribution between `a` and `b`, all in units of the deviation.
pub(super) fn log_density(x: f64, a: f64, b: f64) -> f64 {
    if !(a..=b).contains(&x) {
        return f64::NEG_INFINITY;
    }
    -x * x / 2.0 - LOG_SQRT_2_PI - log_mass(a, b)
}

/// The value below which the part `q` of the distribution between `a` and `b` lies.
pub(super) fn quantile(q: f64, a: f64, b: f64) -> f64 {
    match q {
        0.0 => return a,
        1.0 => return b,
        _ => {}
    }
    let mass = log_mass(a, b);
    let log_sum = |x: f64, y: f64| {
        let (low, high) = (x.min(y), x.max(y));
        high + (low - high).exp().ln_1p()
    };
    let x = if a < 0.0 {
        inverse_log_ndtr(log_sum(log_ndtr(a), q.ln() + mass))
    } else {
        -inverse_log_ndtr(log_sum(log_ndtr(-b), (-q).ln_1p() + mass))
    };
    x.clamp(a, b)
}

/// The inverse of [`log_ndtr`], by Newton's method.
fn inverse_log_ndtr(y: f64) -> f64 {
    let is_flipped = y > -0.01;
    let z = if is_flipped { (-y.exp_m1()).ln() } else { y };
    let mut x = match z {
        ..-5.0 => -(-2.0 * (z + LOG_SQRT_2_PI)).sqrt(),
        _ => -(3f64.sqrt() / PI) * (-z).exp_m1().ln(),
    };
    for _ in 0..100 {
        let log_probability = log_ndtr(x);
        let log_density = -0.5 * x * x - LOG_SQRT_2_PI;
        let change = (log_probability - z) * (log_probability - log_density).exp();
        x -= change;
        if change.abs() < 1e-8 * x.abs() {
            break;
        }
    }
    if is_flipped { -x } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of SciPy's `truncnorm` and `log_ndtr`.
    #[test]
    fn known_values() {
        let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-10 * b.abs().max(1.0), "{a} {b}");
        near(log_ndtr(-30.0), -454.321_243_938_5);
        near(log_ndtr(0.0), 0.5f64.ln());
        near(log_mass(-1.0, 1.0), 0.682_689_492_137_085_9f64.ln());
        near(log_density(0.0, -1.0, 1.0), -LOG_SQRT_2_PI - 0.682_689_492_137_085_9f64.ln());
        assert_eq!(log_density(2.0, -1.0, 1.0), f64::NEG_INFINITY);
    }

    #[test]
    fn quantiles_invert_probabilities() {
        for (a, b) in [(-1.0, 2.0), (0.5, 3.0), (-9.0, -6.0), (4.0, 30.0), (-40.0, -30.0)] {
            for q in [1e-6, 0.1, 0.5, 0.9, 1.0 - 1e-6] {
                let x = quantile(q, a, b);
                let found = (log_mass(a, x) - log_mass(a, b)).exp();
                assert!((found - q).abs() < 1e-6, "{a} {b} {q}: {x} gives {found}");
            }
        }
        assert_eq!((quantile(0.0, -1.0, 2.0), quantile(1.0, -1.0, 2.0)), (-1.0, 2.0));
    }
}
