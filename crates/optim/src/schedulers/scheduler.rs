//! [`Scheduler`]: runs a [`Schedule`], a formula for the learning rate, over the groups of an optimizer.

use fulgurite_torch::{Dict, Value};

use crate::settings::{Settings, number};
use crate::{LrScheduler, OptimError, Optimizer, ParamGroup};

/// A formula for the learning rate.
pub trait Schedule: Settings + Send + 'static {
    /// PyTorch's class name.
    const NAME: &'static str;

    /// Checks its settings.
    fn validate(&self) -> Result<(), OptimError>;

    /// What PyTorch's constructor does to the optimizer before the first step.
    fn prepare(&mut self, _optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        Ok(())
    }

    /// The optimizer has `groups` groups now, more than when this was attached.
    fn join(&mut self, _groups: usize) -> Result<(), OptimError> {
        Ok(())
    }

    /// The base learning rates, where they are settings and not the optimizer's.
    fn own_base_lrs(&self, _groups: usize) -> Result<Option<Vec<f64>>, OptimError> {
        Ok(None)
    }

    /// Counts a step.
    fn tick(&mut self, clock: &mut Clock) {
        clock.last_epoch += 1;
        clock.step_count += 1;
    }

    /// The learning rate, from the one before or from nothing but the epoch.
    fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError>;

    /// The learning rate from nothing but the epoch, where [`lr`](Schedule::lr) builds on the one before.
    fn closed_form(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
        self.lr(at)
    }

    /// The momentum, if that is scheduled too.
    fn momentum(&self, _at: &Moment<'_>) -> Result<Option<f64>, OptimError> {
        Ok(None)
    }
}

/// Where a scheduler is.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The epoch (or step), from 0; -1 before the first.
    pub last_epoch: i64,
    /// PyTorch's count of calls.
    pub step_count: i64,
}

/// What a learning rate is computed from.
#[derive(Debug)]
pub struct Moment<'a> {
    /// The epoch (or step), from 0.
    pub epoch: i64,
    /// PyTorch's count of calls; 1 at the constructor's step.
    pub step_count: i64,
    /// Whether it is the constructor's step.
    pub initial: bool,
    /// The learning rate before any scheduler.
    pub base_lr: f64,
    /// The group, with its present learning rate.
    pub group: &'a ParamGroup,
    /// Index of the group.
    pub index: usize,
}

/// A scheduler that computes the learning rate from the epoch. Used under its PyTorch name:
/// [`CosineAnnealingLR`](crate::CosineAnnealingLR), [`StepLR`](crate::StepLR), …
#[derive(Debug)]
pub struct Scheduler<S> {
    pub(crate) schedule: S,
    base_lrs: Vec<f64>,
    last_lr: Vec<f64>,
    clock: Clock,
}

/// A scheduler that [`SequentialLR`](crate::SequentialLR) and [`ChainedScheduler`](crate::ChainedScheduler) can hold:
/// all but [`ReduceLROnPlateau`](crate::ReduceLROnPlateau), which needs a value at each step.
///
/// The methods are what PyTorch's composite schedulers do to their parts behind the scenes.
pub trait ChainableScheduler: LrScheduler {
    /// Takes back one epoch (`recursive_undo`).
    fn undo(&mut self);

