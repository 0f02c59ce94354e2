//! [`DeviceStats`]: how busy the processor is, and how full the memories are.

use fulgurite_torch::device::cuda_memory_stats;
use fulgurite_torch::tch::Device;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::FabricError;

/// Utilization of the GPU of a run, of the processors and memory, or of both.
///
/// | key | value |
/// |---|---|
/// | `cpu_vm_percent` | memory in use in the whole machine |
/// | `cpu_percent` | processor time used in the whole machine, since the read before (at least 0.2 s; 0 until then) |
/// | `cpu_swap_percent` | swap in use |
/// | `allocated_bytes.all.current`, `num_alloc_retries`, … | the CUDA allocator: see [`cuda_memory_stats`] |
///
/// ```
/// use fulgurite_fabric::DeviceStats;
/// use fulgurite_torch::tch::Device;
///
/// let stats = DeviceStats::new(Device::Cpu, true).read()?;
/// assert_eq!(stats.map(|(name, _)| name).collect::<Vec<_>>(), ["cpu_vm_percent", "cpu_percent", "cpu_swap_percent"]);
/// # Ok::<(), fulgurite_fabric::FabricError>(())
/// ```
#[derive(Debug)]
pub struct DeviceStats {
    cuda: Option<usize>,
    system: Option<System>,
}

impl DeviceStats {
    /// The statistics of `device` if it is a GPU, and with `cpu` those of processor and memory.
    pub fn new(device: Device, cpu: bool) -> DeviceStats {
        let cuda = match device {
            Device::Cuda(index) => Some(index),
            _ => None,
        };
        // Use of the processor is measured from here on.
        let what = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing().with_cpu_usage());
        DeviceStats { cuda, system: cpu.then(|| System::new_with_specifics(what)) }
    }

    /// The current statistics. The host does not wait for the device.
    ///
    /// # Errors
    ///
    /// Fails if libtorch has no such device.
    pub fn read(&mut self) -> Result<impl Iterator<Item = (&'static str, f64)> + use<>, FabricError> {
        let cuda = self.cuda.map(cuda_memory_stats).transpose()?;
        let cpu = self.system.as_mut().map(|system| {
            system.refresh_cpu_usage();
            system.refresh_memory_specifics(MemoryRefreshKind::everything());
            let percent = |used: u64, of: u64| if of == 0 { 0.0 } else { 100.0 * used as f64 / of as f64 };
            [
                ("cpu_vm_percent", percent(system.used_memory(), system.total_memory())),
                ("cpu_percent", f64::from(system.global_cpu_usage())),
                ("cpu_swap_percent", percent(system.used_swap(), system.total_swap())),
            ]
        });
        let cuda = cuda.into_iter().flatten().map(|(name, value)| (name, value as f64));
        Ok(cuda.chain(cpu.into_iter().flatten()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_shares() {
        let mut stats = DeviceStats::new(Device::Cpu, true);
        for (name, value) in stats.read().unwrap() {
            assert!((0.0..=100.0).contains(&value), "{name} {value}");
        }
        let in_use = stats.read().unwrap().find(|(name, _)| *name == "cpu_vm_percent").unwrap().1;
        assert!(in_use > 0.0, "this test uses memory");
        assert_eq!(DeviceStats::new(Device::Cpu, false).read().unwrap().count(), 0);
    }
}
