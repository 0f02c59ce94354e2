//! One step of automatic optimization: loss, backward pass, accumulation, clipping, update.

use fulgurite_optim::Optimizer;
use fulgurite_torch::anomaly::{self, AnomalyWatch};
use fulgurite_torch::grad;
use fulgurite_torch::params::{self, named_parameters};
use fulgurite_torch::tch::Tensor;

use crate::closure::OptimizerClosure;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::hook::Hook;
use crate::loss::Loss;
use crate::module::LightningModule;
use crate::scope::Scope;
use crate::state::{Owner, Window};

/// The evaluation of a batch's loss, which an optimizer may call several times per step.
struct Evaluation<'a, M: LightningModule> {
    batch: &'a M::Batch,
    outputs: Option<Loss>,
    /// The optimizer steps after it, so the window closes.
    closes_window: bool,
    /// The window before this batch.
    window: Window,
}

impl<M: LightningModule> Evaluation<'_, M> {
    /// The loss, with its gradients computed. An undefined tensor when the batch was skipped.
    fn evaluate(
        &mut self,
        engine: &mut Engine,
        module: &mut M,
        optimizer: &mut dyn Optimizer,
    ) -> Result<Tensor, Error> {
        if self.outputs.is_some() && self.window.batches > 0 {
            let window = engine.state.accumulate_grad_batches();
            return Err(Error::Config(format!(
                "the optimizer evaluates the loss several times per step, and accumulate_grad_batches={window} has dropped the earlier batches of the window by then; set it to 1, or use another optimizer"
            )));
        }
        if self.outputs.is_some() && engine.state.fabric.precision().evaluates_first() {
            return Err(Error::Config(format!(
                "optimizer_step evaluates the loss several times per step, which the gradient scaler of precision {} cannot follow; evaluate it once, or use precision bf16-mixed",
                engine.state.fabric.precision().name()
            )));
        }
        // However often it is evaluated, the batch counts once.
        engine.state.fit.epoch.optimization.set_window(self.window);
        engine.state.fabric.begin_micro_batch(self.closes_window)?;
        let mut outputs = engine.training_step(module, self.batch)?;
        if let Some(loss) = &outputs.loss {
            check_loss(loss, module)?;
        } else {
            engine.refuse_skip_where_others_wait()?;
            engine.state.warn("training_step returned no loss; if that is intended, ignore this");
        }

        if self.window.batches == 0 {
            engine.zero_grad(module, optimizer)?;
        }
        if let Some(loss) = outputs.loss.take() {
            engine.backward_share(module, &loss, outputs.weight)?;
            outputs.loss = Some(loss.f_detach().map_err(torch)?);
        } else if self.closes_window && engine.state.is_distributed() {
            engine.contribute_nothing(module)?;
        }
        let weight = outputs.loss.as_ref().map(|_| outputs.weight.unwrap_or(1.0));
        engine.state.fit.epoch.optimization.add_to_window(weight);
        if self.closes_window {
            engine.close_window(module, optimizer)?;
        }
        let loss = outputs.loss.as_ref().map_or_else(Tensor::new, Tensor::shallow_clone);
        self.outputs = Some(outputs);
        Ok(loss)
    }
}

impl Engine {
    /// The optimization of one batch: a step of the optimizer that is active, a contribution to its accumulation
    /// window, or the module's manual optimization.
    pub(crate) fn optimize<M: LightningModule>(&mut self, module: &mut M, batch: &M::Batch) -> Result<Loss, Error> {
        let _watch = self.state.config.detect_anomaly.then(AnomalyWatch::new).transpose()?;
        let optimization = &mut self.state.fit.epoch.optimization;
        if optimization.is_manual() {
            return self.optimize_manually(module, batch);
        }
        if optimization.is_refreshing() {
            return self.refresh_batch_norm(module, batch);
        }
        if optimization.num_optimizers() == 0 {
            return self.without_optimizer(module, batch);
        }
        let index = optimization.optimizer_idx();
        let takes_turns = optimization.num_optimizers() > 1;
        if takes_turns {
            optimization.toggle(index)?;
        }
        let outputs =
            self.lend_optimizer(index, |engine, optimizer| engine.with_optimizer(module, batch, optimizer))?;
        if takes_turns {
            self.state.fit.epoch.optimization.untoggle();
        }
        outputs
    }

