//! [`OneCycleLR`], <https://arxiv.org/abs/1708.07120>.

use std::f64::consts::PI;

use fulgurite_torch::{Dict, Value};

use super::per_group::PerGroup;
use super::scheduler::{Moment, Schedule, Scheduler};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ensure;
use crate::settings::{self, Setting, Settings, setting_enum};
use crate::{Momentum, OptimError, Optimizer, ParamGroup};

/// Lets the learning rate go up to `max_lr` and down to almost nothing once, over the whole run, and momentum the other
/// way. To be stepped after every optimizer step.
///
/// As in PyTorch its bounds live in the parameter groups (`max_lr`, `min_lr`, `max_momentum`, `base_momentum`), so the
/// optimizer's state dict belongs to its own.
pub type OneCycleLR = Scheduler<OneCycle>;

/// The curve of [`OneCycleLR`] between its turning points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnnealStrategy {
    /// Half a cosine.
    Cos,
    /// A line.
    Linear,
}

setting_enum! {
    AnnealStrategy, "`cos` or `linear`",
    "cos" => AnnealStrategy::Cos,
    "linear" => AnnealStrategy::Linear,
}

/// The formula of [`OneCycleLR`].
#[derive(Debug)]
pub struct OneCycle {
    max_lr: PerGroup,
    total_steps: i64,
    pct_start: f64,
    anneal: AnnealStrategy,
    cycle_momentum: bool,
    base_momentum: PerGroup,
    max_momentum: PerGroup,
    div_factor: f64,
    final_div_factor: f64,
    three_phase: bool,
    // From here on, what is derived when it is attached.
    use_beta1: bool,
    phases: Phases,
}

/// One stretch, between two bounds that are named as in the parameter group.
#[derive(Debug, Clone, Copy)]
struct Phase {
    end_step: f64,
    lr: (Bound, Bound),
    momentum: (Bound, Bound),
}

#[derive(Debug)]
struct Phases(Vec<Phase>);

#[derive(Debug, Clone, Copy)]
enum Bound {
    InitialLr,
    MaxLr,
    MinLr,
    MaxMomentum,
    BaseMomentum,
}

setting_enum! {
    Bound, "the name of a bound",
    "initial_lr" => Bound::InitialLr,
    "max_lr" => Bound::MaxLr,
    "min_lr" => Bound::MinLr,
    "max_momentum" => Bound::MaxMomentum,
    "base_momentum" => Bound::BaseMomentum,
}

impl OneCycleLR {
    /// With PyTorch's defaults, for a run of `total_steps` optimizer steps.
    pub fn new(max_lr: impl Into<PerGroup>, total_steps: u32) -> OneCycleLR {
        Scheduler::with(OneCycle {
            max_lr: max_lr.into(),
            total_steps: total_steps.into(),
            pct_start: 0.3,
            anneal: AnnealStrategy::Cos,
            cycle_momentum: true,
            base_momentum: 0.85.into(),
            max_momentum: 0.95.into(),
            div_factor: 25.0,
            final_div_factor: 1e4,
            three_phase: false,
            use_beta1: false,
            phases: Phases(Vec::new()),
        })
    }

    /// The part of the steps, between 0 and 1, that goes up.
    #[must_use]
    pub fn pct_start(mut self, pct_start: f64) -> Self {
        self.schedule.pct_start = pct_start;
        self
    }

    /// The curve.
    #[must_use]
    pub fn anneal_strategy(mut self, anneal: AnnealStrategy) -> Self {
        self.schedule.anneal = anneal;
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

    /// Momentum at the ends.
    #[must_use]
    pub fn max_momentum(mut self, momentum: impl Into<PerGroup>) -> Self {
        self.schedule.max_momentum = momentum.into();
        self
    }

    /// `max_lr` is this many times the first learning rate.
    #[must_use]
    pub fn div_factor(mut self, div_factor: f64) -> Self {
        self.schedule.div_factor = div_factor;
        self
    }

    /// The first learning rate is this many times the last one.
    #[must_use]
    pub fn final_div_factor(mut self, final_div_factor: f64) -> Self {
        self.schedule.final_div_factor = final_div_factor;
        self
    }

    /// Comes down as fast as it went up, and spends the rest of the steps going to the last learning rate.
    #[must_use]
    pub fn three_phase(mut self, three_phase: bool) -> Self {
        self.schedule.three_phase = three_phase;
        self
    }
}

impl OneCycle {
    fn derive_phases(&self) -> Phases {
        use Bound::{BaseMomentum, InitialLr, MaxLr, MaxMomentum, MinLr};
        let up = self.pct_start * self.total_steps as f64;
        let last = (self.total_steps - 1) as f64;
        let rise = Phase { end_step: up - 1.0, lr: (InitialLr, MaxLr), momentum: (MaxMomentum, BaseMomentum) };
        let fall = Phase { end_step: last, lr: (MaxLr, MinLr), momentum: (BaseMomentum, MaxMomentum) };
        if !self.three_phase {
            return Phases(vec![rise, fall]);
        }
        let back = Phase { end_step: 2.0 * up - 2.0, lr: (MaxLr, InitialLr), ..fall };
        let out = Phase { end_step: last, lr: (InitialLr, MinLr), momentum: (MaxMomentum, MaxMomentum) };
        Phases(vec![rise, back, out])
    }

