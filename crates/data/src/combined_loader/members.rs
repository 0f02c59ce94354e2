//! The loaders of a [`CombinedLoader`](super::CombinedLoader) that are walked together, in whatever collection they came.

use std::collections::BTreeMap;
use std::iter::Fuse;

use fulgurite_torch::Dict;

use super::shared::Shared;
use crate::loader::exact_len;
use crate::{Batch, BatchIter, DataError, IntoLoader, Loader, Shard};

/// One of several loaders, and where its walk through an epoch is.
pub struct Member<B> {
    loader: Shared<B>,
    walk: Option<Walk<B>>,
}

struct Walk<B> {
    batches: Fuse<BatchIter<B>>,
    epoch: u64,
    /// How often it began again.
    round: u64,
    /// The next batch, until it is taken.
    next: Option<B>,
    /// It came to its end at least once.
    has_ended: bool,
}

impl<B: Batch> Member<B> {
    fn new(loader: impl IntoLoader<Batch = B>) -> Member<B> {
        Member::of(Shared::new(loader))
    }

    fn of(loader: Shared<B>) -> Member<B> {
        Member { loader, walk: None }
    }

    fn fork(&self) -> Member<B> {
        Member::of(self.loader.clone())
    }

    fn in_order(&self) -> Member<B> {
        Member::of(self.loader.in_order())
    }

    fn of_shard(&self, shard: Shard) -> Member<B> {
        Member::of(self.loader.of_shard(shard))
    }

    fn take(&mut self) -> Option<B> {
        self.walk.as_mut()?.next.take()
    }

    /// A walk through the given round of an epoch.
    fn walk(&self, epoch: u64, round: u64, skip: usize, has_ended: bool) -> Result<Walk<B>, DataError> {
        let batches = self.loader.iter(epoch.wrapping_add(round << 32), skip)?.fuse();
        Ok(Walk { batches, epoch, round, next: None, has_ended })
    }
}

/// A [`Member`] of any batch.
pub trait AnyMember {
    fn len(&self) -> Option<usize>;
    fn len_is_exact(&self) -> bool;
    fn is_shuffled(&self) -> bool;
    fn is_repeatable(&self) -> bool;
    fn state(&self) -> Result<Option<Dict>, DataError>;
    fn restore(&mut self, state: &Dict) -> Result<(), DataError>;
    /// Begins an epoch after its first `row` rows.
    fn enter(&mut self, epoch: u64, row: usize, cycles: bool) -> Result<(), DataError>;
    /// Gets its next batch, unless it has ended.
    fn fetch(&mut self) -> Result<(), DataError>;
    /// If it has no next batch, gets the first of a new round.
    fn begin_again(&mut self) -> Result<(), DataError>;
    fn has_ended(&self) -> bool;
}

impl<B: Batch> AnyMember for Member<B> {
    fn len(&self) -> Option<usize> {
        self.loader.len()
    }

    fn len_is_exact(&self) -> bool {
        self.loader.len_is_exact()
    }

    fn is_shuffled(&self) -> bool {
        self.loader.is_shuffled()
    }

    fn is_repeatable(&self) -> bool {
        self.loader.is_repeatable()
    }

    fn state(&self) -> Result<Option<Dict>, DataError> {
        self.loader.state()
    }

    fn restore(&mut self, state: &Dict) -> Result<(), DataError> {
        self.loader.restore(state)
    }

    fn enter(&mut self, epoch: u64, row: usize, cycles: bool) -> Result<(), DataError> {
        // The rounds of a loader with a state follow from one another.
        let len = exact_len(&self.loader).filter(|_| !cycles || !matches!(self.loader.state(), Ok(Some(_))));
        self.walk = Some(match len {
            Some(len) if cycles && len > 0 => self.walk(epoch, (row / len) as u64, row % len, row >= len)?,
            _ if !cycles => self.walk(epoch, 0, row, false)?,
            _ => self.walk(epoch, 0, 0, false)?,
        });
        // Where a round ends is not known without walking it.
        if cycles && len.is_none() {
            for _ in 0..row {
                self.fetch()?;
                self.begin_again()?;
                drop(self.take());
            }
        }
        Ok(())
    }

    fn fetch(&mut self) -> Result<(), DataError> {
        let Some(walk) = &mut self.walk else { return Ok(()) };
        walk.next = walk.batches.next().transpose()?;
        walk.has_ended |= walk.next.is_none();
        Ok(())
    }

    fn begin_again(&mut self) -> Result<(), DataError> {
        let Some(walk) = self.walk.as_ref().filter(|walk| walk.next.is_none()) else { return Ok(()) };
        let mut walk = self.walk(walk.epoch, walk.round + 1, 0, true)?;
        walk.next = walk.batches.next().transpose()?;
        if walk.next.is_none() {
            return Err(DataError::Setting(
                "a loader of a CombinedLoader in the mode max_size_cycle is empty, so it cannot begin again; leave it out".into(),
            ));
        }
        self.walk = Some(walk);
        Ok(())
    }

    fn has_ended(&self) -> bool {
        self.walk.as_ref().is_some_and(|walk| walk.has_ended)
    }
}

/// Loaders that [`CombinedLoader`](super::CombinedLoader) walks together: a tuple of two to four, a `Vec`, or a `BTreeMap` of names.
#[diagnostic::on_unimplemented(
    message = "`{Self}` are not loaders to combine",
    note = "hand over a tuple of two to four loaders, a `Vec` of loaders of one type, or a `BTreeMap<String, _>` of them; `into_loader()` makes loaders of different types one type"
)]
pub trait Combine {
    /// One batch of each.
    type Batch: Batch;
    /// One batch of each that has not ended.
    type Partial: Batch;
    #[doc(hidden)]
    type Rows: Rows<Batch = Self::Batch, Partial = Self::Partial>;

