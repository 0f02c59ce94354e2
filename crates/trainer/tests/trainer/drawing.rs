//! A loader whose order depends on a generator of its own.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use fulgurite::data::{Batch, BatchIter, DataError, Loader};
use fulgurite::torch::Dict;

/// Batches of these items, in an order that each pass draws from a generator that goes on from the pass before.
pub(crate) struct Drawing<B> {
    pub(crate) items: Range<usize>,
    /// Several loaders may draw from one.
    pub(crate) generator: Arc<Mutex<i64>>,
    pub(crate) batch: fn(usize) -> B,
}

impl<B: Batch> Loader for Drawing<B> {
    type Batch = B;

    fn len(&self) -> Option<usize> {
        Some(self.items.len())
    }

    fn len_is_exact(&self) -> bool {
        true
    }

    fn iter(&self, _: u64, skip: usize) -> Result<BatchIter<B>, DataError> {
        let mut generator = self.generator.lock().unwrap();
        let mut order: Vec<usize> = self.items.clone().collect();
        for at in (1..order.len()).rev() {
            *generator = generator.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            order.swap(at, (*generator as u64 >> 33) as usize % (at + 1));
        }
        let batch = self.batch;
        Ok(Box::new(order.into_iter().skip(skip).map(move |item| Ok(batch(item)))))
    }

    fn state(&self) -> Result<Option<Dict>, DataError> {
        Ok(Some(Dict::new().with("generator", *self.generator.lock().unwrap())))
    }

    fn restore(&mut self, state: &Dict) -> Result<(), DataError> {
        let generator = state.int("generator").map_err(|error| DataError::Setting(error.to_string()))?;
        *self.generator.lock().unwrap() = generator;
        Ok(())
    }
}
