//! [`MapBatch`]: a function of whole batches, with random numbers.

use fulgurite_torch::rng::global_seed;

use crate::seed::{Purpose, generator};
use crate::{Batch, BoxError, Collate, ItemRng};

/// Collates, then applies a function to the batch; made by [`DataLoader::map_batch`](crate::DataLoader::map_batch).
#[derive(Debug)]
pub struct MapBatch<C, F> {
    pub(crate) collate: std::sync::Arc<C>,
    pub(crate) f: F,
}

impl<T, C, F, B> Collate<T> for MapBatch<C, F>
where
    C: Collate<T>,
    F: Fn(C::Batch, &mut ItemRng) -> Result<B, BoxError> + Send + Sync + 'static,
    B: Batch,
{
    type Batch = B;

    /// With the random numbers of the first batch of a run: a loader calls [`collate_seeded`](Collate::collate_seeded).
    fn collate(&self, items: Vec<T>) -> Result<B, BoxError> {
        self.collate_seeded(items, &mut generator(global_seed(), 0, Purpose::Batch))
    }

    fn collate_seeded(&self, items: Vec<T>, rng: &mut ItemRng) -> Result<B, BoxError> {
        (self.f)(self.collate.collate_seeded(items, rng)?, rng)
    }
}
