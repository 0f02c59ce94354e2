//! Copies logged values to the host. It is the only place that does, so that synchronizations can be counted.

use std::cell::Cell;

use crate::error::TorchError;
use crate::tch::{Device, Kind, Tensor};

thread_local! {
    static READS: Cell<u64> = const { Cell::new(0) };
}

/// Reads a tensor of one element. On a GPU this waits until everything before it is computed, so it is done only when
/// a value is due to be written; [`host_reads`] counts the calls.
///
/// # Errors
///
/// Fails if the tensor does not have exactly one element.
pub fn to_host_f64(tensor: &Tensor) -> Result<f64, TorchError> {
    if tensor.numel() != 1 {
        return Err(TorchError::NotANumber { shape: tensor.size() });
    }
    READS.set(READS.get() + 1);
    Ok(tensor.f_double_value(&[])?)
}

/// The number in a tensor of one element that is on the CPU, where reading it waits for nothing, so that it is not counted as
/// a [read](host_reads). `None` for any other.
pub fn host_f64_on_cpu(tensor: &Tensor) -> Option<f64> {
    let is_here = tensor.device() == Device::Cpu && tensor.numel() == 1;
    if is_here { tensor.f_double_value(&[]).ok() } else { None }
}

/// Reads several tensors of one element, with one wait for the device they are all on.
///
/// # Errors
///
/// Fails if a tensor does not have exactly one element, or if the tensors are on different devices.
pub fn to_host_f64s(tensors: &[Tensor]) -> Result<Vec<f64>, TorchError> {
    if let [] | [_] = tensors {
        return tensors.iter().map(to_host_f64).collect();
    }
    if let Some(several) = tensors.iter().find(|tensor| tensor.numel() != 1) {
        return Err(TorchError::NotANumber { shape: several.size() });
    }
    READS.set(READS.get() + 1);
    let flat = tensors.iter().map(|tensor| Ok(tensor.f_reshape([1])?)).collect::<Result<Vec<_>, TorchError>>()?;
    Ok(Vec::try_from(Tensor::f_cat(&flat, 0)?.f_to_kind(Kind::Double)?.f_to_device(Device::Cpu)?)?)
}

/// How often [`to_host_f64`] or [`to_host_f64s`] waited for a device on this thread since it started.
pub fn host_reads() -> u64 {
    READS.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_counted_on_their_thread() {
        let before = host_reads();
        assert_eq!(to_host_f64(&Tensor::from_slice(&[2.5f32])).unwrap(), 2.5);
        assert_eq!(to_host_f64(&Tensor::from(true)).unwrap(), 1.0);
        std::thread::spawn(|| to_host_f64(&Tensor::from(1.0))).join().unwrap().unwrap();
        assert_eq!(host_reads(), before + 2);
        assert_eq!(host_f64_on_cpu(&Tensor::from_slice(&[2.5f32])), Some(2.5));
        assert_eq!(host_f64_on_cpu(&Tensor::from_slice(&[2.5f32, 1.0])), None);
        assert_eq!(host_reads(), before + 2);
        let several = [Tensor::from(1.5f32), Tensor::from_slice(&[2i64]), Tensor::from(f64::NAN)];
        assert_eq!(to_host_f64s(&several[..2]).unwrap(), [1.5, 2.0]);
        assert!(to_host_f64s(&several).unwrap()[2].is_nan());
        assert!(to_host_f64s(&[]).unwrap().is_empty());
        assert_eq!(host_reads(), before + 4);
    }

    #[test]
    fn several_numbers_are_not_one() {
        let before = host_reads();
        let error = to_host_f64(&Tensor::from_slice(&[1, 2])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a tensor of shape [2] is not one number; reduce it first, for example with `.mean(None)`"
        );
        let lists = [Tensor::from_slice(&[1]), Tensor::from_slice(&[1, 2])];
        assert!(to_host_f64s(&lists).is_err());
        assert_eq!(host_reads(), before);
    }
}
