//! [`Dataset`]: items by index, and adapters of datasets.

use std::sync::Arc;

use crate::{BoxError, ItemRng, ShareWithWorkers, Stacked};

/// A map-style dataset: a known number of items, each of which can be loaded by its index from any thread.
///
/// A [`Tensor`](fulgurite_torch::tch::Tensor) that it holds is a [`SharedTensor`](crate::SharedTensor), which threads may
/// read at the same time; see [`ShareWithWorkers`].
///
/// ```
/// use fulgurite_data::{BoxError, Dataset, ItemRng};
/// use fulgurite_data::rand::RngExt;
///
/// /// Noisy points of a line.
/// struct Line;
///
/// impl Dataset for Line {
///     type Item = (f32, f32);
///
///     fn len(&self) -> usize {
///         100
///     }
///
///     fn get(&self, index: usize, rng: &mut ItemRng) -> Result<(f32, f32), BoxError> {
///         let x = index as f32 / 100.0;
///         Ok((x, 2.0 * x + rng.random_range(-0.1..0.1)))
///     }
/// }
/// ```
pub trait Dataset:
    Send
    + ShareWithWorkers // A `Tensor` is not `Sync`: hold it as a `fulgurite::data::SharedTensor`.
    + 'static
{
    /// One sample: a tensor, a number, a tuple of those, or anything that your collate function accepts.
    type Item: Send + 'static;

    /// The number of items.
    fn len(&self) -> usize;

    /// Whether there are no items.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at `index`, which is less than [`len`](Dataset::len).
    ///
    /// Draw random numbers (augmentation) from `rng` only: it belongs to this item of this epoch, so the result does
    /// not depend on the number of workers. The loader's error names the item; this one should say what is wrong with it.
    fn get(&self, index: usize, rng: &mut ItemRng) -> Result<Self::Item, BoxError>;

    /// The items of `indices` at once, collated exactly as [`DefaultCollate`](crate::DefaultCollate) would; `None` if
    /// that is not faster than item by item.
    fn get_stacked(&self, indices: &[usize]) -> Option<Result<Stacked, BoxError>> {
        let _ = indices;
        None
    }

    /// The name of this dataset in error messages; the name of its type by default.
    fn name(&self) -> String {
        fulgurite_torch::short_type_name::<Self>().to_owned()
    }

    /// The dataset an item comes from and its index there, for error messages of datasets that wrap others.
    fn locate(&self, index: usize) -> (String, usize) {
        (self.name(), index)
    }

    /// The same dataset with `f` applied to every item, as it is loaded. A tensor that `f` uses is captured as a
    /// [`SharedTensor`](crate::SharedTensor).
    ///
    /// ```
    /// use fulgurite_data::rand::RngExt;
    /// use fulgurite_data::{Dataset, InMemory};
    ///
    /// let noisy = InMemory::new(vec![1.0f32, 2.0]).map(|x, rng| x + rng.random_range(-0.1..0.1));
    /// assert_eq!(noisy.len(), 2);
    /// ```
    fn map<T, F>(self, f: F) -> Map<Self, F>
    where
        Self: Sized,
        T: Send + 'static,
        F: Fn(Self::Item, &mut ItemRng) -> T + Send + ShareWithWorkers + 'static,
    {
        Map { dataset: self, f }
    }

    /// [`map`](Dataset::map) with a function that can fail; the error will name the item.
    fn try_map<T, F>(self, f: F) -> TryMap<Self, F>
    where
        Self: Sized,
        T: Send + 'static,
        F: Fn(Self::Item, &mut ItemRng) -> Result<T, BoxError> + Send + ShareWithWorkers + 'static,
    {
        TryMap { dataset: self, f }
    }
}

macro_rules! forward_dataset {
    ($($pointer:ident),*) => {
        $(impl<D: Dataset + ?Sized> Dataset for $pointer<D> {
            type Item = D::Item;

            fn len(&self) -> usize {
                (**self).len()
            }

            fn get(&self, index: usize, rng: &mut ItemRng) -> Result<D::Item, BoxError> {
                (**self).get(index, rng)
            }

            fn get_stacked(&self, indices: &[usize]) -> Option<Result<Stacked, BoxError>> {
                (**self).get_stacked(indices)
            }

            fn name(&self) -> String {
                (**self).name()
            }

            fn locate(&self, index: usize) -> (String, usize) {
                (**self).locate(index)
            }
        })*
    };
}

forward_dataset!(Arc, Box);

/// A dataset of items in memory, which are cloned.
#[derive(Debug, Clone)]
pub struct InMemory<T>(Vec<T>);

impl<T: Clone + Send + Sync + 'static> InMemory<T> {
    /// A dataset of `items`.
    pub fn new(items: impl IntoIterator<Item = T>) -> InMemory<T> {
        InMemory(items.into_iter().collect())
    }
}

impl<T: Clone + Send + Sync + 'static> Dataset for InMemory<T> {
    type Item = T;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize, _: &mut ItemRng) -> Result<T, BoxError> {
        self.0.get(index).cloned().ok_or_else(|| format!("there are only {} items", self.0.len()).into())
    }
}

/// A dataset with a function applied to every item; see [`Dataset::map`].
#[derive(Debug, Clone)]
pub struct Map<D, F> {
    dataset: D,
    f: F,
}

impl<D, F, T> Dataset for Map<D, F>
where
    D: Dataset,
    F: Fn(D::Item, &mut ItemRng) -> T + Send + Sync + 'static,
    T: Send + 'static,
{
    type Item = T;

    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn get(&self, index: usize, rng: &mut ItemRng) -> Result<T, BoxError> {
        let item = self.dataset.get(index, rng)?;
        Ok((self.f)(item, rng))
    }

    fn name(&self) -> String {
        self.dataset.name()
    }

    fn locate(&self, index: usize) -> (String, usize) {
        self.dataset.locate(index)
    }
}

/// A dataset with a fallible function applied to every item; see [`Dataset::try_map`].
#[derive(Debug, Clone)]
pub struct TryMap<D, F> {
    dataset: D,
    f: F,
}

impl<D, F, T> Dataset for TryMap<D, F>
where
    D: Dataset,
    F: Fn(D::Item, &mut ItemRng) -> Result<T, BoxError> + Send + Sync + 'static,
    T: Send + 'static,
{
    type Item = T;

    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn get(&self, index: usize, rng: &mut ItemRng) -> Result<T, BoxError> {
        let item = self.dataset.get(index, rng)?;
        (self.f)(item, rng)
    }

    fn name(&self) -> String {
        self.dataset.name()
    }

    fn locate(&self, index: usize) -> (String, usize) {
        self.dataset.locate(index)
    }
}
