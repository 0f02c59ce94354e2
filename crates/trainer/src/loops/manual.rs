//! Manual optimization: what a module calls in `training_step` when it steps its optimizers itself.

use std::collections::HashSet;

use fulgurite_fabric::{FabricError, OptimizerStep, Pass};
use fulgurite_optim::{OptimError, Optimizer};
use fulgurite_torch::autocast::{Autocast, AutocastGuard};
use fulgurite_torch::tch::Tensor;
use fulgurite_torch::tensor_id;

use super::optimization::torch;
use crate::config::GradientClipAlgorithm;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::module::LightningModule;
use crate::state::TrainerState;
use crate::step::Step;

/// Manual optimization, for a module whose
/// [`automatic_optimization`](crate::LightningModule::automatic_optimization) is `false`. Optimizers are named by their
/// place in what `configure_optimizers` returned.
///
/// ```
/// use fulgurite::prelude::*;
///
/// struct Line { vars: nn::VarStore, layer: nn::Linear }
///
/// impl LightningModule for Line {
///     type Batch = (Tensor, Tensor);
///
///     fn vars(&self) -> &dyn Parameters { &self.vars }
///
///     fn automatic_optimization(&self) -> bool { false }
///
///     fn training_step(&mut self, (x, y): Self::Batch, step: &mut Step) -> Result<Loss> {
///         let loss = x.apply(&self.layer).mse_loss(&y, tch::Reduction::Mean);
///         step.zero_grad(0)?;
///         step.manual_backward(self, &loss)?;
///         step.clip_gradients(0, 1.0, Default::default())?;
///         step.optimizer_step(self, 0)?;
///         Ok(loss.into())
///     }
///
///     fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
///         Ok(SGD::new(&self.vars).lr(0.1).into())
///     }
/// }
/// ```
impl Step<'_> {
    /// The backward pass of `loss`, with the hooks around it.
    ///
    /// # Errors
    ///
    /// Those of the hooks, and autograd's.
    pub fn manual_backward<M: LightningModule>(&mut self, module: &mut M, loss: &Tensor) -> Result<()> {
        self.0.state.require_manual("manual_backward")?;
        Ok(self.as_caller(|engine| engine.backward(module, loss, 1.0))?)
    }

    /// Steps an optimizer, with the hook before it. Every such step counts in
    /// [`global_step`](Step::global_step), whichever optimizer takes it, except a skipped one: in precision `16-mixed`
    /// a step with an infinite gradient is, and schedulers should not move then either.
    ///
    /// # Errors
    ///
    /// There is no such optimizer; what the hooks or the optimizer said.
    pub fn optimizer_step<M: LightningModule>(&mut self, module: &mut M, optimizer: usize) -> Result<OptimizerStep> {
        self.step_manually(module, optimizer, |engine, module, optimizer| {
            engine.state.fabric.unscale_gradients(optimizer)?;
            engine.before_optimizer_step(module, optimizer)?;
            let _off = engine.autocast_off()?;
            let step = engine.state.fabric.optimizer_step(optimizer)?;
            Ok((step, step))
        })
    }

    /// Steps an optimizer that evaluates the loss itself, possibly several times (LBFGS). `closure` drops the gradients,
    /// computes the loss, runs its backward pass and returns it. Returns the first loss.
    ///
    /// # Errors
    ///
    /// There is no such optimizer; what the closure, the hooks or the optimizer said.
    pub fn optimizer_step_with<M: LightningModule>(
        &mut self,
        module: &mut M,
        optimizer: usize,
        mut closure: impl FnMut(&mut M, &mut Step, &mut dyn Optimizer) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (hook, owner) = (self.0.state.hook, self.0.state.owner);
        self.step_manually(module, optimizer, |engine, module, optimizer| {
            engine.refuse_closure()?;
            let _off = engine.autocast_off()?;
            let stepped = optimizer.step_with(&mut |optimizer| {
                engine.state.enter(hook, owner);
                let _context = engine.state.fabric.forward_context(Pass::Training)?;
                let loss = closure(module, &mut Step(engine), optimizer)?;
                engine.before_optimizer_step(module, optimizer)?;
                Ok(loss)
            });
            match stepped {
                Err(OptimError::Closure(error)) => Err(error),
                stepped => Ok((stepped?, OptimizerStep::Taken)),
            }
        })
    }

    /// Drops the gradients of an optimizer's parameters.
    ///
    /// # Errors
    ///
    /// There is no such optimizer.
    pub fn zero_grad(&mut self, optimizer: usize) -> Result<()> {
        self.0.state.require_manual("zero_grad")?;
        Ok(self.0.lend_optimizer(optimizer, |_, optimizer| optimizer.zero_grad())?)
    }

    /// Lets gradients reach this optimizer's parameters, and none that only others have, until
    /// [`untoggle_optimizer`](Step::untoggle_optimizer) or the end of the step.
    ///
    /// # Errors
    ///
    /// There is no such optimizer.
    pub fn toggle_optimizer(&mut self, optimizer: usize) -> Result<()> {
        self.0.state.require_manual("toggle_optimizer")?;
        Ok(self.0.state.toggle_optimizer(optimizer)?)
    }

    /// Undoes [`toggle_optimizer`](Step::toggle_optimizer).
    pub fn untoggle_optimizer(&mut self) {
        self.0.state.untoggle_optimizer();
    }

    /// Clips the gradients of an optimizer's parameters.
    ///
    /// # Errors
    ///
    /// There is no such optimizer, or libtorch refused.
    pub fn clip_gradients(
        &mut self,
        optimizer: usize,
        gradient_clip_val: f64,
        gradient_clip_algorithm: GradientClipAlgorithm,
    ) -> Result<()> {
        self.0.state.require_manual("clip_gradients")?;
        self.0.lend_optimizer(optimizer, |engine, optimizer| {
            engine.state.clip_gradients(optimizer, Some(gradient_clip_val), gradient_clip_algorithm)
        })?
    }

    /// Steps a scheduler: [`TrainerState::lr_scheduler_step`].
    ///
    /// # Errors
    ///
    /// There is no such scheduler, or it refused.
    pub fn lr_scheduler_step(&mut self, scheduler: usize, metric: Option<f64>) -> Result<()> {
        self.0.state.lr_scheduler_step(scheduler, metric)
    }

    /// The optimizer whose turn it is, when several take turns.
    pub fn optimizer_idx(&self) -> usize {
        self.0.state.optimizer_idx()
    }

    fn step_manually<M: LightningModule, T>(
        &mut self,
        module: &mut M,
        optimizer: usize,
        step: impl FnOnce(&mut Engine, &mut M, &mut dyn Optimizer) -> Result<(T, OptimizerStep)>,
    ) -> Result<T> {
        self.0.state.require_manual("optimizer_step")?;
        self.as_caller(|engine| {
            engine.state.run.progress.manual_step.ready();
            let action = engine.state.begin_action(|| "optimizer_step".to_owned());
            let stepped = engine.lend_optimizer(optimizer, |engine, optimizer| step(engine, module, optimizer));
            engine.state.end_action(action);
            let (returned, step) = stepped??;
            if step == OptimizerStep::Taken {
                engine.state.run.progress.manual_step.completed();
            }
            Ok(returned)
        })
    }

    /// Runs what calls hooks, and is itself again afterwards: what is logged next belongs to the step.
    fn as_caller<T>(&mut self, f: impl FnOnce(&mut Engine) -> T) -> T {
        let (hook, owner) = (self.0.state.hook, self.0.state.owner);
        let returned = f(self.0);
        self.0.state.enter(hook, owner);
        returned
    }
}

