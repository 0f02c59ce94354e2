//! PyTorch's layers, with PyTorch's names, defaults and initial values, on `tch`.
//!
//! A layer is made of its options at a path of a [`VarStore`]:
//!
//! ```
//! use fulgurite_nn::{self as nn, Build, Module};
//! use fulgurite_torch::tch::{Device, Kind, Tensor};
//!
//! let vars = nn::VarStore::new(Device::Cpu);
//! let net = nn::sequential()
//!     .add(nn::conv2d(1, 8, 3).padding(1))
//!     .add(nn::batch_norm2d(8))
//!     .add(nn::relu())
//!     .add(nn::adaptive_avg_pool2d(1))
//!     .add(nn::flatten())
//!     .add(nn::linear(8, 10))
//!     .at(vars.root() / "net")?;
//! let images = Tensor::rand([2, 1, 28, 28], (Kind::Float, Device::Cpu));
//! assert_eq!(net.forward(&images).size(), [2, 10]);
//! vars.eval(); // the batch norm uses its running statistics from now on
//! # Ok::<(), nn::NnError>(())
//! ```
//!
//! The parameters have the names that they have in Python (`net.0.weight`), so a state dict of the same model there fits. With the
//! same seed they have the same values, where both are created in the same order.
//!
//! The layers of `tch::nn` start elsewhere than PyTorch's: weights of linear and convolutional layers are 2.4 times as
//! wide, those of batch norms are drawn from 0..1 instead of being 1, the biases of an LSTM are 0.

mod error;
pub mod init;
mod linear;
mod module;
mod parameter;
mod sequential;

pub use error::{NnError, Result};
pub use fulgurite_torch::{Mode, Path, VarStore};
pub use linear::{Bilinear, BilinearOptions, Linear, LinearOptions, bilinear, linear};
pub use module::{Build, Module};
pub use sequential::{Sequential, SequentialOptions, sequential};
