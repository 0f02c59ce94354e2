//! [`CyclicLR`], <https://arxiv.org/abs/1506.01186>.

use std::fmt;

use fulgurite_torch::{Dict, Value};

use super::per_group::PerGroup;
use super::scheduler::{Moment, Schedule, Scheduler};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ensure;
use crate::settings::{self, Setting, Settings, setting_enum};
use crate::{Momentum, OptimError, Optimizer};

/// Lets the learning rate go up and down between `base_lr` and `max_lr`, and momentum the other way. Meant to be
/// stepped after every optimizer step.
pub type CyclicLR = Scheduler<Cyclic>;

/// How the peaks of [`CyclicLR`] change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CyclicMode {
    /// Not at all.
    Triangular,
    /// Each is half as high as the one before.
    Triangular2,
    /// Their height is `gamma` to the power of the step.
    ExpRange,
}

setting_enum! {
    CyclicMode, "`triangular`, `triangular2` or `exp_range`",
    "triangular" => CyclicMode::Triangular,
    "triangular2" => CyclicMode::Triangular2,
    "exp_range" => CyclicMode::ExpRange,
}

/// What the scale function of [`CyclicLR`] is a function of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleMode {
    /// The cycle, from 1.
    Cycle,
    /// The step, from 0.
    Iterations,
}

setting_enum! {
    ScaleMode, "`cycle` or `iterations`",
    "cycle" => ScaleMode::Cycle,
    "iterations" => ScaleMode::Iterations,
}

/// The formula of [`CyclicLR`].
pub struct Cyclic {
    base_lr: PerGroup,
    max_lr: PerGroup,
    step_size_up: f64,
    step_size_down: Option<f64>,
    mode: CyclicMode,
    gamma: f64,
    scale_fn: Option<Box<dyn Fn(f64) -> f64 + Send>>,
    scale_mode: ScaleMode,
    cycle_momentum: bool,
    base_momentum: PerGroup,
    max_momentum: PerGroup,
    // From here on, what is derived when it is attached.
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
        Scheduler::with(Cyclic {
            base_lr: base_lr.into(),
            max_lr: max_lr.into(),
            step_size_up: 2000.0,
            step_size_down: None,
            mode: CyclicMode::Triangular,
            gamma: 1.0,
            scale_fn: None,
            scale_mode: ScaleMode::Cycle,
            cycle_momentum: true,
            base_momentum: 0.8.into(),
            max_momentum: 0.9.into(),
            max_lrs: Vec::new(),
            base_momentums: Vec::new(),
            max_momentums: Vec::new(),
            use_beta1: false,
            total_size: 0.0,
            step_ratio: 0.0,
        })
    }

    /// Steps up.
    #[must_use]
    pub fn step_size_up(mut self, steps: u32) -> Self {
        self.schedule.step_size_up = steps.into();
        self
    }

    /// Steps down; as many as up by default.
    #[must_use]
    pub fn step_size_down(mut self, steps: u32) -> Self {
        self.schedule.step_size_down = Some(steps.into());
        self
    }

    /// How the peaks change.
    #[must_use]
    pub fn mode(mut self, mode: CyclicMode) -> Self {
        self.schedule.mode = mode;
        self
    }

    /// The factor of [`CyclicMode::ExpRange`].
    #[must_use]
    pub fn gamma(mut self, gamma: f64) -> Self {
        self.schedule.gamma = gamma;
        self
    }

    /// The height of the peaks as a function of the cycle or the step, instead of a mode.
    #[must_use]
    pub fn scale_fn(mut self, scale_mode: ScaleMode, scale: impl Fn(f64) -> f64 + Send + 'static) -> Self {
        self.schedule.scale_mode = scale_mode;
        self.schedule.scale_fn = Some(Box::new(scale));
        self
    }

    /// Whether momentum (or the first of the betas) is cycled too; on by default.
    #[must_use]
    pub fn cycle_momentum(mut self, cycle_momentum: bool) -> Self {
        self.schedule.cycle_momentum = cycle_momentum;
        self
    }

    /// Momentum at the highest learning rate.
    #[must_use]
    pub fn base_momentum(mut self, momentum: impl Into<PerGroup>) -> Self {
        self.schedule.base_momentum = momentum.into();
        self
    }

    /// Momentum at the lowest learning rate.
    #[must_use]
    pub fn max_momentum(mut self, momentum: impl Into<PerGroup>) -> Self {
        self.schedule.max_momentum = momentum.into();
        self
    }
}

impl Cyclic {
    /// How far up it is, between 0 and 1.
    fn height(&self, epoch: i64) -> f64 {
        let at = epoch as f64 / self.total_size;
        let cycle = (1.0 + at).floor();
        let x = 1.0 + at - cycle;
        let part = if x <= self.step_ratio { x / self.step_ratio } else { (x - 1.0) / (self.step_ratio - 1.0) };
        let scale_at = if self.scale_mode == ScaleMode::Cycle { cycle } else { epoch as f64 };
        let scale = match (&self.scale_fn, self.mode) {
            (Some(scale), _) => scale(scale_at),
            (None, CyclicMode::Triangular) => 1.0,
            (None, CyclicMode::Triangular2) => 1.0 / 2f64.powf(scale_at - 1.0),
            (None, CyclicMode::ExpRange) => self.gamma.powf(scale_at),
        };
        part * scale
    }

