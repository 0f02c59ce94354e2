//! Callbacks: things that watch a run, and may step in.

pub use fulgurite_callbacks::*;
pub use fulgurite_engine::{Callback, Checkpointer, DefaultCallback};
