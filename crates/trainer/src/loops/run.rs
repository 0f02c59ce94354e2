//! [`Run`]: one entry point in progress: engine, module and data together.

use fulgurite_data::{Batch, BoxLoader, Loader, Remainder};

use crate::callbacks::Callback;
use crate::config::Limit;
use crate::data_module::{Loaders, Source, request};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::hook::Hook;
use crate::loops::Surprise;
use crate::module::{LightningModule, ModuleView};
use crate::state::{Owner, Stage, TrainerState};

/// One entry point in progress.
pub(crate) struct Run<'a, 'd, M: LightningModule> {
    pub engine: &'a mut Engine,
    pub module: &'a mut M,
    pub data: Source<'d, M::Batch>,
    pub train_loader: Option<BoxLoader<M::Batch>>,
    pub eval: Option<EvalLoaders<M::Batch>>,
}

/// The loaders of an evaluation, and how far each may be walked.
pub(crate) struct EvalLoaders<B> {
    pub loaders: Vec<BoxLoader<B>>,
    pub limits: Vec<Option<usize>>,
    /// How many batches of each every process is sure to have.
    pub in_common: Vec<usize>,
    /// The epoch in which they were asked for.
    epoch: u64,
}

impl<'a, 'd, M: LightningModule> Run<'a, 'd, M> {
    pub(crate) fn new(engine: &'a mut Engine, module: &'a mut M, data: Source<'d, M::Batch>) -> Run<'a, 'd, M> {
        Run { engine, module, data, train_loader: None, eval: None }
    }

    /// Calls a hook on every callback, writes the checkpoints they asked for, then calls it on the module.
    pub(crate) fn hook<T>(
        &mut self,
        hook: Hook,
        on_callback: impl FnMut(&mut dyn Callback, &mut TrainerState, &mut dyn ModuleView) -> Result<()>,
        on_module: impl FnOnce(&mut M, &mut TrainerState) -> Result<T>,
    ) -> Result<T, Error> {
        self.engine.on_callbacks(hook, self.module, on_callback)?;
        self.serve_requests()?;
        let returned = self.engine.on_module(hook, self.module, on_module)?;
        self.serve_requests()?;
        Ok(returned)
    }

    /// Calls a hook on every callback, and writes the checkpoints they asked for.
    pub(crate) fn callback_hook(
        &mut self,
        hook: Hook,
        on_callback: impl FnMut(&mut dyn Callback, &mut TrainerState, &mut dyn ModuleView) -> Result<()>,
    ) -> Result<(), Error> {
        self.engine.on_callbacks(hook, self.module, on_callback)?;
        self.serve_requests()
    }

    /// Calls a hook on the module.
    pub(crate) fn module_hook<T>(
        &mut self,
        hook: Hook,
        on_module: impl FnOnce(&mut M, &mut TrainerState) -> Result<T>,
    ) -> Result<T, Error> {
        self.engine.on_module(hook, self.module, on_module)
    }

    /// Calls a hook on the data module, if there is one.
    pub(crate) fn data_hook(
        &mut self,
        hook: Hook,
        call: impl FnOnce(&mut dyn crate::LightningDataModule<Batch = M::Batch>) -> Result<()>,
    ) -> Result<(), Error> {
        let Source::DataModule(data) = &mut self.data else { return Ok(()) };
        let state = &mut self.engine.state;
        let action = state.begin_action(|| format!("[LightningDataModule]{}.{hook}", data.name()));
        state.enter(hook, Owner::DataModule);
        let returned = call(*data).map_err(|source| data_error(*data, hook, source));
        state.owner = Owner::Trainer;
        state.end_action(action);
        returned
    }

