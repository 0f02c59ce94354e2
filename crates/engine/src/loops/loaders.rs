//! The loaders of a stage: their source, and how many batches of each are used.

use fulgurite_data::{Batch, BoxLoader, Loader, Remainder};

use super::batches::of_loader;
use super::run::{EvalLoaders, Run};
use crate::config::Limit;
use crate::config::ValCheckInterval::{Batches, Fraction};
use crate::data_module::{Handed, Loaders, Source, request};
use crate::error::Error;
use crate::hook::Hook;
use crate::module::LightningModule;
use crate::scope::Scope;
use crate::stage::{Stage, TrainerFn};
use crate::state::{Length, TrainerState};

impl<M: LightningModule> Run<'_, '_, M> {
    /// The loaders of a stage, from the data source of this run.
    fn request_loaders(&mut self, stage: Stage) -> Result<Option<Loaders<M::Batch>>, Error> {
        let hook = stage.info().loader;
        let of_fit_validation = hook == Hook::ValDataloader && self.engine.state.position.is_fit();
        let is_handed_over = self.data.is_handed_over(of_fit_validation);
        match &mut self.data {
            Source::Loaders(first, val) if is_handed_over => Ok(if of_fit_validation { val } else { first }.take()),
            Source::DataModule(data) => self.engine.on_data_module(hook, *data, |data, t| {
                request(match hook {
                    Hook::TrainDataloader => data.train_dataloader(t),
                    Hook::ValDataloader => data.val_dataloader(t),
                    Hook::TestDataloader => data.test_dataloader(t),
                    _ => data.predict_dataloader(t),
                })
            }),
            _ => self.engine.on_module(hook, self.module, |module, t| {
                request(match hook {
                    Hook::TrainDataloader => module.train_dataloader(t),
                    Hook::ValDataloader => module.val_dataloader(t),
                    Hook::TestDataloader => module.test_dataloader(t),
                    _ => module.predict_dataloader(t),
                })
            }),
        }
    }

    /// Whether training or validation (`of_validation`) loaders that were requested in `epoch` are requested
    /// again. Loaders passed directly cannot be.
    fn reload_is_due(&self, epoch: u64, of_validation: bool) -> bool {
        let state = &self.engine.state;
        let every = state.config.reload_dataloaders_every_n_epochs;
        every > 0
            && state.position.is_fit()
            && state.current_epoch().saturating_sub(epoch) >= every
            && !self.data.is_handed_over(of_validation)
    }

    // Evaluation ------------------------------------------------------------------------------------------------------

    /// Whether there are validation loaders; whether the module can use them is determined at the first batch.
    pub(crate) fn may_validate(&self) -> bool {
        let limited = self.engine.state.config.limit_val_batches.is_zero();
        !limited && !matches!(&self.data, Source::Loaders(_, Handed::Loaders(Loaders(list))) if list.is_empty())
    }

    /// Requests the evaluation loaders of `stage`, unless they are loaded, and determines their limits.
    pub(crate) fn setup_eval_data(&mut self, stage: Stage) -> Result<(), Error> {
        let asked_in = self.eval.as_ref().map(|eval| eval.epoch);
        let reload = asked_in.is_some_and(|epoch| self.reload_is_due(epoch, true));
        let state = &self.engine.state;
        let limit = stage.limit(&state.config);
        let is_off = state.position.is_fit() && !state.enable_validation();
        if self.eval.is_some() && !reload || limit.is_zero() || is_off {
            return Ok(());
        }
        let Some(Loaders(loaders)) = self.request_loaders(stage)? else {
            self.engine.state.evaluation_mut().set_enabled(false);
            return Ok(());
        };
        // A sequential CombinedLoader is replaced by its loaders.
        let apart = |loader: BoxLoader<M::Batch>| loader.sequence().unwrap_or_else(|| vec![loader]);
        let loaders = of_loader(stage, || loaders.into_iter().flat_map(apart).collect())?;
        self.eval = Some(self.engine.state.prepare_eval_loaders(stage, loaders, limit)?);
        Ok(())
    }

    /// The error if an entry point needs loaders and there are none.
    pub(crate) fn require_eval_data(&self, entry: TrainerFn) -> Result<(), Error> {
        let stage = entry.stage();
        if self.eval.is_some() || stage.limit(&self.engine.state.config).is_zero() {
            return Ok(());
        }
        Err(self.missing_loaders(entry.name(), stage.info().loader.name()))
    }

