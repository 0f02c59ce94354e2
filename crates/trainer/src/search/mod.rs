//! Hyper-parameter search in a program of one's own, without the subcommand `sweep`: studies, samplers and pruners of
//! `fulgurite-search`, and [`PruningCallback`], which lets a trainer take part.
//!
//! `sweep` runs each trial in a process of its own, which is the better choice where a trial may crash, or needs a GPU for itself.
//!
//! ```
//! use fulgurite::prelude::*;
//! use fulgurite::search::{Direction, MedianOptions, Pruner, PrunerConfig, PruningCallback, RandomSampler, SearchSpace, Study};
//! # use serde_json::json;
//! # struct Weight { vars: nn::VarStore, w: Tensor, lr: f64 }
//! # impl Weight {
//! #     fn new(lr: f64) -> Weight {
//! #         let vars = nn::VarStore::new(Device::Cpu);
//! #         let w = vars.root().zeros("w", &[1]);
//! #         Weight { vars, w, lr }
//! #     }
//! # }
//! # impl LightningModule for Weight {
//! #     type Batch = Tensor;
//! #     fn vars(&self) -> &dyn Parameters { &self.vars }
//! #     fn training_step(&mut self, x: Tensor, _: &mut Step) -> Result<Loss> { Ok((&self.w - x).square().sum(Kind::Float).into()) }
//! #     fn validation_step(&mut self, x: Tensor, step: &mut Step) -> Result<()> {
//! #         step.log("val_loss", (&self.w - x).square().sum(Kind::Float));
//! #         Ok(())
//! #     }
//! #     fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> { Ok(SGD::new(&self.vars).lr(self.lr).into()) }
//! # }
//!
//! # fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let journal = folder.path().join("journal.log");
//! # let batches = || vec![Tensor::ones([1], (Kind::Float, Device::Cpu))];
//! let space = SearchSpace::from_value(&json!({ "lr": { "float": [1e-3, 0.5], "log": true } }))?;
//! let mut study = Study::open(&journal, "weights", Direction::Minimize)?;
//! let (mut sampler, median) = (RandomSampler::new(Some(0)), PrunerConfig::Median(MedianOptions::default()));
//! for _ in 0..10 {
//!     let Some(trial) = study.ask(&mut sampler, &space)? else { break };
//!     let mut model = Weight::new(study.params(trial)["lr"].as_f64().unwrap_or_default());
//!     let pruning = PruningCallback::new(Study::open(&journal, "weights", Direction::Minimize)?, trial, "val_loss");
//!     let trainer = Trainer::builder().no_logger().enable_checkpointing(false).enable_progress_bar(false);
//!     let mut trainer = trainer.max_epochs(5).callback(pruning.pruner(Pruner::new(&median)?)).build()?;
//!     trainer.fit(&mut model, (batches(), batches()))?.completed()?;
//!     study.sync()?;
//! }
//! assert!(study.best_trial().is_some_and(|best| best.value < Some(0.5)));
//! # Ok(()) }
//! ```

mod pruning;

pub use fulgurite_search::*;
pub use pruning::PruningCallback;
