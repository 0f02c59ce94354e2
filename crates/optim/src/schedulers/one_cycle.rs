//! [`OneCycleLR`], <https://arxiv.org/abs/1708.07120>.

use std::f64::consts::PI;

use fulgurite_torch::{Dict, Value};

use super::per_group::PerGroup;
use super::scheduler::{Moment, Schedule, Scheduler};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{ensure, needed};
use crate::options::options;
use crate::{Momentum, OptimError, Optimizer, ParamGroup, typed};

/// The 1cycle policy: increases the learning rate to `max_lr` and decreases it to almost nothing once, over the whole run,
/// and momentum inversely. To be stepped after every optimizer step.
///
/// As in PyTorch its bounds live in the parameter groups (`max_lr`, `min_lr`, `max_momentum`, `base_momentum`), so the
/// optimizer's state dict belongs to its own.
pub type OneCycleLR = Scheduler<OneCycleLROptions>;

/// The annealing curve of [`OneCycleLR`] and [`SWALR`](crate::SWALR).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnnealStrategy {
    /// Cosine annealing.
    Cos,
    /// Linear annealing.
    Linear,
}

options! {
    /// Options of [`OneCycleLR`], and its formula.
    OneCycleLROptions of OneCycleLR {
        /// Maximum learning rate; required.
        max_lr(max_lr: impl Into<PerGroup> => Some(max_lr.into())): Option<PerGroup> = None,
        /// Total number of steps of the cycle; null is the length of the run.
        total_steps(total_steps: u32 => Some(total_steps)): Option<u32> = None,
        /// The part of the steps, between 0 and 1, in which the learning rate increases.
        pct_start: f64 = 0.3,
        /// The annealing curve.
        anneal_strategy: AnnealStrategy = AnnealStrategy::Cos,
        /// Cycle momentum (or the first of the betas) inversely to the learning rate.
        cycle_momentum: bool = true,
        /// Minimum momentum, at the maximum learning rate.
        base_momentum(momentum: impl Into<PerGroup> => momentum.into()): PerGroup = PerGroup::Same(0.85),
        /// Maximum momentum, at both ends.
        max_momentum(momentum: impl Into<PerGroup> => momentum.into()): PerGroup = PerGroup::Same(0.95),
        /// The initial learning rate is `max_lr / div_factor`.
        div_factor: f64 = 25.0,
        /// The final learning rate is the initial one divided by this.
        final_div_factor: f64 = 1e4,
        /// Decrease the learning rate to the initial one as fast as it increased, and to the final one in a third phase.
        three_phase: bool = false,
    }
}

/// What [`OneCycleLR`] derives from its options when it is attached.
#[derive(Debug, Default)]
pub struct OneCycleState {
    use_beta1: bool,
    phases: Vec<Phase>,
}

/// A phase between two bounds, which are named as in the parameter group.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Phase {
    end_step: f64,
    start_lr: Bound,
    end_lr: Bound,
    start_momentum: Bound,
    end_momentum: Bound,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Bound {
    InitialLr,
    MaxLr,
    MinLr,
    MaxMomentum,
    BaseMomentum,
}

impl OneCycleLR {
    /// With PyTorch's defaults, for a run of `total_steps` optimizer steps.
    pub fn new(max_lr: impl Into<PerGroup>, total_steps: u32) -> OneCycleLR {
        Scheduler::from_options(OneCycleLROptions::default().max_lr(max_lr.into()).total_steps(total_steps))
    }
}

impl OneCycleLROptions {
    fn required_total_steps(&self) -> Result<i64, OptimError> {
        needed(Self::NAME, "total_steps", self.total_steps).map(i64::from)
    }

    fn derive_phases(&self) -> Result<Vec<Phase>, OptimError> {
        use Bound::{BaseMomentum, InitialLr, MaxLr, MaxMomentum, MinLr};
        let total_steps = self.required_total_steps()?;
        let up = self.pct_start * total_steps as f64;
        let last = (total_steps - 1) as f64;
        let phase = |end_step, (start_lr, end_lr), (start_momentum, end_momentum)| Phase {
            end_step,
            start_lr,
            end_lr,
            start_momentum,
            end_momentum,
        };
        let rise = phase(up - 1.0, (InitialLr, MaxLr), (MaxMomentum, BaseMomentum));
        if !self.three_phase {
            return Ok(vec![rise, phase(last, (MaxLr, MinLr), (BaseMomentum, MaxMomentum))]);
        }
        let back = phase(2.0 * up - 2.0, (MaxLr, InitialLr), (BaseMomentum, MaxMomentum));
        Ok(vec![rise, back, phase(last, (InitialLr, MinLr), (MaxMomentum, MaxMomentum))])
    }

