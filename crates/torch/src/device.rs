//! Properties of a CUDA device: its name, and the statistics of its caching allocator.

use std::ffi::{CStr, c_char, c_int};
use std::sync::LazyLock;

use crate::error::{TorchError, check};
use crate::tch::Cuda;

unsafe extern "C" {
    fn fulgurite_cuda_memory_stats(index: c_int, out: *mut i64, count: usize) -> *mut c_char;
    fn fulgurite_cuda_device_name(index: c_int, out: *mut c_char, capacity: c_int) -> bool;
    fn fulgurite_allows_tf32(out: *mut bool) -> *mut c_char;
}

/// Statistics that the allocator keeps for all of its pools together, for small and for large blocks.
const BY_POOL: [&str; 9] = [
    "allocation",
    "segment",
    "active",
    "inactive_split",
    "allocated_bytes",
    "reserved_bytes",
    "active_bytes",
    "inactive_split_bytes",
    "requested_bytes",
];
const POOLS: [&str; 3] = ["all", "small_pool", "large_pool"];
const WHOLE: [&str; 2] = ["oversize_allocations", "oversize_segments"];
const MEASURES: [&str; 4] = ["current", "peak", "allocated", "freed"];
const NUMBERS: [&str; 6] =
    ["num_alloc_retries", "num_ooms", "num_sync_all_streams", "num_device_alloc", "num_device_free", "max_split_size"];

/// The names of all statistics, in the order in which the bridge writes them.
static MEMORY_STATS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let pools = BY_POOL.iter().flat_map(|stat| POOLS.iter().map(move |pool| format!("{stat}.{pool}")));
    let stats = pools.chain(WHOLE.map(str::to_owned));
    let measured = stats.flat_map(|stat| MEASURES.iter().map(move |measure| format!("{stat}.{measure}")));
    measured.chain(NUMBERS.map(str::to_owned)).collect()
});

/// The statistics of the allocator of a CUDA device, under the names of `torch.cuda.memory_stats`, such as
/// `allocated_bytes.all.current` (bytes) and `num_alloc_retries`. All are 0 before the device was used.
///
/// # Errors
///
/// Fails if CUDA is not available, or if there is no such device.
pub fn cuda_memory_stats(index: usize) -> Result<Vec<(&'static str, i64)>, TorchError> {
    let there = if Cuda::is_available() { usize::try_from(Cuda::device_count()).unwrap_or(0) } else { 0 };
    if index >= there {
        return Err(TorchError::NoCudaDevice { index, there });
    }
    let mut values = vec![0; MEMORY_STATS.len()];
    // SAFETY: the bridge writes at most the given number of values.
    check(unsafe { fulgurite_cuda_memory_stats(index as c_int, values.as_mut_ptr(), values.len()) })?;
    Ok(MEMORY_STATS.iter().map(String::as_str).zip(values).collect())
}

/// The name of a CUDA device, such as `NVIDIA H100 80GB HBM3`; `None` when there is no such device.
pub fn cuda_device_name(index: usize) -> Option<String> {
    let mut name: [c_char; 256] = [0; 256];
    // SAFETY: the driver writes at most the given number of bytes, with a NUL at the end.
    let found = unsafe { fulgurite_cuda_device_name(c_int::try_from(index).ok()?, name.as_mut_ptr(), 256) };
    // SAFETY: the array ends in a NUL, whatever was written before it.
    found.then(|| unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}

/// Whether matrix products of 32-bit floats may be computed in TensorFloat-32
/// (`torch.get_float32_matmul_precision() != "highest"`).
///
/// # Errors
///
/// Fails if libtorch's older and newer settings contradict each other.
pub fn allows_tf32() -> Result<bool, TorchError> {
    let mut allows = false;
    // SAFETY: writes one bool.
    check(unsafe { fulgurite_allows_tf32(&mut allows) })?;
    Ok(allows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_have_pytorchs_names() {
        let names: Vec<&str> = MEMORY_STATS.iter().map(String::as_str).collect();
        assert_eq!(names.len(), 122);
        for name in [
            "allocation.all.current",
            "allocated_bytes.small_pool.peak",
            "requested_bytes.large_pool.freed",
            "oversize_segments.allocated",
            "num_ooms",
            "max_split_size",
        ] {
            assert!(names.contains(&name), "{name}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_says_so() {
        assert_eq!(cuda_device_name(99), None);
        let error = cuda_memory_stats(99).unwrap_err().to_string();
        assert!(error.starts_with("there is no CUDA device 99"), "{error}");
    }

    #[test]
    fn a_device_that_is_there_counts_its_memory() {
        assert!(!allows_tf32().unwrap());
        if !Cuda::is_available() {
            return;
        }
        let held = crate::tch::Tensor::zeros([1024], (crate::tch::Kind::Float, crate::tch::Device::Cuda(0)));
        let stats = cuda_memory_stats(0).unwrap();
        let of = |name| stats.iter().find(|(other, _)| *other == name).unwrap().1;
        assert!(of("allocated_bytes.all.current") >= 4096, "{held:?}");
        assert!(of("reserved_bytes.all.peak") >= of("allocated_bytes.all.peak"));
        assert!(!cuda_device_name(0).unwrap().is_empty());
    }
}
