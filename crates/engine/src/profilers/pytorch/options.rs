//! Options of [`PyTorchProfiler`](super::PyTorchProfiler).

use std::path::PathBuf;

use derive_setters::Setters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schedule::ProfilerSchedule;
use crate::config::Maximum;

/// The sort key of the table of key averages, in descending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SortKey {
    /// Time on the CPU per call.
    CpuTime,
    /// Time on the CUDA device per call.
    CudaTime,
    /// Time on the CPU.
    CpuTimeTotal,
    /// Time on the CUDA device.
    CudaTimeTotal,
    /// Time on the CPU, without what was called.
    SelfCpuTimeTotal,
    /// Time on the CUDA device, without what was called.
    SelfCudaTimeTotal,
    /// Memory of the CPU.
    CpuMemoryUsage,
    /// Memory of the CUDA device.
    CudaMemoryUsage,
    /// Memory of the CPU, without what was called.
    SelfCpuMemoryUsage,
    /// Memory of the CUDA device, without what was called.
    SelfCudaMemoryUsage,
    /// Calls.
    Count,
}

/// Options of [`PyTorchProfiler`](super::PyTorchProfiler).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, generate_delegates(ty = "super::PyTorchProfiler", field = "options"))]
#[non_exhaustive]
pub struct PyTorchProfilerOptions {
    /// The folder of traces and report; the run's log folder by default.
    #[setters(into)]
    pub dirpath: Option<PathBuf>,
    /// Adds the report to the file `<stage>-<filename>.txt` instead of printing it.
    #[setters(into)]
    pub filename: Option<String>,
    /// Whether calls with different input shapes are different rows; needs `record_shapes`.
    pub group_by_input_shapes: bool,
    /// Whether to write traces.
    pub export_to_chrome: bool,
    /// Rows of the table; -1 for all.
    ///
    /// In Rust, all are [`Maximum::Unlimited`].
    #[setters(into)]
    pub row_limit: Maximum,
    /// What the table is sorted by; `cuda_time_total` on a CUDA device and `cpu_time_total` elsewhere by default.
    pub sort_by_key: Option<SortKey>,
    /// Which batches are recorded.
    pub schedule: Option<ProfilerSchedule>,
    /// Whether to record the shapes of operators' inputs.
    pub record_shapes: bool,
    /// Whether to record allocations of tensors' memory.
    pub profile_memory: bool,
    /// Whether to estimate the floating-point operations of matrix products and convolutions.
    pub with_flops: bool,
}

impl Default for PyTorchProfilerOptions {
    fn default() -> PyTorchProfilerOptions {
        PyTorchProfilerOptions {
            dirpath: None,
            filename: None,
            group_by_input_shapes: false,
            export_to_chrome: true,
            row_limit: Maximum::Of(20),
            sort_by_key: None,
            schedule: None,
            record_shapes: false,
            profile_memory: false,
            with_flops: false,
        }
    }
}
