//! [`Schedule`]: a formula for the learning rate. [`Scheduler`] runs it over the groups of an optimizer.

use std::mem;

use fulgurite_torch::{Dict, Value};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::typed::{self, number};
use crate::{LrScheduler, OptimError, Optimizer, ParamGroup};

/// The options of a scheduler, and its formula for the learning rate. Parameter groups, the count of epochs and state dicts
/// in PyTorch's layout come with it.
///
/// The struct is the only place that knows of an option: a field with its documentation, its default in [`Default`], and
/// the formula, which uses it. A state dict has an entry for each field under the field's name.
///
/// ```
/// use fulgurite_optim::{LrScheduler, Moment, OptimError, SGD, Schedule, Scheduler};
/// use fulgurite_torch::tch::{Device, nn};
/// use schemars::JsonSchema;
/// use serde::{Deserialize, Serialize};
///
/// /// Divides the learning rate by the square root of the epoch.
/// #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
/// #[serde(default, deny_unknown_fields)]
/// struct InverseSqrtOptions {
///     /// The last epoch with the full learning rate.
///     offset: u32,
/// }
///
/// impl Default for InverseSqrtOptions {
///     fn default() -> Self {
///         InverseSqrtOptions { offset: 1 }
///     }
/// }
///
/// impl Schedule for InverseSqrtOptions {
///     type State = ();
///     const NAME: &'static str = "InverseSqrtLR";
///
///     fn lr(&self, at: &Moment<'_>) -> Result<f64, OptimError> {
///         let epochs = at.epoch as f64 / f64::from(self.offset);
///         Ok(at.base_lr / epochs.max(1.0).sqrt())
///     }
/// }
///
/// /// The scheduler, under its own name.
/// type InverseSqrtLR = Scheduler<InverseSqrtOptions>;
///
/// let vs = nn::VarStore::new(Device::Cpu);
/// let _layer = nn::linear(vs.root(), 4, 1, Default::default());
/// let mut optimizer = SGD::new(&vs).lr(0.1).build()?;
/// let mut scheduler = InverseSqrtLR::from_options(InverseSqrtOptions::default());
/// scheduler.attach(optimizer.as_mut())?;
/// for _ in 0..4 {
///     scheduler.step(optimizer.as_mut(), None)?;
/// }
/// assert_eq!(scheduler.last_lr(), [0.05]);
/// # Ok::<(), fulgurite_optim::OptimError>(())
/// ```
pub trait Schedule: Serialize + DeserializeOwned + Send + 'static {
    /// What it computes when it is attached or stepped; `()` for most.
    type State: Default + Send + 'static;

    /// The class name, PyTorch's where it has the scheduler.
    const NAME: &'static str;

    /// Fills in options that follow from the length of the run, in the interval that the scheduler is stepped by. Asks
    /// `run_length` only if it needs to know.
    fn adapt_to_run(&mut self, _run_length: &mut dyn FnMut() -> Option<u32>) {}

    /// Checks the options.
    ///
    /// # Errors
    ///
    /// Fails if an option is missing or out of range.
    fn validate(&self) -> Result<(), OptimError> {
        Ok(())
    }

    /// Prepares state and optimizer before the first step, as PyTorch's constructor does.
    ///
    /// # Errors
    ///
    /// Fails if an option does not fit the optimizer.
    fn prepare(&self, _state: &mut Self::State, _optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        Ok(())
    }

    /// Extends the state to `groups` parameter groups, more than when it was attached.
    ///
    /// # Errors
    ///
    /// Fails if an option has no value for a group.
    fn join(&self, _state: &mut Self::State, _groups: usize) -> Result<(), OptimError> {
        Ok(())
    }

    /// The base learning rates, where they are options and not the optimizer's.
    ///
    /// # Errors
    ///
    /// Fails if an option does not have one value for each group.
    fn own_base_lrs(&self, _groups: usize) -> Result<Option<Vec<f64>>, OptimError> {
        Ok(None)
    }

    /// Counts a step, and returns the state if that changes too. Both are kept only if the learning rates of the step
    /// can be computed.
    fn tick(&self, _state: &Self::State, clock: &mut Clock) -> Option<Self::State> {
        clock.last_epoch += 1;
        clock.step_count += 1;
        None
    }

    /// The learning rate, from the previous one (`at.group.lr`) or from the epoch alone.
    ///
    /// # Errors
    ///
    /// Fails if the schedule is at its end.
    fn lr(&self, at: &Moment<'_, Self::State>) -> Result<f64, OptimError>;

    /// The learning rate from the epoch alone, where [`lr`](Schedule::lr) builds on the previous one.
    ///
    /// # Errors
    ///
    /// Fails if the schedule is at its end.
    fn closed_form(&self, at: &Moment<'_, Self::State>) -> Result<f64, OptimError> {
        self.lr(at)
    }

    /// The momentum, if that is scheduled too.
    ///
    /// # Errors
    ///
    /// Fails if the schedule is at its end.
    fn momentum(&self, _at: &Moment<'_, Self::State>) -> Result<Option<f64>, OptimError> {
        Ok(None)
    }

    /// The entries of the state dict; the options by default.
    fn save(&self, _state: &Self::State) -> Dict {
        typed::to_dict(self)
    }

    /// Restores what [`save`](Schedule::save) returned. The error says which entry is wrong, and how.
    ///
    /// # Errors
    ///
    /// Fails if an entry of the wrong type.
    fn load(&mut self, _state: &mut Self::State, saved: &Dict) -> Result<(), String> {
        typed::update(self, saved)
    }
}

