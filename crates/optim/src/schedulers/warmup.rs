//! [`LinearWarmupCosineAnnealingLR`].

use super::cosine::cosine;
use super::scheduler::{Moment, Schedule, Scheduler};
use crate::OptimError;
use crate::error::{ensure, ensure_non_negative, needed};
use crate::options::options;

/// Linear warm-up, then decay along half a cosine: the scheduler of that name in Lightning Bolts.
///
/// The learning rate rises from `warmup_start_lr` at step 0 to its base at step `warmup_epochs - 1`, holds it for one
/// step, and falls to `eta_min` at step `max_epochs`, where it stays (in Bolts it would rise again). As often, "epochs"
/// are whatever it is stepped by, for language models usually optimizer steps.
///
/// ```
/// use fulgurite_optim::{AdamW, Interval, LinearWarmupCosineAnnealingLR, LrSchedulerConfig, Optimizers};
/// use fulgurite_torch::tch::{Device, nn};
///
/// let vs = nn::VarStore::new(Device::Cpu);
/// let _layer = nn::linear(vs.root(), 4, 2, Default::default());
/// let schedule = LinearWarmupCosineAnnealingLR::new(100, 5_000).warmup_start_lr(1e-6).eta_min(3e-5);
/// let optimizers = Optimizers::from(AdamW::new(&vs).lr(3e-4))
///     .scheduler(LrSchedulerConfig::new(schedule).interval(Interval::Step));
/// let (optimizers, _) = optimizers.build()?;
/// assert_eq!(optimizers[0].param_groups()[0].lr, 1e-6);
/// # Ok::<(), fulgurite_optim::OptimError>(())
/// ```
pub type LinearWarmupCosineAnnealingLR = Scheduler<LinearWarmupCosineAnnealingLROptions>;

options! {
    /// Options of [`LinearWarmupCosineAnnealingLR`], and its formula.
    LinearWarmupCosineAnnealingLROptions of LinearWarmupCosineAnnealingLR {
        /// Number of epochs (or steps) of the warm-up; required.
        warmup_epochs(warmup_epochs: u32 => Some(warmup_epochs)): Option<u32> = None,
        /// Number of epochs (or steps) of warm-up and decay; null is the length of the run.
        max_epochs(max_epochs: u32 => Some(max_epochs)): Option<u32> = None,
        /// Learning rate at the start of the warm-up. At 0 the first step does nothing.
        warmup_start_lr: f64 = 0.0,
        /// Minimum learning rate.
        eta_min: f64 = 0.0,
    }
}

impl LinearWarmupCosineAnnealingLR {
    /// From 0 up and down to 0.
    pub fn new(warmup_epochs: u32, max_epochs: u32) -> LinearWarmupCosineAnnealingLR {
        let options = LinearWarmupCosineAnnealingLROptions::default();
        Scheduler::from_options(options.warmup_epochs(warmup_epochs).max_epochs(max_epochs))
    }
}

impl LinearWarmupCosineAnnealingLROptions {
    fn epochs(&self) -> Result<(i64, i64), OptimError> {
        let warmup_epochs = needed(Self::NAME, "warmup_epochs", self.warmup_epochs)?;
        let max_epochs = needed(Self::NAME, "max_epochs", self.max_epochs)?;
        Ok((warmup_epochs.into(), max_epochs.into()))
    }
}

impl Schedule for LinearWarmupCosineAnnealingLROptions {
    type State = ();
    const NAME: &'static str = "LinearWarmupCosineAnnealingLR";

    fn adapt_to_run(&mut self, run_length: &mut dyn FnMut() -> Option<u32>) {
        self.max_epochs = self.max_epochs.or_else(run_length);
    }

    fn validate(&self) -> Result<(), OptimError> {
        let (warmup_epochs, max_epochs) = self.epochs()?;
        ensure(max_epochs > warmup_epochs, Self::NAME, "max_epochs", max_epochs, "more than warmup_epochs")?;
        ensure_non_negative(Self::NAME, "warmup_start_lr", self.warmup_start_lr)?;
        ensure_non_negative(Self::NAME, "eta_min", self.eta_min)
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        let (warmup_epochs, max_epochs) = self.epochs()?;
        if at.epoch < warmup_epochs {
            let part = at.epoch as f64 / (warmup_epochs - 1).max(1) as f64;
            return Ok(self.warmup_start_lr + part * (at.base_lr - self.warmup_start_lr));
        }
        let decay = (at.epoch - warmup_epochs) as f64 / (max_epochs - warmup_epochs) as f64;
        Ok(cosine(at.base_lr, self.eta_min, decay.min(1.0)))
    }
}
