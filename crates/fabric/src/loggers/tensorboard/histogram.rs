//! Histograms with the buckets of TensorBoard's original writer.

use std::iter::successors;

use fulgurite_torch::tch::{Device, Kind, TchError, Tensor};

use crate::loggers::LoggerError;

/// The number of elements processed at once, which bounds the memory of their copy as `f64`.
const CHUNK: i64 = 1 << 23;

/// The histogram of a set of values.
#[derive(Debug)]
pub(in crate::loggers) struct Histogram {
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) sum_of_squares: f64,
    /// The upper end of each bucket.
    pub(super) limits: Vec<f64>,
    /// The number of values in each bucket.
    pub(super) counts: Vec<f64>,
}

impl Histogram {
    /// The histogram of all elements; `None` if no element is a number with an absolute value below 1e20.
    pub(in crate::loggers) fn of(tag: &str, values: &Tensor) -> Result<Option<Histogram>, LoggerError> {
        if values.numel() == 0 {
            return Err(LoggerError::EmptyHistogram { tag: tag.into() });
        }
        Histogram::count(values).map_err(LoggerError::tensor(tag))
    }

    /// The bins that are not empty: their number in the row of all, of which the first is below all edges, and their counts.
    #[cfg(feature = "trackers")]
    pub(in crate::loggers) fn numbered_bins(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        let first = self.limits.first().and_then(|limit| edges().iter().position(|edge| edge == limit)).unwrap_or(0);
        // The first count is of an empty bin, which only says where the next one begins.
        self.counts.iter().enumerate().map(move |(bin, count)| (first + bin, *count)).filter(|(_, count)| *count > 0.0)
    }

    fn count(values: &Tensor) -> Result<Option<Histogram>, TchError> {
        // Other devices may not support `f64`.
        let device = if values.device().is_cuda() { values.device() } else { Device::Cpu };
        let edges = edges();
        let boundaries = Tensor::f_from_slice(&edges)?.f_to(device)?;
        let bins = boundaries.size()[0] + 1;
        let mut counts = Tensor::f_zeros([bins], (Kind::Int64, device))?;
        let mut stats = Vec::new();
        for chunk in values.f_detach()?.f_reshape([-1])?.f_split(CHUNK, 0)? {
            let chunk = chunk.f_to(device)?.f_to_dtype(Kind::Double, false, false)?;
            let bin = chunk.f_bucketize(&boundaries, false, true)?;
            counts = counts.f_add(&bin.f_bincount(None::<Tensor>, bins)?)?;
            stats.push(Tensor::f_stack(
                &[chunk.f_min()?, chunk.f_max()?, chunk.f_sum(Kind::Double)?, chunk.f_dot(&chunk)?],
                0,
            )?);
        }
        let stats = Tensor::f_stack(&stats, 1)?;
        let totals = Tensor::f_stack(
            &[
                stats.f_select(0, 0)?.f_min()?,
                stats.f_select(0, 1)?.f_max()?,
                stats.f_select(0, 2)?.f_sum(Kind::Double)?,
                stats.f_select(0, 3)?.f_sum(Kind::Double)?,
            ],
            0,
        )?;
        let counts = Vec::<i64>::try_from(&counts)?;
        // The first bin holds values below the first edge; the last one those above the last edge, and NaN.
        let counts = &counts[1..edges.len()];
        let (Some(first), Some(last)) = (counts.iter().position(|n| *n > 0), counts.iter().rposition(|n| *n > 0))
        else {
            return Ok(None);
        };
        // A bucket is defined by its upper end only: an empty one before the first defines where that begins.
        let mut used = vec![0.0];
        used.extend(counts[first..=last].iter().map(|n| *n as f64));
        let totals = Vec::<f64>::try_from(&totals)?;
        Ok(Some(Histogram {
            min: totals[0],
            max: totals[1],
            count: values.numel() as f64,
            sum: totals[2],
            sum_of_squares: totals[3],
            limits: edges[first..=last + 1].to_vec(),
            counts: used,
        }))
    }
}

/// Edges from -1e20 to 1e20, each 1.1 times the next one towards zero, down to 1e-12.
fn edges() -> Vec<f64> {
    let positive: Vec<f64> = successors(Some(1e-12), |v| Some(v * 1.1)).take_while(|v| *v < 1e20).collect();
    let mut edges: Vec<f64> = positive.iter().rev().map(|v| -v).collect();
    edges.push(0.0);
    edges.extend(positive);
    edges
}

#[cfg(test)]
mod tests {
    use fulgurite_torch::tch::Tensor;

    use super::{Histogram, edges};

    #[test]
    fn the_edges_are_sorted_and_symmetric() {
        let edges = edges();
        assert_eq!(edges.len(), 1549);
        assert!(edges.is_sorted());
        assert!(edges.iter().zip(edges.iter().rev()).all(|(low, high)| *low == -high));
    }

    #[test]
    fn values_fall_into_the_bucket_they_are_below() {
        let values = Tensor::from_slice(&[0.0, 0.0, 1e-12, -1e-12]).reshape([2, 2]);
        let histogram = Histogram::of("h", &values).unwrap().unwrap();
        // Lower ends are inclusive: [-1e-12, 0), [0, 1e-12), [1e-12, 1.1e-12).
        assert_eq!(histogram.counts, [0.0, 1.0, 2.0, 1.0]);
        assert_eq!(histogram.limits, [-1e-12, 0.0, 1e-12, 1e-12 * 1.1]);
        assert_eq!((histogram.min, histogram.max, histogram.count, histogram.sum), (-1e-12, 1e-12, 4.0, 0.0));
        assert_eq!(histogram.sum_of_squares, 2e-24);
    }

    #[test]
    fn chunks_add_up() {
        let values =
            Tensor::ones([super::CHUNK + 3], (fulgurite_torch::tch::Kind::Uint8, fulgurite_torch::tch::Device::Cpu));
        let histogram = Histogram::of("h", &values).unwrap().unwrap();
        let count = (super::CHUNK + 3) as f64;
        assert_eq!(histogram.counts, [0.0, count]);
        assert_eq!((histogram.sum, histogram.sum_of_squares, histogram.max), (count, count, 1.0));
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        let histogram = Histogram::of("h", &Tensor::from_slice(&[f64::NAN, 1.0, 1e30])).unwrap().unwrap();
        assert_eq!(histogram.counts, [0.0, 1.0]);
        assert_eq!(histogram.count, 3.0);
        assert!(histogram.sum.is_nan() && histogram.min.is_nan());
        assert!(Histogram::of("h", &Tensor::from_slice(&[f64::NAN, f64::INFINITY])).unwrap().is_none());
        let error = Histogram::of("grad", &Tensor::from_slice::<f32>(&[])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "histogram `grad` was given a tensor without elements; skip it when there are no values"
        );
    }
}
