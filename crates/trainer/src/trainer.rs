//! [`Trainer`]: the entry points.

use std::any::Any;
use std::path::PathBuf;

use fulgurite_engine::{
    Callback, Engine, Error, EvalResults, IntoData, LightningModule, Outcome, Profiler, TrainerFn, TrainerState,
};
use fulgurite_torch::Value;

use crate::report;

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
/// trainer.fit(&mut model, &mut data)?;
/// trainer.ckpt_path("best").test(&mut model, &mut data)?;
/// # Ok(()) }
/// ```
pub struct Trainer {
    engine: Engine,
    ckpt_path: Option<String>,
    verbose: bool,
    return_predictions: bool,
}

impl Trainer {
    pub(crate) fn new(engine: Engine) -> Trainer {
        Trainer { engine, ckpt_path: None, verbose: true, return_predictions: true }
    }

    /// The checkpoint that the next entry point starts from. `fit` goes on where it was written; the others take its
    /// weights.
    ///
    /// | value | meaning |
    /// |---|---|
    /// | `best` | the best of the first callback that writes checkpoints; an error when there is none |
    /// | `last` | the furthest of the `last` checkpoints of every `ModelCheckpoint` and of those that an error or a signal left; a fresh start, with a warning, when there is none |
    /// | `hpc` | the furthest `hpc_ckpt_N.ckpt` in `default_root_dir`, which a job of a scheduler left; an error when there is none |
    /// | `auto` | the furthest whole checkpoint that a run with these hyper-parameters left; a fresh start when there is none |
    /// | a folder | the furthest whole checkpoint of this run folder, or of the runs in this folder; a fresh start when there is none |
    /// | anything else | the path of a file |
    ///
    /// The furthest has the most optimizer steps, and then batches; of equals it is the newest. Where it is damaged, a warning
    /// says so, and the furthest whole one is taken. `hpc`, `auto` and a folder also go on with the logs of the run that wrote the file: what it
    /// logged later is dropped.
    pub fn ckpt_path(&mut self, ckpt_path: impl Into<String>) -> &mut Trainer {
        self.ckpt_path = Some(ckpt_path.into());
        self
    }

    /// Whether `validate` and `test` print their results (they do).
    pub fn verbose(&mut self, verbose: bool) -> &mut Trainer {
        self.verbose = verbose;
        self
    }

    /// Whether `predict` returns its predictions (it does), or only makes them, for callbacks to see.
    pub fn return_predictions(&mut self, return_predictions: bool) -> &mut Trainer {
        self.return_predictions = return_predictions;
        self
    }

    /// Trains `module`. `data` is `&mut` a data module, a loader, a pair of training and validation loaders, or `()` for
    /// the module's own loader methods.
    ///
    /// # Errors
    ///
    /// What was wrong with arguments, data or module, or what failed in a hook; teardown has run by then.
    pub fn fit<'a, M: LightningModule>(
        &mut self,
        module: &mut M,
        data: impl IntoData<'a, M::Batch>,
    ) -> Result<Outcome, Error> {
        self.engine.fit(module, data, self.ckpt_path.take())
    }

    /// Evaluates `module` on the validation loaders. Returns, and prints, the logged values of each loader.
    ///
    /// # Errors
    ///
    /// As [`fit`](Trainer::fit).
    pub fn validate<'a, M: LightningModule>(
        &mut self,
        module: &mut M,
        data: impl IntoData<'a, M::Batch>,
    ) -> Result<Vec<EvalResults>, Error> {
        self.evaluate(TrainerFn::Validate, module, data)
    }

    /// Evaluates `module` on the test loaders. Returns, and prints, the logged values of each loader.
    ///
    /// # Errors
    ///
    /// As [`fit`](Trainer::fit).
    pub fn test<'a, M: LightningModule>(
        &mut self,
        module: &mut M,
        data: impl IntoData<'a, M::Batch>,
    ) -> Result<Vec<EvalResults>, Error> {
        self.evaluate(TrainerFn::Test, module, data)
    }

    /// The predictions of `module`, per loader and batch, on the CPU; none with
    /// [`return_predictions(false)`](Trainer::return_predictions).
    ///
    /// # Errors
    ///
    /// As [`fit`](Trainer::fit).
    pub fn predict<'a, M: LightningModule>(
        &mut self,
        module: &mut M,
        data: impl IntoData<'a, M::Batch>,
    ) -> Result<Vec<Vec<Value>>, Error> {
        self.engine.predict(module, data, self.ckpt_path.take(), self.return_predictions)
    }

    fn evaluate<'a, M: LightningModule>(
        &mut self,
        entry: TrainerFn,
        module: &mut M,
        data: impl IntoData<'a, M::Batch>,
    ) -> Result<Vec<EvalResults>, Error> {
        let results = self.engine.evaluate(entry, module, data, self.ckpt_path.take())?;
        if self.verbose && !results.is_empty() {
            self.print(&report::results_table(entry.name(), &results));
        }
        Ok(results)
    }

    /// What runs it: for a tuner.
    pub(crate) fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Writes a checkpoint of `module` and of what this trainer knows; with `weights_only` without optimizers, schedulers
    /// and callbacks. The state of a data module is not in it. Within a run a hook asks for one with
    /// [`TrainerState::request_checkpoint`].
    ///
    /// # Errors
    ///
    /// A file that cannot be written; what a hook of the module or a callback said.
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
    pub fn state(&mut self) -> &mut TrainerState {
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