    fn set_scale_mode(&mut self) {
        if self.scale_fn.is_none() {
            self.scale_mode = if self.mode == CyclicMode::ExpRange { ScaleMode::Iterations } else { ScaleMode::Cycle };
        }
    }
}

impl fmt::Debug for Cyclic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cyclic").field("base_lr", &self.base_lr).field("max_lr", &self.max_lr).finish_non_exhaustive()
    }
}

impl Settings for Cyclic {
    fn save(&self, state: &mut Dict) {
        state.push("max_lrs", self.max_lrs.to_value());
        state.push("total_size", self.total_size);
        state.push("step_ratio", self.step_ratio);
        state.push("mode", self.mode.to_value());
        state.push("gamma", self.gamma);
        state.push("scale_mode", self.scale_mode.to_value());
        state.push("cycle_momentum", self.cycle_momentum);
        if self.cycle_momentum {
            state.push("use_beta1", self.use_beta1);
            state.push("base_momentums", self.base_momentums.to_value());
            state.push("max_momentums", self.max_momentums.to_value());
        }
        state.push("_scale_fn_custom", Value::None);
    }

    fn load(&mut self, state: &Dict) -> Result<(), String> {
        // Those of the scheduler that was saved, to which groups may have been added.
        let groups = state.list("base_lrs").map_or(self.max_lrs.len(), <[_]>::len);
        settings::load(state, "max_lrs", &mut self.max_lrs)?;
        settings::load(state, "total_size", &mut self.total_size)?;
        settings::load(state, "step_ratio", &mut self.step_ratio)?;
        settings::load(state, "mode", &mut self.mode)?;
        settings::load(state, "gamma", &mut self.gamma)?;
        settings::load(state, "scale_mode", &mut self.scale_mode)?;
        settings::load(state, "cycle_momentum", &mut self.cycle_momentum)?;
        settings::load(state, "base_momentums", &mut self.base_momentums)?;
        settings::load(state, "max_momentums", &mut self.max_momentums)?;
        self.set_scale_mode();
        let momentums = if self.cycle_momentum { groups } else { self.base_momentums.len() };
        match self.max_lrs.len() == groups
            && self.base_momentums.len() == momentums
            && self.max_momentums.len() == momentums
        {
            true => Ok(()),
            false => Err(format!("its lists have not one value for each of the {groups} parameter groups")),
        }
    }
}

impl Schedule for Cyclic {
    const NAME: &'static str = "CyclicLR";

    fn validate(&self) -> Result<(), OptimError> {
        ensure(self.step_size_up >= 1.0, Self::NAME, "step_size_up", self.step_size_up, "1 or more")?;
        let down = self.step_size_down.unwrap_or(1.0);
        ensure(down >= 1.0, Self::NAME, "step_size_down", down, "1 or more")
    }

    fn prepare(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        let (name, len) = (optimizer.name(), optimizer.param_groups().len());
        let base_lrs = self.base_lr.spread(Self::NAME, "base_lr", len)?;
        self.max_lrs = self.max_lr.spread(Self::NAME, "max_lr", len)?;
        self.total_size = self.step_size_up + self.step_size_down.unwrap_or(self.step_size_up);
        self.step_ratio = self.step_size_up / self.total_size;
        self.set_scale_mode();
        if self.cycle_momentum {
            self.base_momentums = self.base_momentum.spread(Self::NAME, "base_momentum", len)?;
            self.max_momentums = self.max_momentum.spread(Self::NAME, "max_momentum", len)?;
        }
        for (i, (group, lr)) in optimizer.param_groups_mut().iter_mut().zip(base_lrs).enumerate() {
            group.lr = lr;
            if self.cycle_momentum {
                if group.momentum == Momentum::None {
                    return Err(OptimError::NoMomentumToCycle { scheduler: Self::NAME, optimizer: name });
                }
                self.use_beta1 = matches!(group.momentum, Momentum::Betas(..));
                group.set_momentum(self.max_momentums[i]);
                group.extra.set("max_momentum", self.max_momentums[i]);
                group.extra.set("base_momentum", self.base_momentums[i]);
            }
        }
        Ok(())
    }

    fn join(&mut self, groups: usize) -> Result<(), OptimError> {
        self.max_lr.extend(Self::NAME, "max_lr", &mut self.max_lrs, groups)?;
        if self.cycle_momentum {
            self.base_momentum.extend(Self::NAME, "base_momentum", &mut self.base_momentums, groups)?;
            self.max_momentum.extend(Self::NAME, "max_momentum", &mut self.max_momentums, groups)?;
        }
        Ok(())
    }

    fn own_base_lrs(&self, groups: usize) -> Result<Option<Vec<f64>>, OptimError> {
        self.base_lr.spread(Self::NAME, "base_lr", groups).map(Some)
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        Ok(at.base_lr + (self.max_lrs[at.index] - at.base_lr) * self.height(at.epoch))
    }

    fn momentum(&self, at: &Moment<'_>) -> Result<Option<f64>, OptimError> {
        Ok(self.cycle_momentum.then(|| {
            let (base, max) = (self.base_momentums[at.index], self.max_momentums[at.index]);
            max - (max - base) * self.height(at.epoch)
        }))
    }
}