    fn missing_loaders(&self, entry: &'static str, method: &'static str) -> Error {
        let (owner, of_data_module) = match &self.data {
            Source::DataModule(data) => (data.name(), true),
            _ => (LightningModule::name(self.module), false),
        };
        Error::MissingLoaders { entry, method, owner: owner.to_owned(), of_data_module }
    }

    // Training --------------------------------------------------------------------------------------------------------

    /// Requests the training loader, and determines the number of batches per epoch.
    pub(crate) fn setup_train_data(&mut self) -> Result<(), Error> {
        if self.engine.state.training_data.ask() {
            return Ok(());
        }
        let limit = self.engine.state.config.limit_train_batches;
        if limit.is_zero() {
            self.engine.state.training_data.set_empty();
            return Ok(());
        }
        self.profiled(|_| "setup_train_dataloader".to_owned(), |run| run.setup_train_loader(limit))
    }

    fn setup_train_loader(&mut self, limit: Limit) -> Result<(), Error> {
        let mut loader = self.request_train_loader()?;
        let state = &mut self.engine.state;
        if state.config.is_overfitting() {
            loader = of_loader(Stage::Train, || state.make_sequential(loader))?;
        }
        state.shard(Stage::Train, &mut loader, Remainder::Pad)?;
        let len = state.fewest_batches(of_loader(Stage::Train, || Length::of(&loader))?)?;
        self.train_loader = Some(loader);
        let epoch = state.current_epoch();
        state.training_data.set_epoch(epoch);
        state.warn_of_empty(Stage::Train, len.said);
        state.expect_training_batches(len, limit)?;
        state.check_validation_interval(len.said, limit)?;
        state.check_log_interval();
        Ok(())
    }

    fn request_train_loader(&mut self) -> Result<BoxLoader<M::Batch>, Error> {
        let loaders = self.request_loaders(Stage::Train)?;
        let loader = match loaders.map(|Loaders(list)| <[_; 1]>::try_from(list)) {
            Some(Ok([loader])) => loader,
            Some(Err(several)) => {
                return Err(Error::Config(format!(
                    "fit was given {} training loaders; train on all of them at once through a `CombinedLoader`, such as `CombinedLoader::max_size_cycle((a, b))`, or on their data as one with a `ConcatDataset`",
                    several.len()
                )));
            }
            None => return Err(self.missing_loaders("fit", "train_dataloader")),
        };
        if of_loader(Stage::Train, || loader.sequence().is_some())? {
            return Err(Error::Config(
                "fit was given a `CombinedLoader::sequential` to train on, which is for evaluation; choose one of its other modes, or join the data with a `ConcatDataset`".into(),
            ));
        }
        Ok(loader)
    }

    /// Reloads the training loader, if that is due, and updates its length, which may differ between epochs.
    pub(crate) fn reload_train_data(&mut self) -> Result<(), Error> {
        let Some(loader) = &self.train_loader else { return Ok(()) };
        if self.reload_is_due(self.engine.state.training_data.epoch(), false) {
            self.engine.state.training_data.renew();
            return self.setup_train_data();
        }
        let state = &mut self.engine.state;
        let len = state.fewest_batches(of_loader(Stage::Train, || Length::of(loader))?)?;
        if len == state.training_data.len() {
            return Ok(());
        }
        state.expect_training_batches(len, state.config.limit_train_batches)
    }

    /// Requests the loaders again, since their batch size has changed.
    pub(crate) fn forget_loaders(&mut self) {
        self.train_loader = None;
        self.eval = None;
        self.engine.state.training_data.forget();
    }
}

