//! [`SequentialLR`].

use fulgurite_torch::Dict;

use super::composite::{load_parts, reset_lrs, save_parts};
use super::scheduler::{ChainableScheduler, floats};
use crate::error::ensure;
use crate::{LrScheduler, OptimError, Optimizer, typed};

/// Several schedulers in sequence, each from its milestone on.
///
/// ```
/// use fulgurite_optim::{CosineAnnealingLR, LinearLR, SequentialLR};
///
/// let warmup = LinearLR::new().start_factor(0.1).total_iters(5);
/// let schedule = SequentialLR::new(warmup).then(5, CosineAnnealingLR::new(95));
/// ```
pub struct SequentialLR {
    parts: Vec<Box<dyn ChainableScheduler>>,
    milestones: Vec<i64>,
    last_epoch: i64,
    last_lr: Vec<f64>,
    kept: (i64, Vec<f64>),
}

impl SequentialLR {
    /// The scheduler of the first epochs.
    pub fn new(first: impl ChainableScheduler + 'static) -> SequentialLR {
        let (milestones, last_lr, kept) = (Vec::new(), Vec::new(), (0, Vec::new()));
        SequentialLR { parts: vec![Box::new(first)], milestones, last_epoch: 0, last_lr, kept }
    }

    /// The scheduler from epoch `milestone` on, which is its epoch 0.
    #[must_use]
    pub fn then(mut self, milestone: u32, next: impl ChainableScheduler + 'static) -> SequentialLR {
        self.milestones.push(milestone.into());
        self.parts.push(Box::new(next));
        self
    }

    fn take_last_lr(&mut self, part: usize) {
        self.last_lr.clear();
        self.last_lr.extend_from_slice(self.parts[part].last_lr());
    }
}

impl std::fmt::Debug for SequentialLR {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.parts.iter().map(|part| part.name()).collect();
        f.debug_struct("SequentialLR").field("parts", &names).field("milestones", &self.milestones).finish()
    }
}

const NAME: &str = "SequentialLR";

impl LrScheduler for SequentialLR {
    fn name(&self) -> &str {
        NAME
    }

    fn attach(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        let sorted = self.milestones.windows(2).all(|pair| pair[0] < pair[1]);
        ensure(sorted, NAME, "milestones", format!("{:?}", self.milestones), "increasing")?;
        for part in &mut self.parts {
            part.attach(optimizer)?;
        }
        self.last_epoch = 0;
        reset_lrs(optimizer);
        self.undo();
        self.parts[0].initial_step(optimizer)?;
        self.take_last_lr(0);
        Ok(())
    }

    fn step(&mut self, optimizer: &mut dyn Optimizer, metric: Option<f64>) -> Result<(), OptimError> {
        let epoch = self.last_epoch + 1;
        let at = self.milestones.partition_point(|&milestone| milestone <= epoch);
        if at > 0 && self.milestones[at - 1] == epoch {
            self.parts[at].restart(optimizer)?;
        } else {
            self.parts[at].step(optimizer, metric)?;
        }
        // A part that failed has not moved.
        self.last_epoch = epoch;
        self.take_last_lr(at);
        Ok(())
    }

    fn last_lr(&self) -> &[f64] {
        &self.last_lr
    }

    fn state_dict(&self) -> Result<Dict, OptimError> {
        let milestones: Vec<i64> = self.milestones.clone();
        Ok(Dict::new()
            .with("_milestones", milestones)
            .with("last_epoch", self.last_epoch)
            .with("_last_lr", self.last_lr.clone())
            .with("_schedulers", save_parts(&self.parts)?))
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<(), OptimError> {
        self.last_lr = floats(NAME, state, "_last_lr", self.last_lr.len())?;
        typed::load(state, "last_epoch", &mut self.last_epoch).map_err(|e| OptimError::state_dict(NAME, e))?;
        let saved = state.list("_milestones").map_err(OptimError::lacks(NAME))?;
        if saved.len() != self.milestones.len() {
            let (saved, here) = (saved.len() + 1, self.parts.len());
            return Err(OptimError::state_dict(NAME, format!("it has {saved} schedulers, expected {here}")));
        }
        for (milestone, saved) in self.milestones.iter_mut().zip(saved) {
            *milestone = saved.as_int().ok_or_else(|| OptimError::state_dict(NAME, "a milestone is no int"))?;
        }
        load_parts(NAME, state, &mut self.parts)
    }
}

impl ChainableScheduler for SequentialLR {
    fn undo(&mut self) {
        self.parts.iter_mut().for_each(|part| part.undo());
    }

    fn keep(&mut self) {
        self.parts.iter_mut().for_each(|part| part.keep());
        self.kept.0 = self.last_epoch;
        self.kept.1.clone_from(&self.last_lr);
    }

    fn put_back(&mut self) {
        self.parts.iter_mut().for_each(|part| part.put_back());
        self.last_epoch = self.kept.0;
        self.last_lr.clone_from(&self.kept.1);
    }

    fn initial_step(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        self.step(optimizer, None)
    }

    /// From its first scheduler; PyTorch cannot do this.
    fn restart(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        self.parts[0].restart(optimizer)?;
        self.last_epoch = 0;
        self.take_last_lr(0);
        Ok(())
    }
}
