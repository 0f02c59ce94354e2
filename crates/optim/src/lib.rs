//! PyTorch's optimizers and learning-rate schedulers for `tch`, over libtorch's fused and foreach kernels.
//!
//! Names, defaults and updates are PyTorch 2.11's, and so are the state dicts: what one side saves, the other loads. A
//! step works on all parameters in a few calls, allocates nothing on the Rust heap after the first ones, and never waits
//! for the device.
//!
//! ```
//! use fulgurite_optim::{AdamW, CosineAnnealingLR, Interval, LrSchedulerConfig, Optimizers};
//! use fulgurite_torch::tch::nn::Module;
//! use fulgurite_torch::tch::{Device, Kind, Tensor, nn};
//!
//! let vs = nn::VarStore::new(Device::Cpu);
//! let layer = nn::linear(vs.root(), 4, 1, Default::default());
//! let (x, y) = (Tensor::randn([16, 4], (Kind::Float, Device::Cpu)), Tensor::zeros([16, 1], (Kind::Float, Device::Cpu)));
//!
//! // In a LightningModule, `configure_optimizers` returns this; a custom training loop builds it.
//! let cosine = LrSchedulerConfig::new(CosineAnnealingLR::new(100)).interval(Interval::Step);
//! let (mut optimizers, mut schedulers) =
//!     Optimizers::from(AdamW::new(&vs).lr(1e-2).weight_decay(0.1)).scheduler(cosine).build()?;
//! let optimizer = optimizers[0].as_mut();
//! for _ in 0..100 {
//!     optimizer.zero_grad()?;
//!     (layer.forward(&x) - &y).square().mean(Kind::Float).backward();
//!     optimizer.step()?;
//!     schedulers[0].scheduler.step(optimizer, None)?;
//! }
//! # Ok::<(), fulgurite_optim::OptimError>(())
//! ```
//!
//! Where to look:
//!
//! | to | see |
//! |---|---|
//! | create an optimizer | [`AdamW`], [`SGD`], [`Muon`], … ([`OptimizerBuilder`]), [`LBFGS`] |
//! | write a custom optimizer or scheduler | [`Rule`], [`Schedule`] |
//! | set options per parameter group | [`ParamGroupConfig`] |
//! | write a training loop for any optimizer | [`Optimizer`], [`LrScheduler`] |
//! | combine schedulers | [`SequentialLR`], [`ChainedScheduler`] |

mod build;
mod builder;
mod config;
mod error;
mod groups;
mod lr_scheduler;
mod mode;
mod optimizer;
mod optimizers;
mod options;
mod param_group;
mod partition;
mod rule;
mod rule_optimizer;
mod schedulers;
mod sparse;
mod state_dict;
mod typed;

pub use build::{BuildLrScheduler, BuildOptimizer, OptimizerVisitor, SchedulerVisitor};
pub use builder::OptimizerBuilder;
pub use config::{BuiltOptimizers, Interval, LrSchedulerConfig, Optimizers};
pub use error::OptimError;
pub use groups::{GroupDefaults, IntoParamGroups, ParamGroupConfig};
pub use lr_scheduler::LrScheduler;
pub use mode::Mode;
pub use optimizer::{Closure, Optimizer};
pub use optimizers::*;
pub use param_group::{Momentum, ParamGroup};
pub use rule::{Bucket, Fixed, ParamStep, Rule};
pub use rule_optimizer::RuleOptimizer;
pub use schedulers::*;
