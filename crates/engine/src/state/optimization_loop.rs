//! [`OptimizationLoop`]: optimizers, schedulers and the accumulation window.

use std::collections::BTreeMap;

use fulgurite_fabric::OptimizerStep;
use fulgurite_optim::{LrSchedulerConfig, Optimizer};
use fulgurite_torch::tch::Tensor;
use fulgurite_torch::tensor_id;

use crate::batch_norm::BatchNormRefresh;
use crate::error::Error;
use crate::progress::{Counters, Progress};

/// The state of optimization steps, and their counters.
#[derive(Default)]
pub(crate) struct OptimizationLoop {
    /// Each is absent while a step uses it.
    optimizers: Vec<Option<Box<dyn Optimizer>>>,
    schedulers: Vec<LrSchedulerConfig>,
    /// The number of consecutive steps of each optimizer; empty if there is one, or the module uses manual
    /// optimization.
    frequencies: Vec<u64>,
    /// Whether the module steps the optimizers itself.
    is_manual: bool,
    /// Parameters that get no gradient while another optimizer is active.
    toggled: Vec<Tensor>,
    window: Window,
    /// The values of `accumulate_grad_batches` by their first epoch, if it changes during the run.
    accumulation: BTreeMap<u64, u64>,
    /// The step of this batch was skipped for an infinite gradient: it does not count, and advances no scheduler.
    step_skipped: bool,
    /// While this is there, batches are passed through `training_step` for the statistics of batch norms, and nothing
    /// is updated.
    refresh: Option<BatchNormRefresh>,
    steps: Counters,
    manual_steps: Counters,
    zero_grads: Counters,
}

/// The batches of the open accumulation window, and the sum of their weights.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Window {
    pub batches: u64,
    pub weight: f64,
}

/// The validated result of `configure_optimizers`.
pub(crate) struct Configured {
    pub optimizers: Vec<Box<dyn Optimizer>>,
    pub schedulers: Vec<LrSchedulerConfig>,
    pub frequencies: Vec<u64>,
    pub is_manual: bool,
}

impl OptimizationLoop {
    /// Start of a fit: everything but the counters is reset.
    pub(crate) fn restart(&mut self) {
        let OptimizationLoop { steps, manual_steps, zero_grads, .. } = *self;
        *self = OptimizationLoop { steps, manual_steps, zero_grads, ..OptimizationLoop::default() };
    }

    /// Takes what `configure_optimizers` returned.
    pub(crate) fn install(&mut self, configured: Configured) {
        self.optimizers = configured.optimizers.into_iter().map(Some).collect();
        self.schedulers = configured.schedulers;
        self.frequencies = configured.frequencies;
        self.is_manual = configured.is_manual;
    }

    pub(crate) fn is_manual(&self) -> bool {
        self.is_manual
    }

    // Optimizers ------------------------------------------------------------------------------------------------------

    /// The number of optimizers.
    pub(crate) fn num_optimizers(&self) -> usize {
        self.optimizers.len()
    }

    /// The optimizers that are not in use.
    pub(crate) fn optimizers(&self) -> impl Iterator<Item = &(dyn Optimizer + 'static)> {
        self.optimizers.iter().flatten().map(Box::as_ref)
    }

    /// The optimizers that are not in use, mutably.
    pub(crate) fn optimizers_mut(&mut self) -> impl Iterator<Item = &mut (dyn Optimizer + 'static)> {
        self.optimizers.iter_mut().filter_map(|slot| slot.as_deref_mut())
    }

    /// The optimizer at an index, unless it is in use.
    pub(crate) fn optimizer(&self, index: usize) -> Option<&(dyn Optimizer + 'static)> {
        self.optimizers.get(index)?.as_deref()
    }

    /// The optimizer at an index, mutably, unless it is in use.
    pub(crate) fn optimizer_mut(&mut self, index: usize) -> Option<&mut (dyn Optimizer + 'static)> {
        self.optimizers.get_mut(index)?.as_deref_mut()
    }

    /// The first optimizer that is in use.
    pub(crate) fn lent(&self) -> Option<usize> {
        self.optimizers.iter().position(Option::is_none)
    }

    /// Takes an optimizer out for a step, which [`put_optimizer`](Self::put_optimizer) puts back.
    pub(crate) fn take_optimizer(&mut self, index: usize) -> Result<Box<dyn Optimizer>, Error> {
        let there = self.optimizers.len();
        let Some(slot) = self.optimizers.get_mut(index) else { return Err(no_optimizer(index, there)) };
        slot.take().ok_or_else(|| in_a_step(index))
    }

    pub(crate) fn put_optimizer(&mut self, index: usize, optimizer: Box<dyn Optimizer>) {
        if let Some(slot) = self.optimizers.get_mut(index) {
            *slot = Some(optimizer);
        }
    }

