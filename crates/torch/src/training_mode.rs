//! [`Mode`]: whether a layer trains.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a layer trains or evaluates: the attribute `training` of PyTorch's modules. Clones are the same switch.
///
/// It is set by [`VarStore::train`](crate::VarStore::train), [`Path::train`](crate::Path::train) or
/// [`params::train`](crate::params::train) for every layer below.
#[derive(Debug, Clone)]
pub struct Mode(pub(crate) Arc<AtomicBool>);

impl Mode {
    /// A mode of its own, which trains.
    pub fn new() -> Mode {
        Mode(Arc::new(AtomicBool::new(true)))
    }

    /// Whether the layer trains.
    pub fn is_training(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Switches to training, or to evaluation.
    pub fn train(&self, mode: bool) {
        self.0.store(mode, Ordering::Relaxed);
    }
}

impl Default for Mode {
    fn default() -> Mode {
        Mode::new()
    }
}
