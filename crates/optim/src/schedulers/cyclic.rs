//! [`CyclicLR`], <https://arxiv.org/abs/1506.01186>.

use std::fmt;

use fulgurite_torch::{Dict, Value};

use super::per_group::PerGroup;
use super::scheduler::{Moment, Schedule, Scheduler};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{ensure, needed};
use crate::options::options;
use crate::{Momentum, OptimError, Optimizer, typed};

/// Cycles the learning rate between `base_lr` and `max_lr`, and momentum inversely. To be stepped after every optimizer
/// step.
pub type CyclicLR = Scheduler<CyclicLROptions>;

/// How the amplitude of [`CyclicLR`] changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CyclicMode {
    /// It stays the same.
    Triangular,
    /// It is halved after each cycle.
    Triangular2,
    /// It is `gamma` to the power of the step.
    ExpRange,
}

/// What the scale function of [`CyclicLR`] is a function of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CyclicScaleMode {
    /// The cycle, from 1.
    #[default]
    Cycle,
    /// The step, from 0.
    Iterations,
}

options! {
    /// Options of [`CyclicLR`], and its formula.
    CyclicLROptions of CyclicLR {
        /// Minimum learning rate; required.
        base_lr(base_lr: impl Into<PerGroup> => Some(base_lr.into())): Option<PerGroup> = None,
        /// Maximum learning rate; required.
        max_lr(max_lr: impl Into<PerGroup> => Some(max_lr.into())): Option<PerGroup> = None,
        /// Number of steps of the increasing half of a cycle.
        step_size_up: u32 = 2000,
        /// Number of steps of the decreasing half; null is `step_size_up`.
        step_size_down(steps: u32 => Some(steps)): Option<u32> = None,
        /// How the amplitude changes from cycle to cycle.
        mode: CyclicMode = CyclicMode::Triangular,
        /// Base of the amplitude in mode `exp_range`.
        gamma: f64 = 1.0,
        /// Cycle momentum (or the first of the betas) inversely to the learning rate.
        cycle_momentum: bool = true,
        /// Minimum momentum, at the maximum learning rate.
        base_momentum(momentum: impl Into<PerGroup> => momentum.into()): PerGroup = PerGroup::Same(0.8),
        /// Maximum momentum, at the minimum learning rate.
        max_momentum(momentum: impl Into<PerGroup> => momentum.into()): PerGroup = PerGroup::Same(0.9),
    }
}

/// What [`CyclicLR`] derives from its options when it is attached, and its scale function.
#[derive(Default)]
pub struct CyclicState {
    scale_fn: Option<Box<dyn Fn(f64) -> f64 + Send>>,
    scale_mode: CyclicScaleMode,
    max_lrs: Vec<f64>,
    base_momentums: Vec<f64>,
    max_momentums: Vec<f64>,
    use_beta1: bool,
    total_size: f64,
    step_ratio: f64,
}

impl CyclicLR {
    /// With PyTorch's defaults: 2000 steps up, 2000 down, always to the same height, momentum between 0.8 and 0.9.
    pub fn new(base_lr: impl Into<PerGroup>, max_lr: impl Into<PerGroup>) -> CyclicLR {
        Scheduler::from_options(CyclicLROptions::default().base_lr(base_lr.into()).max_lr(max_lr.into()))
    }

    /// The amplitude as a function of the cycle or the step, instead of a mode. As in PyTorch it is no part of the state
    /// dict.
    #[must_use]
    pub fn scale_fn(mut self, scale_mode: CyclicScaleMode, scale: impl Fn(f64) -> f64 + Send + 'static) -> Self {
        self.state.scale_mode = scale_mode;
        self.state.scale_fn = Some(Box::new(scale));
        self
    }
}

impl CyclicLROptions {
    /// The amplitude relative to the maximum, between 0 and 1.
    fn amplitude(&self, state: &CyclicState, epoch: i64) -> f64 {
        let at = epoch as f64 / state.total_size;
        let cycle = (1.0 + at).floor();
        let x = 1.0 + at - cycle;
        let part = if x <= state.step_ratio { x / state.step_ratio } else { (x - 1.0) / (state.step_ratio - 1.0) };
        let scale_at = if state.scale_mode == CyclicScaleMode::Cycle { cycle } else { epoch as f64 };
        let scale = match (&state.scale_fn, self.mode) {
            (Some(scale), _) => scale(scale_at),
            (None, CyclicMode::Triangular) => 1.0,
            (None, CyclicMode::Triangular2) => 1.0 / 2f64.powf(scale_at - 1.0),
            (None, CyclicMode::ExpRange) => self.gamma.powf(scale_at),
        };
        part * scale
    }

    fn set_scale_mode(&self, state: &mut CyclicState) {
        if state.scale_fn.is_none() {
            let is_exp = self.mode == CyclicMode::ExpRange;
            state.scale_mode = if is_exp { CyclicScaleMode::Iterations } else { CyclicScaleMode::Cycle };
        }
    }

    fn lrs(&self) -> Result<(&PerGroup, &PerGroup), OptimError> {
        let base_lr = needed(Self::NAME, "base_lr", self.base_lr.as_ref())?;
        Ok((base_lr, needed(Self::NAME, "max_lr", self.max_lr.as_ref())?))
    }
}

impl fmt::Debug for CyclicState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CyclicState").field("max_lrs", &self.max_lrs).finish_non_exhaustive()
    }
}

