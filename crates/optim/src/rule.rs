//! [`Rule`]: what distinguishes one optimizer from another. Everything else is shared: [`OptimizerBuilder`] makes
//! optimizers of rules, [`RuleOptimizer`] runs them.
//!
//! [`OptimizerBuilder`]: crate::OptimizerBuilder
//! [`RuleOptimizer`]: crate::RuleOptimizer

use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{TensorList, foreach};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{GroupDefaults, OptimError, ParamGroup};

/// The options of an optimizer, and how it updates parameters with them. Parameter groups, batching by kind and device,
/// state, state dicts in PyTorch's layout and error messages come with it.
///
/// The struct is the only place that knows of an option: a field with its documentation, its default in [`Default`], and
/// [`update`](Rule::update), which uses it. A state dict has an entry for each field under the field's name; the learning
/// rate, weight decay and momentum are those of the parameter group, which schedulers change, so `update` takes them from
/// there.
///
/// ```
/// use fulgurite_optim::{Bucket, GroupDefaults, OptimError, OptimizerBuilder, ParamGroup, Rule};
/// use fulgurite_torch::foreach;
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
/// use schemars::JsonSchema;
/// use serde::{Deserialize, Serialize};
///
/// /// Gradient descent that clamps each element of the gradient.
/// #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
/// #[serde(default, deny_unknown_fields)]
/// struct ClampedSgdOptions {
///     /// Learning rate.
///     lr: f64,
///     /// Momentum factor.
///     momentum: f64,
///     /// Maximum absolute value of an element of the gradient.
///     bound: f64,
/// }
///
/// impl Default for ClampedSgdOptions {
///     fn default() -> Self {
///         ClampedSgdOptions { lr: 1e-2, momentum: 0.9, bound: 1.0 }
///     }
/// }
///
/// impl Rule for ClampedSgdOptions {
///     const NAME: &'static str = "ClampedSGD";
///     const SLOTS: &'static [&'static str] = &["momentum_buffer"];
///
///     fn group_defaults(&self) -> GroupDefaults {
///         GroupDefaults::new(self.lr).momentum(self.momentum)
///     }
///
///     fn update(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError> {
///         let Bucket { params, grads, slots, work: [clamped, _], .. } = bucket;
///         for i in 0..grads.len() {
///             clamped.push(&grads.get(i)?.f_clamp(-self.bound, self.bound)?)?;
///         }
///         foreach::mul_scalar_(&mut slots[0], group.momentum())?;
///         foreach::add_(&mut slots[0], clamped, 1.0)?;
///         Ok(foreach::add_(params, &slots[0], -group.lr)?)
///     }
/// }
///
/// /// The optimizer, under its own name.
/// type ClampedSGD = OptimizerBuilder<ClampedSgdOptions>;
///
/// let weight = Tensor::zeros([3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
/// let options = ClampedSgdOptions { lr: 0.1, ..ClampedSgdOptions::default() };
/// let mut optimizer = ClampedSGD::from_options(vec![weight.shallow_clone()], options).build()?;
/// (&weight * 5.0).sum(Kind::Float).backward();
/// optimizer.step()?;
/// assert_eq!(Vec::<f32>::try_from(&weight).unwrap(), [-0.1; 3]);
/// # Ok::<(), fulgurite_optim::OptimError>(())
/// ```
pub trait Rule: Serialize + DeserializeOwned + JsonSchema + Default + Clone + Send + 'static {
    /// The class name, PyTorch's where it has the optimizer.
    const NAME: &'static str;
    /// The names of the state tensors in the state dict; at most 8, which the compiler checks.
    const SLOTS: &'static [&'static str];
    /// Whether the state dict counts steps.
    const COUNTS_STEPS: bool = true;
    /// Whether the state dict has the step as an integer, not as a tensor.
    const STEP_IS_INT: bool = false;
    /// Names of numbers that the state dict holds for each parameter, besides `step`; at most 2.
    const SCALARS: &'static [&'static str] = &[];
    /// Whether the kernel reads step counters from tensors on the device.
    const STEP_TENSORS: bool = false;
    /// Whether state is created with the optimizer rather than at a parameter's first gradient.
    const EAGER: bool = false;
    /// Entries of PyTorch's parameter groups that are no options here, with the values they have in a state dict.
    const FIXED: &'static [(&'static str, Fixed)] = &[];

    /// The defaults of parameter groups: learning rate, and weight decay and momentum if the optimizer has them.
    fn group_defaults(&self) -> GroupDefaults;

    /// Checks the options, and parameters that cannot be optimized. The group's own settings have been checked.
    ///
    /// # Errors
    ///
    /// Fails if an option is out of range, or a parameter has the wrong shape.
    fn validate(&self, _group: &ParamGroup) -> Result<(), OptimError> {
        Ok(())
    }

    /// Whether parameters of `group` need this state tensor.
    fn uses(&self, _slot: usize, _group: &ParamGroup) -> bool {
        true
    }

    /// A new state tensor for `param`, if it needs one. Zeros by default.
    ///
    /// # Errors
    ///
    /// Fails if the tensor cannot be allocated.
    fn init(&self, _slot: usize, _group: &ParamGroup, param: &Tensor) -> Result<Option<Tensor>, OptimError> {
        Ok(Some(param.f_zeros_like()?))
    }

    /// The initial values of [`SCALARS`](Rule::SCALARS).
    fn initial_scalars(&self, _group: &ParamGroup) -> [f32; 2] {
        [0.0; 2]
    }

    /// Only parameters with equal keys are updated together. By default these are parameters at the same step.
    fn bucket_key(step: u64) -> u64 {
        step
    }

    /// Checks how many gradients of parameters of one kind and device are sparse, and how many dense, before any parameter is
    /// updated. By default sparse ones are refused.
    ///
    /// # Errors
    ///
    /// Fails if the rule has no update for such gradients.
    fn check_gradients(&self, _group: &ParamGroup, sparse: usize, _dense: usize) -> Result<(), OptimError> {
        if sparse == 0 { Ok(()) } else { Err(OptimError::SparseGradients { optimizer: Self::NAME }) }
    }

    /// Updates the parameters of `bucket`, whose gradients are all sparse, for a rule whose
    /// [`check_gradients`](Rule::check_gradients) accepts these.
    ///
    /// # Errors
    ///
    /// Fails as [`update`](Rule::update) does.
    fn update_sparse(&self, _group: &ParamGroup, _bucket: &mut Bucket) -> Result<(), OptimError> {
        Err(OptimError::SparseGradients { optimizer: Self::NAME })
    }

    /// Updates the parameters of `bucket`. Called without gradient tracking.
    ///
    /// # Errors
    ///
    /// Fails if libtorch refuses an operation, such as one on gradients of another kind.
    fn update(&self, group: &ParamGroup, bucket: &mut Bucket) -> Result<(), OptimError>;
}

