//! [`CosineAnnealingLR`] and [`CosineAnnealingWarmRestarts`], <https://arxiv.org/abs/1608.03983>.

use std::f64::consts::PI;

use fulgurite_torch::Dict;

use super::scheduler::{Clock, Moment, Schedule, Scheduler};
use crate::error::{ensure, needed};
use crate::options::options;
use crate::{OptimError, Optimizer, typed};

/// Anneals the learning rate along half a cosine to `eta_min` in `T_max` epochs, and back up in as many.
pub type CosineAnnealingLR = Scheduler<CosineAnnealingLROptions>;

options! {
    /// Options of [`CosineAnnealingLR`], and its formula.
    CosineAnnealingLROptions of CosineAnnealingLR {
        /// Number of epochs (or steps) until the minimum; required.
        #[serde(rename = "T_max")]
        t_max(t_max: u32 => Some(t_max)): Option<u32> = None,
        /// Minimum learning rate.
        eta_min: f64 = 0.0,
    }
}

impl CosineAnnealingLR {
    /// Down to 0 in `t_max` epochs.
    pub fn new(t_max: u32) -> CosineAnnealingLR {
        Scheduler::from_options(CosineAnnealingLROptions::default().t_max(t_max))
    }
}

impl CosineAnnealingLROptions {
    fn required_t_max(&self) -> Result<i64, OptimError> {
        needed(Self::NAME, "T_max", self.t_max).map(i64::from)
    }
}

impl Schedule for CosineAnnealingLROptions {
    type State = ();
    const NAME: &'static str = "CosineAnnealingLR";

    fn validate(&self) -> Result<(), OptimError> {
        let t_max = self.required_t_max()?;
        ensure(t_max > 0, Self::NAME, "T_max", t_max, "1 or more")
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        if at.initial {
            return Ok(at.group.lr);
        }
        let epochs = self.required_t_max()?;
        let t_max = epochs as f64;
        if (at.epoch - 1 - epochs) % (2 * epochs) == 0 {
            // The bottom, from where the ratio below cannot lead up again.
            return Ok(at.group.lr + (at.base_lr - self.eta_min) * (1.0 - (PI / t_max).cos()) / 2.0);
        }
        let height = |epoch: i64| 1.0 + (PI * epoch as f64 / t_max).cos();
        Ok(height(at.epoch) / height(at.epoch - 1) * (at.group.lr - self.eta_min) + self.eta_min)
    }

    fn closed_form(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        Ok(cosine(at.base_lr, self.eta_min, at.epoch as f64 / self.required_t_max()? as f64))
    }
}

/// [`CosineAnnealingLR`] with restarts at the base learning rate: after `T_0` epochs, then each time after `T_mult` times
/// as many as before.
pub type CosineAnnealingWarmRestarts = Scheduler<CosineAnnealingWarmRestartsOptions>;

options! {
    /// Options of [`CosineAnnealingWarmRestarts`], and its formula.
    CosineAnnealingWarmRestartsOptions of CosineAnnealingWarmRestarts {
        /// Number of epochs (or steps) until the first restart; required.
        #[serde(rename = "T_0")]
        t_0(t_0: u32 => Some(t_0)): Option<u32> = None,
        /// Factor of the number of epochs between restarts.
        #[serde(rename = "T_mult")]
        t_mult: u32 = 1,
        /// Minimum learning rate.
        eta_min: f64 = 0.0,
    }
}

/// Where [`CosineAnnealingWarmRestarts`] is.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct WarmRestartsState {
    /// Epochs between the last restart and the next one.
    #[serde(rename = "T_i")]
    t_i: i64,
    /// Epochs since the last restart.
    #[serde(rename = "T_cur")]
    t_cur: i64,
}

impl CosineAnnealingWarmRestarts {
    /// Down to 0, every `t_0` epochs.
    pub fn new(t_0: u32) -> CosineAnnealingWarmRestarts {
        Scheduler::from_options(CosineAnnealingWarmRestartsOptions::default().t_0(t_0))
    }
}

impl CosineAnnealingWarmRestartsOptions {
    fn required_t_0(&self) -> Result<i64, OptimError> {
        needed(Self::NAME, "T_0", self.t_0).map(i64::from)
    }
}

impl Schedule for CosineAnnealingWarmRestartsOptions {
    type State = WarmRestartsState;
    const NAME: &'static str = "CosineAnnealingWarmRestarts";

    fn validate(&self) -> Result<(), OptimError> {
        let t_0 = self.required_t_0()?;
        ensure(t_0 > 0, Self::NAME, "T_0", t_0, "1 or more")?;
        ensure(self.t_mult > 0, Self::NAME, "T_mult", self.t_mult, "1 or more")
    }

    fn prepare(&self, state: &mut WarmRestartsState, _optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        state.t_i = self.required_t_0()?;
        Ok(())
    }

    /// PyTorch's leaves the count of calls at 0.
    fn tick(&self, state: &WarmRestartsState, clock: &mut Clock) -> Option<WarmRestartsState> {
        if clock.last_epoch < 0 {
            clock.last_epoch = 0;
            return Some(WarmRestartsState { t_cur: 0, t_i: self.t_0.unwrap_or(1).into() });
        }
        clock.last_epoch += 1;
        let (t_cur, t_i) = (state.t_cur + 1, state.t_i);
        Some(match t_cur >= t_i {
            true => WarmRestartsState { t_cur: t_cur % t_i, t_i: t_i.saturating_mul(self.t_mult.into()) },
            false => WarmRestartsState { t_cur, t_i },
        })
    }

    fn lr(&self, at: &Moment<'_, WarmRestartsState>) -> Result<f64, OptimError> {
        Ok(cosine(at.base_lr, self.eta_min, at.state.t_cur as f64 / at.state.t_i as f64))
    }

    fn save(&self, state: &WarmRestartsState) -> Dict {
        typed::to_dict(self).into_iter().chain(typed::to_dict(state)).collect()
    }

    fn load(&mut self, state: &mut WarmRestartsState, saved: &Dict) -> Result<(), String> {
        typed::update(self, saved)?;
        typed::update(state, saved)?;
        match state.t_i > 0 {
            true => Ok(()),
            false => Err(format!("entry `T_i` is {}, expected 1 or more", state.t_i)),
        }
    }
}

/// The way from `high` to `low` along half a cosine, at `part` between 0 and 1.
pub(super) fn cosine(high: f64, low: f64, part: f64) -> f64 {
    low + (high - low) * (1.0 + (PI * part).cos()) / 2.0
}
