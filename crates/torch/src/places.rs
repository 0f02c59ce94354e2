//! [`Places`]: what layers keep, found by where the layers are; [`LayerType`].

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What the layers of a store keep, with the layers' names, in the order of their creation. That of a layer that is gone is no
/// longer listed.
#[derive(Debug)]
pub(crate) struct Places<T: ?Sized>(Arc<Mutex<Vec<Named<T>>>>);

/// What a layer keeps, which may be gone, with its name.
type Named<T> = (String, Weak<T>);

impl<T: ?Sized> Places<T> {
    pub(crate) fn register(&self, name: String, kept: &Arc<T>) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() == places.capacity() {
            places.retain(|(_, kept)| kept.strong_count() > 0);
        }
        places.push((name, Arc::downgrade(kept)));
    }

    /// What is kept at `path` and below.
    pub(crate) fn below(&self, path: &str) -> Vec<(String, Arc<T>)> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_below = |name: &str| {
            path.is_empty() || name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let below = places.iter().filter(|(name, _)| is_below(name));
        below.filter_map(|(name, kept)| kept.upgrade().map(|kept| (name.clone(), kept))).collect()
    }

    /// How many entries there are, those of layers that are gone included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl<T: ?Sized> Clone for Places<T> {
    fn clone(&self) -> Places<T> {
        Places(self.0.clone())
    }
}

impl<T: ?Sized> Default for Places<T> {
    fn default() -> Places<T> {
        Places(Arc::default())
    }
}

/// What the layer at a place is, such as `Conv2d`: the class of PyTorch's module, which summaries of a model show.
///
/// [`Path::layer_type`](crate::Path::layer_type) notes it for as long as the layer keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerType(pub(crate) Arc<str>);

impl LayerType {
    /// A type of this name, at no place.
    pub fn new(name: &str) -> LayerType {
        LayerType(name.into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LayerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
