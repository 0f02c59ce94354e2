//! [`Batches`]: one pass over a loader, with a limit and a flag for the last batch.

use fulgurite_data::{Batch, BatchIter, DataError, Loader};
use fulgurite_torch::catch_panic;

use crate::error::Error;
use crate::record::Activity;
use crate::scope::Scope;
use crate::stage::Stage;
use crate::state::TrainerState;

/// One pass over a loader.
pub(crate) struct Batches<B> {
    iter: BatchIter<B>,
    next_idx: usize,
    /// The maximum number of batches.
    limit: Option<usize>,
    /// The length reported by the loader.
    said: Option<usize>,
    /// The loader's length may be wrong, so one batch is fetched ahead to detect the end.
    looks_ahead: bool,
    ahead: Option<Result<B, DataError>>,
}

/// A loader whose length differs from the reported one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Surprise {
    pub said: usize,
    /// `None`: more.
    pub gave: Option<usize>,
}

/// A batch, its index, and whether it is the last.
pub(crate) struct Numbered<B> {
    pub batch: B,
    pub idx: usize,
    pub is_last: bool,
}

impl<B: Batch> Batches<B> {
    /// Iterates over the batches of `epoch`, without the first `skip`, up to `limit` in total.
    pub(crate) fn new(
        loader: &dyn Loader<Batch = B>,
        epoch: u64,
        skip: usize,
        limit: Option<usize>,
    ) -> Result<Batches<B>, DataError> {
        let (said, exact) = catching(|| Ok((loader.len(), loader.len().filter(|_| loader.len_is_exact()))))?;
        let limit = limit.into_iter().chain(exact).min();
        let iter = catching(|| loader.iter(epoch, skip))?;
        let mut batches = Batches { iter, next_idx: skip, limit, said, looks_ahead: exact.is_none(), ahead: None };
        if limit.is_none_or(|limit| skip < limit) {
            batches.look_ahead();
        }
        Ok(batches)
    }

    /// The next batch.
    pub(crate) fn next(&mut self) -> Result<Option<Numbered<B>>, DataError> {
        if self.is_done() {
            return Ok(None);
        }
        let idx = self.next_idx;
        let batch = if self.looks_ahead { self.ahead.take() } else { next_of(&mut self.iter) };
        let Some(batch) = batch.transpose()? else { return self.end_of_data() };
        self.next_idx += 1;
        if self.limit.is_none_or(|limit| self.next_idx < limit) {
            self.look_ahead();
        }
        Ok(Some(Numbered { batch, idx, is_last: self.is_done() }))
    }

    fn look_ahead(&mut self) {
        if self.looks_ahead {
            self.ahead = next_of(&mut self.iter);
        }
    }

    /// The iterator ended before its last batch.
    fn end_of_data(&self) -> Result<Option<Numbered<B>>, DataError> {
        match self.said.filter(|_| !self.looks_ahead) {
            None => Ok(None),
            Some(said) => Err(DataError::Setting(format!(
                "its length of {said} batches is exact by its `len_is_exact`, and it ended after {}; correct the `len` of the loader or its sampler, or let `len_is_exact` return false",
                self.next_idx
            ))),
        }
    }

    /// Whether there are no more batches, as far as is known without the loader.
    pub(crate) fn is_done(&self) -> bool {
        self.limit.is_some_and(|limit| self.next_idx >= limit) || self.looks_ahead && self.ahead.is_none()
    }

    /// Whether the loader's length turns out to be wrong with the batch yielded last.
    pub(crate) fn surprise(&self) -> Option<Surprise> {
        let said = self.said?;
        let expected = self.limit.map_or(said, |limit| limit.min(said));
        match self.is_done() {
            true if self.next_idx < expected => Some(Surprise { said, gave: Some(self.next_idx) }),
            false if self.next_idx == expected => Some(Surprise { said, gave: None }),
            _ => None,
        }
    }

    /// The maximum number of batches.
    pub(crate) fn limit(&self) -> Option<usize> {
        self.limit
    }

    /// The index of the batch that comes next.
    pub(crate) fn next_idx(&self) -> usize {
        self.next_idx
    }
}

fn next_of<B>(iter: &mut BatchIter<B>) -> Option<Result<B, DataError>> {
    catching(|| iter.next().transpose()).transpose()
}

/// Calls the code of a loader; a panic becomes an error, which is then not attributed to the hook that ran last.
pub(super) fn catching<T>(call: impl FnOnce() -> Result<T, DataError>) -> Result<T, DataError> {
    catch_panic(call).unwrap_or_else(|message| Err(DataError::LoaderPanicked { message }))
}

/// Asks a loader something outside of a pass; a panic is an error of the loader, as in [`catching`].
pub(crate) fn of_loader<T>(stage: Stage, ask: impl FnOnce() -> T) -> Result<T, Error> {
    let stage = stage.info().noun;
    let failed = |source| Error::Data { stage, batch_idx: None, source };
    catching(|| Ok(ask())).map_err(failed)
}

impl TrainerState {
    /// A batch begins: what is logged now belongs to it.
    pub(crate) fn start_batch<B: Batch>(&mut self, batch: &B, batch_idx: usize, dataloader_idx: Option<usize>) {
        let size = batch.size();
        self.count_samples(size);
        self.position.start_batch(batch_idx, dataloader_idx.unwrap_or(0));
        self.metrics.start_batch(size, dataloader_idx);
    }