    /// The loaders of a stage, from wherever this run's data comes.
    pub(crate) fn request_loaders(&mut self, stage: Stage) -> Result<Option<Loaders<M::Batch>>, Error> {
        let hook = match stage {
            Stage::Train => Hook::TrainDataloader,
            Stage::SanityCheck | Stage::Validate => Hook::ValDataloader,
            Stage::Test => Hook::TestDataloader,
            Stage::Predict => Hook::PredictDataloader,
        };
        match &mut self.data {
            Source::Loaders(first, val) => {
                let is_fit_validation = hook == Hook::ValDataloader && self.engine.state.entry == crate::TrainerFn::Fit;
                Ok(if is_fit_validation { val.take() } else { first.take() }.filter(|l| !l.0.is_empty()))
            }
            Source::DataModule(data) => {
                let state = &mut self.engine.state;
                let action = state.begin_action(|| format!("[LightningDataModule]{}.{hook}", data.name()));
                state.enter(hook, Owner::DataModule);
                let loaders = match hook {
                    Hook::TrainDataloader => data.train_dataloader(),
                    Hook::ValDataloader => data.val_dataloader(),
                    Hook::TestDataloader => data.test_dataloader(),
                    _ => data.predict_dataloader(),
                };
                state.owner = Owner::Trainer;
                state.end_action(action);
                request(loaders).map_err(|source| data_error(*data, hook, source))
            }
            Source::Module => self.engine.on_module(hook, self.module, |module, _| {
                request(match hook {
                    Hook::TrainDataloader => module.train_dataloader(),
                    Hook::ValDataloader => module.val_dataloader(),
                    Hook::TestDataloader => module.test_dataloader(),
                    _ => module.predict_dataloader(),
                })
            }),
        }
    }

    /// Whether loaders that were asked for in `epoch` are asked for again. Those handed over cannot be.
    fn reload_is_due(&self, epoch: u64) -> bool {
        let every = self.engine.state.config.reload_dataloaders_every_n_epochs;
        every > 0
            && self.engine.state.entry == crate::TrainerFn::Fit
            && self.engine.state.current_epoch().saturating_sub(epoch) >= every
            && !matches!(self.data, Source::Loaders(..))
    }

    /// Asks for the evaluation loaders of `stage`, unless they are there, and works out their limits.
    pub(crate) fn setup_eval_data(&mut self, stage: Stage) -> Result<(), Error> {
        let config = &self.engine.state.config;
        let (name, limit) = match stage {
            Stage::Test => ("limit_test_batches", config.limit_test_batches),
            Stage::Predict => ("limit_predict_batches", config.limit_predict_batches),
            _ => ("limit_val_batches", config.limit_val_batches),
        };
        let reload = self.eval.as_ref().is_some_and(|eval| self.reload_is_due(eval.epoch));
        if self.eval.is_some() && !reload || limit.is_zero() {
            return Ok(());
        }
        let overfit = config.is_overfitting() && stage != Stage::Test && stage != Stage::Predict;
        let is_fit = self.engine.state.entry == crate::TrainerFn::Fit;
        if is_fit && !self.engine.state.has_validation {
            return Ok(());
        }
        let Some(Loaders(loaders)) = self.request_loaders(stage)? else {
            self.engine.state.has_validation = false;
            return Ok(());
        };
        // One that walks several in turn stands for them.
        let mut loaders: Vec<_> =
            loaders.into_iter().flat_map(|loader| loader.sequence().unwrap_or_else(|| vec![loader])).collect();
        if overfit {
            loaders = loaders.into_iter().map(|loader| self.engine.state.make_sequential(loader)).collect();
        }
        let state = &mut self.engine.state;
        loaders.iter_mut().try_for_each(|loader| state.shard(loader, Remainder::Keep))?;
        if loaders.iter().any(|loader| loader.is_shuffled()) {
            state.warn(&format!(
                "a {} loader is shuffled; turn shuffling off, so that its batches come in the order of the data",
                stage.describe()
            ));
        }
        let lens = loaders.iter().map(|loader| state.most_and_fewest_batches(Length::of(loader)));
        let (lens, in_common): (Vec<_>, Vec<_>) = lens.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let expected = lens.into_iter().map(|len| limit.apply(name, len)).collect::<Result<Vec<_>, _>>()?;
        let limits = expected.iter().map(|expected| limit.of_any_length(*expected)).collect();
        state.num_eval_batches = expected;
        if state.run.eval_batches.len() != loaders.len() || !is_fit {
            let (before, now) = (state.run.eval_batches.len(), loaders.len());
            if is_fit && before > 0 {
                state.warn(&format!(
                    "there were {before} validation loaders before, and there are {now} now: their batches are counted from 0, which is the x-axis of what they log on step"
                ));
            }
            state.run.eval_batches = vec![0; loaders.len()];
        }
        self.eval = Some(EvalLoaders { loaders, limits, in_common, epoch: state.current_epoch() });
        Ok(())
    }

