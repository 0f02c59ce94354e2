//! Parts of libtorch that training needs and `tch` does not provide.
//!
//! | module | purpose |
//! |---|---|
//! | [`params`] | names of parameters in a fixed order, state dicts, moving and converting a `VarStore` |
//! | [`record`], [`flops`] | the operations that are executed, and their cost |
//! | [`anomaly`] | which operation produced the first NaN |
//! | [`autocast`] | mixed precision: regions, and the kernels of a gradient scaler |
//! | [`grad`] | the backward pass, clipping, and guards that restore autograd's modes |
//! | [`foreach`] | libtorch's fused and foreach kernels, for optimizers |
//! | [`profiler`] | libtorch's profiler: traces that Perfetto opens, and key averages |
//! | [`rng`] | seeds, and the state of the random number generators |
//! | [`serialization`] | PyTorch's checkpoint files, as a [`Value`] |
//! | [`distributed`] | processes that train together: stores, process groups, and the reducer of gradients |
//! | [`device`] | names of CUDA devices, and statistics of their memory |
//! | [`runtime`] | memory and threads of the process |
//! | [`process`] | child processes that end with their parent |
//! | [`startup`] | output that a program prints before libtorch is initialized |
//!
//! This is the only crate of the workspace that contains `unsafe`, and the only one that contains C++ (`csrc/`).
//! It depends on nothing of Fulgurite, and is useful to any `tch` program.

#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

pub mod anomaly;
pub mod autocast;
mod catch_panic;
mod counting_allocator;
pub mod device;
pub mod distributed;
mod error;
pub mod flops;
pub mod foreach;
pub mod grad;
mod host;
mod libtorch_error;
mod mapped_bytes;
mod modes;
mod operator;
mod panic_hook;
pub mod params;
mod places;
mod pointers;
mod printable;
pub mod process;
pub mod profiler;
pub mod record;
pub mod rng;
pub mod runtime;
pub mod serialization;
mod shared_tensor;
pub mod startup;
mod tensor_list;
mod training_mode;
mod type_name;
mod value;
mod var_store;
mod waiting;

pub use catch_panic::catch_panic;
pub use counting_allocator::CountingAllocator;
pub use error::TorchError;
pub use host::{host_f64_on_cpu, host_reads, to_host_f64, to_host_f64s};
pub use libtorch_error::{LibtorchError, readable_error, readable_message};
pub use mapped_bytes::MappedBytes;
pub use operator::{Argument, Operator, StaticOperator};
pub use panic_hook::shorten_panics;
pub use places::LayerType;
pub use printable::{printable, printable_in_line};
pub use shared_tensor::{SharedTensor, is_exclusive};
pub use tch;
pub use tensor_list::{TensorList, storage_id, tensor_id};
pub use training_mode::Mode;
pub use type_name::{short_type_name, type_name_with_parameters};
pub use value::{Dict, Opaque, Value, ValueError};
pub use var_store::{Path, VarStore};