/// The value of an entry that is no option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fixed {
    /// `None`.
    None,
    /// `False`.
    False,
    /// `True`.
    True,
}

/// The step counter of a parameter, and the numbers that its rule keeps of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParamStep {
    /// The number of steps, including the current one.
    pub step: u64,
    /// The values of [`Rule::SCALARS`].
    pub scalars: [f32; 2],
}

/// Parameters of one kind on one device that are updated together, all with a gradient and state.
#[derive(Debug)]
pub struct Bucket {
    /// The parameters.
    pub params: TensorList,
    /// Their gradients. A rule may replace the list, but not write to the tensors.
    pub grads: TensorList,
    /// Their state, one list for each of [`Rule::SLOTS`]. Tensors that a parameter does not have are undefined.
    pub slots: Vec<TensorList>,
    /// Step counters on the device, for rules with [`Rule::STEP_TENSORS`].
    pub steps: TensorList,
    /// For intermediate results; empty before an update, and cleared after it.
    pub work: [TensorList; 2],
    /// Their common step counter and scalars. Scalars that a rule changes are kept.
    pub progress: ParamStep,
}

impl Bucket {
    pub(crate) fn new(slots: usize) -> Result<Bucket, OptimError> {
        Ok(Bucket {
            params: TensorList::empty()?,
            grads: TensorList::empty()?,
            slots: (0..slots).map(|_| TensorList::empty()).collect::<Result<_, _>>()?,
            steps: TensorList::empty()?,
            work: [TensorList::empty()?, TensorList::empty()?],
            progress: ParamStep { step: 0, scalars: [0.0; 2] },
        })
    }

    /// Drops the gradients and intermediate results, so that their memory can be used for the next step.
    pub(crate) fn release(&mut self) {
        self.grads.clear();
        self.work.iter_mut().for_each(TensorList::clear);
    }

    /// The step, from 1, as a number to calculate with.
    pub fn step(&self) -> f64 {
        self.progress.step as f64
    }

    /// Negates the gradients to maximize, and adds `weight_decay` times the parameters to them (an L2 penalty).
    ///
    /// # Errors
    ///
    /// Fails if libtorch refuses an operation.
    pub fn prepare_grads(&mut self, maximize: bool, weight_decay: f64) -> Result<(), OptimError> {
        let [out, _] = &mut self.work;
        if maximize {
            foreach::neg(&self.grads, out)?;
            std::mem::swap(&mut self.grads, out);
        }
        if weight_decay != 0.0 {
            foreach::add(&self.grads, &self.params, weight_decay, out)?;
            std::mem::swap(&mut self.grads, out);
        }
        out.clear();
        Ok(())
    }
}
