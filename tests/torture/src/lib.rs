//! How hard runs are tried: a training run is killed again and again, goes on from what its folder holds, and must end
//! with the weights and the log of the run that nobody disturbed.
//!
//! `cargo xtask torture` runs the long form, `cargo xtask test` a short one.

pub mod campaign;
pub mod damage;
pub mod draw;
pub mod life;
pub mod log;
pub mod trainee;
