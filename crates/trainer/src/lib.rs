//! Fulgurite: PyTorch Lightning in Rust, on libtorch.
//!
//! You write a [`LightningModule`] (what is learned) and a [`LightningDataModule`] (where data comes from); the
//! [`Trainer`] does the rest. Everything a program usually needs is in [`prelude`].

mod batch_norm;
mod builder;
pub mod callbacks;
mod checkpoint;
mod ckpt_path;
pub mod cli;
pub mod config;
mod console;
mod data_module;
mod engine;
mod environment;
mod error;
#[cfg(doctest)]
mod guide;
mod hook;
mod lifecycle;
pub mod load;
pub mod logging;
mod loops;
mod loss;
mod mistakes;
mod module;
mod optimizers;
mod outline;
mod plugin;
pub mod prelude;
pub mod profilers;
mod progress;
mod ranks;
mod report;
mod requirements;
mod saved;
mod saving;
mod signals;
mod slurm;
mod state;
mod step;
pub mod tools;
mod trainer;
pub mod tuner;

pub use builder::TrainerBuilder;
pub use callbacks::Callback;
pub use config::TrainerConfig;
pub use console::Console;
pub use data_module::{Data, IntoData, LightningDataModule, Loaders};
pub use error::{BoxError, Error, Result};
pub use fulgurite_data as data;
pub use fulgurite_fabric as fabric;
pub use fulgurite_fabric::loggers;
pub use fulgurite_metrics as metrics;
pub use fulgurite_optim as optim;
pub use fulgurite_torch as torch;
pub use fulgurite_torch::params::{NamedTensors, Parameters};
pub use fulgurite_torch::rng::seed_everything;
pub use fulgurite_torch::tch;
pub use hook::{Hook, Logging};
pub use load::Checkpoint;
pub use loops::{EvalResults, OptimizerClosure};
pub use loss::Loss;
pub use module::{BatchFlow, LightningModule, ModuleView};
pub use plugin::Plugin;
pub use progress::{Counter, Counters, Progress};
pub use saving::{OnSaveError, SaveRequest};
pub use signals::Signal;
pub use slurm::{SlurmEnvironment, SlurmEnvironmentOptions};
pub use state::{Stage, TrainerFn, TrainerState};
pub use step::Step;
pub use trainer::{Outcome, Trainer};

/// The README's program, compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