impl Engine {
    /// An optimizer computes in the kinds of its state, although it steps within the forward pass.
    fn autocast_off(&self) -> Result<Option<AutocastGuard>, FabricError> {
        let device = self.state.device();
        let is_mixed = self.state.fabric.precision().is_mixed();
        Ok(is_mixed.then(|| Autocast::off(device).enter()).transpose()?)
    }

    fn refuse_closure(&self) -> Result<(), Error> {
        let precision = self.state.fabric.precision();
        if !precision.evaluates_first() {
            return Ok(());
        }
        Err(Error::Config(format!(
            "optimizer_step_with evaluates the loss several times, which the gradient scaler of precision {} cannot follow; call optimizer_step after the backward pass, or take precision bf16-mixed",
            precision.name()
        )))
    }

    /// A training step that sees to its optimizers itself; its loss, if it returns one, is only reported.
    pub(crate) fn optimize_manually<M: LightningModule>(
        &mut self,
        module: &mut M,
        batch: &M::Batch,
    ) -> Result<Loss, Error> {
        self.state.fabric.begin_micro_batch(true)?;
        let outputs = self.training_step(module, batch);
        self.state.untoggle_optimizer();
        let mut outputs = outputs?;
        if let Some(loss) = outputs.loss.take() {
            outputs.loss = Some(loss.f_detach().map_err(torch)?);
        }
        Ok(outputs)
    }
}

