//! [`Trainer`]: the entry points.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Termination};

use fulgurite_torch::Value;

use crate::builder::TrainerBuilder;
use crate::callbacks::Callback;
use crate::ckpt_path::Configuration;
use crate::data_module::{IntoData, Source};
use crate::engine::{Engine, OptimizerFactory};
use crate::error::Error;
use crate::hook::Hook;
use crate::loops::{EvalResults, Run};
use crate::module::LightningModule;
use crate::profilers::Profiler;
use crate::report;
use crate::signals::{Signal, SignalGuard};
use crate::stage::{Stage, TrainerFn};
use crate::state::{SaveRequest, TrainerState};

/// How a fit ended. A `main` that returns it, or a `Result` of it, exits with its [`exit_code`](Outcome::exit_code).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// A limit of the run was reached.
    Finished,
    /// Someone asked it to stop, for this reason.
    Stopped(String),
    /// The user pressed Ctrl-C.
    Interrupted {
        /// The checkpoint to go on from, if checkpoints are written.
        checkpoint: Option<PathBuf>,
    },
    /// A signal asked it to end: SIGTERM, or SIGHUP.
    Terminated {
        /// The signal.
        signal: Signal,
        /// The checkpoint to go on from, if checkpoints are written.
        checkpoint: Option<PathBuf>,
    },
    /// The scheduler said that the job's time is almost over, and was asked to run it again.
    Requeued {
        /// The signal.
        signal: Signal,
        /// The checkpoint that the job's next run goes on from; none where nothing had been trained yet.
        checkpoint: Option<PathBuf>,
    },
}

impl Outcome {
    /// The signal that ended the run, if one did.
    pub fn signal(&self) -> Option<Signal> {
        match self {
            Outcome::Finished | Outcome::Stopped(_) => None,
            Outcome::Interrupted { .. } => Some(Signal::Interrupt),
            Outcome::Terminated { signal, .. } | Outcome::Requeued { signal, .. } => Some(*signal),
        }
    }

    /// What the process exits with by convention: 0, or 128 and the signal's number (130 for Ctrl-C, 143 for SIGTERM).
    pub fn exit_code(&self) -> ExitCode {
        self.signal().map_or(ExitCode::SUCCESS, Signal::exit_code)
    }
}