    /// Asks for the training loader, and works out how many of its batches make an epoch.
    pub(crate) fn setup_train_data(&mut self) -> Result<(), Error> {
        let limit = self.engine.state.config.limit_train_batches;
        if std::mem::replace(&mut self.engine.state.train_data.ready, true) {
            return Ok(());
        }
        if limit.is_zero() {
            self.engine.state.num_training_batches = Some(0);
            return Ok(());
        }
        let action = self.engine.state.begin_action(|| "setup_train_dataloader".to_owned());
        let ready = self.setup_train_loader(limit);
        self.engine.state.end_action(action);
        ready
    }

    fn setup_train_loader(&mut self, limit: Limit) -> Result<(), Error> {
        let loaders = self.request_loaders(Stage::Train)?;
        let mut loader = match loaders.map(|Loaders(list)| <[_; 1]>::try_from(list)) {
            Some(Ok([loader])) => loader,
            Some(Err(several)) => {
                return Err(Error::Config(format!(
                    "fit was given {} training loaders; train on all of them at once through a `CombinedLoader`, such as `CombinedLoader::max_size_cycle((a, b))`, or on their data as one with a `ConcatDataset`",
                    several.len()
                )));
            }
            None => {
                return Err(Error::MissingMethod {
                    entry: "fit",
                    method: "train_dataloader",
                    module: self.module.name().to_owned(),
                });
            }
        };
        if loader.sequence().is_some() {
            return Err(Error::Config(
                "fit was given a `CombinedLoader::sequential` to train on, which is for evaluation; choose one of its other modes, or join the data with a `ConcatDataset`".into(),
            ));
        }
        if self.engine.state.config.is_overfitting() {
            loader = self.engine.state.make_sequential(loader);
        }
        self.engine.state.shard(&mut loader, Remainder::Pad)?;
        let len = self.engine.state.fewest_batches(Length::of(&loader))?;
        self.train_loader = Some(loader);
        self.engine.state.train_data.epoch = self.engine.state.current_epoch();
        self.engine.state.expect_training_batches(len, limit)?;
        self.engine.state.check_validation_interval(len.said, limit)?;
        self.engine.state.check_log_interval();
        Ok(())
    }

    /// Asks for the training loader again, if that is due; and for its length, which may be another in each epoch.
    pub(crate) fn reload_train_data(&mut self) -> Result<(), Error> {
        let Some(loader) = &self.train_loader else { return Ok(()) };
        if self.reload_is_due(self.engine.state.train_data.epoch) {
            self.engine.state.train_data.ready = false;
            return self.setup_train_data();
        }
        let len = Length::of(loader);
        let state = &mut self.engine.state;
        let len = state.fewest_batches(len)?;
        if len == state.train_data.len {
            return Ok(());
        }
        state.expect_training_batches(len, state.config.limit_train_batches)
    }
}

/// The length of a loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Length {
    /// What it says, if it does.
    pub said: Option<usize>,
    /// It cannot have another.
    pub is_exact: bool,
}

impl Length {
    pub(crate) fn of<B: Batch>(loader: &BoxLoader<B>) -> Length {
        let said = loader.len();
        Length { said, is_exact: said.is_some() && loader.len_is_exact() }
    }

    pub(crate) fn exact(self) -> Option<usize> {
        self.said.filter(|_| self.is_exact)
    }
}