/// The epoch of a scheduler.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The epoch (or step), from 0; -1 before the first.
    pub last_epoch: i64,
    /// PyTorch's count of calls.
    pub step_count: i64,
}

/// What a learning rate is computed from.
#[derive(Debug)]
pub struct Moment<'a, State = ()> {
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
    /// The state of the schedule.
    pub state: &'a State,
}

/// A scheduler that computes the learning rate with a [`Schedule`]. Used under its PyTorch name:
/// [`CosineAnnealingLR`](crate::CosineAnnealingLR), [`StepLR`](crate::StepLR), …
#[derive(Debug)]
pub struct Scheduler<S: Schedule> {
    pub(crate) options: S,
    pub(crate) state: S::State,
    base_lrs: Vec<f64>,
    last_lr: Vec<f64>,
    clock: Clock,
    /// Learning rate and momentum of each group in the step that is being computed.
    next: Vec<(f64, Option<f64>)>,
    kept: Kept<S::State>,
}

/// Where a scheduler was.
#[derive(Debug)]
struct Kept<State> {
    clock: Clock,
    /// The state, if it has changed since.
    state: Option<State>,
    last_lr: Vec<f64>,
}

/// A scheduler that [`SequentialLR`](crate::SequentialLR) and [`ChainedScheduler`](crate::ChainedScheduler) can hold:
/// all but [`ReduceLROnPlateau`](crate::ReduceLROnPlateau), which needs a value at each step.
///
/// The methods are what PyTorch's composite schedulers do to their parts internally.
pub trait ChainableScheduler: LrScheduler {
    /// Undoes one epoch (`recursive_undo`).
    fn undo(&mut self);

    /// Remembers where it is, for [`put_back`](ChainableScheduler::put_back).
    fn keep(&mut self);

    /// Goes back to where it was [kept](ChainableScheduler::keep), one step ago. The optimizer is left alone.
    fn put_back(&mut self);

