//! Fabric: accelerator, precision, strategy, loggers and checkpoint I/O of a run, without a loop.

pub mod accelerator;
mod checkpoint_io;
mod device_stats;
pub mod environments;
mod error;
mod fabric;
pub mod launcher;
pub mod loggers;
pub mod peak_flops;
pub mod precision;
pub mod removed;
pub mod signals;
pub mod strategy;
mod throughput;

pub use accelerator::{Accelerator, Devices};
pub use checkpoint_io::{
    Alias, AsyncCheckpointIo, CheckpointIo, Commit, CommitFailure, CommitState, DefaultCheckpointIo,
    RankZeroCheckpointIo, StoredFile, TorchCheckpointIo, is_url,
};
#[cfg(feature = "object-store")]
pub use checkpoint_io::{ObjectStoreCheckpointIo, ObjectStoreOptions};
pub use device_stats::DeviceStats;
pub use error::FabricError;
pub use fabric::{Fabric, FabricBuilder};
/// The crate that object stores are made with.
#[cfg(feature = "object-store")]
pub use object_store;
pub use precision::{
    Clip, ForwardContext, GradScaler, GradScalerOptions, MixedPrecision, OptimizerStep, Pass, Precision, ScalerError,
    TruePrecision,
};
pub use strategy::{DdpOptions, DdpStrategy, Ranks, ReduceOp, SingleDeviceStrategy, Strategy};
pub use throughput::{Throughput, ThroughputError, Work};
