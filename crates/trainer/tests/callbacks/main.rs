//! The callbacks in real runs. Where a row says nothing else, it is what Lightning 2.6.6 does.

// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod accumulation;
mod early_stopping;
mod lr_monitor;
mod model_checkpoint;
mod scripted;
mod timer;
mod weights;