    // Turns -----------------------------------------------------------------------------------------------------------

    /// Optimizer steps taken, over restarts.
    pub(crate) fn global_step(&self) -> u64 {
        self.steps.total.completed + self.manual_steps.total.completed
    }

    /// The length of a cycle in which every optimizer steps in turn; 0 if they do not take turns.
    pub(crate) fn cycle(&self) -> u64 {
        self.frequencies.iter().sum()
    }

    /// The active optimizer.
    pub(crate) fn optimizer_idx(&self) -> usize {
        self.optimizer_at(self.global_step())
    }

    /// The optimizer that takes the step after `step` others.
    fn optimizer_at(&self, step: u64) -> usize {
        let mut place = step % self.cycle().max(1);
        let has_turn = |&turn: &u64| {
            let its_turn = place < turn;
            place = place.saturating_sub(turn);
            its_turn
        };
        self.frequencies.iter().position(has_turn).unwrap_or(0)
    }

    /// How many steps an optimizer has taken, and whether the last step was its own.
    pub(crate) fn steps_of_optimizer(&self, index: usize) -> (u64, bool) {
        let steps = self.global_step();
        if self.frequencies.is_empty() {
            return (steps, true);
        }
        let cycle = self.cycle();
        let turn = self.frequencies.get(index).copied().unwrap_or(0);
        let before: u64 = self.frequencies.iter().take(index).sum();
        let of_this_cycle = (steps % cycle).saturating_sub(before).min(turn);
        (steps / cycle * turn + of_this_cycle, steps > 0 && self.optimizer_at(steps - 1) == index)
    }

    /// Lets gradients reach the parameters of one optimizer, and none that only others have.
    pub(crate) fn toggle(&mut self, index: usize) -> Result<(), Error> {
        self.untoggle();
        let of = |optimizer: &dyn Optimizer| -> Vec<Tensor> {
            optimizer.param_groups().iter().flat_map(|group| &group.params).map(Tensor::shallow_clone).collect()
        };
        let Some(own) = self.optimizer(index).map(of) else {
            return Err(no_optimizer(index, self.optimizers.len()));
        };
        let is_own = |parameter: &Tensor| own.iter().any(|mine| tensor_id(mine) == tensor_id(parameter));
        let others = (0..self.optimizers.len()).filter(|&other| other != index).filter_map(|i| self.optimizer(i));
        let others: Vec<Tensor> = others.flat_map(of).filter(|p| p.requires_grad() && !is_own(p)).collect();
        for parameter in others {
            let _same_tensor = parameter.set_requires_grad(false);
            self.toggled.push(parameter);
        }
        Ok(())
    }

    /// Reverts [`toggle`](Self::toggle).
    pub(crate) fn untoggle(&mut self) {
        for parameter in self.toggled.drain(..) {
            let _same_tensor = parameter.set_requires_grad(true);
        }
    }

    // Schedulers ------------------------------------------------------------------------------------------------------

    pub(crate) fn schedulers(&self) -> &[LrSchedulerConfig] {
        &self.schedulers
    }

    pub(crate) fn schedulers_mut(&mut self) -> &mut [LrSchedulerConfig] {
        &mut self.schedulers
    }

    /// Replaces the schedulers. Returns the previous ones.
    pub(crate) fn replace_schedulers(&mut self, schedulers: Vec<LrSchedulerConfig>) -> Vec<LrSchedulerConfig> {
        std::mem::replace(&mut self.schedulers, schedulers)
    }

    /// Takes a scheduler out for its step, which [`put_scheduler`](Self::put_scheduler) puts back.
    pub(crate) fn take_scheduler(&mut self, index: usize) -> Option<LrSchedulerConfig> {
        (index < self.schedulers.len()).then(|| self.schedulers.remove(index))
    }

    pub(crate) fn put_scheduler(&mut self, index: usize, scheduler: LrSchedulerConfig) {
        self.schedulers.insert(index.min(self.schedulers.len()), scheduler);
    }

    /// A scheduler and its optimizer.
    pub(crate) fn scheduler_with_optimizer(
        &mut self,
        index: usize,
    ) -> Result<(&mut LrSchedulerConfig, &mut dyn Optimizer), Error> {
        let (there, optimizers) = (self.schedulers.len(), self.optimizers.len());
        let Some(config) = self.schedulers.get_mut(index) else {
            return Err(Error::Config(format!(
                "there is no scheduler {index}: configure_optimizers returned {there}, counted from 0"
            )));
        };
        match self.optimizers.get_mut(config.optimizer) {
            Some(Some(optimizer)) => Ok((config, optimizer.as_mut())),
            Some(None) => Err(in_a_step(config.optimizer)),
            None => Err(no_optimizer(config.optimizer, optimizers)),
        }
    }

