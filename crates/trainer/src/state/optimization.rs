//! Optimizers and schedulers, and what a step by hand is made of.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use fulgurite_fabric::Clip;
use fulgurite_optim::{LrSchedulerConfig, Optimizer};
use fulgurite_torch::tch::Tensor;

use super::TrainerState;
use crate::config::GradientClipAlgorithm;
use crate::error::Result;

impl TrainerState {
    /// The optimizers that no step is using right now.
    pub fn optimizers(&mut self) -> impl Iterator<Item = &mut (dyn Optimizer + 'static)> {
        self.run.optimizers.iter_mut().filter_map(|slot| slot.as_deref_mut())
    }

    /// One of them; `None` when there are fewer, or it is in the middle of a step.
    pub fn optimizer(&mut self, index: usize) -> Option<&mut (dyn Optimizer + 'static)> {
        self.run.optimizers.get_mut(index)?.as_deref_mut()
    }

    /// The optimizer whose turn it is: 0, unless several take turns.
    pub fn optimizer_idx(&self) -> usize {
        self.optimizer_at(self.global_step())
    }

    /// The optimizer that takes the step after `step` others.
    fn optimizer_at(&self, step: u64) -> usize {
        let cycle: u64 = self.run.frequencies.iter().sum();
        let mut place = step % cycle.max(1);
        self.run
            .frequencies
            .iter()
            .position(|&turn| {
                let its_turn = place < turn;
                place = place.saturating_sub(turn);
                its_turn
            })
            .unwrap_or(0)
    }

    /// How many steps an optimizer has taken, and whether the last step was its own.
    pub(crate) fn steps_of_optimizer(&self, index: usize) -> (u64, bool) {
        let steps = self.global_step();
        if self.run.frequencies.is_empty() {
            return (steps, true);
        }
        let cycle: u64 = self.run.frequencies.iter().sum();
        let turn = self.run.frequencies.get(index).copied().unwrap_or(0);
        let before: u64 = self.run.frequencies.iter().take(index).sum();
        let of_this_cycle = (steps % cycle).saturating_sub(before).min(turn);
        (steps / cycle * turn + of_this_cycle, steps > 0 && self.optimizer_at(steps - 1) == index)
    }

    /// The schedulers.
    pub fn lr_schedulers(&self) -> &[LrSchedulerConfig] {
        &self.run.schedulers
    }

    /// Takes an optimizer out of its slot for as long as `f` needs it. `None` when there is no such optimizer, or it is
    /// in the middle of a step.
    pub(crate) fn lend_optimizer<T>(
        &mut self,
        index: usize,
        f: impl FnOnce(&mut TrainerState, &mut dyn Optimizer) -> T,
    ) -> Option<T> {
        let mut optimizer = self.run.optimizers.get_mut(index)?.take()?;
        // Even a panic must not lose it: a checkpoint may still be written on the way out.
        let returned = catch_unwind(AssertUnwindSafe(|| f(self, optimizer.as_mut())));
        if let Some(slot) = self.run.optimizers.get_mut(index) {
            *slot = Some(optimizer);
        }
        Some(returned.unwrap_or_else(|panic| resume_unwind(panic)))
    }

    /// The backward pass of a loss, as the precision wants it. The loss that hooks are given has its scale already.
    pub fn backward(&mut self, loss: &Tensor) -> Result<()> {
        Ok(self.fabric.backward_scaled(loss)?)
    }

    /// Drops all gradients.
    pub fn zero_grad(&mut self) {
        self.optimizers().for_each(|optimizer| optimizer.zero_grad());
    }

    /// Clips the gradients of an optimizer's parameters, without their scale; nothing without a positive value.
    pub fn clip_gradients(
        &mut self,
        optimizer: &mut dyn Optimizer,
        gradient_clip_val: Option<f64>,
        gradient_clip_algorithm: GradientClipAlgorithm,
    ) -> Result<()> {
        let Some(value) = gradient_clip_val.filter(|value| *value > 0.0) else { return Ok(()) };
        let clip = match gradient_clip_algorithm {
            GradientClipAlgorithm::Norm => Clip::norm(value),
            GradientClipAlgorithm::Value => Clip::value(value),
        };
        self.fabric.clip_gradients(optimizer, clip)?;
        Ok(())
    }
}