impl Schedule for CyclicLROptions {
    type State = CyclicState;
    const NAME: &'static str = "CyclicLR";

    fn validate(&self) -> Result<(), OptimError> {
        self.lrs()?;
        ensure(self.step_size_up > 0, Self::NAME, "step_size_up", self.step_size_up, "1 or more")?;
        let down = self.step_size_down.unwrap_or(1);
        ensure(down > 0, Self::NAME, "step_size_down", down, "1 or more")
    }

    fn prepare(&self, state: &mut CyclicState, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        let (name, len) = (optimizer.name().to_owned(), optimizer.param_groups().len());
        let (base_lr, max_lr) = self.lrs()?;
        let base_lrs = base_lr.spread(Self::NAME, "base_lr", len)?;
        state.max_lrs = max_lr.spread(Self::NAME, "max_lr", len)?;
        let step_size_up = f64::from(self.step_size_up);
        state.total_size = step_size_up + f64::from(self.step_size_down.unwrap_or(self.step_size_up));
        state.step_ratio = step_size_up / state.total_size;
        self.set_scale_mode(state);
        if self.cycle_momentum {
            state.base_momentums = self.base_momentum.spread(Self::NAME, "base_momentum", len)?;
            state.max_momentums = self.max_momentum.spread(Self::NAME, "max_momentum", len)?;
        }
        for (i, (group, lr)) in optimizer.param_groups_mut().iter_mut().zip(base_lrs).enumerate() {
            group.lr = lr;
            if self.cycle_momentum {
                if group.momentum == Momentum::None {
                    return Err(OptimError::NoMomentumToCycle { scheduler: Self::NAME, optimizer: name });
                }
                state.use_beta1 = matches!(group.momentum, Momentum::Betas(..));
                group.set_momentum(state.max_momentums[i]);
                group.extra.set("max_momentum", state.max_momentums[i]);
                group.extra.set("base_momentum", state.base_momentums[i]);
            }
        }
        Ok(())
    }

    fn join(&self, state: &mut CyclicState, groups: usize) -> Result<(), OptimError> {
        self.lrs()?.1.extend(Self::NAME, "max_lr", &mut state.max_lrs, groups)?;
        if self.cycle_momentum {
            self.base_momentum.extend(Self::NAME, "base_momentum", &mut state.base_momentums, groups)?;
            self.max_momentum.extend(Self::NAME, "max_momentum", &mut state.max_momentums, groups)?;
        }
        Ok(())
    }

    fn own_base_lrs(&self, groups: usize) -> Result<Option<Vec<f64>>, OptimError> {
        self.lrs()?.0.spread(Self::NAME, "base_lr", groups).map(Some)
    }

    fn lr(&self, at: &Moment<'_, CyclicState>) -> Result<f64, OptimError> {
        Ok(at.base_lr + (at.state.max_lrs[at.index] - at.base_lr) * self.amplitude(at.state, at.epoch))
    }

    fn momentum(&self, at: &Moment<'_, CyclicState>) -> Result<Option<f64>, OptimError> {
        Ok(self.cycle_momentum.then(|| {
            let (base, max) = (at.state.base_momentums[at.index], at.state.max_momentums[at.index]);
            max - (max - base) * self.amplitude(at.state, at.epoch)
        }))
    }

    fn save(&self, state: &CyclicState) -> Dict {
        let mut saved = Dict::new()
            .with("max_lrs", state.max_lrs.clone())
            .with("total_size", state.total_size)
            .with("step_ratio", state.step_ratio)
            .with("mode", typed::to_value(&self.mode))
            .with("gamma", self.gamma)
            .with("scale_mode", typed::to_value(&state.scale_mode))
            .with("cycle_momentum", self.cycle_momentum);
        if self.cycle_momentum {
            saved.push("use_beta1", state.use_beta1);
            saved.push("base_momentums", state.base_momentums.clone());
            saved.push("max_momentums", state.max_momentums.clone());
        }
        saved.with("_scale_fn_custom", Value::None)
    }

    fn load(&mut self, state: &mut CyclicState, saved: &Dict) -> Result<(), String> {
        // Those of the scheduler that was saved, to which groups may have been added.
        let groups = saved.list("base_lrs").map_or(state.max_lrs.len(), <[_]>::len);
        typed::load(saved, "max_lrs", &mut state.max_lrs)?;
        typed::load(saved, "total_size", &mut state.total_size)?;
        typed::load(saved, "step_ratio", &mut state.step_ratio)?;
        typed::load(saved, "mode", &mut self.mode)?;
        typed::load(saved, "gamma", &mut self.gamma)?;
        typed::load(saved, "scale_mode", &mut state.scale_mode)?;
        typed::load(saved, "cycle_momentum", &mut self.cycle_momentum)?;
        typed::load(saved, "base_momentums", &mut state.base_momentums)?;
        typed::load(saved, "max_momentums", &mut state.max_momentums)?;
        self.set_scale_mode(state);
        let momentums = if self.cycle_momentum { groups } else { state.base_momentums.len() };
        match state.max_lrs.len() == groups
            && state.base_momentums.len() == momentums
            && state.max_momentums.len() == momentums
        {
            true => Ok(()),
            false => Err(format!("its lists have not one value for each of the {groups} parameter groups")),
        }
    }
}
