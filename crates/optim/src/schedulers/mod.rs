//! The schedulers. [`Scheduler`] runs those that compute a learning rate from an epoch; the others stand alone.

mod chained;
mod cosine;
mod cyclic;
mod decay;
mod lambda;
mod one_cycle;
mod per_group;
mod plateau;
mod scheduler;
mod sequential;
mod swa;
mod warmup;

pub use chained::ChainedScheduler;
pub use cosine::{CosineAnnealingLR, CosineAnnealingWarmRestarts};
pub use cyclic::{CyclicLR, CyclicMode, ScaleMode};
pub use decay::{ConstantLR, ExponentialLR, LinearLR, MultiStepLR, PolynomialLR, StepLR};
pub use lambda::{LambdaLR, MultiplicativeLR};
pub use one_cycle::{AnnealStrategy, OneCycleLR};
pub use per_group::PerGroup;
pub use plateau::{PlateauMode, ReduceLROnPlateau, ThresholdMode};
pub use scheduler::{ChainableScheduler, Scheduler};
pub use sequential::SequentialLR;
pub use swa::SWALR;
pub use warmup::LinearWarmupCosineAnnealingLR;