    fn with_optimizer<M: LightningModule>(
        &mut self,
        module: &mut M,
        batch: &M::Batch,
        optimizer: &mut dyn Optimizer,
    ) -> Result<Loss, Error> {
        let closes_window = !self.state.is_accumulating();
        let window = self.state.fit.epoch.optimization.window();
        let mut evaluation = Evaluation::<M> { batch, outputs: None, closes_window, window };
        if !closes_window {
            let _loss = evaluation.evaluate(self, module, optimizer)?;
            return Ok(evaluation.outputs.unwrap_or_default());
        }
        self.state.fit.epoch.optimization.begin_step();
        let step = self.in_module(Hook::OptimizerStep, module, |engine, module| {
            let mut evaluate = |engine: &mut Engine, module: &mut M, optimizer: &mut dyn Optimizer| {
                evaluation.evaluate(engine, module, optimizer)
            };
            let mut closure = OptimizerClosure::new(engine, &mut evaluate);
            module.optimizer_step(optimizer, &mut closure)?;
            Ok(closure.step_taken())
        })?;
        let outputs = evaluation.outputs;
        let outputs = outputs.ok_or_else(|| {
            Error::Config(format!(
                "{}::optimizer_step never ran its closure, so there was nothing to step on; call `closure.step(self, optimizer)`",
                LightningModule::name(module)
            ))
        })?;
        self.state.fit.epoch.optimization.end_step(step);
        Ok(outputs)
    }

    /// Training without an optimizer: the step runs and is counted, but nothing is updated.
    fn without_optimizer<M: LightningModule>(&mut self, module: &mut M, batch: &M::Batch) -> Result<Loss, Error> {
        let outputs = self.training_step(module, batch)?;
        if !self.state.is_accumulating() {
            self.state.fit.epoch.optimization.count_step();
        }
        Ok(outputs)
    }

    pub(crate) fn training_step<M: LightningModule>(
        &mut self,
        module: &mut M,
        batch: &M::Batch,
    ) -> Result<Loss, Error> {
        let batch = fulgurite_data::Batch::shallow_clone(batch);
        self.on_step(Hook::TrainingStep, module, |m, step| m.training_step(batch, step))
    }

    fn zero_grad<M: LightningModule>(&mut self, module: &mut M, optimizer: &mut dyn Optimizer) -> Result<(), Error> {
        self.state.fit.epoch.optimization.zero_grads_mut().ready();
        self.on_callbacks(Hook::OnBeforeZeroGrad, module, &mut |c, t, m| c.on_before_zero_grad(t, m, optimizer))?;
        self.on_module(Hook::OnBeforeZeroGrad, module, |m, t| m.on_before_zero_grad(t, optimizer))?;
        self.state.fit.epoch.optimization.zero_grads_mut().started();
        self.on_module(Hook::OptimizerZeroGrad, module, |m, t| m.optimizer_zero_grad(t, optimizer))?;
        self.state.fit.epoch.optimization.zero_grads_mut().completed();
        Ok(())
    }

    /// The backward pass of a batch's share of its window. Hooks see the loss undivided, and times its scale.
    fn backward_share<M: LightningModule>(
        &mut self,
        module: &mut M,
        loss: &Tensor,
        weight: Option<f64>,
    ) -> Result<(), Error> {
        let window = self.state.accumulate_grad_batches();
        let share = if window == 1 { 1.0 } else { weight.unwrap_or(1.0) / window as f64 };
        self.backward(module, loss, share)
    }

    /// Synchronized batch norms of the other ranks wait for this one's backward pass, of every batch.
    fn refuse_skip_where_others_wait(&self) -> Result<(), Error> {
        if self.state.fabric.strategy().sync_batch_norm().is_none() {
            return Ok(());
        }
        Err(Error::Config(format!(
            "training_step of rank {} returned no loss for batch {}, and with sync_batchnorm the other ranks wait for the backward pass of its batch norms; return a loss on every rank (times 0.0, if it should not count), or turn sync_batchnorm off",
            self.state.fabric.global_rank(),
            self.state.batch_idx().unwrap_or_default()
        )))
    }

    /// A skipped batch while other ranks wait for this one's gradients: zero gradients.
    fn contribute_nothing<M: LightningModule>(&mut self, module: &M) -> Result<(), Error> {
        let trained = params::trainable_parameters(module.vars()).into_iter().filter(Tensor::requires_grad);
        let nothing = trained.map(|parameter| parameter.f_sum(None)?.f_mul_scalar(0.0));
        let mut sum: Option<Tensor> = None;
        for term in nothing {
            let term = term.map_err(torch)?;
            sum = Some(match sum {
                Some(sum) => sum.f_add(&term).map_err(torch)?,
                None => term,
            });
        }
        sum.map_or(Ok(()), |zero| Ok(self.state.fabric.backward(&zero)?))
    }

