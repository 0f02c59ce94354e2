//! [`CombinedLoader`]: several loaders iterated together, or one after the other.

use fulgurite_torch::Dict;

use crate::loader::exact_len;
use crate::{Batch, BatchIter, BoxLoader, DataError, IntoLoader, Loader, SampleIter, Shard};

use members::{AnyMember, Rows};
use shared::Shared;

mod members;
mod shared;

pub use members::Combine;

/// Several loaders as one, in the four modes of Lightning's `CombinedLoader`.
///
/// | mode | an epoch ends with | a batch is |
/// |---|---|---|
/// | [`min_size`](CombinedLoader::min_size) | the shortest loader | one batch of each |
/// | [`max_size_cycle`](CombinedLoader::max_size_cycle) | the longest; shorter ones restart | one batch of each |
/// | [`max_size`](CombinedLoader::max_size) | the longest | one batch of each, `None` of those that ended |
/// | [`sequential`](CombinedLoader::sequential) | the last | one batch of the loader whose turn it is |
///
/// The loaders are a tuple of two to four, of any batches, a `Vec`, or a `BTreeMap` of names; a batch has the same shape.
/// To limit the number of batches of one of them, pass [`loader.limit(n)`](Loader::limit).
///
/// An epoch can be resumed at any batch. A loader that restarts within an epoch does so in another random order, that
/// of its epoch `epoch + round * 2^32`. While one of them does not know its length, neither does the whole. Where a
/// length is not [exact](Loader::len_is_exact), an epoch ends where the batches do, and entering it in the middle loads
/// what comes before.
///
/// ```
/// use fulgurite_data::torch::tch::Tensor;
/// use fulgurite_data::{CombinedLoader, DataLoader, InMemory, Loader};
///
/// let labelled = DataLoader::new(InMemory::new(0..6i64)).batch_size(4);
/// let unlabelled = DataLoader::new(InMemory::new(0..15i64)).batch_size(5);
/// let both = CombinedLoader::max_size_cycle((labelled, unlabelled));
/// assert_eq!(both.len(), Some(3));
/// let (third, _) = both.iter(0, 2)?.next().unwrap()?;
/// assert_eq!(third, Tensor::from_slice(&[0i64, 1, 2, 3]));
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
pub struct CombinedLoader<B>(BoxLoader<B>);

impl<B: Batch> CombinedLoader<B> {
    /// One batch of each loader, until the shortest ends.
    pub fn min_size(loaders: impl Combine<Batch = B>) -> CombinedLoader<B> {
        CombinedLoader(Box::new(Whole { rows: loaders.into_rows(), cycles: false }))
    }

    /// One batch of each loader, until the longest ends; shorter ones restart. Lightning's default for several
    /// training loaders.
    pub fn max_size_cycle(loaders: impl Combine<Batch = B>) -> CombinedLoader<B> {
        CombinedLoader(Box::new(Whole { rows: loaders.into_rows(), cycles: true }))
    }

    /// One batch of each loader, until the longest ends; `None` of those that ended before.
    pub fn max_size(loaders: impl Combine<Partial = B>) -> CombinedLoader<B> {
        CombinedLoader(Box::new(Partial(loaders.into_rows())))
    }

    /// The batches of each loader, one loader after the other. An evaluation treats them as the several loaders they
    /// are, each with its `dataloader_idx`.
    pub fn sequential(loaders: impl IntoIterator<Item: IntoLoader<Batch = B>>) -> CombinedLoader<B> {
        CombinedLoader(Box::new(Sequence(loaders.into_iter().map(Shared::new).collect())))
    }
}

impl<B: Batch> Loader for CombinedLoader<B> {
    type Batch = B;

    fn len(&self) -> Option<usize> {
        self.0.len()
    }

    fn len_is_exact(&self) -> bool {
        self.0.len_is_exact()
    }

    fn iter(&self, epoch: u64, skip: usize) -> Result<BatchIter<B>, DataError> {
        self.0.iter(epoch, skip)
    }

    fn state(&self) -> Result<Option<Dict>, DataError> {
        self.0.state()
    }

    fn restore(&mut self, state: &Dict) -> Result<(), DataError> {
        self.0.restore(state)
    }

    fn batch_indices(&self, epoch: u64) -> Option<SampleIter<Vec<usize>>> {
        self.0.batch_indices(epoch)
    }

    fn is_shuffled(&self) -> bool {
        self.0.is_shuffled()
    }

    fn is_repeatable(&self) -> bool {
        self.0.is_repeatable()
    }

    fn sequential(&self) -> Option<BoxLoader<B>> {
        self.0.sequential()
    }

    fn sequence(&self) -> Option<Vec<BoxLoader<B>>> {
        self.0.sequence()
    }

    fn shard(&self, shard: Shard) -> Option<BoxLoader<B>> {
        self.0.shard(shard)
    }
}

