//! What schedulers that consist of others share.

use fulgurite_torch::{Dict, Value};

use super::scheduler::ChainableScheduler;
use crate::{OptimError, Optimizer};

/// The entries of `_schedulers`.
pub(super) fn save_parts(parts: &[Box<dyn ChainableScheduler>]) -> Result<Vec<Value>, OptimError> {
    parts.iter().map(|part| part.state_dict().map(Value::Dict)).collect()
}

/// Loads the entries of `_schedulers`.
pub(super) fn load_parts(
    owner: &'static str,
    state: &Dict,
    parts: &mut [Box<dyn ChainableScheduler>],
) -> Result<(), OptimError> {
    let saved = state.list("_schedulers").map_err(OptimError::lacks(owner))?;
    if saved.len() != parts.len() {
        let (saved, here) = (saved.len(), parts.len());
        return Err(OptimError::state_dict(owner, format!("it has {saved} schedulers, expected {here}")));
    }
    for (part, saved) in parts.iter_mut().zip(saved) {
        let saved = saved.as_dict().ok_or_else(|| OptimError::state_dict(owner, "a part's state is no dict"))?;
        part.load_state_dict(saved)?;
    }
    Ok(())
}

/// Sets every learning rate to what it was before any scheduler.
pub(super) fn reset_lrs(optimizer: &mut dyn Optimizer) {
    for group in optimizer.param_groups_mut() {
        group.lr = group.initial_lr.unwrap_or(group.lr);
    }
}