impl Termination for Outcome {
    fn report(self) -> ExitCode {
        self.exit_code()
    }
}

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
    /// A builder with Lightning's defaults, or those of the environment: `PL_TRAINER_MAX_EPOCHS=3` sets `max_epochs`
    /// where the program does not.
    pub fn builder() -> TrainerBuilder {
        TrainerBuilder::new()
    }

    pub(crate) fn new(
        state: TrainerState,
        callbacks: Vec<Box<dyn Callback>>,
        optimizer_factory: Option<OptimizerFactory>,
    ) -> Trainer {
        let engine = Engine { state, callbacks, optimizer_factory, module_callbacks_merged: false };
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
        let outcome = self.enter(TrainerFn::Fit, module, data.into_data().0, |run| run.fit());
        let state = &mut self.engine.state;
        match outcome {
            Err(error) => {
                let Some(signal) = error.signal() else {
                    if error.is_of_lost_ranks() {
                        self.engine.say_how_to_go_on();
                    }
                    return Err(error);
                };
                Ok(state.outcome_of(signal))
            }
            Ok(()) => {
                Ok(state.requests.stop_reason().map_or(Outcome::Finished, |why| Outcome::Stopped(why.to_owned())))
            }
        }
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
        self.evaluate(TrainerFn::Validate, module, data.into_data().0)
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
        self.evaluate(TrainerFn::Test, module, data.into_data().0)
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
        let keep = self.return_predictions;
        self.enter(TrainerFn::Predict, module, data.into_data().0, |run| {
            run.setup_eval_data(Stage::Predict)?;
            run.require_eval_data(TrainerFn::Predict)?;
            run.predict(keep)
        })
    }

    fn evaluate<M: LightningModule>(
        &mut self,
        entry: TrainerFn,
        module: &mut M,
        data: Source<'_, M::Batch>,
    ) -> Result<Vec<EvalResults>, Error> {
        let module_name = LightningModule::name(module).to_owned();
        let results = self.enter(entry, module, data, |run| {
            run.setup_eval_data(entry.stage())?;
            run.require_eval_data(entry)?;
            let results = run.evaluate()?;
            if run.engine.state.evaluation().is_step_missing() {
                let method = entry.stage().info().step.name();
                return Err(Error::MissingMethod { entry: entry.name(), method, module: module_name });
            }
            Ok(results)
        })?;
        if self.verbose && !results.is_empty() {
            self.engine.state.print(&report::results_table(entry.name(), &results));
        }
        Ok(results)
    }

    /// What every entry point does, whatever happens in it: set-up, the run itself, teardown.
    pub(crate) fn enter<M: LightningModule, T>(
        &mut self,
        entry: TrainerFn,
        module: &mut M,
        data: Source<'_, M::Batch>,
        body: impl FnOnce(&mut Run<'_, '_, M>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.engine.prepare(entry)?;
        self.engine.state.share_global_seed()?;
        self.engine.state.follow_loggers_of_rank_zero()?;
        let ckpt_path = self.ckpt_path.take();
        let configuration = Configuration::of(module, &data);
        let ckpt_path = self.engine.resolve_ckpt_path(ckpt_path, &configuration)?;
        self.engine.state.configuration = configuration;
        // A run that goes on may do so in the folder of an earlier one.
        self.engine.state.follow_loggers_of_rank_zero()?;
        let state = &mut self.engine.state;
        state.shutdown.join_earlier_run(ckpt_path.is_some());
        let (guard, problem) =
            SignalGuard::install(&state.shutdown.signals, state.config.termination_grace_period, &state.console);
        if let Some(problem) = problem {
            state.warn(&problem);
        }
        self.engine.state.start_profiler()?;
        let callbacks = self.engine.on_module(Hook::ConfigureCallbacks, module, |m, _| Ok(m.configure_callbacks()))?;
        self.engine.merge_callbacks(callbacks)?;

        let mut run = Run::new(&mut self.engine, module, data);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            run.begin(ckpt_path)?;
            body(&mut run)
        }));
        let outcome = outcome.unwrap_or_else(|payload| Err(run.panic_error(payload.as_ref())));
        let outcome = run.end(outcome);
        if outcome.as_ref().is_err_and(|error| error.signal().is_some()) {
            self.engine.state.shutdown.signals.answered();
        }
        drop(guard);
        outcome
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
        let request = SaveRequest { weights_only, ..SaveRequest::new(path) };
        let mut run = Run::new(&mut self.engine, module, Source::Module);
        run.save(&request)?;
        run.wait_for_saves()
    }

    /// Prints a line above the progress bar, on rank zero.
    pub fn print(&self, line: &str) {
        self.engine.state.print(line);
    }

    // What it knows ---------------------------------------------------------------------------------------------------

    /// The trainer's state: progress, metrics, loggers.
    pub fn state(&mut self) -> &mut TrainerState {
        &mut self.engine.state
    }

    /// The profiler, if it is of this type.
    pub fn profiler<P: Profiler>(&self) -> Option<&P> {
        self.engine.state.profiler()
    }

    /// The first callback of a type.
    pub fn callback<C: Callback>(&self) -> Option<&C> {
        self.callbacks().next()
    }

    /// All callbacks of a type.
    pub fn callbacks<C: Callback>(&self) -> impl Iterator<Item = &C> {
        self.engine.callbacks.iter().filter_map(|callback| (callback.as_ref() as &dyn Any).downcast_ref())
    }

    /// The best checkpoint of the first callback that writes them.
    pub fn best_model_path(&self) -> Option<PathBuf> {
        self.engine.checkpointers().find_map(|checkpointer| checkpointer.best_model_path()).map(Into::into)
    }
}

impl TrainerState {
    fn outcome_of(&mut self, signal: Signal) -> Outcome {
        let checkpoint = self.shutdown.take_checkpoint();
        if self.shutdown.is_requeued() {
            return Outcome::Requeued { signal, checkpoint };
        }
        let is_interrupt = signal == Signal::Interrupt;
        if let Some(path) = checkpoint.as_deref().map(Path::display) {
            let what = if is_interrupt { "interrupted".to_owned() } else { format!("ended by {signal}") };
            self.print(&format!("{what}; go on from {path}"));
        }
        if is_interrupt { Outcome::Interrupted { checkpoint } } else { Outcome::Terminated { signal, checkpoint } }
    }
}
