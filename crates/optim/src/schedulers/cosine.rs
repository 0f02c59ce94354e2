//! [`CosineAnnealingLR`] and [`CosineAnnealingWarmRestarts`], <https://arxiv.org/abs/1608.03983>.

use std::f64::consts::PI;

use super::scheduler::{Clock, Moment, Schedule, Scheduler};
use crate::OptimError;
use crate::error::ensure;
use crate::settings::{Settings, settings};

/// Lets the learning rate follow half a cosine down to `eta_min` in `t_max` epochs, and up again in as many.
pub type CosineAnnealingLR = Scheduler<CosineAnnealing>;

/// The formula of [`CosineAnnealingLR`].
#[derive(Debug)]
pub struct CosineAnnealing {
    t_max: i64,
    eta_min: f64,
}

impl CosineAnnealingLR {
    /// Down to 0.
    pub fn new(t_max: u32) -> CosineAnnealingLR {
        Scheduler::with(CosineAnnealing { t_max: t_max.into(), eta_min: 0.0 })
    }

    /// The lowest learning rate.
    #[must_use]
    pub fn eta_min(mut self, eta_min: f64) -> Self {
        self.schedule.eta_min = eta_min;
        self
    }
}

impl Settings for CosineAnnealing {
    settings! { "T_max" = t_max, "eta_min" = eta_min }
}

impl Schedule for CosineAnnealing {
    const NAME: &'static str = "CosineAnnealingLR";

    fn validate(&self) -> Result<(), OptimError> {
        ensure(self.t_max > 0, Self::NAME, "T_max", self.t_max, "1 or more")
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        if at.initial {
            return Ok(at.group.lr);
        }
        let t_max = self.t_max as f64;
        if (at.epoch - 1 - self.t_max) % (2 * self.t_max) == 0 {
            // The bottom, from where the ratio below cannot lead up again.
            return Ok(at.group.lr + (at.base_lr - self.eta_min) * (1.0 - (PI / t_max).cos()) / 2.0);
        }
        let height = |epoch: i64| 1.0 + (PI * epoch as f64 / t_max).cos();
        Ok(height(at.epoch) / height(at.epoch - 1) * (at.group.lr - self.eta_min) + self.eta_min)
    }

    fn closed_form(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        Ok(cosine(at.base_lr, self.eta_min, at.epoch as f64 / self.t_max as f64))
    }
}

/// [`CosineAnnealingLR`] that jumps back up each time it is down: after `t_0` epochs, then after `t_mult` times as many
/// as before.
pub type CosineAnnealingWarmRestarts = Scheduler<WarmRestarts>;

/// The formula of [`CosineAnnealingWarmRestarts`].
#[derive(Debug)]
pub struct WarmRestarts {
    t_0: i64,
    t_i: i64,
    t_mult: i64,
    eta_min: f64,
    t_cur: i64,
}

impl CosineAnnealingWarmRestarts {
    /// Down to 0, every `t_0` epochs.
    pub fn new(t_0: u32) -> CosineAnnealingWarmRestarts {
        let t_0 = t_0.into();
        Scheduler::with(WarmRestarts { t_0, t_i: t_0, t_mult: 1, eta_min: 0.0, t_cur: -1 })
    }

    /// How many times as long each fall takes as the one before.
    #[must_use]
    pub fn t_mult(mut self, t_mult: u32) -> Self {
        self.schedule.t_mult = t_mult.into();
        self
    }

    /// The lowest learning rate.
    #[must_use]
    pub fn eta_min(mut self, eta_min: f64) -> Self {
        self.schedule.eta_min = eta_min;
        self
    }
}

impl Settings for WarmRestarts {
    settings! { "T_0" = t_0, "T_i" = t_i, "T_mult" = t_mult, "eta_min" = eta_min, "T_cur" = t_cur }
}

impl Schedule for WarmRestarts {
    const NAME: &'static str = "CosineAnnealingWarmRestarts";

    fn validate(&self) -> Result<(), OptimError> {
        ensure(self.t_0 > 0, Self::NAME, "T_0", self.t_0, "1 or more")?;
        ensure(self.t_mult > 0, Self::NAME, "T_mult", self.t_mult, "1 or more")
    }

    /// PyTorch's leaves the count of calls at 0.
    fn tick(&mut self, clock: &mut Clock) {
        if clock.last_epoch < 0 {
            clock.last_epoch = 0;
            (self.t_cur, self.t_i) = (0, self.t_0);
            return;
        }
        clock.last_epoch += 1;
        self.t_cur += 1;
        if self.t_cur >= self.t_i {
            self.t_cur %= self.t_i;
            self.t_i *= self.t_mult;
        }
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        Ok(cosine(at.base_lr, self.eta_min, self.t_cur as f64 / self.t_i as f64))
    }
}

/// The way from `high` to `low` along half a cosine, at `part` between 0 and 1.
pub(super) fn cosine(high: f64, low: f64, part: f64) -> f64 {
    low + (high - low) * (1.0 + (PI * part).cos()) / 2.0
}
