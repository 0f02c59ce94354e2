//! Random numbers for identifiers and for the spread of waiting times. Nothing secret is made of them.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

pub(crate) fn random_u64(part: u8) -> u64 {
    RandomState::new().hash_one(part)
}

/// A new identifier of 32 hexadecimal digits, as MLflow's and Comet's runs have.
///
/// ```
/// assert_ne!(fulgurite_trackers::run_id(), fulgurite_trackers::run_id());
/// ```
pub fn run_id() -> String {
    format!("{:016x}{:016x}", random_u64(0), random_u64(1))
}

/// A number in 0..1.
pub(crate) fn fraction() -> f64 {
    (random_u64(2) >> 11) as f64 / (1_u64 << 53) as f64
}