    // The accumulation window -----------------------------------------------------------------------------------------

    pub(crate) fn window(&self) -> Window {
        self.window
    }

    /// Restores the window.
    pub(crate) fn set_window(&mut self, window: Window) {
        self.window = window;
    }

    /// Clears the window: it closed, or the rest of it is discarded.
    pub(crate) fn restart_window(&mut self) {
        self.window = Window::default();
    }

    /// Adds a batch to the window; one without a loss has weight 0.
    pub(crate) fn add_to_window(&mut self, weight: Option<f64>) {
        self.window.batches += 1;
        self.window.weight += weight.unwrap_or(0.0);
    }

    /// Sets the values of `accumulate_grad_batches` by their first epoch.
    pub(crate) fn schedule_accumulation(&mut self, factors: BTreeMap<u64, u64>) {
        self.accumulation = factors;
    }

    /// The number of batches per step in `epoch`; `otherwise` by default.
    pub(crate) fn accumulation_in(&self, epoch: u64, otherwise: u64) -> u64 {
        self.accumulation.range(..=epoch).next_back().map_or(otherwise, |(_, factor)| *factor)
    }

    /// The steps of so many epochs. Each value of `accumulate_grad_batches` holds until the next begins.
    pub(crate) fn steps_of_epochs(&self, epochs: u64, batches: u64, otherwise: u64) -> u64 {
        let scheduled = self.accumulation.iter().map(|(epoch, factor)| (*epoch, *factor));
        let mut steps = 0_u64;
        let (mut since, mut factor) = (0, otherwise);
        for (next, next_factor) in scheduled.chain([(epochs, 1)]) {
            let next = next.min(epochs);
            steps = steps.saturating_add((next - since).saturating_mul(batches.div_ceil(factor)));
            (since, factor) = (next, next_factor);
        }
        steps
    }

    // Batch norms -----------------------------------------------------------------------------------------------------

    /// From now on, until [`take_refresh`](Self::take_refresh), nothing is updated.
    pub(crate) fn set_refresh(&mut self, refresh: BatchNormRefresh) {
        self.refresh = Some(refresh);
    }

    pub(crate) fn take_refresh(&mut self) -> Option<BatchNormRefresh> {
        self.refresh.take()
    }

    pub(crate) fn is_refreshing(&self) -> bool {
        self.refresh.is_some()
    }

    // Counters --------------------------------------------------------------------------------------------------------

    pub(crate) fn begin_epoch(&mut self) {
        self.steps.restart_current();
        self.zero_grads.restart_current();
    }

    pub(crate) fn begin_batch(&mut self) {
        self.step_skipped = false;
    }

    pub(crate) fn step_skipped(&self) -> bool {
        self.step_skipped
    }

    pub(crate) fn set_step_skipped(&mut self, skipped: bool) {
        self.step_skipped = skipped;
    }

    pub(crate) fn begin_step(&mut self) {
        self.steps.ready();
    }

    /// The step that closes a window is over.
    pub(crate) fn end_step(&mut self, step: OptimizerStep) {
        match step {
            OptimizerStep::Taken => self.steps.completed(),
            OptimizerStep::Skipped => self.step_skipped = true,
        }
        self.restart_window();
    }

    /// A step without an optimizer counts too.
    pub(crate) fn count_step(&mut self) {
        self.steps.ready();
        self.steps.completed();
    }

    pub(crate) fn begin_manual_step(&mut self) {
        self.manual_steps.ready();
    }

    pub(crate) fn end_manual_step(&mut self, step: OptimizerStep) {
        if step == OptimizerStep::Taken {
            self.manual_steps.completed();
        }
    }

    /// The counter of dropped gradients.
    pub(crate) fn zero_grads_mut(&mut self) -> &mut Counters {
        &mut self.zero_grads
    }

    pub(crate) fn add_progress(&self, progress: &mut Progress) {
        progress.optimizer_step = self.steps;
        progress.manual_step = self.manual_steps;
        progress.zero_grad = self.zero_grads;
    }

    pub(crate) fn set_progress(&mut self, progress: &Progress) {
        self.steps = progress.optimizer_step;
        self.manual_steps = progress.manual_step;
        self.zero_grads = progress.zero_grad;
    }
}

/// The error for an optimizer index that is out of range.
fn no_optimizer(index: usize, there: usize) -> Error {
    Error::Config(format!("there is no optimizer {index}: configure_optimizers returned {there}, counted from 0"))
}

/// The error for an optimizer that is in use.
fn in_a_step(index: usize) -> Error {
    Error::Config(format!("optimizer {index} is in the middle of a step already"))
}
