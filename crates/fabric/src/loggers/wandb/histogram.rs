//! Histograms as W&B draws them: equal bins from the smallest to the largest value.

use fulgurite_torch::tch::{Device, Kind, TchError, Tensor};

use super::json::array;
use crate::loggers::LoggerError;

const BINS: i64 = 64;

/// The number of elements processed at once, which bounds the memory of their copy as `f64`.
const CHUNK: i64 = 1 << 23;

/// The counts and edges of all finite elements, as a value of a row; `None` if there is none.
pub(super) fn histogram(tag: &str, values: &Tensor) -> Result<Option<String>, LoggerError> {
    if values.numel() == 0 {
        return Err(LoggerError::EmptyHistogram { tag: tag.into() });
    }
    let counted = count(values).map_err(LoggerError::tensor(tag))?;
    Ok(counted.map(|(counts, edges)| {
        let counts = counts.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        format!("{{\"_type\": \"histogram\", \"values\": [{counts}], \"bins\": {}}}", array(edges))
    }))
}

fn count(values: &Tensor) -> Result<Option<(Vec<i64>, Vec<f64>)>, TchError> {
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
            low = low.min(f64::try_from(chunk.f_min()?)?);
            high = high.max(f64::try_from(chunk.f_max()?)?);
        }
    }
    if low > high {
        return Ok(None);
    }
    if low == high {
        (low, high) = (low - 0.5, high + 0.5);
    }
    let width = high / BINS as f64 - low / BINS as f64;
    let mut counts = Tensor::f_zeros([BINS], (Kind::Int64, device))?;
    for chunk in &chunks {
        let bins = finite(chunk)?.f_sub_scalar(low)?.f_div_scalar(width)?.f_floor()?.f_clamp(0.0, (BINS - 1) as f64)?;
        let counted = bins.f_to_dtype(Kind::Int64, false, false)?.f_bincount(None::<Tensor>, BINS)?;
        counts = counts.f_add(&counted)?;
    }
    let mut edges: Vec<f64> = (0..BINS).map(|edge| low + edge as f64 * width).collect();
    edges.push(high);
    Ok(Some((Vec::try_from(&counts.f_to(Device::Cpu)?)?, edges)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_those_of_numpy() {
        let values = Tensor::arange(129, (Kind::Float, Device::Cpu));
        let (counts, edges) = count(&values).unwrap().unwrap();
        assert_eq!((counts.len(), edges.len(), edges[1], edges[64]), (64, 65, 2.0, 128.0));
        assert!(counts[..63].iter().all(|count| *count == 2) && counts[63] == 3, "{counts:?}");
        let (counts, edges) = count(&Tensor::from_slice(&[3.0_f32, 3.0, f32::NAN, f32::INFINITY])).unwrap().unwrap();
        assert_eq!((counts[32], edges[0], edges[64]), (2, 2.5, 3.5));
        assert!(count(&Tensor::from_slice(&[f64::NAN])).unwrap().is_none());
        assert!(
            histogram("x", &Tensor::from_slice(&[1.0_f64]))
                .unwrap()
                .unwrap()
                .starts_with("{\"_type\": \"histogram\", \"values\": [0, ")
        );
    }
}
