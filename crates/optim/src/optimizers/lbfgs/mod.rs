//! [`LBFGS`]: the one optimizer that evaluates the model itself.

mod line_search;
mod memory;

use fulgurite_torch::tch::{Tensor, no_grad_guard};
use fulgurite_torch::{Dict, TensorList, Value, foreach};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::line_search::{Point, strong_wolfe};
use self::memory::{Memory, NAME, dot, rounded, scalar};
use crate::build::BuildOptimizer;
use crate::error::{ensure, ensure_non_negative};
use crate::groups::resolve;
use crate::optimizer::Closure;
use crate::options::options;
use crate::param_group::copy_groups;
use crate::state_dict::{add_options, load_shared_settings, saved_groups, shared_settings};
use crate::{GroupDefaults, IntoParamGroups, OptimError, Optimizer, Optimizers, ParamGroup, ParamGroupConfig, typed};

/// Limited-memory BFGS:
/// [`torch.optim.LBFGS`](https://docs.pytorch.org/docs/stable/generated/torch.optim.LBFGS.html). For full batches; takes
/// one parameter group.
///
/// Each step evaluates the model up to `max_eval` times, so it takes a closure. Options and defaults: [`LbfgsOptions`].
///
/// ```
/// use fulgurite_optim::{LBFGS, LineSearch, Optimizer};
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let x = Tensor::zeros([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
/// let mut optimizer = LBFGS::new(vec![x.shallow_clone()]).line_search_fn(LineSearch::StrongWolfe).build()?;
/// optimizer.step_with(&mut |optimizer| {
///     optimizer.zero_grad()?;
///     let loss = (&x - 3.0).square().sum(None);
///     loss.backward();
///     Ok(loss)
/// })?;
/// assert!((x.double_value(&[0]) - 3.0).abs() < 1e-4);
/// # Ok::<(), fulgurite_optim::OptimError>(())
/// ```
#[derive(Debug)]
pub struct LBFGS {
    groups: Vec<ParamGroupConfig>,
    options: LbfgsOptions,
}

/// How [`LBFGS`] finds the length of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LineSearch {
    /// A line search for the strong Wolfe conditions.
    StrongWolfe,
}

options! {
    /// Options of [`LBFGS`].
    LbfgsOptions of LBFGS {
        /// Learning rate: the length of a step, or where the line search starts.
        lr: f64 = 1.0,
        /// Maximum number of iterations per step.
        max_iter: u32 = 20,
        /// Maximum number of evaluations of the model per step; null is 1.25 times `max_iter`.
        max_eval(max_eval: u32 => Some(max_eval)): Option<u32> = None,
        /// A step ends when no element of the gradient is larger than this.
        tolerance_grad: f64 = 1e-7,
        /// A step ends when neither the loss nor a parameter changes by more than this.
        tolerance_change: f64 = 1e-9,
        /// Number of past iterations to remember, each as large as two copies of the parameters.
        history_size: u32 = 100,
        /// Line search for the length of a step; null takes the learning rate.
        line_search_fn(line_search: LineSearch => Some(line_search)): Option<LineSearch> = None,
    }
}

impl LBFGS {
    /// For a `VarStore`, tensors, or one group, with default options.
    pub fn new(params: impl IntoParamGroups) -> LBFGS {
        LBFGS { groups: params.into_param_groups(), options: LbfgsOptions::default() }
    }

    /// The optimizer, for a custom training loop.
    ///
    /// # Errors
    ///
    /// Fails if there is no parameter or more than one group, a parameter cannot be optimized, or an option is out of
    /// range.
    pub fn build(mut self) -> Result<Box<dyn Optimizer>, OptimError> {
        if self.groups.len() > 1 {
            return Err(OptimError::SingleGroupOnly { optimizer: NAME, groups: self.groups.len() });
        }
        let groups = resolve(NAME, self.groups, &GroupDefaults::new(self.options.lr))?;
        let max_iter = self.options.max_iter;
        self.options.max_eval.get_or_insert(max_iter.saturating_add(max_iter / 4));
        self.options.validate()?;
        let params = TensorList::new(&groups[0].params)?;
        Ok(Box::new(Lbfgs { groups, params, options: self.options, memory: Memory::default() }))
    }
}

impl From<LBFGS> for Optimizers {
    fn from(builder: LBFGS) -> Optimizers {
        Optimizers::from_result(builder.build())
    }
}

impl BuildOptimizer for LbfgsOptions {
    fn class_name() -> &'static str {
        NAME
    }

    fn build_optimizer(self, groups: Vec<ParamGroupConfig>) -> Result<Box<dyn Optimizer>, OptimError> {
        LBFGS { groups, options: self }.build()
    }
}

