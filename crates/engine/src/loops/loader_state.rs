//! The state of a training loader whose order depends on more than the seed and the epoch.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use fulgurite_data::{Batch, BoxLoader, DataError, Loader};
use fulgurite_torch::Dict;

use super::Run;
use super::batches::catching;
use crate::error::Error;
use crate::module::LightningModule;
use crate::progress::ResumePoint;
use crate::stage::Stage;
use crate::state::{LoaderState, TrainingData};

impl<M: LightningModule> Run<'_, '_, M> {
    /// A pass over the training loader starts, or continues.
    pub(super) fn note_loader_state(&mut self) -> Result<(), Error> {
        let began = state_of(self.train_loader.as_ref())?;
        self.engine.state.training_data.loader_state_mut().began = began;
        Ok(())
    }

    /// The end of a pass: a checkpoint may be requested after the loader was dropped.
    pub(super) fn note_next_loader_state(&mut self) -> Result<(), Error> {
        let next = state_of(self.train_loader.as_ref())?;
        self.engine.state.training_data.loader_state_mut().next = next;
        Ok(())
    }

    /// The state of the training loader in a checkpoint, for this rank.
    pub(crate) fn loader_state(
        loader: Option<&BoxLoader<M::Batch>>,
        data: &TrainingData,
    ) -> Result<Option<Dict>, Error> {
        let LoaderState { began, next } = data.loader_state();
        let Some(next) = state_of(loader)?.or_else(|| next.clone()) else { return Ok(None) };
        let began = began.as_ref().unwrap_or(&next).clone();
        Ok(Some(Dict::new().with("began", began).with("next", next)))
    }

    /// Runs `work`, and puts the states of the loaders back, even after a panic.
    pub(crate) fn keeping_loader_states<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let before = catching(|| self.loaders_mut().map(|loader| loader.state()).collect::<Result<Vec<_>, _>>());
        let before = before.map_err(|source| self.of_stage(source))?;
        let worked = catch_unwind(AssertUnwindSafe(|| work(self)));
        let restored = self.loaders_mut().zip(&before).try_for_each(|(loader, before)| match before {
            Some(before) => catching(|| loader.restore(before)),
            None => Ok(()),
        });
        let worked = worked.unwrap_or_else(|panic| resume_unwind(panic))?;
        restored.map_err(|source| self.of_stage(source)).map(|()| worked)
    }

    fn loaders_mut(&mut self) -> impl Iterator<Item = &mut BoxLoader<M::Batch>> {
        let eval = self.eval.iter_mut().flat_map(|eval| &mut eval.loaders);
        self.train_loader.iter_mut().chain(eval)
    }

    fn of_stage(&self, source: DataError) -> Error {
        Error::Data { stage: self.engine.state.stage().info().noun, batch_idx: None, source }
    }

    /// Restores the training loader of a resumed run: within an epoch to its state at the start of the epoch, and
    /// otherwise to its last state.
    pub(super) fn restore_loader(&mut self, resume: Option<&ResumePoint>) -> Result<(), Error> {
        let state = &mut self.engine.state;
        let saved = state.training_data.take_saved_loader();
        let (Some(resume), Some(loader)) = (resume, &mut self.train_loader) else { return Ok(()) };
        let fail = of_training;
        let key = if resume.mid_epoch { "began" } else { "next" };
        match saved.as_ref().and_then(|saved| saved.dict(key).ok()) {
            Some(saved) => catching(|| loader.restore(saved)).map_err(fail),
            None if catching(|| loader.state()).map_err(fail)?.is_some() => {
                state.warn(
                    "the training loader has a state, but the checkpoint has none for it: the order of the batches is not that of the run that wrote it",
                );
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn state_of<B: Batch>(loader: Option<&BoxLoader<B>>) -> Result<Option<Dict>, Error> {
    loader.map_or(Ok(None), |loader| catching(|| loader.state())).map_err(of_training)
}

fn of_training(source: DataError) -> Error {
    Error::Data { stage: Stage::Train.info().noun, batch_idx: None, source }
}
