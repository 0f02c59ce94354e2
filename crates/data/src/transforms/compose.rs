//! Transforms of transforms.

use std::sync::Arc;

use fulgurite_torch::tch::Tensor;

use super::functional::setting;
use super::{Transform, draw};
use crate::{DataError, ItemRng};

/// Transforms one after the other; follows `torchvision.transforms.v2.Compose`. A tuple of transforms is the same with a
/// number of members that is known when it is compiled.
///
/// ```
/// use fulgurite_data::torch::tch::Kind;
/// use fulgurite_data::transforms::{Compose, RandAugment, Resize, ToDtype};
///
/// let augmented = true;
/// let mut transform = Compose::new().then(Resize::new((64, 64)));
/// if augmented {
///     transform = transform.then(RandAugment::default());
/// }
/// let transform = transform.then(ToDtype::scaled(Kind::Float));
/// # let _ = transform;
/// ```
#[derive(Clone, Default)]
pub struct Compose(Vec<Arc<dyn Transform>>);

impl Compose {
    /// No transform yet: images stay as they are.
    pub fn new() -> Compose {
        Compose::default()
    }

    /// Adds a transform at the end.
    pub fn then(mut self, transform: impl Transform) -> Compose {
        self.0.push(Arc::new(transform));
        self
    }
}

impl Transform for Compose {
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        self.0.iter().try_fold(image, |image, transform| transform.apply(image, rng))
    }
}

impl Transform for Arc<dyn Transform> {
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        (**self).apply(image, rng)
    }
}

/// Applies a transform with the probability `p`, 0.5 by default; follows `torchvision.transforms.v2.RandomApply`.
#[derive(Debug, Clone)]
pub struct RandomApply<T> {
    transform: T,
    p: f64,
}

impl<T: Transform> RandomApply<T> {
    /// Applies `transform`, such as a tuple of several, or not.
    pub fn new(transform: T) -> RandomApply<T> {
        RandomApply { transform, p: 0.5 }
    }

    /// The probability.
    pub fn p(mut self, p: f64) -> RandomApply<T> {
        self.p = p;
        self
    }
}

impl<T: Transform> Transform for RandomApply<T> {
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        if draw::happens(rng, self.p, "RandomApply")? { self.transform.apply(image, rng) } else { Ok(image) }
    }
}

/// Applies one of several transforms; follows `torchvision.transforms.v2.RandomChoice`.
#[derive(Clone, Default)]
pub struct RandomChoice(Vec<(f64, Arc<dyn Transform>)>);

impl RandomChoice {
    /// No transform yet.
    pub fn new() -> RandomChoice {
        RandomChoice::default()
    }

    /// Adds a transform, as probable as others.
    pub fn or(self, transform: impl Transform) -> RandomChoice {
        self.or_weighted(1.0, transform)
    }

    /// Adds a transform with a probability `p`, on any scale.
    pub fn or_weighted(mut self, p: f64, transform: impl Transform) -> RandomChoice {
        self.0.push((p, Arc::new(transform)));
        self
    }
}

impl Transform for RandomChoice {
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        let weights = self.0.iter().map(|(p, _)| *p);
        let total: f64 = weights.clone().sum();
        if !(total > 0.0 && total.is_finite()) || weights.clone().any(|p| p < 0.0) {
            let weights = Vec::from_iter(weights);
            return setting(format!("RandomChoice needs transforms with probabilities above 0, but has {weights:?}"));
        }
        let mut left = draw::uniform(rng, (0.0, total));
        // Rounding may leave a rest: the last one that can be chosen.
        let chosen = self.0.iter().find(|(p, _)| {
            left -= p;
            left < 0.0
        });
        let Some((_, transform)) = chosen.or(self.0.iter().rfind(|(p, _)| *p > 0.0)) else { return Ok(image) };
        transform.apply(image, rng)
    }
}

/// Applies all of several transforms, in a random order; follows `torchvision.transforms.v2.RandomOrder`.
#[derive(Clone, Default)]
pub struct RandomOrder(Vec<Arc<dyn Transform>>);

impl RandomOrder {
    /// No transform yet: images stay as they are.
    pub fn new() -> RandomOrder {
        RandomOrder::default()
    }

    /// Adds a transform.
    pub fn and(mut self, transform: impl Transform) -> RandomOrder {
        self.0.push(Arc::new(transform));
        self
    }
}

impl Transform for RandomOrder {
    fn apply(&self, image: Tensor, rng: &mut ItemRng) -> Result<Tensor, DataError> {
        let order = draw::permutation(rng, self.0.len());
        order.into_iter().try_fold(image, |image, at| self.0[at].apply(image, rng))
    }
}