    /// The next batch of a loader, in this stage.
    pub(crate) fn fetch<B: Batch>(&mut self, batches: &mut Batches<B>) -> Result<Option<Numbered<B>>, Error> {
        if batches.is_done() {
            return Ok(None);
        }
        let stage = self.stage();
        let length = if stage == Stage::Train { self.num_training_batches() } else { batches.limit() };
        self.profiling.batch_start(stage, length)?;
        let next = self.spending(Activity::Data, |state| {
            state.profiled(|_| stage.info().fetch_action.to_owned(), |_| batches.next())
        });
        if let Some(surprise) = batches.surprise() {
            self.warn_of_length(surprise);
        }
        next.map_err(|source| Error::Data { stage: stage.info().noun, batch_idx: Some(batches.next_idx()), source })
    }

    /// Warns, once, that the length of a loader differs from the reported one.
    fn warn_of_length(&self, Surprise { said, gave }: Surprise) {
        let gave = gave.map_or("more".to_owned(), |gave| gave.to_string());
        self.warn(&format!(
            "a {} loader reports {said} batches per epoch, but yielded {gave}: the epoch ends with the last batch, and what depends on the length (fractions of an epoch, the progress bar, estimated_stepping_batches) is not right; correct its `len`, or say `None`",
            self.stage().info().noun
        ));
    }
}

#[cfg(test)]
mod tests {
    use fulgurite_data::{BoxError, FnLoader};
    use fulgurite_torch::tch::{Tensor, no_grad};

    use super::*;

    /// Batches of a loader that reports `said` and yields `gives`: an index each, `!` with the last.
    fn walk(said: usize, gives: i64, skip: usize, limit: Option<usize>) -> (String, Option<Surprise>) {
        let loader = FnLoader::new(move |_| (0..gives).map(Ok::<_, BoxError>)).with_len(said);
        let mut batches = Batches::new(&loader, 0, skip, limit).unwrap();
        let (mut walked, mut surprise) = (String::new(), None);
        while let Some(Numbered { batch, idx, is_last }) = batches.next().unwrap() {
            assert_eq!(batch, idx as i64);
            walked += &format!("{idx}{}", if is_last { "!" } else { " " });
            surprise = surprise.or(batches.surprise());
        }
        (walked, surprise)
    }

    #[test]
    fn the_end_is_where_the_batches_end() {
        assert_eq!(walk(3, 3, 0, None), ("0 1 2!".into(), None));
        assert_eq!(walk(7, 3, 0, None), ("0 1 2!".into(), Some(Surprise { said: 7, gave: Some(3) })));
        assert_eq!(walk(2, 3, 0, None), ("0 1 2!".into(), Some(Surprise { said: 2, gave: None })));
        assert_eq!(walk(7, 3, 0, Some(2)), ("0 1!".into(), None));
        assert_eq!(walk(2, 9, 0, Some(4)), ("0 1 2 3!".into(), Some(Surprise { said: 2, gave: None })));
        assert_eq!(walk(7, 3, 2, None), ("2!".into(), Some(Surprise { said: 7, gave: Some(3) })));
        assert_eq!(walk(7, 3, 3, None), (String::new(), None));
        assert_eq!(walk(7, 3, 5, None), (String::new(), None));
        assert_eq!(walk(0, 0, 0, None), (String::new(), None));
    }

    /// `len` batches by its own account, of which it yields `gives`, or panics.
    struct Exactly {
        len: usize,
        gives: Option<i64>,
    }

    impl Loader for Exactly {
        type Batch = i64;

        fn len(&self) -> Option<usize> {
            Some(self.len)
        }

        fn len_is_exact(&self) -> bool {
            true
        }

        fn iter(&self, _: u64, skip: usize) -> Result<BatchIter<i64>, DataError> {
            Ok(Box::new((skip as i64..self.gives.expect("out of tape")).map(Ok)))
        }
    }

    #[test]
    fn an_exact_length_that_is_too_long_is_an_error() {
        for skip in [0, 1] {
            let mut batches = Batches::new(&Exactly { len: 3, gives: Some(2) }, 0, skip, None).unwrap();
            (skip..2).for_each(|_| assert!(batches.next().unwrap().is_some_and(|batch| !batch.is_last)));
            let error = batches.next().err().unwrap().to_string();
            let start = "its length of 3 batches is exact by its `len_is_exact`, and it ended after 2; ";
            assert!(error.starts_with(start), "{error}");
        }
        let mut batches = Batches::new(&Exactly { len: 2, gives: Some(3) }, 0, 0, None).unwrap();
        assert!(batches.next().is_ok() && batches.next().unwrap().is_some_and(|second| second.is_last));
    }

    #[test]
    fn a_panic_of_a_loader_is_an_error() {
        let error = Batches::new(&Exactly { len: 2, gives: None }, 0, 0, None).err().unwrap();
        assert_eq!(error.to_string(), "its code panicked: out of tape");
        let tear = || no_grad(|| panic!("torn"));
        let torn = FnLoader::new(move |_| (0..2i64).map(move |i| if i == 1 { tear() } else { Ok::<_, BoxError>(i) }));
        let mut batches = Batches::new(&torn, 0, 0, None).unwrap();
        assert!(batches.next().unwrap().is_some());
        let weight = Tensor::from(1.0).set_requires_grad(true);
        assert!((weight * 2.0).requires_grad());
        assert_eq!(batches.next().err().unwrap().to_string(), "its code panicked: torn");
    }

    #[test]
    fn a_batch_that_fails_is_not_the_one_before_it() {
        let loader = FnLoader::new(|_| [Ok(0i64), Err("lost".into())].into_iter()).with_len(2);
        let mut batches = Batches::new(&loader, 0, 0, None).unwrap();
        assert!(batches.next().unwrap().is_some_and(|first| !first.is_last));
        assert_eq!(batches.next_idx(), 1);
        assert!(batches.next().is_err());
    }
}
