//! The line search of LBFGS: J. Nocedal, S. Wright, *Numerical Optimization*, algorithms 3.5 and 3.6, with the cubic
//! interpolation of minFunc.

use fulgurite_torch::tch::Tensor;

use crate::OptimError;

/// What is known of one place on the line.
pub(super) struct Point {
    pub(super) length: f64,
    pub(super) loss: f64,
    pub(super) grad: Tensor,
    pub(super) slope: f64,
}

impl Point {
    fn clone(&self) -> Point {
        Point { grad: self.grad.shallow_clone(), ..*self }
    }
}

/// How much of the slope at the start a step must gain, and how much of it may remain at the end.
const GAIN: f64 = 1e-4;
const REMAIN: f64 = 0.9;

/// Searches from `start` for a place that is lower and flatter, beginning at `length`. It ends after `most`
/// evaluations, or when the stretch in question is shorter than `tolerance`. Returns the place and the number of
/// evaluations.
pub(super) fn strong_wolfe(
    evaluate: &mut dyn FnMut(f64) -> Result<Point, OptimError>,
    start: Point,
    length: f64,
    tolerance: f64,
    most: i64,
) -> Result<(Point, i64), OptimError> {
    let too_high = |point: &Point| point.loss > start.loss + GAIN * point.length * start.slope;
    let flat_enough = |point: &Point| point.slope.abs() <= -REMAIN * start.slope;

    // Go on until a stretch is found that must hold such a place.
    let mut before = start.clone();
    let mut here = evaluate(length)?;
    let mut evaluations = 1;
    let mut tried = 0;
    let mut ends = loop {
        if tried >= most {
            break [start.clone(), here];
        }
        if too_high(&here) || (tried > 1 && here.loss >= before.loss) {
            break [before, here];
        }
        if flat_enough(&here) {
            return Ok((here, evaluations));
        }
        if here.slope >= 0.0 {
            break [before, here];
        }
        let bounds = (here.length + 0.01 * (here.length - before.length), here.length * 10.0);
        let next = interpolate(&before, &here, Some(bounds));
        before = here;
        here = evaluate(next)?;
        evaluations += 1;
        tried += 1;
    };

    // Narrow it; `low` is always its better end.
    let lower = |ends: &[Point; 2]| usize::from(ends[1].loss < ends[0].loss);
    let mut low = lower(&ends);
    let mut stuck = false;
    while tried < most && (ends[1].length - ends[0].length).abs() >= tolerance {
        let (left, right) = (ends[0].length.min(ends[1].length), ends[0].length.max(ends[1].length));
        let mut next = interpolate(&ends[0], &ends[1], None);
        let margin = 0.1 * (right - left);
        if (right - next).min(next - left) < margin {
            if stuck || next >= right || next <= left {
                next = if (next - right).abs() < (next - left).abs() { right - margin } else { left + margin };
                stuck = false;
            } else {
                stuck = true;
            }
        } else {
            stuck = false;
        }
        let here = evaluate(next)?;
        evaluations += 1;
        tried += 1;
        if too_high(&here) || here.loss >= ends[low].loss {
            ends[1 - low] = here;
            low = lower(&ends);
            continue;
        }
        let done = flat_enough(&here);
        if !done && here.slope * (ends[1 - low].length - ends[low].length) >= 0.0 {
            ends[1 - low] = ends[low].clone();
        }
        ends[low] = here;
        if done {
            break;
        }
    }
    let [first, second] = ends;
    Ok((if low == 0 { first } else { second }, evaluations))
}

/// The minimum of the cubic through both points with their slopes, within `bounds` or between them.
fn interpolate(a: &Point, b: &Point, bounds: Option<(f64, f64)>) -> f64 {
    let (min, max) = bounds.unwrap_or((a.length.min(b.length), a.length.max(b.length)));
    let d1 = a.slope + b.slope - 3.0 * (a.loss - b.loss) / (a.length - b.length);
    let square = d1 * d1 - a.slope * b.slope;
    if square < 0.0 || square.is_nan() {
        return (min + max) / 2.0;
    }
    let d2 = square.sqrt();
    let position = if a.length <= b.length {
        b.length - (b.length - a.length) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2.0 * d2))
    } else {
        a.length - (a.length - b.length) * ((a.slope + d2 - d1) / (a.slope - b.slope + 2.0 * d2))
    };
    position.max(min).min(max)
}
