//! [`OptimizerClosure`]: the closure that an optimizer calls to evaluate the loss.

use fulgurite_fabric::OptimizerStep;
use fulgurite_optim::{OptimError, Optimizer};
use fulgurite_torch::tch::Tensor;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::state::TrainerState;

/// Evaluates the loss of the batch.
type Evaluate<'a, M> = dyn FnMut(&mut Engine, &mut M, &mut dyn Optimizer) -> Result<Tensor, Error> + 'a;

/// Runs the training step and the backward pass of a batch: the closure that an optimizer calls to evaluate the loss.
pub struct OptimizerClosure<'a, M> {
    engine: &'a mut Engine,
    evaluate: &'a mut Evaluate<'a, M>,
    step: OptimizerStep,
}

impl<'a, M> OptimizerClosure<'a, M> {
    pub(crate) fn new(engine: &'a mut Engine, evaluate: &'a mut Evaluate<'a, M>) -> OptimizerClosure<'a, M> {
        OptimizerClosure { engine, evaluate, step: OptimizerStep::Taken }
    }

    /// The outcome of the step.
    pub(crate) fn step_taken(&self) -> OptimizerStep {
        self.step
    }

    /// Steps `optimizer` with this closure.
    ///
    /// # Errors
    ///
    /// Fails if a hook or the optimizer step fails.
    pub fn step(&mut self, module: &mut M, optimizer: &mut dyn Optimizer) -> Result<()> {
        if self.engine.state.fabric.precision().evaluates_first() || !optimizer.needs_closure() {
            let _loss = self.evaluate(module, optimizer)?;
            self.step = self.engine.state.fabric.optimizer_step(optimizer)?;
            return Ok(());
        }
        match optimizer.step_with(&mut |optimizer| Ok(self.evaluate(module, optimizer)?)) {
            Ok(_loss) => Ok(()),
            Err(OptimError::Closure(error)) => Err(error),
            Err(error) => Err(error.into()),
        }
    }

    /// The trainer's state.
    pub fn trainer(&mut self) -> &mut TrainerState {
        &mut self.engine.state
    }

    /// The loss of the batch, with its gradients computed. An undefined tensor when the batch was skipped.
    ///
    /// # Errors
    ///
    /// Fails if a hook fails.
    pub fn evaluate(&mut self, module: &mut M, optimizer: &mut dyn Optimizer) -> Result<Tensor, Error> {
        (self.evaluate)(self.engine, module, optimizer)
    }
}
