//! Precisions: the kinds a step sees, and what a gradient scaler does to steps, hooks, schedulers and checkpoints.

mod kinds;
mod manual;
mod refused;
mod resuming;
mod steps;

use std::sync::{Arc, Mutex};

use fulgurite::Plugin;
use fulgurite::config::GradientClipAlgorithm;
use fulgurite::fabric::{GradScaler, GradScalerOptions, MixedPrecision};
use fulgurite::optim::Optimizer;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite_test_support::quiet;

#[derive(Clone, Default)]
struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    fn push(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }

    fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap()).join("\n")
    }
}

/// One weight `w` of 2, and a loss whose gradient is the batch: `w * x`; for 0 there is none. It writes down what hooks
/// see.
struct Weight {
    vars: nn::VarStore,
    w: Tensor,
    trace: Trace,
    optimizers: fn(&nn::VarStore) -> Optimizers,
}

impl Weight {
    fn new() -> Weight {
        let vars = nn::VarStore::new(Device::Cpu);
        let w = vars.root().var("w", &[], nn::Init::Const(2.0));
        Weight { vars, w, trace: Trace::default(), optimizers: |vars| SGD::new(vars).lr(0.5).into() }
    }

    fn w(&self) -> f64 {
        self.w.double_value(&[])
    }

    fn grad(&self) -> f64 {
        let grad = self.w.grad();
        if grad.defined() { grad.double_value(&[]) } else { 0.0 }
    }
}

impl LightningModule for Weight {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        let loss = &self.w * &x;
        step.log("loss", &loss);
        Ok(if x.double_value(&[]) == 0.0 { Loss::skip() } else { loss.into() })
    }

    fn on_before_backward(&mut self, _: &mut TrainerState, loss: &Tensor) -> Result<()> {
        self.trace.push(format!("  backward of {}", loss.double_value(&[])));
        Ok(())
    }

    fn on_after_backward(&mut self, _: &mut TrainerState) -> Result<()> {
        self.trace.push(format!("  gradient {}", self.grad()));
        Ok(())
    }

    fn on_before_optimizer_step(&mut self, _: &mut TrainerState, _: &mut dyn Optimizer) -> Result<()> {
        self.trace.push(format!("  step with {}", self.grad()));
        Ok(())
    }

    fn configure_gradient_clipping(
        &mut self,
        trainer: &mut TrainerState,
        optimizer: &mut dyn Optimizer,
        value: Option<f64>,
        algorithm: GradientClipAlgorithm,
    ) -> Result<()> {
        trainer.clip_gradients(optimizer, value, algorithm)?;
        if value.is_some() {
            self.trace.push(format!("  clipped to {:.3}", self.grad()));
        }
        Ok(())
    }

    fn on_train_batch_end(&mut self, trainer: &mut TrainerState, loss: &Loss, _: &Tensor, idx: usize) -> Result<()> {
        let scale = trainer.fabric().loss_scale()?;
        let lr = trainer.optimizers().next().unwrap().param_groups()[0].lr;
        let loss = loss.loss().map_or(f64::NAN, |loss| loss.double_value(&[]));
        let (w, step) = (self.w(), trainer.global_step());
        self.trace.push(format!("{idx}: loss {loss}, w {w:.3}, step {step}, lr {lr}, scale {scale}"));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok((self.optimizers)(&self.vars))
    }
}

/// `16-mixed` with autocast on the CPU: a scale of 8 that doubles after two steps.
fn fp16() -> Plugin {
    let scaler = GradScaler::new(GradScalerOptions::default().init_scale(8.0).growth_interval(2)).unwrap();
    Plugin::precision(MixedPrecision::fp16(scaler))
}

fn batches(values: &[f32]) -> Vec<Tensor> {
    values.iter().map(|&x| Tensor::from(x)).collect()
}

const INF: f32 = f32::INFINITY;
