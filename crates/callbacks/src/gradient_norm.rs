//! [`GradientNorm`]: logs the norm of the gradients, and detects exploding and vanishing gradients.

use std::collections::{HashMap, VecDeque};

use derive_setters::Setters;
use fulgurite_engine::config::Configurable;
use fulgurite_engine::{Callback, Error, ModuleView, Result, TrainerFn, TrainerState, list_of};
use fulgurite_optim::Optimizer;
use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, Value, grad, params, tensor_id, to_host_f64s};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::deferred::{Deferred, StepOf};
use super::model_checkpoint::python_float;

/// What [`GradientNorm`] does when gradients explode or vanish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GradientAction {
    /// Warns, once per run for each of the two.
    #[default]
    Warn,
    /// Ends the run.
    Stop,
}

/// Logs the norm of all gradients of an optimizer's parameters before each step, before clipping, and warns or ends the
/// run when they explode or vanish.
///
/// Names are those of Lightning's `grad_norm`: `grad_2.0_norm_total`, and `grad_2.0_norm/` with the parameter's name
/// for [`per_parameter`](GradientNormOptions::per_parameter). With several optimizers the total has the optimizer's
/// place after it: `grad_2.0_norm_total/1`.
///
/// Gradients explode when their norm is not finite, above [`max_norm`](GradientNormOptions::max_norm), or more than
/// [`max_factor`](GradientNormOptions::max_factor) times the mean of the last [`window`](GradientNormOptions::window)
/// norms; they vanish when it is below [`min_norm`](GradientNormOptions::min_norm). Norms stay on the device until they
/// are looked at: on the processor after every step, on a GPU at the logging interval, many with one wait.
///
/// ```
/// use fulgurite::callbacks::{GradientAction, GradientNorm};
/// use fulgurite::prelude::*;
///
/// let norm = GradientNorm::new().max_factor(20.0).min_norm(1e-7).action(GradientAction::Stop);
/// let trainer = Trainer::builder().callback(norm).gradient_clip_val(1.0);
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct GradientNorm {
    options: GradientNormOptions,
    /// The metric names, by parameter.
    names: HashMap<usize, String>,
    /// The state of each optimizer.
    totals: Vec<Total>,
    warned: [bool; 2],
}

/// The norm of all gradients of one optimizer.
#[derive(Debug, Default)]
struct Total {
    name: String,
    unread: Deferred,
    /// The most recent norms that did not explode.
    window: VecDeque<f64>,
}

/// Options of [`GradientNorm`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(generate_delegates(ty = "GradientNorm", field = "options"))]
#[non_exhaustive]
pub struct GradientNormOptions {
    /// The p of the p-norm; infinity for the maximum norm.
    pub norm_type: f64,
    /// Also logs the gradient norm of each parameter.
    pub per_parameter: bool,
    /// The norm above which gradients explode.
    #[setters(into)]
    pub max_norm: Option<f64>,
    /// Gradients explode when their norm exceeds this many times the mean of the last norms.
    #[setters(into)]
    pub max_factor: Option<f64>,
    /// The norm below which gradients vanish.
    #[setters(into)]
    pub min_norm: Option<f64>,
    /// The number of steps in the running mean, which is not used before that many steps.
    pub window: usize,
    /// Whether to warn, or to end the run.
    pub action: GradientAction,
    /// The number of steps between two checks of the norms; by default 1 on the CPU, `log_every_n_steps` on a GPU.
    #[setters(into)]
    pub every_n_steps: Option<u64>,
}

impl Default for GradientNormOptions {
    fn default() -> GradientNormOptions {
        GradientNormOptions {
            norm_type: 2.0,
            per_parameter: false,
            max_norm: None,
            max_factor: Some(100.0),
            min_norm: None,
            window: 50,
            action: GradientAction::Warn,
            every_n_steps: None,
        }
    }
}

/// A norm that exploded or vanished.
enum Problem {
    Explodes(String),
    Vanishes(String),
}

impl Configurable for GradientNorm {
    type Options = GradientNormOptions;

    fn from_options(options: GradientNormOptions) -> Result<GradientNorm, Error> {
        options.check()?;
        Ok(GradientNorm { options, ..GradientNorm::default() })
    }
}

impl GradientNormOptions {
    fn check(&self) -> Result<(), Error> {
        let wrong = |problem: String| Err(Error::Config(format!("GradientNorm: {problem}")));
        if self.norm_type.is_nan() || self.norm_type <= 0.0 {
            return wrong(format!(
                "norm_type={} is not the p of a norm; write a number above 0, such as 2.0",
                self.norm_type
            ));
        }
        if self.max_factor.is_some_and(|factor| factor.is_nan() || factor <= 1.0) || self.window == 0 {
            return wrong(
                "max_factor is above 1, and is multiplied with the mean of one norm or more: check `max_factor` and `window`".into(),
            );
        }
        Ok(())
    }

    /// Checks `norm` against the norms of the window.
    fn judge(&self, norm: f64, window: &VecDeque<f64>) -> Option<Problem> {
        let explodes = |why: String| Some(Problem::Explodes(why));
        if !norm.is_finite() {
            return explodes(python_float(norm));
        }
        if let Some(max) = self.max_norm.filter(|max| norm > *max) {
            return explodes(format!("{norm:.3e}, above max_norm={max}"));
        }
        let mean = window.iter().sum::<f64>() / window.len() as f64;
        if let Some(factor) = self.max_factor.filter(|factor| window.len() >= self.window && norm > factor * mean) {
            return explodes(format!(
                "{norm:.3e}, more than {factor} times the mean of the {} before it, {mean:.3e}",
                self.window
            ));
        }
        let min = self.min_norm.filter(|min| norm < *min)?;
        Some(Problem::Vanishes(format!("{norm:.3e}, below min_norm={min}")))
    }
}

