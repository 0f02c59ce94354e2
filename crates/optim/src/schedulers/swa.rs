//! [`SWALR`].

use std::f64::consts::PI;

use fulgurite_torch::Dict;

use super::one_cycle::AnnealStrategy;
use super::per_group::PerGroup;
use super::scheduler::{Clock, Moment, Schedule, Scheduler};
use crate::error::needed;
use crate::options::options;
use crate::typed::{self, number};
use crate::{OptimError, Optimizer};

/// Anneals the learning rate of each group to a fixed value and stays there: `torch.optim.swa_utils.SWALR`, for
/// stochastic weight averaging.
///
/// As in PyTorch the value lives in the parameter group, as `swa_lr`, so the optimizer's state dict belongs to its own.
///
/// ```
/// use fulgurite_optim::{LrScheduler, SGD, SWALR};
/// use fulgurite_torch::tch::{Device, nn};
///
/// let vs = nn::VarStore::new(Device::Cpu);
/// let _layer = nn::linear(vs.root(), 4, 1, Default::default());
/// let mut optimizer = SGD::new(&vs).lr(0.1).build()?;
/// let mut scheduler = SWALR::new(0.02).anneal_epochs(4);
/// scheduler.attach(optimizer.as_mut())?;
/// for _ in 0..4 {
///     scheduler.step(optimizer.as_mut(), None)?;
/// }
/// assert_eq!(scheduler.last_lr(), [0.02]);
/// # Ok::<(), fulgurite_optim::OptimError>(())
/// ```
pub type SWALR = Scheduler<SwaLROptions>;

options! {
    /// Options of [`SWALR`], and its formula.
    SwaLROptions of SWALR {
        /// The final learning rate; required.
        swa_lr(swa_lr: impl Into<PerGroup> => Some(swa_lr.into())): Option<PerGroup> = None,
        /// Number of epochs of the annealing; 0 for none.
        anneal_epochs: u32 = 10,
        /// The annealing curve.
        anneal_strategy: AnnealStrategy = AnnealStrategy::Cos,
        /// The epoch that its count starts after. The learning rates do not depend on it.
        last_epoch(epoch: u32 => epoch.into()): i64 = -1,
    }
}

impl SWALR {
    /// To `swa_lr`, with PyTorch's defaults: half a cosine over 10 epochs.
    pub fn new(swa_lr: impl Into<PerGroup>) -> SWALR {
        Scheduler::from_options(SwaLROptions::default().swa_lr(swa_lr.into()))
    }
}

impl SwaLROptions {
    fn required_swa_lr(&self) -> Result<&PerGroup, OptimError> {
        needed(Self::NAME, "swa_lr", self.swa_lr.as_ref())
    }

    /// How much of the way is done after `step` steps, from 0 to 1.
    fn alpha(&self, step: i64) -> f64 {
        let t = (step as f64 / f64::from(self.anneal_epochs.max(1))).clamp(0.0, 1.0);
        match self.anneal_strategy {
            AnnealStrategy::Cos => (1.0 - (PI * t).cos()) / 2.0,
            AnnealStrategy::Linear => t,
        }
    }
}

impl Schedule for SwaLROptions {
    type State = ();
    const NAME: &'static str = "SWALR";

    fn validate(&self) -> Result<(), OptimError> {
        self.required_swa_lr().map(drop)
    }

    fn prepare(&self, _state: &mut (), optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        let swa_lrs = self.required_swa_lr()?.spread(Self::NAME, "swa_lr", optimizer.param_groups().len())?;
        for (group, swa_lr) in optimizer.param_groups_mut().iter_mut().zip(swa_lrs) {
            group.extra.set("swa_lr", swa_lr);
        }
        Ok(())
    }

    fn tick(&self, _state: &(), clock: &mut Clock) -> Option<()> {
        if clock.step_count == 0 {
            clock.last_epoch = self.last_epoch;
        }
        clock.last_epoch += 1;
        clock.step_count += 1;
        None
    }

    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        let swa_lr = match (at.group.extra.get("swa_lr").and_then(number), self.required_swa_lr()?) {
            (Some(swa_lr), _) => swa_lr,
            // A group that was added later.
            (None, PerGroup::Same(swa_lr)) => *swa_lr,
            (None, PerGroup::Each(values)) => {
                let (values, groups) = (values.len(), at.index + 1);
                return Err(OptimError::PerGroupLength { scheduler: Self::NAME, option: "swa_lr", values, groups });
            }
        };
        let step = at.step_count - 1;
        let step = if self.anneal_epochs == 0 { step.max(1) } else { step };
        let (before, after) = (self.alpha(step - 1), self.alpha(step));
        let lr = if before == 1.0 { swa_lr } else { (at.group.lr - before * swa_lr) / (1.0 - before) };
        Ok(swa_lr * after + lr * (1.0 - after))
    }

    fn save(&self, _state: &()) -> Dict {
        Dict::new()
            .with("anneal_epochs", self.anneal_epochs)
            .with("_anneal_strategy", typed::to_value(&self.anneal_strategy))
    }

    fn load(&mut self, _state: &mut (), saved: &Dict) -> Result<(), String> {
        typed::load(saved, "anneal_epochs", &mut self.anneal_epochs)?;
        typed::load(saved, "_anneal_strategy", &mut self.anneal_strategy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LrScheduler, SGD};
    use fulgurite_torch::tch::Tensor;

    #[test]
    fn a_group_without_its_value_takes_the_common_one_and_needs_there_to_be_one() {
        let weight = |value: f32| vec![Tensor::from(value).set_requires_grad(true)];
        let later = || crate::ParamGroupConfig::new(&weight(2.0)).lr(1.0);
        let mut sgd = SGD::new(weight(1.0)).lr(1.0).build().unwrap();
        let mut common = SWALR::new(0.5).anneal_epochs(1);
        common.attach(sgd.as_mut()).unwrap();
        sgd.add_param_group(later()).unwrap();
        common.step(sgd.as_mut(), None).unwrap();
        assert_eq!(common.last_lr(), [0.5, 0.5]);

        let mut sgd = SGD::new(weight(1.0)).build().unwrap();
        let mut own = SWALR::new(vec![0.5]);
        own.attach(sgd.as_mut()).unwrap();
        sgd.add_param_group(later()).unwrap();
        let error = own.step(sgd.as_mut(), None).unwrap_err().to_string();
        assert!(error.starts_with("SWALR: swa_lr has 1 values, the optimizer has 2 parameter groups"), "{error}");
    }
}
