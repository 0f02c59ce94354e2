//! PyTorch's optimizers and learning-rate schedulers for `tch`, over libtorch's fused and foreach kernels.

mod bucket;
mod builder;
mod config;
mod engine;
mod error;
mod groups;
mod lbfgs;
mod lr_scheduler;
mod optimizer;
mod rule;
mod rules;
mod schedulers;
mod settings;
mod state_dict;

pub use builder::OptimizerBuilder;
pub use config::{Interval, LrSchedulerConfig, Optimizers};
pub use error::OptimError;
pub use groups::{IntoParamGroups, ParamGroupConfig};
pub use lbfgs::{LBFGS, LineSearch};
pub use lr_scheduler::LrScheduler;
pub use optimizer::{Closure, Momentum, Optimizer, ParamGroup};
pub use rules::{
    ASGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, AdjustLr, Lion, Muon, NAdam, RAdam, RMSprop, Rprop, SGD,
};
pub use schedulers::{
    AnnealStrategy, ChainableScheduler, ChainedScheduler, ConstantLR, CosineAnnealingLR, CosineAnnealingWarmRestarts,
    CyclicLR, CyclicMode, ExponentialLR, LambdaLR, LinearLR, LinearWarmupCosineAnnealingLR, MultiStepLR,
    MultiplicativeLR, OneCycleLR, PerGroup, PlateauMode, PolynomialLR, ReduceLROnPlateau, ScaleMode, Scheduler,
    SequentialLR, StepLR, ThresholdMode,
};
