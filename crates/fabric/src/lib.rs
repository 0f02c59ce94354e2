//! Fabric: accelerator, precision, strategy, loggers and checkpoint I/O of a run, without a loop.

pub mod accelerator;
mod checkpoint_io;
mod device_stats;
mod error;
mod fabric;
pub mod loggers;
pub mod peak_flops;
pub mod precision;
pub mod strategy;
mod throughput;

pub use accelerator::{Accelerator, Devices};
pub use checkpoint_io::{Alias, CheckpointIo, Commit, CommitFailure, StoredFile, TorchCheckpointIo};
pub use device_stats::DeviceStats;
pub use error::FabricError;
pub use fabric::Fabric;
pub use precision::Precision;
pub use strategy::{ReduceOp, SingleDeviceStrategy, Strategy};
pub use throughput::{Throughput, ThroughputError, Work};