impl TrainerState {
    /// Shards evaluation loaders for each rank, and determines the number of batches of each.
    fn prepare_eval_loaders<B: Batch>(
        &mut self,
        stage: Stage,
        mut loaders: Vec<BoxLoader<B>>,
        limit: Limit,
    ) -> Result<EvalLoaders<B>, Error> {
        if self.config.is_overfitting() && stage.may_overfit() {
            let sequential = |loader| self.make_sequential(loader);
            loaders = of_loader(stage, || loaders.into_iter().map(sequential).collect())?;
        }
        loaders.iter_mut().try_for_each(|loader| self.shard(stage, loader, Remainder::Keep))?;
        if of_loader(stage, || loaders.iter().any(|loader| loader.is_shuffled()))? {
            self.warn(&format!(
                "a {} loader is shuffled; turn shuffling off, so that its batches come in the order of the data",
                stage.info().noun
            ));
        }
        let lens = of_loader(stage, || loaders.iter().map(Length::of).collect::<Vec<_>>())?;
        let lens = lens.into_iter().map(|len| self.most_and_fewest_batches(len));
        let (lens, in_common): (Vec<_>, Vec<_>) = lens.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        lens.iter().for_each(|len| self.warn_of_empty(stage, *len));
        let apply = |len| limit.apply(stage.info().limit_name, len);
        let expected = lens.into_iter().map(apply).collect::<Result<Vec<_>, _>>()?;
        let limits = expected.iter().map(|expected| limit.of_any_length(*expected)).collect();
        self.evaluation_mut().set_num_batches(expected);
        self.count_batches_of(loaders.len());
        Ok(EvalLoaders { loaders, limits, in_common, epoch: self.current_epoch() })
    }

    fn warn_of_empty(&self, stage: Stage, len: Option<usize>) {
        if len == Some(0) {
            let stage = stage.info().noun;
            self.warn(&format!("a {stage} loader reports 0 batches; check its dataset and `drop_last`, or return None from its `len` if the number is unknown"));
        }
    }

    /// The x-axis of each of `now` evaluation loaders begins at 0, or continues within a fit.
    fn count_batches_of(&mut self, now: usize) {
        let before = self.evaluation().evaluated().len();
        let is_fit = self.position.is_fit();
        if before == now && is_fit {
            return;
        }
        if is_fit && before > 0 {
            self.warn(&format!(
                "there were {before} validation loaders before, and there are {now} now: their batches are counted from 0, which is the x-axis of what they log on step"
            ));
        }
        self.evaluation_mut().set_evaluated(vec![0; now]);
    }

    /// Records the number of batches of a training epoch.
    fn expect_training_batches(&mut self, len: Length, limit: Limit) -> Result<(), Error> {
        let num_batches = limit.apply(Stage::Train.info().limit_name, len.said);
        self.training_data.set_len(len, num_batches.as_ref().ok().copied().flatten());
        num_batches.map(drop)
    }

    /// The limit of training batches in an epoch. If the lengths of all processes are exact, no more than all have.
    pub(super) fn most_training_batches(&self) -> Option<usize> {
        match self.training_data.len().exact() {
            Some(_) if self.is_distributed() => self.num_training_batches(),
            _ => self.config.limit_train_batches.of_any_length(self.num_training_batches()),
        }
    }

    /// The same batches every epoch: in dataset order if possible, else those of the first epoch.
    fn make_sequential<B: Batch>(&self, mut loader: BoxLoader<B>) -> BoxLoader<B> {
        let is_shuffled = loader.is_shuffled();
        if let Some(sequential) = loader.sequential().filter(|_| is_shuffled) {
            self.warn("overfit_batches needs the same batches every epoch, so the loader is read in dataset order, or as its batch sampler has it in the first epoch");
            loader = sequential;
        } else if is_shuffled {
            self.warn("overfit_batches needs the same batches every epoch, so each is read as the first");
        }
        // A stream may have different records in each epoch; a state changes with every pass.
        let has_no_state = matches!(loader.state(), Ok(None));
        let is_certain = loader.batch_indices(0).is_some() && !loader.is_shuffled() && has_no_state;
        if is_certain { loader } else { Box::new(loader.repeat_epoch(0)) }
    }

    fn check_log_interval(&self) {
        let every = self.config.log_every_n_steps;
        let batches = self.num_training_batches().map(|batches| batches as u64);
        let Some(batches) = batches.filter(|&n| n > 0) else { return };
        if batches < every && !self.fabric.loggers.is_empty() && self.config.fast_dev_run == 0 {
            self.warn(&format!(
                "an epoch has {batches} training batch(es), and log_every_n_steps={every}, so not every epoch writes values of steps; lower it to see them"
            ));
        }
    }

    fn check_validation_interval(&self, len: Option<usize>, limit: Limit) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::Config(message));
        match (self.config.val_check_interval, self.num_training_batches()) {
            _ if !self.enable_validation() => Ok(()),
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