impl LbfgsOptions {
    fn max_evaluations(&self) -> i64 {
        i64::from(self.max_eval.unwrap_or(u32::MAX))
    }

    fn validate(&self) -> Result<(), OptimError> {
        ensure(self.history_size > 0, NAME, "history_size", self.history_size, "1 or more")?;
        ensure_non_negative(NAME, "tolerance_grad", self.tolerance_grad)?;
        ensure_non_negative(NAME, "tolerance_change", self.tolerance_change)
    }
}

struct Lbfgs {
    groups: Vec<ParamGroup>,
    params: TensorList,
    options: LbfgsOptions,
    memory: Memory,
}

impl Lbfgs {
    /// Evaluates the model; the loss, its value, and the gradient of all parameters in one.
    fn evaluate(&mut self, closure: &mut Closure<'_>) -> Result<(Tensor, f64, Tensor), OptimError> {
        let loss = closure(self).map_err(OptimError::Closure)?;
        let _guard = no_grad_guard();
        let mut grads = Vec::with_capacity(self.groups[0].params.len());
        for param in &self.groups[0].params {
            let grad = param.grad();
            let grad = if grad.defined() { grad.f_to_dense(None, false)? } else { param.f_zeros_like()? };
            grads.push(grad.f_reshape([-1])?);
        }
        let value = loss.f_double_value(&[])?;
        Ok((loss, value, Tensor::f_cat(&grads, 0)?))
    }

    /// Moves the parameters `length` along `direction`.
    fn walk(&mut self, length: f64, direction: &Tensor) -> Result<(), OptimError> {
        let _guard = no_grad_guard();
        let mut offset = 0;
        for param in &mut self.groups[0].params {
            let len = param.numel() as i64;
            let part = direction.f_narrow(0, offset, len)?.f_view_as(param)?;
            foreach::add_tensor_(param, &part, length)?;
            offset += len;
        }
        Ok(())
    }

    fn set_params(&mut self, values: &TensorList) -> Result<(), OptimError> {
        let _guard = no_grad_guard();
        Ok(foreach::copy_(&mut self.params, values)?)
    }

    /// One step, from a loss and gradient that are not yet good enough.
    fn iterate(&mut self, closure: &mut Closure<'_>, mut loss: f64, mut flat_grad: Tensor) -> Result<(), OptimError> {
        let (options, lr) = (self.options.clone(), self.groups[0].lr);
        let mut evaluations = 1;
        for iteration in 1..=options.max_iter {
            let direction = self.memory.direction(&flat_grad, options.history_size.into())?;
            self.memory.note(&flat_grad, loss)?;
            let first = self.memory.iterations() == 1;
            let mut length = if first { first_length(&flat_grad, lr)? } else { lr };
            let slope = dot(&flat_grad, &direction)?;
            let flat = slope > -options.tolerance_change;
            let before = loss;
            let mut evaluated = 0;
            if flat {
                self.memory.remember_step(length, direction);
                break;
            }
            if options.line_search_fn == Some(LineSearch::StrongWolfe) {
                let start = Point { length: 0.0, loss, grad: flat_grad, slope };
                let most = options.max_evaluations() - evaluations;
                let end;
                (end, evaluated) = self.search(closure, start, length, &direction, most)?;
                (length, loss, flat_grad) = (end.length, end.loss, end.grad);
                self.walk(length, &direction)?;
            } else {
                self.walk(length, &direction)?;
                if iteration != options.max_iter {
                    (_, loss, flat_grad) = self.evaluate(closure)?;
                    evaluated = 1;
                }
            }
            evaluations += evaluated;
            self.memory.count_evaluations(evaluated);
            let moved = max_abs(&direction)? * length.abs();
            self.memory.remember_step(length, direction);
            if evaluations >= options.max_evaluations()
                || max_abs(&flat_grad)? <= options.tolerance_grad
                || moved <= options.tolerance_change
                || (loss - before).abs() < options.tolerance_change
            {
                break;
            }
        }
        Ok(())
    }

