//! [`ContextGuard`].

use std::any::Any;
use std::fmt;

use fulgurite_torch::distributed::SyncBatchNormGuard;

/// The context of a strategy around the creation of a module or a forward pass, active until the guard is dropped.
#[must_use = "the context ends when the guard is dropped"]
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

    /// A context that ends when `guard` is dropped. Allocates, which for a forward pass means in every step.
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