    #[doc(hidden)]
    fn into_rows(self) -> Self::Rows;
}

/// Loaders of which a batch each makes a row.
pub trait Rows: Send + Sized + 'static {
    type Batch: Batch;
    type Partial: Batch;

    /// The same loaders, not walked yet.
    fn fork(&self) -> Self;
    /// The same loaders in dataset order.
    fn in_order(&self) -> Self;
    /// What one process sees of the same loaders.
    fn of_shard(&self, shard: Shard) -> Self;
    fn members(&self) -> Vec<&dyn AnyMember>;
    fn members_mut(&mut self) -> Vec<&mut dyn AnyMember>;
    /// What was fetched of each.
    fn take(&mut self) -> Self::Partial;
    /// The same, if it was something of each.
    fn whole(partial: Self::Partial) -> Option<Self::Batch>;
}

macro_rules! tuple_rows {
    ($($loader:ident $batch:ident $at:tt),*) => {
        impl<$($batch: Batch),*> Rows for ($(Member<$batch>,)*) {
            type Batch = ($($batch,)*);
            type Partial = ($(Option<$batch>,)*);

            fn fork(&self) -> Self {
                ($(self.$at.fork(),)*)
            }

            fn in_order(&self) -> Self {
                ($(self.$at.in_order(),)*)
            }

            fn of_shard(&self, shard: Shard) -> Self {
                ($(self.$at.of_shard(shard),)*)
            }

            fn members(&self) -> Vec<&dyn AnyMember> {
                vec![$(&self.$at),*]
            }

            fn members_mut(&mut self) -> Vec<&mut dyn AnyMember> {
                vec![$(&mut self.$at),*]
            }

            fn take(&mut self) -> Self::Partial {
                ($(self.$at.take(),)*)
            }

            fn whole(partial: Self::Partial) -> Option<Self::Batch> {
                Some(($(partial.$at?,)*))
            }
        }

        impl<$($loader: IntoLoader),*> Combine for ($($loader,)*) {
            type Batch = ($($loader::Batch,)*);
            type Partial = ($(Option<$loader::Batch>,)*);
            type Rows = ($(Member<$loader::Batch>,)*);

            fn into_rows(self) -> Self::Rows {
                ($(Member::new(self.$at),)*)
            }
        }
    };
}
tuple_rows!(L A 0, M B 1);
tuple_rows!(L A 0, M B 1, N C 2);
tuple_rows!(L A 0, M B 1, N C 2, O D 3);

impl<B: Batch> Rows for Vec<Member<B>> {
    type Batch = Vec<B>;
    type Partial = Vec<Option<B>>;

    fn fork(&self) -> Self {
        self.iter().map(Member::fork).collect()
    }

    fn in_order(&self) -> Self {
        self.iter().map(Member::in_order).collect()
    }

    fn of_shard(&self, shard: Shard) -> Self {
        self.iter().map(|member| member.of_shard(shard)).collect()
    }

    fn members(&self) -> Vec<&dyn AnyMember> {
        self.iter().map(|member| member as _).collect()
    }

    fn members_mut(&mut self) -> Vec<&mut dyn AnyMember> {
        self.iter_mut().map(|member| member as _).collect()
    }

    fn take(&mut self) -> Self::Partial {
        self.iter_mut().map(Member::take).collect()
    }

    fn whole(partial: Self::Partial) -> Option<Self::Batch> {
        partial.into_iter().collect()
    }
}

impl<L: IntoLoader> Combine for Vec<L> {
    type Batch = Vec<L::Batch>;
    type Partial = Vec<Option<L::Batch>>;
    type Rows = Vec<Member<L::Batch>>;

    fn into_rows(self) -> Self::Rows {
        self.into_iter().map(Member::new).collect()
    }
}

impl<B: Batch> Rows for BTreeMap<String, Member<B>> {
    type Batch = BTreeMap<String, B>;
    type Partial = BTreeMap<String, Option<B>>;

    fn fork(&self) -> Self {
        self.iter().map(|(name, member)| (name.clone(), member.fork())).collect()
    }

    fn in_order(&self) -> Self {
        self.iter().map(|(name, member)| (name.clone(), member.in_order())).collect()
    }

    fn of_shard(&self, shard: Shard) -> Self {
        self.iter().map(|(name, member)| (name.clone(), member.of_shard(shard))).collect()
    }

    fn members(&self) -> Vec<&dyn AnyMember> {
        self.values().map(|member| member as _).collect()
    }

    fn members_mut(&mut self) -> Vec<&mut dyn AnyMember> {
        self.values_mut().map(|member| member as _).collect()
    }

    fn take(&mut self) -> Self::Partial {
        self.iter_mut().map(|(name, member)| (name.clone(), member.take())).collect()
    }

    fn whole(partial: Self::Partial) -> Option<Self::Batch> {
        partial.into_iter().map(|(name, batch)| Some((name, batch?))).collect()
    }
}

impl<L: IntoLoader> Combine for BTreeMap<String, L> {
    type Batch = BTreeMap<String, L::Batch>;
    type Partial = BTreeMap<String, Option<L::Batch>>;
    type Rows = BTreeMap<String, Member<L::Batch>>;

    fn into_rows(self) -> Self::Rows {
        self.into_iter().map(|(name, loader)| (name, Member::new(loader))).collect()
    }
}
