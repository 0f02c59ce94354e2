//! [`Verdict`]: what a pruner decides, and what several of them need for it.

use crate::error::{Result, SearchError};
use crate::trial::Direction;

/// The steps at which trials are judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    pub(super) n_warmup_steps: i64,
    pub(super) interval_steps: i64,
}

impl Steps {
    pub(super) fn new(n_warmup_steps: i64, interval_steps: i64) -> Result<Steps> {
        at_least("n_warmup_steps", n_warmup_steps, 0)?;
        at_least("interval_steps", interval_steps, 1)?;
        Ok(Steps { n_warmup_steps, interval_steps })
    }
}

/// What a pruner decides, and what it notes of the trial.
pub(crate) struct Verdict {
    pub(crate) prune: bool,
    pub(crate) notes: Vec<(String, f64)>,
}

impl From<bool> for Verdict {
    fn from(prune: bool) -> Verdict {
        Verdict { prune, notes: Vec::new() }
    }
}

/// The best value that is a number; NaN if there is none.
pub(super) fn best(values: &[f64], direction: Direction) -> f64 {
    let better = |a: f64, b: f64| if direction.is_better(b, a) { b } else { a };
    values.iter().copied().fold(f64::NAN, better)
}

pub(super) fn at_least(name: &str, value: i64, least: i64) -> Result<()> {
    if value >= least {
        return Ok(());
    }
    Err(SearchError::Options(format!("`{name}` is {value}; it must be at least {least}")))
}
