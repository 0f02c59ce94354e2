//! Access to optimizers and schedulers, and the building blocks of manual optimization.

use std::collections::BTreeMap;

use fulgurite_fabric::Clip;
use fulgurite_optim::{LrSchedulerConfig, Optimizer};
use fulgurite_torch::params::Parameters;
use fulgurite_torch::tch::Tensor;

use crate::batch_norm::BatchNormRefresh;
use crate::config::GradientClipAlgorithm;
use crate::error::{Error, Result};
use crate::scope::Scope;
use crate::state::TrainerState;

impl TrainerState {
    /// The number of optimizers that `configure_optimizers` returned.
    pub fn num_optimizers(&self) -> usize {
        self.fit.epoch.optimization.num_optimizers()
    }

    /// The optimizers that are not in use by a step.
    pub fn optimizers(&mut self) -> impl Iterator<Item = &mut (dyn Optimizer + 'static)> {
        self.fit.epoch.optimization.optimizers_mut()
    }

    /// The optimizer at an index; `None` if there is none, or it is in use by a step.
    pub fn optimizer(&self, index: usize) -> Option<&(dyn Optimizer + 'static)> {
        self.fit.epoch.optimization.optimizer(index)
    }

    /// The optimizer at an index, mutably; `None` if there is none, or it is in use by a step.
    pub fn optimizer_mut(&mut self, index: usize) -> Option<&mut (dyn Optimizer + 'static)> {
        self.fit.epoch.optimization.optimizer_mut(index)
    }

    /// Runs `work` with an optimizer and the trainer beside it.
    ///
    /// # Errors
    ///
    /// Fails if there is no such optimizer, or it is in use by a step.
    pub fn with_optimizer<T>(
        &mut self,
        index: usize,
        work: impl FnOnce(&mut TrainerState, &mut dyn Optimizer) -> T,
    ) -> Result<T, Error> {
        self.lend_optimizer(index, work)
    }

    /// The active optimizer: 0, unless several take turns.
    pub fn optimizer_idx(&self) -> usize {
        self.fit.epoch.optimization.optimizer_idx()
    }

    /// The optimizer that is in use by a step.
    pub fn stepping_optimizer(&self) -> Option<usize> {
        self.fit.epoch.optimization.lent()
    }

    /// Whether optimization is automatic: the trainer, not the module, runs backward passes and optimizers.
    pub fn automatic_optimization(&self) -> bool {
        !self.fit.epoch.optimization.is_manual()
    }

    /// The schedulers.
    pub fn lr_schedulers(&self) -> &[LrSchedulerConfig] {
        self.fit.epoch.optimization.schedulers()
    }

    /// Replaces the schedulers.
    pub fn set_lr_schedulers(&mut self, schedulers: Vec<LrSchedulerConfig>) {
        drop(self.fit.epoch.optimization.replace_schedulers(schedulers));
    }

    /// Steps a scheduler in manual optimization, by its place in what `configure_optimizers` returned. `metric` is what
    /// a scheduler on a plateau watches. In a step, call [`Step::lr_scheduler_step`](crate::Step::lr_scheduler_step).
    ///
    /// # Errors
    ///
    /// Fails if there is no such scheduler, or its step fails.
    pub fn lr_scheduler_step(&mut self, scheduler: usize, metric: Option<f64>) -> Result<()> {
        self.require_manual("lr_scheduler_step")?;
        let (config, optimizer) = self.fit.epoch.optimization.scheduler_with_optimizer(scheduler)?;
        Ok(config.scheduler.step(optimizer, metric)?)
    }

    /// Returns an error unless the module uses manual optimization.
    pub(crate) fn require_manual(&self, method: &str) -> Result<(), Error> {
        if !self.automatic_optimization() {
            return Ok(());
        }
        Err(Error::Config(format!(
            "{method} is for modules that step their optimizers themselves; return `false` from `automatic_optimization`"
        )))
    }

    /// The number of batches per optimizer step in this epoch.
    pub fn accumulate_grad_batches(&self) -> u64 {
        self.fit.epoch.optimization.accumulation_in(self.current_epoch(), self.config.accumulate_grad_batches)
    }

    /// Sets from which epochs on, 0-based, how many batches make an optimizer step. Before the first of them
    /// `accumulate_grad_batches` holds.
    ///
    /// # Errors
    ///
    /// If a step is to have no batch.
    pub fn schedule_accumulation(&mut self, factors: BTreeMap<u64, u64>) -> Result<(), Error> {
        if let Some((epoch, _)) = factors.iter().find(|(_, factor)| **factor == 0) {
            return Err(Error::Config(format!(
                "schedule_accumulation makes steps of 0 batches from epoch {epoch} on; write 1 for a step with every batch"
            )));
        }
        self.fit.epoch.optimization.schedule_accumulation(factors);
        Ok(())
    }

    /// Whether the accumulation window stays open after this batch.
    pub fn is_accumulating(&self) -> bool {
        let epoch = &self.fit.epoch;
        let is_multiple = epoch.batches().current.ready.is_multiple_of(self.accumulate_grad_batches());
        let closes = is_multiple && !epoch.optimization.is_refreshing();
        !closes && !epoch.is_last_batch()
    }

    /// Whether the step of this batch was skipped, because a gradient was infinite in precision `16-mixed`.
    pub fn step_was_skipped(&self) -> bool {
        self.fit.epoch.optimization.step_skipped()
    }

    /// Switches to recomputing batch norm statistics: from now on batches pass through `training_step` without updates.
    /// The current statistics already average `batches` batches.
    ///
    /// # Errors
    ///
    /// Fails if the statistics cannot be copied.
    pub fn begin_batch_norm_refresh(&mut self, vars: &dyn Parameters, batches: u64) -> Result<(), Error> {
        self.fit.epoch.optimization.set_refresh(BatchNormRefresh::new(vars, batches)?);
        Ok(())
    }

    /// Switches back to normal training.
    pub fn end_batch_norm_refresh(&mut self) {
        drop(self.fit.epoch.optimization.take_refresh());
    }

    /// Runs the backward pass of a loss through the precision. The loss passed to hooks is already scaled.
    pub fn backward(&mut self, loss: &Tensor) -> Result<()> {
        Ok(self.fabric.backward_scaled(loss)?)
    }

    /// Zeroes all gradients.
    ///
    /// # Errors
    ///
    /// Fails as [`Optimizer::zero_grad`] does.
    pub fn zero_grad(&mut self) -> Result<(), Error> {
        Ok(self.optimizers().try_for_each(|optimizer| optimizer.zero_grad())?)
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
