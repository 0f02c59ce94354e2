//! [`ChainedScheduler`].

use fulgurite_torch::Dict;

use super::composite::{load_parts, reset_lrs, save_parts};
use super::scheduler::{ChainableScheduler, floats};
use crate::{LrScheduler, Momentum, OptimError, Optimizer};

/// Chains several schedulers: at each step each changes the learning rate that the previous one set.
///
/// ```
/// use fulgurite_optim::{ChainedScheduler, ConstantLR, ExponentialLR};
///
/// let schedule = ChainedScheduler::new(ConstantLR::new().factor(0.1).total_iters(2)).and(ExponentialLR::new(0.9));
/// ```
pub struct ChainedScheduler {
    parts: Vec<Box<dyn ChainableScheduler>>,
    last_lr: Vec<f64>,
    kept_last_lr: Vec<f64>,
    /// Learning rate and momentum of each group before the step that is being taken.
    groups: Vec<(f64, Momentum)>,
}

impl ChainedScheduler {
    /// The scheduler that is stepped first.
    pub fn new(first: impl ChainableScheduler + 'static) -> ChainedScheduler {
        let (last_lr, kept_last_lr, groups) = (Vec::new(), Vec::new(), Vec::new());
        ChainedScheduler { parts: vec![Box::new(first)], last_lr, kept_last_lr, groups }
    }

    /// The scheduler that is stepped next.
    #[must_use]
    pub fn and(mut self, next: impl ChainableScheduler + 'static) -> ChainedScheduler {
        self.parts.push(Box::new(next));
        self
    }

    fn keep_before_step(&mut self, optimizer: &dyn Optimizer) {
        self.parts.iter_mut().for_each(|part| part.keep());
        self.groups.clear();
        self.groups.extend(optimizer.param_groups().iter().map(|group| (group.lr, group.momentum)));
    }

    fn take_last_lr(&mut self, optimizer: &dyn Optimizer) {
        self.last_lr.clear();
        self.last_lr.extend(optimizer.param_groups().iter().map(|group| group.lr));
    }
}

impl std::fmt::Debug for ChainedScheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.parts.iter().map(|part| part.name()).collect();
        f.debug_struct("ChainedScheduler").field("parts", &names).finish()
    }
}

const NAME: &str = "ChainedScheduler";

impl LrScheduler for ChainedScheduler {
    fn name(&self) -> &str {
        NAME
    }

    fn attach(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        for part in &mut self.parts {
            part.attach(optimizer)?;
        }
        self.take_last_lr(optimizer);
        self.keep_before_step(optimizer);
        Ok(())
    }

    fn step(&mut self, optimizer: &mut dyn Optimizer, metric: Option<f64>) -> Result<(), OptimError> {
        self.keep_before_step(optimizer);
        if let Err(error) = self.parts.iter_mut().try_for_each(|part| part.step(optimizer, metric)) {
            // The parts before the one that failed have moved.
            self.parts.iter_mut().for_each(|part| part.put_back());
            for (group, &(lr, momentum)) in optimizer.param_groups_mut().iter_mut().zip(&self.groups) {
                (group.lr, group.momentum) = (lr, momentum);
            }
            return Err(error);
        }
        self.take_last_lr(optimizer);
        Ok(())
    }

    fn last_lr(&self) -> &[f64] {
        &self.last_lr
    }

    fn state_dict(&self) -> Result<Dict, OptimError> {
        Ok(Dict::new().with("_last_lr", self.last_lr.clone()).with("_schedulers", save_parts(&self.parts)?))
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<(), OptimError> {
        self.last_lr = floats(NAME, state, "_last_lr", self.last_lr.len())?;
        load_parts(NAME, state, &mut self.parts)
    }
}

impl ChainableScheduler for ChainedScheduler {
    fn undo(&mut self) {
        self.parts.iter_mut().for_each(|part| part.undo());
    }

    fn keep(&mut self) {
        self.parts.iter_mut().for_each(|part| part.keep());
        self.kept_last_lr.clone_from(&self.last_lr);
    }

    fn put_back(&mut self) {
        self.parts.iter_mut().for_each(|part| part.put_back());
        self.last_lr.clone_from(&self.kept_last_lr);
    }

    fn initial_step(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        self.step(optimizer, None)
    }

    /// From the learning rates before any scheduler; PyTorch cannot do this.
    fn restart(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        reset_lrs(optimizer);
        for part in &mut self.parts {
            part.initial_step(optimizer)?;
        }
        self.take_last_lr(optimizer);
        Ok(())
    }
}
