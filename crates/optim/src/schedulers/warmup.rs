//! [`LinearWarmupCosineAnnealingLR`].

use super::cosine::cosine;
use super::scheduler::{Moment, Schedule, Scheduler};
use crate::OptimError;
use crate::error::{ensure, ensure_non_negative};
use crate::settings::{Settings, settings};

/// Warm-up in a line, then decay along half a cosine: the scheduler of that name in Lightning Bolts.
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
pub type LinearWarmupCosineAnnealingLR = Scheduler<LinearWarmupCosineAnnealing>;

/// The formula of [`LinearWarmupCosineAnnealingLR`].
#[derive(Debug)]
pub struct LinearWarmupCosineAnnealing {
    warmup_epochs: i64,
    max_epochs: i64,
    warmup_start_lr: f64,
    eta_min: f64,
}

impl LinearWarmupCosineAnnealingLR {
    /// From 0 up and down to 0.
    pub fn new(warmup_epochs: u32, max_epochs: u32) -> LinearWarmupCosineAnnealingLR {
        Scheduler::with(LinearWarmupCosineAnnealing {
            warmup_epochs: warmup_epochs.into(),
            max_epochs: max_epochs.into(),
            warmup_start_lr: 0.0,
            eta_min: 0.0,
        })
    }

    /// The first learning rate. At 0 the first step does nothing.
    #[must_use]
    pub fn warmup_start_lr(mut self, warmup_start_lr: f64) -> Self {
        self.schedule.warmup_start_lr = warmup_start_lr;
        self
    }

    /// The last learning rate.
    #[must_use]
    pub fn eta_min(mut self, eta_min: f64) -> Self {
        self.schedule.eta_min = eta_min;
        self
    }
}

impl Settings for LinearWarmupCosineAnnealing {
    settings! {
        "warmup_epochs" = warmup_epochs,
        "max_epochs" = max_epochs,
        "warmup_start_lr" = warmup_start_lr,
        "eta_min" = eta_min,
    }
}

impl Schedule for LinearWarmupCosineAnnealing {
    const NAME: &'static str = "LinearWarmupCosineAnnealingLR";

    fn validate(&self) -> Result<(), OptimError> {
        let holds = self.max_epochs > self.warmup_epochs;
        ensure(holds, Self::NAME, "max_epochs", self.max_epochs, "more than warmup_epochs")?;
        ensure_non_negative(Self::NAME, "warmup_start_lr", self.warmup_start_lr)?;
        ensure_non_negative(Self::NAME, "eta_min", self.eta_min)
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        if at.epoch < self.warmup_epochs {
            let part = at.epoch as f64 / (self.warmup_epochs - 1).max(1) as f64;
            return Ok(self.warmup_start_lr + part * (at.base_lr - self.warmup_start_lr));
        }
        let decay = (at.epoch - self.warmup_epochs) as f64 / (self.max_epochs - self.warmup_epochs) as f64;
        Ok(cosine(at.base_lr, self.eta_min, decay.min(1.0)))
    }
}
