//! [`LrFind`]: the result of a learning-rate range test.

use std::path::Path;

use super::options::LrFindMode;
use super::plot::{self, Curve};
use crate::error::Error;

/// The result of a learning-rate range test.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LrFind {
    /// The learning rate of each step.
    pub lr: Vec<f64>,
    /// The smoothed loss after each step; NaN for a batch that was skipped.
    pub loss: Vec<f64>,
    /// How the learning rate was increased.
    pub mode: LrFindMode,
}

impl LrFind {
    /// The learning rate at which the loss falls fastest; `None` with fewer than two usable points.
    pub fn suggestion(&self) -> Option<f64> {
        self.suggestion_between(10, 1)
    }

    /// The same without the first `skip_begin` and the last `skip_end` points, which mislead.
    pub fn suggestion_between(&self, skip_begin: usize, skip_end: usize) -> Option<f64> {
        self.suggested_index(skip_begin, skip_end).map(|index| self.lr[index])
    }

    fn suggested_index(&self, skip_begin: usize, skip_end: usize) -> Option<usize> {
        let end = self.loss.len().saturating_sub(skip_end);
        let usable: Vec<usize> = (skip_begin..end).filter(|&i| self.loss[i].is_finite()).collect();
        if usable.len() < 2 {
            return None;
        }
        let point = |i: usize| (self.lr[usable[i]], self.loss[usable[i]]);
        let slopes = (0..usable.len()).map(|i| slope(&point, i, usable.len() - 1));
        let steepest = slopes.enumerate().min_by(|a, b| a.1.total_cmp(&b.1))?.0;
        Some(usable[steepest])
    }

    fn curve(&self) -> Curve<'_> {
        let suggestion = self.suggested_index(10, 1).map(|index| (self.lr[index], self.loss[index]));
        Curve { lr: &self.lr, loss: &self.loss, mode: self.mode, suggestion }
    }

    /// The curve for a terminal, with the suggestion under it.
    pub fn plot(&self) -> String {
        plot::terminal(&self.curve())
    }

    /// Writes the curve, with the suggestion marked, to an SVG file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn save_plot(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        plot::svg(&self.curve(), path.as_ref())
    }
}

/// The numeric gradient at a point: second order inside, one-sided at the ends, as `torch.gradient`.
fn slope(point: &impl Fn(usize) -> (f64, f64), i: usize, last: usize) -> f64 {
    let one_sided = |a: usize, b: usize| {
        let ((x0, y0), (x1, y1)) = (point(a), point(b));
        (y1 - y0) / (x1 - x0)
    };
    match i {
        0 => one_sided(0, 1),
        i if i == last => one_sided(last - 1, last),
        i => {
            let ((x0, y0), (x1, y1), (x2, y2)) = (point(i - 1), point(i), point(i + 1));
            let (left, right) = (x1 - x0, x2 - x1);
            -right / (left * (left + right)) * y0
                + (right - left) / (left * right) * y1
                + left / (right * (left + right)) * y2
        }
    }
}
