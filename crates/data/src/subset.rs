//! Parts and sums of datasets: [`Subset`], [`random_split`], [`ConcatDataset`].

use std::sync::Arc;

use crate::seed::{self, Purpose};
use crate::{BoxError, DataError, Dataset, ItemRng, Stacked};

/// A subset of a dataset at given indices.
#[derive(Debug)]
pub struct Subset<D> {
    dataset: Arc<D>,
    indices: Arc<[usize]>,
}

impl<D: Dataset> Subset<D> {
    /// The items of `dataset` at `indices`; an index outside the dataset is an error.
    pub fn new(dataset: D, indices: impl Into<Arc<[usize]>>) -> Result<Subset<D>, DataError> {
        Subset::of(Arc::new(dataset), indices)
    }

    /// [`Subset::new`] of a dataset that several subsets share.
    pub fn of(dataset: Arc<D>, indices: impl Into<Arc<[usize]>>) -> Result<Subset<D>, DataError> {
        let indices = indices.into();
        if let Some(index) = indices.iter().find(|&&i| i >= dataset.len()) {
            return Err(DataError::Setting(format!(
                "a subset asks for item {index} of {}, which has {} items; indices start at 0",
                dataset.name(),
                dataset.len()
            )));
        }
        Ok(Subset { dataset, indices })
    }

    /// The indices of its items in the dataset.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }
}

impl<D> Clone for Subset<D> {
    fn clone(&self) -> Self {
        Subset { dataset: self.dataset.clone(), indices: self.indices.clone() }
    }
}

impl<D: Dataset> Dataset for Subset<D> {
    type Item = D::Item;

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn get(&self, index: usize, rng: &mut ItemRng) -> Result<D::Item, BoxError> {
        self.dataset.get(self.indices[index], rng)
    }

    fn get_stacked(&self, indices: &[usize]) -> Option<Result<Stacked, BoxError>> {
        let inner: Vec<usize> = indices.iter().map(|&i| self.indices[i]).collect();
        self.dataset.get_stacked(&inner)
    }

    fn name(&self) -> String {
        format!("a subset of {}", self.dataset.name())
    }

    fn locate(&self, index: usize) -> (String, usize) {
        self.dataset.locate(self.indices[index])
    }
}

/// A length given to [`random_split`]: a count (`usize`) or a fraction of the whole (`f64`).
pub trait SplitLength: Copy {
    /// The counts that `lengths` mean for a dataset of `total` items.
    fn counts(lengths: &[Self], total: usize) -> Result<Vec<usize>, DataError>;
}

impl SplitLength for usize {
    fn counts(lengths: &[usize], total: usize) -> Result<Vec<usize>, DataError> {
        let sum = lengths.iter().fold(0, |sum: usize, length| sum.saturating_add(*length));
        if sum != total {
            return Err(DataError::Setting(format!(
                "random_split into {lengths:?} needs {sum} items, the dataset has {total}; the lengths must add up to it"
            )));
        }
        Ok(lengths.to_vec())
    }
}

/// PyTorch's rule: every part gets the floor of its share, what is left over goes one each to the first parts.
impl SplitLength for f64 {
    fn counts(fractions: &[f64], total: usize) -> Result<Vec<usize>, DataError> {
        let sum: f64 = fractions.iter().sum();
        if let Some(bad) = fractions.iter().find(|f| !(0.0..=1.0).contains(*f)) {
            return Err(DataError::Setting(format!("random_split was given {bad}; a fraction is between 0 and 1")));
        }
        if (sum - 1.0).abs() > 1e-9 {
            return Err(DataError::Setting(format!(
                "random_split by {fractions:?}: the fractions add up to {sum}, not 1"
            )));
        }
        let mut counts: Vec<usize> = fractions.iter().map(|f| (total as f64 * f).floor() as usize).collect();
        let left = total.saturating_sub(counts.iter().sum());
        (0..left).for_each(|i| counts[i % fractions.len()] += 1);
        Ok(counts)
    }
}

/// Randomly splits a dataset into non-overlapping parts.
///
/// `lengths` are counts that add up to the length of the dataset, or fractions that add up to 1. The same `seed`
/// gives the same parts, always. Follows `torch.utils.data.random_split`, its rounding included.
///
/// ```
/// use fulgurite_data::{Dataset, InMemory, random_split};
///
/// let [train, val] = random_split(InMemory::new(0..10), [0.85, 0.15], 42)?;
/// assert_eq!((train.len(), val.len()), (9, 1));
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
pub fn random_split<D: Dataset, L: SplitLength, const N: usize>(
    dataset: D,
    lengths: [L; N],
    seed: u64,
) -> Result<[Subset<D>; N], DataError> {
    let dataset = Arc::new(dataset);
    let counts = L::counts(&lengths, dataset.len())?;
    let mut order: Vec<usize> = (0..dataset.len()).collect();
    seed::shuffle(&mut order, &mut seed::generator(seed, 0, Purpose::Split));
    let mut rest = order.as_slice();
    Ok(std::array::from_fn(|part| {
        let (own, others) = rest.split_at(counts[part]);
        rest = others;
        Subset { dataset: dataset.clone(), indices: own.into() }
    }))
}