/// A batch of each loader.
struct Whole<R> {
    rows: R,
    cycles: bool,
}

/// A batch of each loader that has not ended.
struct Partial<R>(R);

/// One loader after the other.
struct Sequence<B>(Vec<Shared<B>>);

fn lens<R: Rows>(rows: &R) -> Option<Vec<usize>> {
    rows.members().into_iter().map(AnyMember::len).collect()
}

fn lens_are_exact<R: Rows>(rows: &R) -> bool {
    rows.members().into_iter().all(AnyMember::len_is_exact)
}

fn is_shuffled<R: Rows>(rows: &R) -> bool {
    rows.members().into_iter().any(AnyMember::is_shuffled)
}

fn is_repeatable<R: Rows>(rows: &R) -> bool {
    rows.members().into_iter().all(AnyMember::is_repeatable)
}

impl<R: Rows> Loader for Whole<R> {
    type Batch = R::Batch;

    fn len(&self) -> Option<usize> {
        let lens = lens(&self.rows)?;
        let len = if self.cycles { lens.into_iter().max() } else { lens.into_iter().min() };
        Some(len.unwrap_or(0))
    }

    fn len_is_exact(&self) -> bool {
        lens_are_exact(&self.rows)
    }

    fn iter(&self, epoch: u64, skip: usize) -> Result<BatchIter<R::Batch>, DataError> {
        let len = exact_len(self);
        let mut rows = self.rows.fork();
        // Loaders with a state must be iterated, since the next pass depends on it.
        if rows.members().is_empty() || len.is_some_and(|len| skip >= len) && self.state()?.is_none() {
            return Ok(Box::new(std::iter::empty()));
        }
        let cycles = self.cycles;
        for member in rows.members_mut() {
            member.enter(epoch, skip, cycles)?;
        }
        let mut row = skip;
        Ok(Box::new(until_error(move || {
            if len.is_some_and(|len| row >= len) {
                return Ok(None);
            }
            row += 1;
            fetch(&mut rows)?;
            let ended = rows.members().into_iter().filter(|member| member.has_ended()).count();
            match cycles {
                true if ended == rows.members().len() => return Ok(None),
                true => rows.members_mut().into_iter().try_for_each(AnyMember::begin_again)?,
                false if ended > 0 => return Ok(None),
                false => {}
            }
            Ok(R::whole(rows.take()))
        })))
    }

    fn state(&self) -> Result<Option<Dict>, DataError> {
        state_of_all(self.rows.members().into_iter().map(AnyMember::state))
    }

    fn restore(&mut self, state: &Dict) -> Result<(), DataError> {
        let members = self.rows.members_mut();
        restore_all(members.into_iter().map(|member| move |state: &Dict| member.restore(state)), state)
    }

    fn is_shuffled(&self) -> bool {
        is_shuffled(&self.rows)
    }

    fn is_repeatable(&self) -> bool {
        is_repeatable(&self.rows)
    }

    fn sequential(&self) -> Option<BoxLoader<R::Batch>> {
        let in_order = || Whole { rows: self.rows.in_order(), cycles: self.cycles };
        self.is_shuffled().then(|| Box::new(in_order()) as BoxLoader<R::Batch>)
    }

    fn shard(&self, shard: Shard) -> Option<BoxLoader<R::Batch>> {
        Some(Box::new(Whole { rows: self.rows.of_shard(shard), cycles: self.cycles }))
    }
}

impl<R: Rows> Loader for Partial<R> {
    type Batch = R::Partial;

    fn len(&self) -> Option<usize> {
        lens(&self.0).map(|lens| lens.into_iter().max().unwrap_or(0))
    }

    fn len_is_exact(&self) -> bool {
        lens_are_exact(&self.0)
    }

    fn iter(&self, epoch: u64, skip: usize) -> Result<BatchIter<R::Partial>, DataError> {
        let mut rows = self.0.fork();
        for member in rows.members_mut() {
            member.enter(epoch, skip, false)?;
        }
        Ok(Box::new(until_error(move || {
            fetch(&mut rows)?;
            let all_ended = rows.members().into_iter().all(|member| member.has_ended());
            Ok(if all_ended { None } else { Some(rows.take()) })
        })))
    }

    fn state(&self) -> Result<Option<Dict>, DataError> {
        state_of_all(self.0.members().into_iter().map(AnyMember::state))
    }

    fn restore(&mut self, state: &Dict) -> Result<(), DataError> {
        let members = self.0.members_mut();
        restore_all(members.into_iter().map(|member| move |state: &Dict| member.restore(state)), state)
    }

    fn is_shuffled(&self) -> bool {
        is_shuffled(&self.0)
    }

    fn is_repeatable(&self) -> bool {
        is_repeatable(&self.0)
    }