impl Total {
    /// Reads the pending norms, and reports problems.
    fn read(&mut self, options: &GradientNormOptions, mut report: impl FnMut(StepOf, Problem)) -> Result<(), Error> {
        let Total { unread, window, .. } = self;
        unread.read(|step, norm| {
            let problem = options.judge(norm, window);
            if !matches!(problem, Some(Problem::Explodes(_))) {
                remember(window, norm, options.window);
            }
            if let Some(problem) = problem {
                report(step, problem);
            }
        })
    }
}

fn remember(window: &mut VecDeque<f64>, norm: f64, len: usize) {
    window.push_back(norm);
    while window.len() > len {
        window.pop_front();
    }
}

impl GradientNorm {
    /// Warns when gradients are not finite, or exceed 100 times their mean over the last 50 steps.
    pub fn new() -> GradientNorm {
        GradientNorm::default()
    }

    /// Reads the norms of an optimizer, and warns or fails if they exploded or vanished.
    fn look(&mut self, trainer: &mut TrainerState, index: usize) -> Result<()> {
        let GradientNorm { options, totals, warned, .. } = self;
        let Some(total) = totals.get_mut(index) else { return Ok(()) };
        total.read(options, |step, problem| {
            let (which, message) = match problem {
                Problem::Explodes(norm) => (0, format!(
                    "GradientNorm: the gradients of {step} explode: their norm is {norm}. Lower the learning rate, warm it up, or clip with gradient_clip_val."
                )),
                Problem::Vanishes(norm) => (1, format!(
                    "GradientNorm: the gradients of {step} vanish: their norm is {norm}. Look at initialization, normalization and saturated activations."
                )),
            };
            if options.action == GradientAction::Stop && !trainer.should_stop() {
                trainer.print(&message);
                trainer.request_stop(message);
            } else if !std::mem::replace(&mut warned[which], true) {
                trainer.warn(&message);
            }
        })?;
        Ok(())
    }

    fn look_at_all(&mut self, trainer: &mut TrainerState) -> Result<()> {
        (0..self.totals.len()).try_for_each(|index| self.look(trainer, index))
    }

    fn prefix(&self) -> String {
        format!("grad_{}_norm", python_float(self.options.norm_type))
    }
}

impl Callback for GradientNorm {
    fn state_dict(&self) -> Result<Dict> {
        let floats = |values: &VecDeque<f64>| values.iter().map(|value| Value::Float(*value)).collect::<Vec<_>>();
        let tensors = |values: &[Tensor]| values.iter().map(Value::from).collect::<Vec<_>>();
        let totals = self.totals.iter().map(|total| {
            Value::Dict(
                Dict::new().with("window", floats(&total.window)).with("unread", tensors(total.unread.values())),
            )
        });
        Ok(Dict::new().with("totals", totals.collect::<Vec<_>>()))
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        self.totals.clear();
        for saved in list_of(state, "totals", "dict", Value::as_dict)? {
            let window = list_of(saved, "window", "float", Value::as_float)?.into();
            let mut total = Total { window, ..Total::default() };
            let unread = list_of(saved, "unread", "tensor", |value| value.as_tensor().map(Tensor::shallow_clone))?;
            for norm in to_host_f64s(&unread)? {
                if !matches!(self.options.judge(norm, &total.window), Some(Problem::Explodes(_))) {
                    remember(&mut total.window, norm, self.options.window);
                }
            }
            self.totals.push(total);
        }
        Ok(())
    }

    fn setup(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView, _: TrainerFn) -> Result<()> {
        Ok(self.options.check()?)
    }

    fn on_train_start(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        let prefix = self.prefix();
        let optimizers = trainer.num_optimizers();
        if trainer.resumed_from().is_none() {
            self.totals.clear();
        }
        self.totals.resize_with(optimizers, Total::default);
        for (index, total) in self.totals.iter_mut().enumerate() {
            total.unread = Deferred::default();
            total.name = if optimizers > 1 { format!("{prefix}_total/{index}") } else { format!("{prefix}_total") };
        }
        self.warned = [false; 2];
        self.names.clear();
        if self.options.per_parameter {
            let named = params::named_parameters(module.vars());
            self.names = named.iter().map(|(name, p)| (tensor_id(p), format!("{prefix}/{name}"))).collect();
        }
        Ok(())
    }

    fn on_before_optimizer_step(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        optimizer: &mut dyn Optimizer,
    ) -> Result<()> {
        // The optimizer that is about to step is not in its place.
        let index = trainer.stepping_optimizer().unwrap_or(0);
        let Some(total) = self.totals.get_mut(index) else { return Ok(()) };
        let parameters = || optimizer.param_groups().iter().flat_map(|group| &group.params);
        let norm = grad::grad_norm(parameters(), self.options.norm_type)?;
        trainer.log(&total.name, &norm);
        if self.options.per_parameter && trainer.should_update_logs() {
            for parameter in parameters().filter(|parameter| parameter.grad().defined()) {
                if let Some(name) = self.names.get(&tensor_id(parameter)) {
                    trainer.log(name, &grad::grad_norm([parameter], self.options.norm_type)?);
                }
            }
        }
        total.unread.push(&norm, trainer);
        if total.unread.is_due(self.options.every_n_steps, trainer) { self.look(trainer, index) } else { Ok(()) }
    }

    fn on_validation_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.look_at_all(trainer)
    }

    fn on_train_epoch_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.look_at_all(trainer)
    }
}
