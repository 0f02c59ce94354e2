//! Precisions: the kinds a step sees, and what a gradient scaler does to steps, hooks, schedulers and checkpoints.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;
use std::sync::{Arc, Mutex};

use expect_test::{Expect, expect};
use fulgurite::fabric::{GradScaler, GradScalerOptions, MixedPrecision, OptimizerStep};
use fulgurite::optim::{LBFGS, Optimizer, ReduceLROnPlateau, StepLR};
use fulgurite::prelude::*;
use fulgurite::torch::autocast::Autocast;
use fulgurite::torch::{params, serialization};
use fulgurite::{Console, GradientClipAlgorithm, Plugin, SaveRequest, TrainerBuilder};

#[derive(Clone, Default)]
struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    fn push(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }

    fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap()).join("\n")
    }
}

/// One weight `w` of 2, and a loss whose gradient is the batch: `w * x`. It writes down what hooks see.
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

    fn vars(&self) -> &nn::VarStore {
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
        let scaler = trainer.fabric().precision().scaler().map(|scaler| scaler.get_scale().unwrap());
        let lr = trainer.optimizers().next().unwrap().param_groups()[0].lr;
        let loss = loss.loss().map_or(f64::NAN, |loss| loss.double_value(&[]));
        let (w, step) = (self.w(), trainer.global_step());
        self.trace.push(format!("{idx}: loss {loss}, w {w:.3}, step {step}, lr {lr}, scale {scaler:?}"));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok((self.optimizers)(&self.vars))
    }
}

fn quiet() -> TrainerBuilder {
    Trainer::builder()
        .max_epochs(1)
        .accelerator("cpu")
        .no_logger()
        .enable_checkpointing(false)
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .console(Console::memory())
}

/// `16-mixed` where autocast is for the CPU: a scale of 8 that grows after two steps.
fn fp16() -> Plugin {
    let scaler = GradScaler::new(GradScalerOptions::default().init_scale(8.0).growth_interval(2)).unwrap();
    Plugin::precision(MixedPrecision::fp16(scaler))
}

fn batches(values: &[f32]) -> Vec<Tensor> {
    values.iter().map(|&x| Tensor::from(x)).collect()
}

const INF: f32 = f32::INFINITY;

#[track_caller]
fn traced(trainer: TrainerBuilder, values: &[f32], module: Weight, expected: Expect) {
    let mut module = module;
    trainer.plugin(fp16()).build().unwrap().fit(&mut module, batches(values)).unwrap();
    expected.assert_eq(&module.trace.take());
}

#[test]
fn hooks_see_the_scaled_loss_and_the_unscaled_gradient_and_a_skipped_step_moves_nothing() {
    let with_scheduler = |vars: &nn::VarStore| {
        let optimizers: Optimizers = SGD::new(vars).lr(0.5).into();
        optimizers.scheduler(StepLR::new(1).gamma(0.5)).interval(Interval::Step)
    };
    let module = Weight { optimizers: with_scheduler, ..Weight::new() };
    traced(quiet(), &[1.0, INF, 1.0, 1.0, 1.0], module, expect![[r#""#]]);
}

#[test]
fn a_window_is_skipped_as_a_whole_and_short_ones_are_averaged_after_the_scale_is_gone() {
    traced(
        quiet().accumulate_grad_batches(2).gradient_clip_val(1.0),
        &[1.0, 3.0, 1.0, INF, 3.0],
        Weight::new(),
        expect![[r#""#]],
    );
}

#[test]
fn a_batch_without_a_loss_leaves_the_scale_alone() {
    traced(quiet(), &[0.0, 1.0, 0.0, 1.0], Weight::new(), expect![[r#""#]]);
}