impl TrainerState {
    /// Steps a scheduler in manual optimization, by its place in what `configure_optimizers` returned. `metric` is what a
    /// scheduler on a plateau watches. In a step, call [`Step::lr_scheduler_step`].
    ///
    /// # Errors
    ///
    /// There is no such scheduler, or it refused.
    pub fn lr_scheduler_step(&mut self, scheduler: usize, metric: Option<f64>) -> Result<()> {
        self.require_manual("lr_scheduler_step")?;
        let there = self.run.schedulers.len();
        let Some(config) = self.run.schedulers.get_mut(scheduler) else {
            return Err(Error::Config(format!(
                "there is no scheduler {scheduler}: configure_optimizers returned {there}, counted from 0"
            ))
            .into());
        };
        let Some(Some(optimizer)) = self.run.optimizers.get_mut(config.optimizer) else {
            return Err(in_a_step(config.optimizer).into());
        };
        Ok(config.scheduler.step(optimizer.as_mut(), metric)?)
    }

    fn require_manual(&self, method: &str) -> Result<(), Error> {
        if self.run.manual {
            return Ok(());
        }
        Err(Error::Config(format!(
            "{method} is for modules that step their optimizers themselves; return `false` from `automatic_optimization`"
        )))
    }

    /// Lets gradients reach the parameters of one optimizer, and none that only others have.
    pub(crate) fn toggle_optimizer(&mut self, index: usize) -> Result<(), Error> {
        self.untoggle_optimizer();
        let of = |optimizer: &dyn Optimizer| -> Vec<Tensor> {
            optimizer.param_groups().iter().flat_map(|group| &group.params).map(Tensor::shallow_clone).collect()
        };
        let Some(own) = self.optimizer(index).map(|optimizer| of(optimizer)) else {
            return Err(no_optimizer(index, self.run.optimizers.len()));
        };
        let own: HashSet<usize> = own.iter().map(tensor_id).collect();
        let others: Vec<Tensor> = (0..self.run.optimizers.len())
            .filter(|&other| other != index)
            .filter_map(|other| self.optimizer(other).map(|optimizer| of(optimizer)))
            .flatten()
            .filter(|parameter| parameter.requires_grad() && !own.contains(&tensor_id(parameter)))
            .collect();
        for parameter in others {
            let _same_tensor = parameter.set_requires_grad(false);
            self.run.toggled.push(parameter);
        }
        Ok(())
    }

    /// Undoes it.
    pub(crate) fn untoggle_optimizer(&mut self) {
        for parameter in self.run.toggled.drain(..) {
            let _same_tensor = parameter.set_requires_grad(true);
        }
    }
}

/// An optimizer was named that is not there.
pub(crate) fn no_optimizer(index: usize, there: usize) -> Error {
    Error::Config(format!("there is no optimizer {index}: configure_optimizers returned {there}, counted from 0"))
}

/// An optimizer was asked for while something else has it.
pub(crate) fn in_a_step(index: usize) -> Error {
    Error::Config(format!("optimizer {index} is in the middle of a step already"))
}