    fn sequential(&self) -> Option<BoxLoader<R::Partial>> {
        self.is_shuffled().then(|| Box::new(Partial(self.0.in_order())) as BoxLoader<R::Partial>)
    }

    fn shard(&self, shard: Shard) -> Option<BoxLoader<R::Partial>> {
        Some(Box::new(Partial(self.0.of_shard(shard))))
    }
}

impl<B: Batch> Loader for Sequence<B> {
    type Batch = B;

    fn len(&self) -> Option<usize> {
        self.0.iter().map(Loader::len).sum()
    }

    fn len_is_exact(&self) -> bool {
        self.0.iter().all(Loader::len_is_exact)
    }

    fn is_repeatable(&self) -> bool {
        self.0.iter().all(Loader::is_repeatable)
    }

    fn iter(&self, epoch: u64, skip: usize) -> Result<BatchIter<B>, DataError> {
        let mut left = skip;
        let mut loaders = self.0.clone().into_iter();
        let mut current: BatchIter<B> = Box::new(std::iter::empty());
        Ok(Box::new(until_error(move || {
            loop {
                if let Some(batch) = current.next() {
                    // Of a loader that does not know its length for certain: which of its batches to skip is seen by walking them.
                    if left == 0 {
                        return batch.map(Some);
                    }
                    drop(batch?);
                    left -= 1;
                    continue;
                }
                let Some(loader) = loaders.next() else { return Ok(None) };
                match exact_len(&loader) {
                    Some(len) if len <= left => {
                        left -= len;
                        // Its state is that of after the pass.
                        if loader.state()?.is_some() {
                            drop(loader.iter(epoch, len)?);
                        }
                    }
                    Some(_) => current = loader.iter(epoch, std::mem::take(&mut left))?,
                    None => current = loader.iter(epoch, 0)?,
                }
            }
        })))
    }

    fn state(&self) -> Result<Option<Dict>, DataError> {
        state_of_all(self.0.iter().map(Loader::state))
    }

    fn restore(&mut self, state: &Dict) -> Result<(), DataError> {
        restore_all(self.0.iter_mut().map(|loader| move |state: &Dict| loader.restore(state)), state)
    }

    fn batch_indices(&self, epoch: u64) -> Option<SampleIter<Vec<usize>>> {
        let of_each = self.0.iter().map(|loader| loader.batch_indices(epoch)).collect::<Option<Vec<_>>>()?;
        Some(Box::new(of_each.into_iter().flatten()))
    }

    fn is_shuffled(&self) -> bool {
        self.0.iter().any(Loader::is_shuffled)
    }

    fn sequential(&self) -> Option<BoxLoader<B>> {
        self.is_shuffled().then(|| Box::new(Sequence(self.0.iter().map(Shared::in_order).collect())) as BoxLoader<B>)
    }

    fn sequence(&self) -> Option<Vec<BoxLoader<B>>> {
        Some(self.0.iter().map(|loader| Box::new(loader.clone()) as BoxLoader<B>).collect())
    }

    fn shard(&self, shard: Shard) -> Option<BoxLoader<B>> {
        Some(Box::new(Sequence(self.0.iter().map(|loader| loader.of_shard(shard)).collect())))
    }
}

/// The states of several loaders, in order; `None` if none has one.
fn state_of_all(states: impl Iterator<Item = Result<Option<Dict>, DataError>>) -> Result<Option<Dict>, DataError> {
    let states: Vec<Option<Dict>> = states.collect::<Result<_, _>>()?;
    let has_state = states.iter().any(Option::is_some);
    Ok(has_state.then(|| Dict::new().with("loaders", states)))
}

/// Restores what [`state_of_all`] returned.
fn restore_all<F: FnOnce(&Dict) -> Result<(), DataError>>(
    restore: impl ExactSizeIterator<Item = F>,
    state: &Dict,
) -> Result<(), DataError> {
    let states = state.list("loaders").unwrap_or_default();
    if states.len() != restore.len() {
        return Err(DataError::Setting(format!(
            "the state to restore is of {} loaders, and the CombinedLoader has {}; combine as many as when it was saved",
            states.len(),
            restore.len()
        )));
    }
    for (restore, state) in restore.zip(states) {
        if let Some(state) = state.as_dict() {
            restore(state)?;
        }
    }
    Ok(())
}

/// Asks every loader for its next batch.
fn fetch<R: Rows>(rows: &mut R) -> Result<(), DataError> {
    rows.members_mut().into_iter().try_for_each(AnyMember::fetch)
}

/// The batches that `next` gives, up to the end or an error.
fn until_error<B>(
    mut next: impl FnMut() -> Result<Option<B>, DataError>,
) -> impl Iterator<Item = Result<B, DataError>> {
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let batch = next().transpose();
        is_over = !matches!(batch, Some(Ok(_)));
        batch
    })
}