    fn search(
        &mut self,
        closure: &mut Closure<'_>,
        start: Point,
        length: f64,
        direction: &Tensor,
        most: i64,
    ) -> Result<(Point, i64), OptimError> {
        let tolerance = self.options.tolerance_change / max_abs(direction)?;
        let origin = self.groups[0].params.iter().map(|param| param.detach().copy()).collect::<Vec<_>>();
        let origin = TensorList::new(&origin)?;
        let mut evaluate = |length: f64| {
            self.walk(length, direction)?;
            let (_, loss, grad) = self.evaluate(closure)?;
            self.set_params(&origin)?;
            let slope = dot(&grad, direction)?;
            Ok(Point { length, loss, grad, slope })
        };
        strong_wolfe(&mut evaluate, start, length, tolerance, most)
    }
}

impl Optimizer for Lbfgs {
    fn name(&self) -> &str {
        NAME
    }

    fn param_groups(&self) -> &[ParamGroup] {
        &self.groups
    }

    fn param_groups_mut(&mut self) -> &mut [ParamGroup] {
        &mut self.groups
    }

    fn add_param_group(&mut self, _: ParamGroupConfig) -> Result<(), OptimError> {
        Err(OptimError::SingleGroupOnly { optimizer: NAME, groups: self.groups.len() + 1 })
    }

    fn needs_closure(&self) -> bool {
        true
    }

    fn step(&mut self) -> Result<(), OptimError> {
        Err(OptimError::ClosureNeeded { optimizer: NAME })
    }

    fn step_with(&mut self, mut closure: Closure<'_>) -> Result<Tensor, OptimError> {
        let (first_loss, loss, flat_grad) = self.evaluate(&mut closure)?;
        self.memory.count_evaluations(1);
        if max_abs(&flat_grad)? > self.options.tolerance_grad {
            self.iterate(&mut closure, loss, flat_grad)?;
        }
        Ok(first_loss)
    }

    fn zero_grad(&mut self) -> Result<(), OptimError> {
        Ok(foreach::drop_grads(&mut self.params)?)
    }

    fn state_dict(&self) -> Result<Dict, OptimError> {
        let group = &self.groups[0];
        let mut entry = shared_settings(group);
        add_options(&mut entry, &self.options);
        for (key, value) in group.extra.iter() {
            entry.set(key.clone(), value.clone());
        }
        entry.push("params", (0..group.params.len()).collect::<Vec<_>>());
        let mut state = Dict::new();
        if let Some(memory) = self.memory.save(self.options.history_size.into()) {
            state.push(0, memory);
        }
        Ok(Dict::new().with("state", state).with("param_groups", vec![entry]))
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<(), OptimError> {
        let mut groups = copy_groups(&self.groups);
        let mut options = self.options.clone();
        let saved = saved_groups(NAME, state, &groups)?[0];
        load_shared_settings(NAME, saved, &mut groups[0])?;
        typed::update(&mut options, saved).map_err(|error| OptimError::state_dict(NAME, error))?;
        options.validate()?;
        let mut own = shared_settings(&groups[0]).with("params", ());
        add_options(&mut own, &options);
        let foreign = saved.iter().filter(|(key, _)| own.get_value(key).is_none());
        groups[0].extra = foreign.map(|(key, value)| (key.clone(), value.clone())).collect();

        let first = saved.list("params").map_err(OptimError::lacks(NAME))?.first();
        let entries = state.dict("state").map_err(OptimError::lacks(NAME))?;
        let memory = match first.and_then(|key| entries.get_value(key)) {
            None => Memory::default(),
            Some(Value::Dict(entry)) => Memory::load(entry, &groups[0].params)?,
            Some(other) => {
                let problem = format!("state of parameter 0: it is {}, expected dict", other.type_name());
                return Err(OptimError::state_dict(NAME, problem));
            }
        };
        self.groups = groups;
        self.options = options;
        self.memory = memory;
        Ok(())
    }
}

/// The learning rate, made smaller where gradients are large.
fn first_length(flat_grad: &Tensor, lr: f64) -> Result<f64, OptimError> {
    let round = |x: f64| rounded(x, flat_grad.kind());
    let shrink = round(1.0 / scalar(&flat_grad.f_abs()?.f_sum(None)?)?);
    Ok(if shrink < 1.0 { round(shrink * round(lr)) } else { lr })
}

fn max_abs(tensor: &Tensor) -> Result<f64, OptimError> {
    scalar(&tensor.f_abs()?.f_max()?)
}
