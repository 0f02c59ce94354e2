//! Histograms with bins of one width, as NumPy makes them.

use fulgurite_torch::tch::{Device, Kind, TchError, Tensor};

use super::LoggerError;

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
        let values = values.f_detach()?.f_reshape([-1])?.f_to(device)?.f_to_dtype(Kind::Double, false, false)?;
        let values = values.f_masked_select(&values.f_isfinite()?)?;
        if values.numel() == 0 {
            return Ok(None);
        }
        let (low, high) = (values.f_min()?.f_double_value(&[])?, values.f_max()?.f_double_value(&[])?);
        let (low, high) = if low == high { (low - 0.5, high + 0.5) } else { (low, high) };
        // From the middle, so that the largest numbers have a width too.
        let edge = |i: usize| {
            let share = i as f64 / bins as f64;
            low * (1.0 - share) + high * share
        };
        let edges: Vec<f64> = (0..=bins).map(edge).collect();
        let inner = Tensor::f_from_slice(&edges[1..bins])?.f_to(device)?;
        let bin = values.f_bucketize(&inner, false, true)?;
        let counts = Vec::<i64>::try_from(&bin.f_bincount(None::<Tensor>, bins as i64)?.f_to(Device::Cpu)?)?;
        Ok(Some(Bins { edges, counts: counts.into_iter().map(|count| count as f64).collect() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_those_of_numpy() {
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