    /// The backward pass of `share` times `loss`, and the hooks around it.
    pub(crate) fn backward<M: LightningModule>(
        &mut self,
        module: &mut M,
        loss: &Tensor,
        share: f64,
    ) -> Result<(), Error> {
        self.profiled_strategy("backward", |engine| engine.backward_hooks(module, loss, share))
    }

    fn backward_hooks<M: LightningModule>(&mut self, module: &mut M, loss: &Tensor, share: f64) -> Result<(), Error> {
        if self.state.config.detect_anomaly {
            let name = || LightningModule::name(module).to_owned();
            anomaly::check_loss(loss, &named_parameters(module.vars()))
                .map_err(|error| self.state.hook_error(Hook::TrainingStep, Owner::Module, &name, error.into()))?;
        } else {
            self.state.note_loss(loss)?;
        }
        let scaled = self.state.fabric.scale_loss(loss)?;
        let loss = scaled.as_ref().unwrap_or(loss);
        self.on_all(
            Hook::OnBeforeBackward,
            module,
            |c, t, m| c.on_before_backward(t, m, loss),
            |m, t| m.on_before_backward(t, loss),
        )?;
        let shared = if share == 1.0 { loss.shallow_clone() } else { loss.f_mul_scalar(share).map_err(torch)? };
        self.on_module(Hook::Backward, module, |m, t| m.backward(t, &shared))
            .map_err(|error| explain_anomaly(module, error))?;
        self.state.diagnostics.look_at_gradients();
        self.on_all(Hook::OnAfterBackward, module, |c, t, m| c.on_after_backward(t, m), |m, t| m.on_after_backward(t))
    }

    /// The gradients are complete: undoes their scale, brings a short or weighted window to its mean, and clips.
    fn close_window<M: LightningModule>(&mut self, module: &mut M, optimizer: &mut dyn Optimizer) -> Result<(), Error> {
        self.state.fabric.unscale_gradients(optimizer)?;
        let window = self.state.accumulate_grad_batches();
        let weight = self.state.fit.epoch.optimization.window().weight;
        if window > 1 && weight > 0.0 && weight != window as f64 {
            let parameters = optimizer.param_groups().iter().flat_map(|group| &group.params);
            grad::scale_grads(parameters, window as f64 / weight)?;
        }
        self.before_optimizer_step(module, optimizer)?;
        let (value, algorithm) = (self.state.config.gradient_clip_val, self.state.config.gradient_clip_algorithm);
        self.on_module(Hook::ConfigureGradientClipping, module, |m, t| {
            m.configure_gradient_clipping(t, optimizer, value, algorithm)
        })
    }

    pub(crate) fn before_optimizer_step<M: LightningModule>(
        &mut self,
        module: &mut M,
        optimizer: &mut dyn Optimizer,
    ) -> Result<(), Error> {
        // A module that optimizes manually may have run the backward pass itself.
        self.state.diagnostics.look_at_gradients();
        self.on_callbacks(Hook::OnBeforeOptimizerStep, module, &mut |c, t, m| {
            c.on_before_optimizer_step(t, m, optimizer)
        })?;
        self.on_module(Hook::OnBeforeOptimizerStep, module, |m, t| m.on_before_optimizer_step(t, optimizer))
    }
}

pub(crate) fn torch(error: fulgurite_torch::tch::TchError) -> Error {
    Error::Torch(error.into())
}

/// Adds the forward operation to libtorch's error for a NaN in the backward pass.
fn explain_anomaly<M: LightningModule>(module: &M, error: Error) -> Error {
    match error {
        Error::Hook { owner, hook, epoch, batch_idx, source } => {
            let explained = anomaly::explain_backward(&source.to_string(), &named_parameters(module.vars()));
            let source = explained.map_or(source, Into::into);
            Error::Hook { owner, hook, epoch, batch_idx, source }
        }
        other => other,
    }
}

fn check_loss<M: LightningModule>(loss: &Tensor, module: &M) -> Result<(), Error> {
    let problem = if !loss.defined() {
        "an undefined tensor; return the loss, or `Loss::skip()` for a batch without one".to_owned()
    } else if loss.dim() > 0 && loss.numel() != 1 {
        format!("a loss of shape {:?}; return one number, for example with `.mean(Kind::Float)`", loss.size())
    } else if !loss.requires_grad() {
        "a loss without a gradient: it does not depend on the module's parameters, or was computed under `no_grad`; compute it from parameters that require a gradient, or return `Loss::skip()`".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::Loss { module: module.name().to_owned(), problem })
}
