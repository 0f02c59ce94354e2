//! [`Run`]: one entry point in progress: engine, module and data together.

use fulgurite_data::{Batch, BoxLoader, Remainder};

use crate::callbacks::Callback;
use crate::config::Limit;
use crate::data_module::{Loaders, Source, request};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::hook::Hook;
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
    /// How many batches of each every process has.
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
            loaders.iter_mut().for_each(|loader| self.engine.state.make_sequential(loader));
        }
        let state = &mut self.engine.state;
        loaders.iter_mut().try_for_each(|loader| state.shard(loader, Remainder::Keep))?;
        if loaders.iter().any(|loader| loader.is_shuffled()) {
            state.warn(&format!(
                "a {} loader is shuffled; turn shuffling off, so that its batches come in the order of the data",
                stage.describe()
            ));
        }
        let lens = loaders.iter().map(|loader| state.most_and_fewest_batches(loader.len()));
        let (lens, in_common): (Vec<_>, Vec<_>) = lens.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let limits = lens.into_iter().map(|len| limit.apply(name, len)).collect::<Result<Vec<_>, _>>()?;
        state.num_eval_batches.clone_from(&limits);
        if state.run.eval_batches.len() != loaders.len() || !is_fit {
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
            self.engine.state.make_sequential(&mut loader);
        }
        self.engine.state.shard(&mut loader, Remainder::Pad)?;
        let len = self.engine.state.fewest_batches(loader.len())?;
        self.engine.state.train_data.epoch = self.engine.state.current_epoch();
        self.engine.state.num_training_batches = limit.apply("limit_train_batches", len)?;
        self.engine.state.train_length_is_known = len.is_some();
        self.engine.state.check_validation_interval(len, limit)?;
        self.engine.state.check_log_interval();
        self.train_loader = Some(loader);
        Ok(())
    }

    /// Asks for the training loader again, if that is due.
    pub(crate) fn reload_train_data(&mut self) -> Result<(), Error> {
        if self.train_loader.is_some() && self.reload_is_due(self.engine.state.train_data.epoch) {
            self.engine.state.train_data.ready = false;
            self.setup_train_data()?;
        }
        Ok(())
    }
}

impl TrainerState {
    fn make_sequential<B: Batch>(&self, loader: &mut BoxLoader<B>) {
        if loader.is_shuffled()
            && let Some(sequential) = loader.sequential()
        {
            self.warn("overfit_batches needs the same batches every epoch, so the loader is read in dataset order");
            *loader = sequential;
        }
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
