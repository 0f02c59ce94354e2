//! The program `fulgurite`: what is needed before there is a program that trains. It needs no libtorch itself.
//!
//! ```sh
//! fulgurite setup              # fetches libtorch, once for all crates of this user
//! fulgurite new my-model       # a crate that trains a model: `cargo run -- fit`, `cargo test`
//! fulgurite report logs        # one HTML page of the runs in a folder
//! fulgurite watch logs         # how they stand, again and again, in the terminal
//! fulgurite sync lightning_logs # sends what runs could not send to MLflow, W&B, Trackio or Comet
//! fulgurite ckpt show a.ckpt   # the tools for checkpoint files, if `fulgurite-ckpt` is installed
//! ```
//!
//! As a library it is what `cargo xtask` of a clone of Fulgurite sets up libtorch with.

mod ckpt;
pub mod console;
mod create;
mod dependency;
pub mod libtorch;
mod name;
pub mod pip;
pub mod prerequisites;
mod program;
pub mod python;
pub mod setup;
mod store;
#[cfg(feature = "sync")]
mod sync;
mod template;

pub use program::{new_in_clone, run};
