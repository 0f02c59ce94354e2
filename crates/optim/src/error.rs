//! [`OptimError`].

use fulgurite_torch::tch::TchError;
use fulgurite_torch::{TorchError, ValueError, readable_error};

/// An error of an optimizer or scheduler.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimError {
    /// The optimizer was given no parameters.
    #[error(
        "optimizer got an empty parameter list: {optimizer} has nothing to train; create the layers before the \
         optimizer, and check that they are in the VarStore it is given"
    )]
    EmptyParameterList {
        /// The optimizer.
        optimizer: &'static str,
    },
    /// A parameter appears twice.
    #[error(
        "some parameters appear more than once: {optimizer} got parameter {index} of group {group} already as parameter \
         {first_index} of group {first_group}; give each parameter to one group"
    )]
    DuplicateParameter {
        /// The optimizer.
        optimizer: &'static str,
        /// Group of the second occurrence.
        group: usize,
        /// Index of the second occurrence in its group.
        index: usize,
        /// Group of the first occurrence.
        first_group: usize,
        /// Index of the first occurrence in its group.
        first_index: usize,
    },
    /// A tensor that cannot be a parameter of this optimizer.
    #[error("{optimizer} cannot optimize parameter {index} of group {group}: {reason}")]
    BadParameter {
        /// The optimizer.
        optimizer: &'static str,
        /// Its group.
        group: usize,
        /// Its index in the group.
        index: usize,
        /// Why, and what to do.
        reason: String,
    },
    /// An option is out of range.
    #[error("{owner}: invalid {option}: {value}; it must be {must}")]
    InvalidOption {
        /// The optimizer or scheduler.
        owner: &'static str,
        /// The option, under PyTorch's name.
        option: String,
        /// Its value.
        value: String,
        /// What it must be.
        must: &'static str,
    },
    /// An option that has no default was left out.
    #[error("{owner} needs `{option}`, which has no default")]
    MissingOption {
        /// The scheduler.
        owner: &'static str,
        /// The option, under PyTorch's name.
        option: &'static str,
    },
    /// Nesterov momentum without momentum, or with dampening.
    #[error(
        "Nesterov momentum requires a momentum and zero dampening, got momentum {momentum} and dampening {dampening}; \
         set momentum (0.9 is usual) and leave dampening at 0"
    )]
    NesterovNeedsMomentum {
        /// The momentum.
        momentum: f64,
        /// The dampening.
        dampening: f64,
    },
    /// A group sets an option that its optimizer does not have.
    #[error("parameter group {group} sets {option}, which {optimizer} does not have; leave it out")]
    UnknownGroupOption {
        /// The optimizer.
        optimizer: &'static str,
        /// The group.
        group: usize,
        /// The setting.
        option: &'static str,
    },
    /// The optimizer takes one group only.
    #[error("{optimizer} doesn't support parameter groups, got {groups}; give it all parameters in one group")]
    SingleGroupOnly {
        /// The optimizer.
        optimizer: &'static str,
        /// How many there were.
        groups: usize,
    },
    /// `params` of a group was changed after the optimizer was built.
    #[error(
        "{optimizer}: the parameters of group {group} were changed after the optimizer was built; build a new optimizer \
         and load the old one's state dict"
    )]
    ParametersChanged {
        /// The optimizer.
        optimizer: &'static str,
        /// The group.
        group: usize,
    },
    /// A gradient is sparse, as that of an embedding with `sparse: true`, and the optimizer needs dense ones.
    #[error(
        "{optimizer} does not support sparse gradients; use SparseAdam, SGD or Adagrad for the parameters that have them, or \
         build their embedding with sparse: false"
    )]
    SparseGradients {
        /// The optimizer.
        optimizer: &'static str,
    },
    /// A gradient is dense, and the optimizer is for sparse ones.
    #[error(
        "{optimizer} does not support dense gradients; use Adam for the parameters that have them, or build their embedding \
         with sparse: true"
    )]
    DenseGradients {
        /// The optimizer.
        optimizer: &'static str,
    },
    /// Weight decay of parameters whose gradients are sparse: it would change all of a parameter.
    #[error(
        "{optimizer}: weight_decay is not compatible with sparse gradients; set weight_decay of the embedding's parameter \
         group to 0"
    )]
    SparseWeightDecay {
        /// The optimizer.
        optimizer: &'static str,
    },
    /// `step()` was called on an optimizer that needs a closure (LBFGS).
    #[error(
        "{optimizer} needs a closure that evaluates the model and its gradients again; call step_with(closure) instead \
         of step()"
    )]
    ClosureNeeded {
        /// The optimizer.
        optimizer: &'static str,
    },
    /// What the closure given to `step_with` returned, unchanged.
    #[error(transparent)]
    Closure(Box<dyn std::error::Error + Send + Sync>),
    /// A state dict that does not fit the optimizer or scheduler.
    #[error("cannot load this state dict into {owner}: {reason}")]
    StateDict {
        /// The optimizer or scheduler.
        owner: &'static str,
        /// What does not fit, and what to do.
        reason: String,
    },
    /// A scheduler was configured without an optimizer.
    #[error("a scheduler was added before any optimizer; call .scheduler(...) after the optimizer it belongs to")]
    SchedulerWithoutOptimizer,
    /// A scheduler that was stepped without having been attached.
    #[error("{scheduler} is not attached to an optimizer; call attach(&mut optimizer) once before the first step")]
    NotAttached {
        /// The scheduler.
        scheduler: &'static str,
    },
    /// A per-group option of a scheduler does not have one value for each group.
    #[error(
        "{scheduler}: {option} has {values} values, the optimizer has {groups} parameter groups; give one value per \
         group, or a single one for all"
    )]
    PerGroupLength {
        /// The scheduler.
        scheduler: &'static str,
        /// The setting.
        option: &'static str,
        /// How many values it has.
        values: usize,
        /// How many groups there are.
        groups: usize,
    },
    /// Momentum is to be cycled, and the optimizer has none.
    #[error(
        "{scheduler}: optimizer must support momentum or beta1 with cycle_momentum, and {optimizer} has neither; call \
         .cycle_momentum(false)"
    )]
    NoMomentumToCycle {
        /// The scheduler.
        scheduler: &'static str,
        /// The optimizer.
        optimizer: String,
    },
    /// `OneCycleLR` was stepped past its end.
    #[error(
        "OneCycleLR: tried to step {step} times, the specified number of total steps is {total}; make total_steps the \
         number of optimizer steps of the whole run, and step it once per optimizer step"
    )]
    PastTotalSteps {
        /// The step.
        step: i64,
        /// The last one allowed.
        total: i64,
    },
    /// `ReduceLROnPlateau` was stepped without a value.
    #[error("{scheduler} needs the value it monitors at every step; name a logged value with .monitor(\"val_loss\")")]
    MetricNeeded {
        /// The scheduler.
        scheduler: &'static str,
    },
    /// An error of an optimizer or scheduler of another crate.
    #[error("{owner}: {source}")]
    Other {
        /// The optimizer or scheduler.
        owner: String,
        /// The error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

impl From<TchError> for OptimError {
    fn from(error: TchError) -> OptimError {
        OptimError::Torch(error.into())
    }
}

impl OptimError {
    /// An error of an optimizer or scheduler that is not of this crate.
    ///
    /// ```
    /// use fulgurite_optim::OptimError;
    ///
    /// let error = OptimError::other("Sophia", "the Hessian was never estimated; call estimate() first");
    /// assert_eq!(error.to_string(), "Sophia: the Hessian was never estimated; call estimate() first");
    /// ```
    pub fn other(owner: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> OptimError {
        OptimError::Other { owner: owner.into(), source: readable_error(source.into()) }
    }

    pub(crate) fn state_dict(owner: &'static str, reason: impl ToString) -> OptimError {
        OptimError::StateDict { owner, reason: reason.to_string() }
    }

    /// For `map_err` on what a [`Dict`](fulgurite_torch::Dict) lacks.
    pub(crate) fn lacks(owner: &'static str) -> impl Fn(ValueError) -> OptimError {
        move |error| OptimError::state_dict(owner, error)
    }
}

/// Returns an error about `option` of `owner` unless `holds`.
pub(crate) fn ensure(
    holds: bool,
    owner: &'static str,
    option: &str,
    value: impl ToString,
    must: &'static str,
) -> Result<(), OptimError> {
    match holds {
        true => Ok(()),
        false => Err(OptimError::InvalidOption { owner, option: option.into(), value: value.to_string(), must }),
    }
}

/// An option that has no default.
pub(crate) fn needed<T>(owner: &'static str, option: &'static str, value: Option<T>) -> Result<T, OptimError> {
    value.ok_or(OptimError::MissingOption { owner, option })
}

/// A setting that must be a finite number, 0 or more.
pub(crate) fn ensure_non_negative(owner: &'static str, option: &str, value: f64) -> Result<(), OptimError> {
    ensure(value.is_finite() && value >= 0.0, owner, option, value, "a finite number, 0 or more")
}
