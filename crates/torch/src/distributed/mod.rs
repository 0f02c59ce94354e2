//! Distributed training: PyTorch's c10d, the library behind `torch.distributed`.
//!
//! Every process has a rank, and they find each other through a [`Store`], a key-value store that one of them serves.
//! The names are those of [`torch.distributed`](https://docs.pytorch.org/docs/stable/distributed.html).
//!
//! This module does not start processes, and does not read ranks from the environment.

mod collectives;
mod error;
mod inquiry;
mod process_group;
mod reducer;
mod store;
mod sync_batch_norm;
mod verify;
mod work;

pub use collectives::ReduceOp;
pub use error::DistributedError;
pub use process_group::{Backend, GroupOptions, ProcessGroup};
pub use reducer::{Compression, Reducer, ReducerOptions};
pub use store::{Store, TcpStoreOptions};
pub use sync_batch_norm::{SyncBatchNorm, SyncBatchNormGuard};
pub use verify::verify_parameters;
pub use work::Work;
