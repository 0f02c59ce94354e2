//! Optimization by hand, and by several optimizers.

mod manual;
mod overridden;
mod players;
mod schedule_length;
mod strategy;
mod turns;

use fulgurite_test_support::{batches, quiet, scalars};
