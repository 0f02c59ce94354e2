//! [`ContextGuard`].

use std::any::Any;
use std::fmt;

use fulgurite_torch::distributed::SyncBatchNormGuard;

/// The context of a strategy around the creation of a module or a forward pass: it ends when the guard is dropped.
#[must_use = "it is in force until it is dropped"]
#[derive(Default)]
pub struct ContextGuard {
    _sync_batch_norm: Option<SyncBatchNormGuard>,
    _other: Option<Box<dyn Any>>,
}

impl ContextGuard {
    /// No context.
    pub fn none() -> ContextGuard {
        ContextGuard::default()
    }

    /// Whatever ends when `guard` is dropped. It is allocated, in every step for a forward pass.
    pub fn new(guard: impl Any) -> ContextGuard {
        ContextGuard { _sync_batch_norm: None, _other: Some(Box::new(guard)) }
    }
}

/// Synchronized batch norms, without an allocation.
impl From<SyncBatchNormGuard> for ContextGuard {
    fn from(guard: SyncBatchNormGuard) -> ContextGuard {
        ContextGuard { _sync_batch_norm: Some(guard), _other: None }
    }
}

impl fmt::Debug for ContextGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextGuard").finish_non_exhaustive()
    }
}