    /// Takes the constructor's step (`_initial_step`).
    fn initial_step(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError>;

    /// Goes to epoch 0 (`_update_lr(0)`).
    fn restart(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError>;
}

impl<S: Schedule> Scheduler<S> {
    /// With these options.
    pub fn from_options(options: S) -> Scheduler<S> {
        let clock = Clock { last_epoch: -1, step_count: 0 };
        let (base_lrs, last_lr, next) = (Vec::new(), Vec::new(), Vec::new());
        let kept = Kept { clock, state: None, last_lr: Vec::new() };
        Scheduler { options, state: S::State::default(), base_lrs, last_lr, clock, next, kept }
    }

    /// Its options.
    pub fn options(&self) -> &S {
        &self.options
    }

    /// Goes to `clock` and `state`, and sets the learning rates there; after an error everything is as it was.
    fn go_to(
        &mut self,
        optimizer: &mut dyn Optimizer,
        (clock, state): (Clock, Option<S::State>),
        initial: bool,
        formula: impl Fn(&S, &Moment<'_, S::State>) -> Result<f64, OptimError>,
    ) -> Result<(), OptimError> {
        if self.base_lrs.is_empty() {
            return Err(OptimError::NotAttached { scheduler: S::NAME });
        }
        let groups = optimizer.param_groups_mut();
        if groups.len() < self.base_lrs.len() {
            return Err(wrong_length(S::NAME, "base_lrs", self.base_lrs.len(), groups.len()));
        }
        if groups.len() > self.base_lrs.len() {
            self.options.join(&mut self.state, groups.len())?;
        }
        for group in &mut groups[self.base_lrs.len()..] {
            self.base_lrs.push(*group.initial_lr.get_or_insert(group.lr));
        }
        self.next.clear();
        for (index, (group, &base_lr)) in groups.iter().zip(&self.base_lrs).enumerate() {
            let Clock { last_epoch: epoch, step_count } = clock;
            let state = state.as_ref().unwrap_or(&self.state);
            let at = Moment { epoch, step_count, initial, base_lr, group, index, state };
            let lr = formula(&self.options, &at)?;
            if !lr.is_finite() {
                let option = format!("learning rate of group {index} at last_epoch={epoch}");
                return Err(OptimError::InvalidOption {
                    owner: S::NAME,
                    option,
                    value: lr.to_string(),
                    must: "finite",
                });
            }
            self.next.push((lr, self.options.momentum(&at)?));
        }
        // Nothing fails from here on.
        self.clock = clock;
        if let Some(state) = state {
            self.kept.state = Some(mem::replace(&mut self.state, state));
        }
        for (group, &(lr, momentum)) in groups.iter_mut().zip(&self.next) {
            group.lr = lr;
            if let Some(momentum) = momentum {
                group.set_momentum(momentum);
            }
        }
        self.last_lr.clear();
        self.last_lr.extend(self.next.iter().map(|(lr, _)| lr));
        Ok(())
    }

    /// The moment after one more step.
    fn after(&self, mut clock: Clock) -> (Clock, Option<S::State>) {
        let state = self.options.tick(&self.state, &mut clock);
        (clock, state)
    }
}

impl<S: Schedule> LrScheduler for Scheduler<S> {
    fn name(&self) -> &str {
        S::NAME
    }

    fn attach(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        typed::check(S::NAME, &self.options)?;
        self.options.validate()?;
        self.options.prepare(&mut self.state, optimizer)?;
        self.base_lrs =
            optimizer.param_groups_mut().iter_mut().map(|group| *group.initial_lr.get_or_insert(group.lr)).collect();
        self.last_lr = self.base_lrs.clone();
        self.initial_step(optimizer)?;
        if let Some(own) = self.options.own_base_lrs(self.base_lrs.len())? {
            self.base_lrs = own;
        }
        Ok(())
    }

    fn step(&mut self, optimizer: &mut dyn Optimizer, _metric: Option<f64>) -> Result<(), OptimError> {
        self.go_to(optimizer, self.after(self.clock), false, S::lr)
    }

    fn last_lr(&self) -> &[f64] {
        &self.last_lr
    }

    fn state_dict(&self) -> Result<Dict, OptimError> {
        let mut state = Dict::new()
            .with("base_lrs", self.base_lrs.clone())
            .with("last_epoch", self.clock.last_epoch)
            .with("_step_count", self.clock.step_count)
            .with("_is_initial", false)
            .with("_get_lr_called_within_step", false)
            .with("_last_lr", self.last_lr.clone());
        for (key, value) in self.options.save(&self.state) {
            state.push(key, value);
        }
        Ok(state)
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<(), OptimError> {
        let groups = self.base_lrs.len();
        self.base_lrs = floats(S::NAME, state, "base_lrs", groups)?;
        self.last_lr = floats(S::NAME, state, "_last_lr", groups)?;
        self.clock.last_epoch = state.int("last_epoch").map_err(OptimError::lacks(S::NAME))?;
        self.clock.step_count = state.int("_step_count").map_err(OptimError::lacks(S::NAME))?;
        self.options.load(&mut self.state, state).map_err(|error| OptimError::state_dict(S::NAME, error))?;
        self.options.validate()
    }
}

impl<S: Schedule> ChainableScheduler for Scheduler<S> {
    fn undo(&mut self) {
        self.clock.last_epoch -= 1;
    }

    fn keep(&mut self) {
        self.kept.clock = self.clock;
        self.kept.state = None;
        self.kept.last_lr.clone_from(&self.last_lr);
    }

    fn put_back(&mut self) {
        self.clock = self.kept.clock;
        if let Some(state) = self.kept.state.take() {
            self.state = state;
        }
        self.last_lr.clone_from(&self.kept.last_lr);
    }

    fn initial_step(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        self.go_to(optimizer, self.after(Clock { last_epoch: -1, step_count: 0 }), true, S::lr)
    }

    fn restart(&mut self, optimizer: &mut dyn Optimizer) -> Result<(), OptimError> {
        self.go_to(optimizer, (Clock { last_epoch: 0, ..self.clock }, None), false, S::closed_form)
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
