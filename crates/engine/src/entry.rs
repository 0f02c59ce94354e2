//! The entry points: each runs from set-up to teardown, for `Trainer` and `Tuner`.

use std::path::PathBuf;

use fulgurite_torch::tch::with_grad;
use fulgurite_torch::{Value, catch_panic};

use crate::ckpt_path::Configuration;
use crate::data_module::{IntoData, Source};
use crate::engine::Engine;
use crate::error::Error;
use crate::loops::{EvalResults, Run};
use crate::module::LightningModule;
use crate::outcome::Outcome;
use crate::signals::SignalGuard;
use crate::stage::{Stage, TrainerFn};
use crate::state::SaveRequest;
use crate::tuner::{BatchSizeFinderOptions, LearningRateFinderOptions, LrFind};

impl Engine {
    /// Starts the processes of the run, if the arguments specify several and they are not started yet; every entry
    /// point does so first. See [`Fabric::launch`](fulgurite_fabric::Fabric::launch).
    ///
    /// # Errors
    ///
    /// Fails if the processes cannot be started.
    pub fn launch(&mut self) -> Result<(), Error> {
        Ok(self.state.fabric.launch()?)
    }

    /// Trains `module`, from `ckpt_path` where one is given.
    ///
    /// # Errors
    ///
    /// Fails if the arguments, data or module are invalid, or a hook fails. Teardown has run by then.
    pub fn fit<'a, M: LightningModule, K>(
        &mut self,
        module: &mut M,
        data: impl IntoData<'a, M::Batch, K>,
        ckpt_path: Option<String>,
    ) -> Result<Outcome, Error> {
        let outcome = self.enter(TrainerFn::Fit, module, data.into_data().0, ckpt_path, |run| run.fit());
        match outcome {
            Ok(()) => {
                let stopped = self.state.requests.stop_reason();
                Ok(stopped.map_or(Outcome::Finished, |reason| Outcome::Stopped(reason.to_owned())))
            }
            Err(error) => {
                if let Error::Interrupted { signal, .. } = error {
                    return Ok(self.state.outcome_of(signal));
                }
                if error.is_of_lost_ranks() {
                    self.say_how_to_go_on();
                }
                Err(error)
            }
        }
    }

    /// Evaluates `module` on its validation loaders, or on its test loaders where `entry` is [`TrainerFn::Test`].
    /// Returns the logged values of each loader.
    ///
    /// # Errors
    ///
    /// Fails as [`fit`](Engine::fit) does.
    pub fn evaluate<'a, M: LightningModule, K>(
        &mut self,
        entry: TrainerFn,
        module: &mut M,
        data: impl IntoData<'a, M::Batch, K>,
        ckpt_path: Option<String>,
    ) -> Result<Vec<EvalResults>, Error> {
        let name = LightningModule::name(module).to_owned();
        self.enter(entry, module, data.into_data().0, ckpt_path, |run| {
            run.setup_eval_data(entry.stage())?;
            run.require_eval_data(entry)?;
            let results = run.evaluate()?;
            if run.engine.state.evaluation().is_step_missing() {
                let method = entry.stage().info().step.name();
                return Err(Error::MissingMethod { entry: entry.name(), method, module: name });
            }
            Ok(results)
        })
    }

    /// The predictions of `module`, per loader and batch, on the CPU; empty if they are not kept.
    ///
    /// # Errors
    ///
    /// Fails as [`fit`](Engine::fit) does.
    pub fn predict<'a, M: LightningModule, K>(
        &mut self,
        module: &mut M,
        data: impl IntoData<'a, M::Batch, K>,
        ckpt_path: Option<String>,
        keep: bool,
    ) -> Result<Vec<Vec<Value>>, Error> {
        self.enter(TrainerFn::Predict, module, data.into_data().0, ckpt_path, |run| {
            run.setup_eval_data(Stage::Predict)?;
            run.require_eval_data(TrainerFn::Predict)?;
            run.predict(keep)
        })
    }

    /// The learning-rate range test, as a separate entry point.
    ///
    /// # Errors
    ///
    /// Fails if options are invalid, the module does not have exactly one optimizer, the hyper-parameter does not
    /// exist, or a step fails in a trial.
    pub fn lr_find<'a, M: LightningModule, K>(
        &mut self,
        module: &mut M,
        data: impl IntoData<'a, M::Batch, K>,
        ckpt_path: Option<String>,
        options: &LearningRateFinderOptions,
    ) -> Result<Option<LrFind>, Error> {
        self.refuse_after_interruption("lr_find")?;
        self.enter(TrainerFn::Fit, module, data.into_data().0, ckpt_path, |run| run.lr_find(options, true))
    }

    /// The search for a batch size for the steps of `entry`, as a separate entry point.
    ///
    /// # Errors
    ///
    /// Fails if options are invalid, loaders were passed directly, the hyper-parameter does not exist, or a step fails
    /// in a trial for another reason than memory.
    pub fn scale_batch_size<'a, M: LightningModule, K>(
        &mut self,
        entry: TrainerFn,
        module: &mut M,
        data: impl IntoData<'a, M::Batch, K>,
        ckpt_path: Option<String>,
        options: &BatchSizeFinderOptions,
    ) -> Result<Option<u64>, Error> {
        self.refuse_after_interruption("scale_batch_size")?;
        self.enter(entry, module, data.into_data().0, ckpt_path, |run| run.scale_batch_size(options))
    }

    /// Writes a checkpoint of `module` and the trainer's state; with `weights_only` without optimizers,
    /// schedulers and callbacks. It does not contain the state of a data module.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written, or a hook of the module or a callback fails.
    pub fn save_checkpoint<M: LightningModule>(
        &mut self,
        module: &mut M,
        path: PathBuf,
        weights_only: bool,
    ) -> Result<(), Error> {
        self.launch()?;
        let request = SaveRequest { weights_only, ..SaveRequest::new(path) };
        let mut run = Run::new(self, module, Source::Module);
        run.save(&request)?;
        run.wait_for_saves()
    }

    /// Lets entry points run although a signal ended the last one. Without this they are refused with
    /// [`Error::AfterInterruption`].
    pub fn continue_after_interruption(&mut self) {
        self.state.shutdown.forget_end();
    }

    fn refuse_after_interruption(&self, entry: &'static str) -> Result<(), Error> {
        let Some((signal, checkpoint)) = self.state.shutdown.ended() else { return Ok(()) };
        Err(Error::AfterInterruption { entry, signal, checkpoint })
    }

    /// The common part of every entry point: set-up, the run itself, teardown.
    fn enter<M: LightningModule, T>(
        &mut self,
        entry: TrainerFn,
        module: &mut M,
        data: Source<'_, M::Batch>,
        ckpt_path: Option<String>,
        body: impl FnOnce(&mut Run<'_, '_, M>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.refuse_after_interruption(entry.name())?;
        self.state.record.begin();
        self.launch()?;
        self.prepare(entry)?;
        self.state.share_global_seed()?;
        self.state.fabric.loggers.iter_mut().try_for_each(|logger| logger.connect())?;
        self.state.follow_loggers_of_rank_zero()?;
        let configuration = Configuration::of(&self.state, module, &data)?;
        let ckpt_path = self.resolve_ckpt_path(ckpt_path, &configuration)?;
        self.state.configuration = configuration;
        self.state.fabric.loggers.iter_mut().try_for_each(|logger| logger.start())?;
        self.state.warn_for_loggers();
        // A run that is resumed may do so in the folder of an earlier one.
        self.state.follow_loggers_of_rank_zero()?;
        self.state.shutdown.join_earlier_run(ckpt_path.is_some());
        let signals = &self.state.shutdown.signals;
        let grace = self.state.config.termination_grace_period;
        let (guard, problem) = SignalGuard::install(signals, grace, &self.state.console);
        if let Some(problem) = problem {
            self.state.warn(&problem);
        }
        self.state.start_profiler()?;

        let mut run = Run::new(self, module, data);
        // A caller may have disabled gradients.
        let outcome = with_grad(|| {
            let outcome = catch_panic(|| {
                run.begin(ckpt_path)?;
                body(&mut run)
            });
            let outcome = outcome.unwrap_or_else(|message| Err(run.panic_error(message)));
            run.end(outcome)
        });
        if let Some(signal) = outcome.as_ref().err().and_then(Error::signal) {
            self.state.shutdown.end(signal);
        }
        drop(guard);
        self.state.end_record(&outcome);
        outcome
    }
}
