//! [`TrainerState`]: the trainer's state as seen by hooks.
//!
//! Each part owns its fields and maintains their invariants; `api` is the public interface for hooks.

use std::path::{Path, PathBuf};

use fulgurite_fabric::{CheckpointIo, Fabric};
use fulgurite_torch::Dict;
use fulgurite_torch::params::{IncompatibleKeys, Parameters};
use fulgurite_torch::tch::Device;

use crate::ckpt_path::Configuration;
use crate::config::TrainerConfig;
use crate::console::Console;
use crate::diagnostics::Diagnostics;
use crate::error::Error;
use crate::logging::Metrics;
use crate::profilers::{Profiler, Profiling};
use crate::record::RunRecord;
use crate::stage::TrainerFn;
use crate::tuner::TuneRequest;

mod api;
mod caller;
mod evaluation_loop;
mod fit_loop;
mod optimization_loop;
mod position;
mod requests;
mod saves;
mod shutdown;
mod snapshot;
mod training_data;

pub use saves::{OnSaveError, SaveRequest};

pub(crate) use caller::{Caller, Owner};
pub(crate) use evaluation_loop::EvaluationLoop;
pub(crate) use fit_loop::FitLoop;
pub(crate) use optimization_loop::{Configured, Window};
pub(crate) use position::Position;
pub(crate) use requests::Requests;
pub(crate) use saves::Saves;
pub(crate) use shutdown::Shutdown;
pub(crate) use snapshot::Snapshot;
pub(crate) use training_data::{Length, LoaderState, SavedData, TrainingData};

/// The trainer's state as seen by hooks and callbacks: progress, logged metrics, and requests.
pub struct TrainerState {
    pub(crate) config: TrainerConfig,
    pub(crate) fabric: Fabric,
    pub(crate) console: Console,
    pub(crate) caller: Caller,
    pub(crate) position: Position,
    pub(crate) fit: FitLoop,
    /// The loop of `validate`, `test` and `predict`.
    pub(crate) evaluation: EvaluationLoop,
    pub(crate) training_data: TrainingData,
    pub(crate) requests: Requests,
    pub(crate) shutdown: Shutdown,
    pub(crate) saves: Saves,
    pub(crate) tune_requests: Vec<TuneRequest>,
    /// Whether this is a trial of the tuner, which does not print why its training ends.
    pub(crate) is_trial: bool,
    pub(crate) metrics: Metrics,
    pub(crate) diagnostics: Diagnostics,
    pub(crate) profiling: Profiling,
    pub(crate) record: RunRecord,
    /// The hyper-parameters that this entry point was called with.
    pub(crate) configuration: Configuration,
}

impl TrainerState {
    pub(crate) fn new(
        config: TrainerConfig,
        fabric: Fabric,
        console: Console,
        profiler: Option<Box<dyn Profiler>>,
    ) -> TrainerState {
        TrainerState {
            metrics: Metrics::new(config.barebones, !fabric.is_global_zero()),
            fit: FitLoop::default(),
            evaluation: EvaluationLoop::default(),
            caller: Caller::default(),
            position: Position::at_start_of(TrainerFn::Fit),
            training_data: TrainingData::default(),
            requests: Requests::default(),
            shutdown: Shutdown::default(),
            saves: Saves::default(),
            tune_requests: Vec::new(),
            is_trial: false,
            diagnostics: Diagnostics::default(),
            profiling: Profiling::new(profiler),
            record: RunRecord::default(),
            configuration: Configuration::default(),
            config,
            fabric,
            console,
        }
    }

    /// The effective arguments of the trainer, with `fast_dev_run` and the like resolved.
    pub fn config(&self) -> &TrainerConfig {
        &self.config
    }

    /// The fabric.
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// The checkpoint I/O.
    pub fn checkpoint_io(&mut self) -> &mut dyn CheckpointIo {
        self.fabric.checkpoint_io()
    }

    /// Loads a state dict into a module, through the strategy.
    ///
    /// # Errors
    ///
    /// Fails if the state dict does not match the module.
    pub fn load_module_state_dict(
        &mut self,
        vars: &dyn Parameters,
        state: &Dict,
        strict: bool,
    ) -> Result<IncompatibleKeys, Error> {
        Ok(self.fabric.load_module_state_dict(vars, state, strict)?)
    }

    /// The device of this process.
    pub fn device(&self) -> Device {
        self.fabric.device()
    }

    /// Whether this process writes logs and checkpoints: rank zero does, and before the ranks are started no process does.
    pub fn is_global_zero(&self) -> bool {
        self.fabric.is_global_zero()
    }

    /// The folder of this run: the first logger's, or `default_root_dir` without one.
    pub fn log_dir(&self) -> PathBuf {
        let first = self.fabric.loggers.first().and_then(|logger| logger.log_dir());
        first.map_or_else(|| self.default_root_dir(), Path::to_path_buf)
    }

    /// `default_root_dir`, or the current folder.
    pub fn default_root_dir(&self) -> PathBuf {
        self.config.default_root_dir.clone().unwrap_or_else(|| ".".into())
    }

    /// Prints a line above the progress bar, on rank zero.
    pub fn print(&self, line: &str) {
        if self.is_global_zero() {
            self.console.print(line);
        }
    }

    /// Warns, once per run and text, on rank zero.
    pub fn warn(&self, message: &str) {
        if self.is_global_zero() {
            self.console.warn(message);
        }
    }

    /// The console for lines and bars.
    pub fn console(&self) -> &Console {
        &self.console
    }
}
