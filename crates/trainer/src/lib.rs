//! Fulgurite: PyTorch Lightning in Rust, on libtorch.
//!
//! You write a [`LightningModule`] (the model) and a [`LightningDataModule`] (the data, or just a
//! [`DataLoader`](data::DataLoader)); the [`Trainer`] does the rest: loops, devices, precision, checkpoints, logs.
//!
//! ```
//! use fulgurite::prelude::*;
//!
//! /// A line through points.
//! struct Line { vars: nn::VarStore, layer: nn::Linear }
//!
//! impl LightningModule for Line {
//!     type Batch = (Tensor, Tensor);
//!
//!     fn vars(&self) -> &dyn Parameters { &self.vars }
//!
//!     fn training_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> Result<Loss> {
//!         let loss = (self.layer.forward(&x) - y).square().mean(Kind::Float);
//!         step.log("train_loss", &loss).prog_bar();
//!         Ok(loss.into())
//!     }
//!
//!     fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
//!         Ok(SGD::new(&self.vars).lr(0.1).into())
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! seed_everything(0)?;
//! let x = Tensor::rand([256, 1], (Kind::Float, Device::Cpu));
//! let y = &x * 3.0 + 1.0;
//! let vars = nn::VarStore::new(Device::Cpu);
//! let layer = nn::linear(1, 1).at(vars.root() / "layer")?;
//! let mut model = Line { vars, layer };
//!
//! let mut trainer = Trainer::builder().max_epochs(30).barebones(true).build()?;
//! let points = DataLoader::new(TensorDataset::new((x, y))?).batch_size(32).shuffle(true);
//! trainer.fit(&mut model, points)?.completed()?;
//! assert!((model.layer.weight.double_value(&[0, 0]) - 3.0).abs() < 0.3);
//! # Ok(())
//! # }
//! ```
//!
//! `cargo xtask new ../my-model` in a clone makes a crate with a model, data, command line and test to begin with. The
//! [guide](https://github.com/fulgurite/fulgurite/blob/main/docs/src/SUMMARY.md) tells how all of it is used.
//!
//! # Where things are
//!
//! | to | look in | crate |
//! |---|---|---|
//! | import what a program usually needs | [`prelude`] | |
//! | train, validate, test, predict | [`Trainer`], [`TrainerBuilder`], [`TrainerConfig`] | |
//! | write a model and its data | [`LightningModule`], [`LightningDataModule`], [`Step`], [`TrainerState`] | `fulgurite-engine` |
//! | act at any moment of a run | [`Callback`], and [`callbacks`] for those that are there | `fulgurite-callbacks` |
//! | load and collate data | [`data`] | `fulgurite-data` |
//! | measure | [`metrics`] | `fulgurite-metrics` |
//! | optimize and schedule | [`optim`] | `fulgurite-optim` |
//! | log, in files and in TensorBoard | [`logging`], [`loggers`] | `fulgurite-fabric` |
//! | give a program a command line | [`cli`], [`cli_main!`] | |
//! | open checkpoints, load parts of them | [`Checkpoint`], [`load`], [`tools`] | |
//! | find batch size and learning rate | [`tuner`] | |
//! | search for hyper-parameters | [`search`], and the subcommand `sweep` of a command line | `fulgurite-search` |
//! | see where time goes | [`profilers`] | |
//! | write a loop of one's own on any device | [`fabric::Fabric`] | `fulgurite-fabric` |
//! | make networks of PyTorch's layers | [`nn`] | `fulgurite-nn` |
//! | use tensors, and the layers of `tch` | [`tch`], [`tch::nn`] | `tch` |
//! | use more of libtorch than `tch` has | [`torch`] | `fulgurite-torch` |
//!
//! [`tch`] here is the only one that a program may use: of another version, `tch` beside it is an error of cargo about the
//! `links` of `torch-sys`.

mod builder;
pub mod callbacks;
pub mod cli;
mod entry_point;
mod exit;
#[cfg(doctest)]
mod guide;
pub mod load;
mod outside;
mod plugin;
pub mod prelude;
mod report;
mod requirements;
pub mod search;
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
pub use fulgurite_nn as nn;
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