    /// Takes the constructor's step (`_initial_step`).
    fn initial_step(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError>;

    /// Goes to epoch 0 (`_update_lr(0)`).
    fn restart(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError>;
}

impl<S: Schedule> Scheduler<S> {
    pub(crate) fn with(schedule: S) -> Scheduler<S> {
        let clock = Clock { last_epoch: -1, step_count: 0 };
        Scheduler { schedule, base_lrs: Vec::new(), last_lr: Vec::new(), clock }
    }

    fn set_lrs(
        &mut self,
        optimizer: &mut dyn Optimizer,
        initial: bool,
        formula: impl Fn(&S, &Moment<'_>) -> Result<f64, OptimError>,
    ) -> Result<(), OptimError> {
        if self.base_lrs.is_empty() {
            return Err(OptimError::NotAttached { scheduler: S::NAME });
        }
        let groups = optimizer.param_groups_mut();
        if groups.len() < self.base_lrs.len() {
            return Err(wrong_length(S::NAME, "base_lrs", self.base_lrs.len(), groups.len()));
        }
        if groups.len() > self.base_lrs.len() {
            self.schedule.join(groups.len())?;
        }
        for group in &mut groups[self.base_lrs.len()..] {
            self.base_lrs.push(*group.initial_lr.get_or_insert(group.lr));
        }
        self.last_lr.resize(groups.len(), 0.0);
        let lrs = self.base_lrs.iter().zip(&mut self.last_lr);
        for (index, (group, (&base_lr, last_lr))) in groups.iter_mut().zip(lrs).enumerate() {
            let Clock { last_epoch: epoch, step_count } = self.clock;
            let at = Moment { epoch, step_count, initial, base_lr, group, index };
            let lr = formula(&self.schedule, &at)?;
            let momentum = self.schedule.momentum(&at)?;
            group.lr = lr;
            if let Some(momentum) = momentum {
                group.set_momentum(momentum);
            }
            *last_lr = lr;
        }
        Ok(())
    }
}

impl<S: Schedule> LrScheduler for Scheduler<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn attach(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        self.schedule.validate()?;
        self.schedule.prepare(optimizer)?;
        self.base_lrs =
            optimizer.param_groups_mut().iter_mut().map(|group| *group.initial_lr.get_or_insert(group.lr)).collect();
        self.last_lr = self.base_lrs.clone();
        self.initial_step(optimizer)?;
        if let Some(own) = self.schedule.own_base_lrs(self.base_lrs.len())? {
            self.base_lrs = own;
        }
        Ok(())
    }

    fn step(&mut self, optimizer: &mut dyn Optimizer, _metric: Option<f64>) -> Result<(), OptimError> {
        self.schedule.tick(&mut self.clock);
        self.set_lrs(optimizer, false, S::lr)
    }

    fn last_lr(&self) -> &[f64] {
        &self.last_lr
    }

    fn state_dict(&self) -> Dict {
        let mut state = Dict::new()
            .with("base_lrs", self.base_lrs.clone())
            .with("last_epoch", self.clock.last_epoch)
            .with("_step_count", self.clock.step_count)
            .with("_is_initial", false)
            .with("_get_lr_called_within_step", false)
            .with("_last_lr", self.last_lr.clone());
        self.schedule.save(&mut state);
        state
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<(), OptimError> {
        let groups = self.base_lrs.len();
        self.base_lrs = floats(S::NAME, state, "base_lrs", groups)?;
        self.last_lr = floats(S::NAME, state, "_last_lr", groups)?;
        self.clock.last_epoch = state.int("last_epoch").map_err(OptimError::lacks(S::NAME))?;
        self.clock.step_count = state.int("_step_count").map_err(OptimError::lacks(S::NAME))?;
        self.schedule.load(state).map_err(|error| OptimError::state_dict(S::NAME, error))
    }
}

impl<S: Schedule> ChainableScheduler for Scheduler<S> {
    fn undo(&mut self) {
        self.clock.last_epoch -= 1;
    }

    fn initial_step(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        self.clock = Clock { last_epoch: -1, step_count: 0 };
        self.schedule.tick(&mut self.clock);
        self.set_lrs(optimizer, true, S::lr)
    }

    fn restart(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        self.clock.last_epoch = 0;
        self.set_lrs(optimizer, false, S::closed_form)
    }
}

/// A list of at least `len` numbers in a scheduler's state dict.
pub(crate) fn floats(owner: &'static str, state: &Dict, key: &str, len: usize) -> Result<Vec<f64>, OptimError> {
    let values = state.list(key).map_err(OptimError::lacks(owner))?;
    if len == 0 {
        return Err(OptimError::NotAttached { scheduler: owner });
    }
    // There are more when groups were added to the optimizer.
    if values.len() < len {
        return Err(wrong_length(owner, key, values.len(), len));
    }
    let read = |value: &Value| {
        number(value)
            .ok_or_else(|| OptimError::state_dict(owner, format!("`{key}` holds a {}, no number", value.type_name())))
    };
    values.iter().map(read).collect()
}

fn wrong_length(owner: &'static str, key: &str, values: usize, groups: usize) -> OptimError {
    OptimError::state_dict(owner, format!("`{key}` has {values} values, the optimizer has {groups} parameter groups"))
}
