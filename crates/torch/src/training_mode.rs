//! [`Mode`]: whether a layer trains, and the switches of all layers of a store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Whether a layer trains or evaluates: the attribute `training` of PyTorch's modules. Clones are the same switch.
///
/// It is set by [`VarStore::train`](crate::VarStore::train), [`Path::train`](crate::Path::train) or
/// [`params::train`](crate::params::train) for every layer below.
#[derive(Debug, Clone)]
pub struct Mode(Arc<AtomicBool>);

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

/// The modes of a store's layers with their names. A layer that is gone is no longer listed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Modes(Arc<Mutex<Vec<Named>>>);

/// A switch with the name of its layer, which may be gone.
type Named = (String, Weak<AtomicBool>);

impl Modes {
    pub(crate) fn register(&self, name: String) -> Mode {
        let mode = Mode::new();
        let mut modes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if modes.len() == modes.capacity() {
            modes.retain(|(_, mode)| mode.strong_count() > 0);
        }
        modes.push((name, Arc::downgrade(&mode.0)));
        mode
    }

    /// The modes of `path` and below.
    pub(crate) fn below(&self, path: &str) -> Vec<(String, Mode)> {
        let modes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_below = |name: &str| {
            path.is_empty() || name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let mut below = Vec::new();
        for (name, mode) in modes.iter().filter(|(name, _)| is_below(name)) {
            below.extend(mode.upgrade().map(|mode| (name.clone(), Mode(mode))));
        }
        below
    }

    /// How many entries there are, those of layers that are gone included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
