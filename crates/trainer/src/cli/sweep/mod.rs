//! The subcommand `sweep`: trials are child processes, in a study that Optuna can open.

mod board;
mod child;
mod events;
mod history;
mod options;
mod owner;
mod runner;
#[cfg(test)]
mod tests;

pub(super) use self::options::SweepOptions;
pub(super) use self::runner::{Sweep, argument_value, summary};
