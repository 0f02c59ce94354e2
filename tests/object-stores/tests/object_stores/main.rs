//! Checkpoints in object stores, against servers on this machine.

mod common;
mod places;
mod s3;
mod store;