impl TrainerState {
    /// Takes note of how many batches an epoch of training is to have.
    fn expect_training_batches(&mut self, len: Length, limit: Limit) -> Result<(), Error> {
        self.train_data.len = len;
        self.num_training_batches = limit.apply("limit_train_batches", len.said)?;
        Ok(())
    }

    /// How many batches of training there may be in an epoch, whatever the loader has. Where processes have numbers that they
    /// are sure of, no more than all have.
    pub(crate) fn most_training_batches(&self) -> Option<usize> {
        match self.train_data.len.exact() {
            Some(_) if self.is_distributed() => self.num_training_batches,
            _ => self.config.limit_train_batches.of_any_length(self.num_training_batches),
        }
    }

    /// Says, once, that a loader does not have as many batches as it says.
    pub(crate) fn warn_of_length(&self, Surprise { said, gave }: Surprise) {
        let gave = gave.map_or("more".to_owned(), |gave| gave.to_string());
        self.warn(&format!(
            "a {} loader says that an epoch has {said} batches, and gives {gave}: its epoch ends where the batches do, and what goes by the length (fractions of an epoch, the progress bar, estimated_stepping_batches) is not right; correct its `len`, or say `None`",
            self.stage.describe()
        ));
    }

    /// The same batches every epoch: in dataset order where that can be had, and else those of the first epoch.
    fn make_sequential<B: Batch>(&self, mut loader: BoxLoader<B>) -> BoxLoader<B> {
        let is_shuffled = loader.is_shuffled();
        if let Some(sequential) = loader.sequential().filter(|_| is_shuffled) {
            self.warn("overfit_batches needs the same batches every epoch, so the loader is read in dataset order, or as its batch sampler has it in the first epoch");
            loader = sequential;
        } else if is_shuffled {
            self.warn("overfit_batches needs the same batches every epoch, so each is read as the first");
        }
        // A stream may have other records in each epoch, and cannot say so.
        let is_certain = loader.batch_indices(0).is_some() && !loader.is_shuffled();
        if is_certain { loader } else { Box::new(loader.repeat_epoch(0)) }
    }

    fn check_log_interval(&self) {
        let every = self.config.log_every_n_steps;
        let Some(batches) = self.num_training_batches.map(|batches| batches as u64).filter(|&n| n > 0) else { return };
        if batches < every && !self.fabric.loggers.is_empty() && self.config.fast_dev_run == 0 {
            self.warn(&format!(
                "an epoch has {batches} training batch(es), and log_every_n_steps={every}, so not every epoch writes values of steps; lower it to see them"
            ));
        }
    }

    fn check_validation_interval(&self, len: Option<usize>, limit: Limit) -> Result<(), Error> {
        use crate::config::ValCheckInterval::{Batches, Fraction};
        let wrong = |message: String| Err(Error::Config(message));
        let batches = self.num_training_batches;
        match (self.config.val_check_interval, batches) {
            _ if !self.has_validation => Ok(()),
            (Batches(interval), Some(batches))
                if interval > batches as u64 && self.config.check_val_every_n_epoch.is_some() =>
            {
                wrong(format!(
                    "val_check_interval={interval} is above the {batches} training batches of an epoch, so validation would never run; lower it, or set check_val_every_n_epoch to None to count across epochs"
                ))
            }
            (Fraction(fraction), None) if fraction != 1.0 && len.is_none() && !matches!(limit, Limit::Batches(_)) => {
                wrong(format!(
                    "val_check_interval={fraction} is a fraction, and the training loader does not know its length; write 1.0, a whole number of batches, or a time"
                ))
            }
            _ => Ok(()),
        }
    }
}

fn data_error<B: Batch>(
    data: &dyn crate::LightningDataModule<Batch = B>,
    hook: Hook,
    source: crate::BoxError,
) -> Error {
    match source.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(source) => Error::Hook { owner: data.name().to_owned(), hook, epoch: None, batch_idx: None, source },
    }
}