    /// The value on the way between two bounds of the phase at hand.
    fn between(&self, at: &Moment<'_>, pick: impl Fn(&Phase) -> (Bound, Bound)) -> Result<f64, OptimError> {
        let step = at.epoch as f64;
        let mut start_step = 0.0;
        let last = self.phases.0.len().saturating_sub(1);
        for (i, phase) in self.phases.0.iter().enumerate() {
            if step <= phase.end_step || i == last {
                let length = phase.end_step - start_step;
                let part = if length == 0.0 { 1.0 } else { (step - start_step) / length };
                let (start, end) = pick(phase);
                return Ok(self.anneal(bound(at.group, start)?, bound(at.group, end)?, part));
            }
            start_step = phase.end_step;
        }
        Err(OptimError::NotAttached { scheduler: Self::NAME })
    }

    fn anneal(&self, start: f64, end: f64, part: f64) -> f64 {
        match self.anneal {
            AnnealStrategy::Cos => end + (start - end) / 2.0 * ((PI * part).cos() + 1.0),
            AnnealStrategy::Linear => (end - start) * part + start,
        }
    }
}

fn bound(group: &ParamGroup, bound: Bound) -> Result<f64, OptimError> {
    let key = match bound {
        Bound::InitialLr => return Ok(group.initial_lr.unwrap_or(group.lr)),
        Bound::MaxLr => "max_lr",
        Bound::MinLr => "min_lr",
        Bound::MaxMomentum => "max_momentum",
        Bound::BaseMomentum => "base_momentum",
    };
    group.extra.get(key).and_then(Value::as_float).ok_or_else(|| {
        let reason = format!(
            "the optimizer's parameter group has no `{key}`; load the optimizer state that was saved with this scheduler"
        );
        OptimError::state_dict(OneCycle::NAME, reason)
    })
}

impl Setting for Phases {
    const EXPECTED: &'static str = "a list of phases";

    fn to_value(&self) -> Value {
        let save = |phase: &Phase| {
            Dict::new()
                .with("end_step", phase.end_step)
                .with("start_lr", phase.lr.0.to_value())
                .with("end_lr", phase.lr.1.to_value())
                .with("start_momentum", phase.momentum.0.to_value())
                .with("end_momentum", phase.momentum.1.to_value())
        };
        self.0.iter().map(save).collect::<Vec<_>>().into()
    }

    fn from_value(value: &Value) -> Option<Phases> {
        let load = |value: &Value| {
            let phase = value.as_dict()?;
            let bound = |key: &str| Bound::from_value(phase.get(key)?);
            Some(Phase {
                end_step: phase.float("end_step").ok()?,
                lr: (bound("start_lr")?, bound("end_lr")?),
                momentum: (bound("start_momentum")?, bound("end_momentum")?),
            })
        };
        value.as_list()?.iter().map(load).collect::<Option<_>>().map(Phases)
    }
}

impl Settings for OneCycle {
    fn save(&self, state: &mut Dict) {
        state.push("total_steps", self.total_steps);
        state.push("_schedule_phases", self.phases.to_value());
        state.push("_anneal_func_type", self.anneal.to_value());
        state.push("cycle_momentum", self.cycle_momentum);
        if self.cycle_momentum {
            state.push("use_beta1", self.use_beta1);
        }
    }

    fn load(&mut self, state: &Dict) -> Result<(), String> {
        settings::load(state, "total_steps", &mut self.total_steps)?;
        settings::load(state, "_schedule_phases", &mut self.phases)?;
        settings::load(state, "_anneal_func_type", &mut self.anneal)?;
        settings::load(state, "cycle_momentum", &mut self.cycle_momentum)?;
        settings::load(state, "use_beta1", &mut self.use_beta1)
    }
}

impl Schedule for OneCycle {
    const NAME: &'static str = "OneCycleLR";

    fn validate(&self) -> Result<(), OptimError> {
        ensure(self.total_steps > 0, Self::NAME, "total_steps", self.total_steps, "1 or more")?;
        let pct = self.pct_start;
        ensure((0.0..=1.0).contains(&pct), Self::NAME, "pct_start", pct, "between 0 and 1")?;
        ensure(self.div_factor > 0.0, Self::NAME, "div_factor", self.div_factor, "greater than 0")?;
        let last = self.final_div_factor;
        ensure(last > 0.0, Self::NAME, "final_div_factor", last, "greater than 0")
    }

    fn prepare(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        let (name, len) = (optimizer.name(), optimizer.param_groups().len());
        self.phases = self.derive_phases();
        let max_lrs = self.max_lr.spread(Self::NAME, "max_lr", len)?;
        let max_momentums = self.max_momentum.spread(Self::NAME, "max_momentum", len)?;
        let base_momentums = self.base_momentum.spread(Self::NAME, "base_momentum", len)?;
        for (i, group) in optimizer.param_groups_mut().iter_mut().enumerate() {
            let initial_lr = max_lrs[i] / self.div_factor;
            group.initial_lr = Some(initial_lr);
            group.extra.set("max_lr", max_lrs[i]);
            group.extra.set("min_lr", initial_lr / self.final_div_factor);
            if self.cycle_momentum {
                if group.momentum == Momentum::None {
                    return Err(OptimError::NoMomentumToCycle { scheduler: Self::NAME, optimizer: name });
                }
                self.use_beta1 = matches!(group.momentum, Momentum::Betas(..));
                group.set_momentum(max_momentums[i]);
                group.extra.set("max_momentum", max_momentums[i]);
                group.extra.set("base_momentum", base_momentums[i]);
            }
        }
        Ok(())
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        if at.epoch > self.total_steps {
            return Err(OptimError::PastTotalSteps { step: at.epoch, total: self.total_steps });
        }
        self.between(at, |phase| phase.lr)
    }

    fn momentum(&self, at: &Moment<'_>) -> Result<Option<f64>, OptimError> {
        self.cycle_momentum.then(|| self.between(at, |phase| phase.momentum)).transpose()
    }
}
