//! [`Batches`]: one walk through a loader, with a limit, that knows its last batch when it yields it.

use fulgurite_data::{Batch, BatchIter, DataError, Loader};

/// One walk through a loader.
pub(crate) struct Batches<B> {
    iter: BatchIter<B>,
    next_idx: usize,
    /// How many there may be in all.
    limit: Option<usize>,
    /// The loader does not know its length, so one batch is fetched ahead to know whether another comes.
    looks_ahead: bool,
    ahead: Option<B>,
}

/// A batch, its index, and whether it is the last.
pub(crate) struct Numbered<B> {
    pub batch: B,
    pub idx: usize,
    pub is_last: bool,
}

impl<B: Batch> Batches<B> {
    /// The batches of `epoch`, without the first `skip`, and no more than `limit` in all.
    pub(crate) fn new(
        loader: &dyn Loader<Batch = B>,
        epoch: u64,
        skip: usize,
        limit: Option<usize>,
    ) -> Result<Batches<B>, DataError> {
        let looks_ahead = loader.len().is_none();
        let mut iter = loader.iter(epoch, skip)?;
        let ahead = if looks_ahead { iter.next().transpose()? } else { None };
        Ok(Batches { iter, next_idx: skip, limit, looks_ahead, ahead })
    }

    /// The next batch.
    pub(crate) fn next(&mut self) -> Result<Option<Numbered<B>>, DataError> {
        let idx = self.next_idx;
        if self.limit.is_some_and(|limit| idx >= limit) {
            return Ok(None);
        }
        let batch = if self.looks_ahead { self.ahead.take() } else { self.iter.next().transpose()? };
        let Some(batch) = batch else { return Ok(None) };
        let mut is_last = self.limit == Some(idx + 1);
        if self.looks_ahead && !is_last {
            self.ahead = self.iter.next().transpose()?;
            is_last = self.ahead.is_none();
        }
        self.next_idx += 1;
        Ok(Some(Numbered { batch, idx, is_last }))
    }

    /// Whether no batch comes any more, as far as can be known without asking the loader.
    pub(crate) fn is_done(&self) -> bool {
        self.limit.is_some_and(|limit| self.next_idx >= limit) || self.looks_ahead && self.ahead.is_none()
    }

    /// How many there may be in all.
    pub(crate) fn limit(&self) -> Option<usize> {
        self.limit
    }

    /// The index of the batch that comes next.
    pub(crate) fn next_idx(&self) -> usize {
        self.next_idx
    }
}
