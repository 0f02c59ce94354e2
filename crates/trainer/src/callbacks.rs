//! Callbacks: hooks that extend the trainer.

pub use fulgurite_callbacks::*;
pub use fulgurite_engine::{Callback, Checkpointer, DefaultCallback};
