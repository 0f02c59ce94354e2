//! What libtorch has and training needs, and `tch` does not bring.
//!
//! This is the only crate of the workspace that contains `unsafe`, and the only one that contains C++ (`csrc/`).
//! It depends on nothing of Fulgurite, and is useful to any `tch` program.

mod value;

pub use tch;
pub use value::{Dict, Value, ValueError};
