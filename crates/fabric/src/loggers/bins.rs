//! Histograms with bins of one width, as NumPy makes them.

use fulgurite_torch::tch::{Device, Kind, TchError, Tensor};

use super::LoggerError;

/// The number of elements processed at once, which bounds the memory of their copy as `f64`.
const CHUNK: i64 = 1 << 23;

/// How many values lie between each two edges, of which there is one more.
#[derive(Debug, PartialEq)]
pub(super) struct Bins {
    pub(super) edges: Vec<f64>,
    pub(super) counts: Vec<f64>,
}

impl Bins {
    /// The finite elements in so many bins between the smallest and the largest; `None` if there is none.
    pub(super) fn of(tag: &str, values: &Tensor, bins: usize) -> Result<Option<Bins>, LoggerError> {
        if values.numel() == 0 {
            return Err(LoggerError::EmptyHistogram { tag: tag.into() });
        }
        Bins::count(values, bins).map_err(LoggerError::tensor(tag))
    }

    fn count(values: &Tensor, bins: usize) -> Result<Option<Bins>, TchError> {
        // Other devices may not support `f64`.
        let device = if values.device().is_cuda() { values.device() } else { Device::Cpu };
        let finite = |chunk: &Tensor| -> Result<Tensor, TchError> {
            let chunk = chunk.f_to(device)?.f_to_dtype(Kind::Double, false, false)?;
            chunk.f_masked_select(&chunk.f_isfinite()?)
        };
        let chunks = values.f_detach()?.f_reshape([-1])?.f_split(CHUNK, 0)?;
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for chunk in &chunks {
            let chunk = finite(chunk)?;
            if chunk.numel() > 0 {
                low = low.min(chunk.f_min()?.f_double_value(&[])?);
                high = high.max(chunk.f_max()?.f_double_value(&[])?);
            }
        }
        if low > high {
            return Ok(None);
        }
        let (low, high) = if low == high { (low - 0.5, high + 0.5) } else { (low, high) };
        // From the middle, so that the largest numbers have a width too.
        let edge = |i: usize| {
            let share = i as f64 / bins as f64;
            low * (1.0 - share) + high * share
        };
        let edges: Vec<f64> = (0..=bins).map(edge).collect();
        let inner = Tensor::f_from_slice(&edges[1..bins])?.f_to(device)?;
        let mut counts = Tensor::f_zeros([bins as i64], (Kind::Int64, device))?;
        for chunk in &chunks {
            let bin = finite(chunk)?.f_bucketize(&inner, false, true)?;
            counts = counts.f_add(&bin.f_bincount(None::<Tensor>, bins as i64)?)?;
        }
        let counts = Vec::<i64>::try_from(&counts.f_to(Device::Cpu)?)?;
        Ok(Some(Bins { edges, counts: counts.into_iter().map(|count| count as f64).collect() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_those_of_numpy() {
        // numpy.histogram(range(129), bins=64)
        let bins = Bins::of("a", &Tensor::arange(129, (Kind::Float, Device::Cpu)), 64).unwrap().unwrap();
        assert_eq!((bins.edges.len(), bins.edges[1], bins.edges[64]), (65, 2.0, 128.0));
        assert!(bins.counts[..63].iter().all(|count| *count == 2.0) && bins.counts[63] == 3.0, "{bins:?}");
        // numpy.histogram([0, 1, 1, 2, 4], bins=4)
        let values = Tensor::from_slice(&[0.0, 1.0, f64::NAN, 1.0, 2.0, 4.0, f64::INFINITY]);
        let bins = Bins::of("a", &values, 4).unwrap().unwrap();
        assert_eq!(bins, Bins { edges: vec![0.0, 1.0, 2.0, 3.0, 4.0], counts: vec![1.0, 2.0, 1.0, 1.0] });
        // numpy.histogram([3, 3], bins=2)
        let bins = Bins::of("a", &Tensor::from_slice(&[3, 3]), 2).unwrap().unwrap();
        assert_eq!(bins, Bins { edges: vec![2.5, 3.0, 3.5], counts: vec![0.0, 2.0] });
        let huge = Bins::of("a", &Tensor::from_slice(&[f64::MIN, f64::MAX]), 2).unwrap().unwrap();
        assert_eq!((huge.edges[1], huge.counts), (0.0, vec![1.0, 1.0]));
        assert_eq!(Bins::of("a", &Tensor::from_slice(&[f64::NAN]), 2).unwrap(), None);
        assert!(Bins::of("a", &Tensor::from_slice(&[0.0; 0]), 2).is_err());
    }
}
