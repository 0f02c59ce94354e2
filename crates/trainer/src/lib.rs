//! Fulgurite: PyTorch Lightning in Rust, on libtorch.
//!
//! You write a [`LightningModule`] (the model) and a [`LightningDataModule`] (the data); the [`Trainer`] does the rest.
//! Everything a program usually needs is in [`prelude`].

mod builder;
pub mod callbacks;
pub mod cli;
mod entry_point;
mod exit;
#[cfg(doctest)]
mod guide;
pub mod load;
mod plugin;
pub mod prelude;
mod report;
mod requirements;
pub mod tools;
mod trainer;
pub mod tuner;

pub use builder::TrainerBuilder;
pub use entry_point::{CkptPath, EntryPoint};
pub use exit::exit_code;
pub use fulgurite_data as data;
pub use fulgurite_engine::config::Maximum;
pub use fulgurite_engine::{
    BatchFlow, BoxError, Callback, CallbackIdentity, Checkpointer, Console, Counter, Counters, Data, Error,
    EvalResults, Hook, IntoData, LightningDataModule, LightningModule, Loaders, Logging, Loss, ModuleView, OnSaveError,
    OneLoader, OptimizerClosure, Outcome, Outline, Progress, Reach, Result, SaveRequest, Signal, SlurmRequeue,
    SlurmRequeueOptions, Stage, Step, TrainDataNeeded, TrainerConfig, TrainerFn, TrainerState, not_implemented,
};
pub use fulgurite_engine::{config, logging, profilers};
pub use fulgurite_fabric as fabric;
pub use fulgurite_fabric::loggers;
pub use fulgurite_macros::main;
pub use fulgurite_metrics as metrics;
pub use fulgurite_optim as optim;
pub use fulgurite_torch as torch;
pub use fulgurite_torch::params::{NamedTensors, Parameters};
pub use fulgurite_torch::rng::seed_everything;
pub use fulgurite_torch::tch;
pub use load::{Checkpoint, LoadFromCheckpoint};
pub use plugin::Plugin;
pub use trainer::Trainer;

/// The README's program, compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
