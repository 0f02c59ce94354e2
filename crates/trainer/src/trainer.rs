//! [`Trainer`]: runs a module over data.

use std::any::Any;
use std::path::PathBuf;

use fulgurite_engine::{
    Callback, Engine, Error, EvalResults, IntoData, LightningModule, Outcome, Profiler, TrainerState,
};
use fulgurite_torch::Value;

use crate::entry_point::{CkptPath, EntryPoint};
use crate::outside::ReportLines;

/// Runs a module over data: loops, devices, accumulation, clipping, checkpoints, logs.
///
/// ```no_run
/// # use fulgurite::prelude::*;
/// # fn demo<M: LightningModule, D: LightningDataModule<Batch = M::Batch>>(mut model: M, mut data: D) -> Result<()> {
/// let mut trainer = Trainer::builder()
///     .max_epochs(20)
///     .callback(ModelCheckpoint::monitor("val_loss"))
///     .callback(EarlyStopping::monitor("val_loss"))
///     .build()?;
/// trainer.fit(&mut model, &mut data)?.completed()?;
/// trainer.ckpt_path("best").test(&mut model, &mut data)?;
/// # Ok(()) }
/// ```
pub struct Trainer {
    engine: Engine,
    /// What a program that drives this one is told.
    report: Option<ReportLines>,
}

impl Trainer {
    pub(crate) fn new(engine: Engine, report: Option<ReportLines>) -> Trainer {
        Trainer { engine, report }
    }

    /// Starts the processes of the run, if the arguments specify several and they are not started yet: the program
    /// starts itself once for each. Every entry point does so first; call it earlier so that the processes alone do
    /// what follows, such as creating a large model.
    ///
    /// If it starts processes it does not return: it exits with their exit code when they have exited,
    /// without running destructors. Otherwise it does nothing.
    ///
    /// # Errors
    ///
    /// Fails if the processes cannot be started.
    pub fn launch(&mut self) -> Result<(), Error> {
        self.engine.launch()
    }

    /// Lets entry points run although a signal (Ctrl-C, SIGTERM) ended the last one. Without this they fail with
    /// [`Error::AfterInterruption`], so that a program which is told to end does not go on to its test.
    ///
    /// ```no_run
    /// # use fulgurite::prelude::*;
    /// # fn demo<M: LightningModule, D: LightningDataModule<Batch = M::Batch>>(mut model: M, mut data: D, mut trainer: Trainer) -> Result<()> {
    /// // Ctrl-C ends the training; the test runs either way.
    /// let outcome = trainer.fit(&mut model, &mut data)?;
    /// trainer.continue_after_interruption().test(&mut model, &mut data)?;
    /// # outcome.completed()?;
    /// # Ok(()) }
    /// ```
    pub fn continue_after_interruption(&mut self) -> &mut Trainer {
        self.engine.continue_after_interruption();
        self
    }

    /// Sets the checkpoint of an entry point; see [`EntryPoint::ckpt_path`] for keywords such as `best`.
    pub fn ckpt_path(&mut self, ckpt_path: impl Into<CkptPath>) -> EntryPoint<'_> {
        self.entry_point().ckpt_path(ckpt_path)
    }

    /// Sets whether an evaluation prints its results (on by default).
    pub fn verbose(&mut self, verbose: bool) -> EntryPoint<'_> {
        self.entry_point().verbose(verbose)
    }

    /// Sets whether `predict` returns its predictions (on by default), or only passes them to callbacks.
    pub fn return_predictions(&mut self, return_predictions: bool) -> EntryPoint<'_> {
        self.entry_point().return_predictions(return_predictions)
    }

    /// An entry point without options.
    pub fn entry_point(&mut self) -> EntryPoint<'_> {
        EntryPoint::new(&mut self.engine, self.report.as_ref())
    }

    /// Trains `module`. `data` is `&mut` a data module, a loader, a pair of training and validation loaders, or `()`
    /// for the module's own loader methods.
    ///
    /// # Errors
    ///
    /// Fails if the arguments, data or module are invalid, or a hook fails. Teardown has run by then.
    pub fn fit<'a, M: LightningModule, K>(
        &mut self,
        module: &mut M,
        data: impl IntoData<'a, M::Batch, K>,
    ) -> Result<Outcome, Error> {
        self.entry_point().fit(module, data)
    }

    /// Evaluates `module` on the validation loaders. Returns, and prints, the logged values of each loader.
    ///
    /// # Errors
    ///
    /// Fails as [`fit`](Trainer::fit) does.
    pub fn validate<'a, M: LightningModule, K>(
        &mut self,
        module: &mut M,
        data: impl IntoData<'a, M::Batch, K>,
    ) -> Result<Vec<EvalResults>, Error> {
        self.entry_point().validate(module, data)
    }

    /// Evaluates `module` on the test loaders. Returns, and prints, the logged values of each loader.
    ///
    /// # Errors
    ///
    /// Fails as [`fit`](Trainer::fit) does.
    pub fn test<'a, M: LightningModule, K>(
        &mut self,
        module: &mut M,
        data: impl IntoData<'a, M::Batch, K>,
    ) -> Result<Vec<EvalResults>, Error> {
        self.entry_point().test(module, data)
    }

    /// Runs prediction and returns the predictions of `module`, per loader and batch, on the CPU; none with
    /// [`return_predictions(false)`](Trainer::return_predictions).
    ///
    /// # Errors
    ///
    /// Fails as [`fit`](Trainer::fit) does.
    pub fn predict<'a, M: LightningModule, K>(
        &mut self,
        module: &mut M,
        data: impl IntoData<'a, M::Batch, K>,
    ) -> Result<Vec<Vec<Value>>, Error> {
        self.entry_point().predict(module, data)
    }

    /// The engine, for a tuner.
    pub(crate) fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Writes a checkpoint of `module` and the trainer's state; with `weights_only`, without optimizers, schedulers and
    /// callbacks. It does not contain the state of a data module. During a run, a hook requests a checkpoint with
    /// [`TrainerState::request_checkpoint`].
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written, or a hook of the module or a callback fails.
    pub fn save_checkpoint<M: LightningModule>(
        &mut self,
        module: &mut M,
        path: impl Into<PathBuf>,
        weights_only: bool,
    ) -> Result<(), Error> {
        self.engine.save_checkpoint(module, path.into(), weights_only)
    }

    /// Prints a line above the progress bar, on rank zero.
    pub fn print(&self, line: &str) {
        self.engine.state().print(line);
    }

    // What it knows ---------------------------------------------------------------------------------------------------

    /// The trainer's state: progress, metrics, loggers.
    pub fn state(&self) -> &TrainerState {
        self.engine.state()
    }

    /// The trainer's state, mutably, for requests and changes.
    pub fn state_mut(&mut self) -> &mut TrainerState {
        self.engine.state_mut()
    }

    /// The profiler, if it is of this type.
    pub fn profiler<P: Profiler>(&self) -> Option<&P> {
        self.engine.state().profiler()
    }

    /// The first callback of a type.
    pub fn callback<C: Callback>(&self) -> Option<&C> {
        self.callbacks().next()
    }

    /// All callbacks of a type.
    pub fn callbacks<C: Callback>(&self) -> impl Iterator<Item = &C> {
        self.engine.callbacks().filter_map(|callback| (callback as &dyn Any).downcast_ref())
    }

    /// The best checkpoint of the first callback that writes them.
    pub fn best_model_path(&self) -> Option<PathBuf> {
        self.engine.checkpointers().find_map(|checkpointer| checkpointer.best_model_path()).map(Into::into)
    }
}
