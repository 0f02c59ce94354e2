//! Manual optimization: methods for modules that step their optimizers in `training_step`.

use fulgurite_fabric::{FabricError, OptimizerStep, Pass};
use fulgurite_optim::{OptimError, Optimizer};
use fulgurite_torch::autocast::{Autocast, AutocastGuard};
use fulgurite_torch::tch::Tensor;

use super::optimization::torch;
use crate::config::GradientClipAlgorithm;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::module::LightningModule;
use crate::scope::Scope;
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
///         let loss = self.layer.forward(&x).mse_loss(&y, tch::Reduction::Mean);
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
    /// Fails if a hook or the backward pass fails.
    pub fn manual_backward<M: LightningModule>(&mut self, module: &mut M, loss: &Tensor) -> Result<()> {
        self.0.state.require_manual("manual_backward")?;
        Ok(self.0.backward(module, loss, 1.0)?)
    }

    /// Steps an optimizer, preceded by its hook. Every such step increments [`global_step`](Step::global_step),
    /// whichever optimizer takes it, except a skipped one: with precision `16-mixed`, a step with an infinite gradient
    /// is skipped, and schedulers should not step then either.
    ///
    /// # Errors
    ///
    /// Fails if there is no such optimizer, or a hook or the optimizer fails.
    pub fn optimizer_step<M: LightningModule>(&mut self, module: &mut M, optimizer: usize) -> Result<OptimizerStep> {
        self.step_manually(module, optimizer, |engine, module, optimizer| {
            engine.state.fabric.unscale_gradients(optimizer)?;
            engine.before_optimizer_step(module, optimizer)?;
            let _off = engine.autocast_off()?;
            let step = engine.state.fabric.optimizer_step(optimizer)?;
            Ok((step, step))
        })
    }

    /// Steps an optimizer that evaluates the loss itself, possibly several times (LBFGS). `closure` zeroes the
    /// gradients, computes the loss, runs its backward pass and returns it. Returns the first loss.
    ///
    /// # Errors
    ///
    /// Fails if there is no such optimizer, or the closure, a hook or the optimizer fails.
    pub fn optimizer_step_with<M: LightningModule>(
        &mut self,
        module: &mut M,
        optimizer: usize,
        mut closure: impl FnMut(&mut M, &mut Step, &mut dyn Optimizer) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.step_manually(module, optimizer, |engine, module, optimizer| {
            engine.refuse_closure()?;
            let _off = engine.autocast_off()?;
            let stepped = optimizer.step_with(&mut |optimizer| {
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

    /// Zeroes the gradients of an optimizer's parameters.
    ///
    /// # Errors
    ///
    /// Fails if there is no such optimizer, or as [`Optimizer::zero_grad`](fulgurite_optim::Optimizer::zero_grad) does.
    pub fn zero_grad(&mut self, optimizer: usize) -> Result<()> {
        self.0.state.require_manual("zero_grad")?;
        Ok(self.0.lend_optimizer(optimizer, |_, optimizer| optimizer.zero_grad())??)
    }

    /// Makes only this optimizer's parameters require gradients, until [`untoggle_optimizer`](Step::untoggle_optimizer)
    /// or the end of the step. Parameters of other optimizers that it does not share are disabled.
    ///
    /// # Errors
    ///
    /// Fails if there is no such optimizer.
    pub fn toggle_optimizer(&mut self, optimizer: usize) -> Result<()> {
        self.0.state.require_manual("toggle_optimizer")?;
        Ok(self.0.state.fit.epoch.optimization.toggle(optimizer)?)
    }

    /// Reverts [`toggle_optimizer`](Step::toggle_optimizer).
    pub fn untoggle_optimizer(&mut self) {
        self.0.state.fit.epoch.optimization.untoggle();
    }

    /// Clips the gradients of an optimizer's parameters.
    ///
    /// # Errors
    ///
    /// Fails if there is no such optimizer, or clipping fails.
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

    /// Steps a scheduler: [`TrainerState::lr_scheduler_step`](crate::TrainerState::lr_scheduler_step).
    ///
    /// # Errors
    ///
    /// Fails if there is no such scheduler, or its step fails.
    pub fn lr_scheduler_step(&mut self, scheduler: usize, metric: Option<f64>) -> Result<()> {
        self.0.state.lr_scheduler_step(scheduler, metric)
    }

    /// The active optimizer, when several take turns.
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
        self.0.state.fit.epoch.optimization.begin_manual_step();
        let stepped = self.0.profiled(
            |_| "optimizer_step".to_owned(),
            |engine| engine.lend_optimizer(optimizer, |engine, optimizer| step(engine, module, optimizer)),
        );
        let (returned, step) = stepped??;
        self.0.state.fit.epoch.optimization.end_manual_step(step);
        Ok(returned)
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
            "optimizer_step_with evaluates the loss several times, which the gradient scaler of precision {} cannot follow; call optimizer_step after the backward pass, or use precision bf16-mixed",
            precision.name()
        )))
    }

    /// A training step with manual optimization; its loss, if it returns one, is only reported.
    pub(crate) fn optimize_manually<M: LightningModule>(
        &mut self,
        module: &mut M,
        batch: &M::Batch,
    ) -> Result<Loss, Error> {
        self.state.fabric.begin_micro_batch(true)?;
        let outputs = self.training_step(module, batch);
        self.state.fit.epoch.optimization.untoggle();
        let mut outputs = outputs?;
        if let Some(loss) = outputs.loss.take() {
            outputs.loss = Some(loss.f_detach().map_err(torch)?);
        }
        Ok(outputs)
    }
}