/// A concatenation of datasets with the same type of items.
#[derive(Debug, Clone)]
pub struct ConcatDataset<D> {
    datasets: Vec<D>,
    /// Where each dataset ends.
    ends: Vec<usize>,
}

impl<D: Dataset> ConcatDataset<D> {
    /// The items of all `datasets` in order. Use `Box<dyn Dataset<Item = T>>` for datasets of different types.
    pub fn new(datasets: impl IntoIterator<Item = D>) -> ConcatDataset<D> {
        let datasets: Vec<D> = datasets.into_iter().collect();
        let ends = datasets
            .iter()
            .scan(0, |end, dataset| {
                *end += dataset.len();
                Some(*end)
            })
            .collect();
        ConcatDataset { datasets, ends }
    }

    /// The dataset that holds `index`, and the index there.
    fn find(&self, index: usize) -> (&D, usize) {
        let at = self.ends.partition_point(|&end| end <= index);
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        (&self.datasets[at], index - start)
    }
}

impl<D: Dataset> Dataset for ConcatDataset<D> {
    type Item = D::Item;

    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn get(&self, index: usize, rng: &mut ItemRng) -> Result<D::Item, BoxError> {
        let (dataset, index) = self.find(index);
        dataset.get(index, rng)
    }

    fn locate(&self, index: usize) -> (String, usize) {
        let (dataset, index) = self.find(index);
        dataset.locate(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InMemory;
    use crate::seed::ItemRngs;

    fn all<D: Dataset>(dataset: &D) -> Vec<D::Item> {
        (0..dataset.len()).map(|i| dataset.get(i, &mut ItemRngs::new(0, 0).at(0)).unwrap()).collect()
    }

    #[test]
    fn fractions_are_rounded_as_pytorch_does() {
        // torch.utils.data.random_split(range(n), fractions), lengths of the parts.
        assert_eq!(f64::counts(&[0.3, 0.3, 0.4], 10).unwrap(), [3, 3, 4]);
        assert_eq!(f64::counts(&[0.33, 0.33, 0.34], 10).unwrap(), [4, 3, 3]);
        assert_eq!(f64::counts(&[0.5, 0.5], 7).unwrap(), [4, 3]);
        assert_eq!(f64::counts(&[0.1, 0.2, 0.7], 1797).unwrap(), [180, 360, 1257]);
    }

    #[test]
    fn parts_share_nothing_and_cover_everything() {
        let [a, b, c] = random_split(InMemory::new(0..100), [50usize, 30, 20], 7).unwrap();
        let mut items = [all(&a), all(&b), all(&c)].concat();
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
        let [again, _, _] = random_split(InMemory::new(0..100), [50usize, 30, 20], 7).unwrap();
        assert_eq!(all(&a), all(&again));
    }

    #[test]
    fn wrong_lengths_are_explained() {
        let message = |r: Result<Vec<usize>, DataError>| r.unwrap_err().to_string();
        assert_eq!(
            message(usize::counts(&[5, 6], 10)),
            "random_split into [5, 6] needs 11 items, the dataset has 10; the lengths must add up to it"
        );
        assert_eq!(
            message(f64::counts(&[0.5, 0.6], 10)),
            "random_split by [0.5, 0.6]: the fractions add up to 1.1, not 1"
        );
        assert_eq!(message(f64::counts(&[1.5, -0.5], 10)), "random_split was given 1.5; a fraction is between 0 and 1");
        assert_eq!(
            Subset::new(InMemory::new(0..3), [1, 3]).unwrap_err().to_string(),
            "a subset asks for item 3 of InMemory, which has 3 items; indices start at 0"
        );
    }

    #[test]
    fn datasets_are_joined_in_order() {
        let joined = ConcatDataset::new([InMemory::new(0..3), InMemory::new(0..0), InMemory::new(10..12)]);
        assert_eq!(all(&joined), [0, 1, 2, 10, 11]);
        assert_eq!(joined.locate(4), ("InMemory".to_string(), 1));
        assert_eq!(all(&Subset::new(joined, [4, 0]).unwrap()), [11, 0]);
    }
}