    /// The value between two bounds of the current phase.
    fn between(
        &self,
        at: &Moment<'_, OneCycleState>,
        pick: impl Fn(&Phase) -> (Bound, Bound),
    ) -> Result<f64, OptimError> {
        let step = at.epoch as f64;
        let mut start_step = 0.0;
        let last = at.state.phases.len().saturating_sub(1);
        for (i, phase) in at.state.phases.iter().enumerate() {
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
        match self.anneal_strategy {
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
        OptimError::state_dict(OneCycleLROptions::NAME, reason)
    })
}

impl Schedule for OneCycleLROptions {
    type State = OneCycleState;
    const NAME: &'static str = "OneCycleLR";

    fn adapt_to_run(&mut self, run_length: &mut dyn FnMut() -> Option<u32>) {
        self.total_steps = self.total_steps.or_else(run_length);
    }

    fn validate(&self) -> Result<(), OptimError> {
        needed(Self::NAME, "max_lr", self.max_lr.as_ref())?;
        let total_steps = self.required_total_steps()?;
        ensure(total_steps > 0, Self::NAME, "total_steps", total_steps, "1 or more")?;
        let pct = self.pct_start;
        ensure((0.0..=1.0).contains(&pct), Self::NAME, "pct_start", pct, "between 0 and 1")?;
        ensure(self.div_factor > 0.0, Self::NAME, "div_factor", self.div_factor, "greater than 0")?;
        let last = self.final_div_factor;
        ensure(last > 0.0, Self::NAME, "final_div_factor", last, "greater than 0")
    }

    fn prepare(&self, state: &mut OneCycleState, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        let (name, len) = (optimizer.name().to_owned(), optimizer.param_groups().len());
        state.phases = self.derive_phases()?;
        let max_lrs = needed(Self::NAME, "max_lr", self.max_lr.as_ref())?.spread(Self::NAME, "max_lr", len)?;
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
                state.use_beta1 = matches!(group.momentum, Momentum::Betas(..));
                group.set_momentum(max_momentums[i]);
                group.extra.set("max_momentum", max_momentums[i]);
                group.extra.set("base_momentum", base_momentums[i]);
            }
        }
        Ok(())
    }

    fn lr(&self, at: &Moment<'_, OneCycleState>) -> Result<f64, OptimError> {
        let total = self.required_total_steps()?;
        if at.epoch > total {
            return Err(OptimError::PastTotalSteps { step: at.epoch, total });
        }
        self.between(at, |phase| (phase.start_lr, phase.end_lr))
    }

    fn momentum(&self, at: &Moment<'_, OneCycleState>) -> Result<Option<f64>, OptimError> {
        self.cycle_momentum
            .then(|| self.between(at, |phase| (phase.start_momentum, phase.end_momentum)))
            .transpose()
    }

    fn save(&self, state: &OneCycleState) -> Dict {
        let mut saved = Dict::new()
            .with("total_steps", typed::to_value(&self.total_steps))
            .with("_schedule_phases", typed::to_value(&state.phases))
            .with("_anneal_func_type", typed::to_value(&self.anneal_strategy))
            .with("cycle_momentum", self.cycle_momentum);
        if self.cycle_momentum {
            saved.push("use_beta1", state.use_beta1);
        }
        saved
    }

    fn load(&mut self, state: &mut OneCycleState, saved: &Dict) -> Result<(), String> {
        typed::load(saved, "total_steps", &mut self.total_steps)?;
        typed::load(saved, "_schedule_phases", &mut state.phases)?;
        typed::load(saved, "_anneal_func_type", &mut self.anneal_strategy)?;
        typed::load(saved, "cycle_momentum", &mut self.cycle_momentum)?;
        typed::load(saved, "use_beta1", &mut state.use_beta1)
    }
}
