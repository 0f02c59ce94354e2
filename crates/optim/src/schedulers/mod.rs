//! The learning-rate schedulers: a file each, and a line here if they can be created from data. [`Scheduler`] runs
//! those that are a [`Schedule`]; the others implement the trait themselves.

mod chained;
mod composite;
mod lambda;
mod per_group;
mod scheduler;
mod sequential;
mod swa;

pub use chained::ChainedScheduler;
pub use lambda::{LambdaLR, MultiplicativeLR};
pub use per_group::PerGroup;
pub use scheduler::{ChainableScheduler, Clock, Moment, Schedule, Scheduler};
pub use sequential::SequentialLR;
pub use swa::{SWALR, SwaLROptions};

use crate::build::{BuildLrScheduler, SchedulerVisitor};
use crate::options::classes;
use crate::{LrScheduler, OptimError};

type Built = Result<Box<dyn LrScheduler>, OptimError>;
type RunLength<'a> = &'a mut dyn FnMut() -> Option<u32>;

classes! {
    /// A learning-rate scheduler as data: its class and its options.
    ///
    /// Schedulers that hold functions or other schedulers (`LambdaLR`, `SequentialLR`, …) are made in code.
    ///
    /// ```
    /// use fulgurite_optim::{LrSchedulerConfig, SchedulerOptions, StepLROptions};
    ///
    /// let options = SchedulerOptions::StepLR(StepLROptions::default().step_size(30u32));
    /// let scheduler = LrSchedulerConfig::from(options.build(None)?);
    /// # Ok::<(), fulgurite_optim::OptimError>(())
    /// ```
    SchedulerOptions, SchedulerVisitor, BuildLrScheduler::build_lr_scheduler as fn(RunLength<'_>) -> Built {
        decay: StepLR(StepLROptions), MultiStepLR(MultiStepLROptions), ConstantLR(ConstantLROptions),
            LinearLR(LinearLROptions), ExponentialLR(ExponentialLROptions), PolynomialLR(PolynomialLROptions);
        cosine: CosineAnnealingLR(CosineAnnealingLROptions),
            CosineAnnealingWarmRestarts(CosineAnnealingWarmRestartsOptions);
        warmup: LinearWarmupCosineAnnealingLR(LinearWarmupCosineAnnealingLROptions);
        cyclic: CyclicLR(CyclicLROptions);
        one_cycle: OneCycleLR(OneCycleLROptions);
        plateau: ReduceLROnPlateau(ReduceLROnPlateauOptions);
    }
}

impl SchedulerOptions {
    /// The scheduler. `run_length` is the length of the run in the interval that the scheduler is stepped by, for those
    /// that depend on it.
    ///
    /// # Errors
    ///
    /// Fails if an option without a default was left out, or an option is out of range.
    pub fn build(self, run_length: Option<u32>) -> Built {
        self.make(&mut || run_length)
    }
}
