//! The parts of a step that a module may take over.

use fulgurite::OptimizerClosure;
use fulgurite::config::GradientClipAlgorithm;
use fulgurite::optim::{LrScheduler, Optimizer, StepLR};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::params;

use super::{batches, quiet, scalars};

/// Steps on every other batch, clips in its own way, and steps its scheduler twice.
struct Own {
    vars: nn::VarStore,
    w: Tensor,
    clipped_with: Vec<(Option<f64>, GradientClipAlgorithm)>,
    steps: fn(&mut Own, &mut dyn Optimizer, &mut OptimizerClosure<'_, Own>) -> Result<()>,
}

impl Own {
    fn new(steps: fn(&mut Own, &mut dyn Optimizer, &mut OptimizerClosure<'_, Own>) -> Result<()>) -> Own {
        let (vars, [w]) = scalars(["w"]);
        Own { vars, w, clipped_with: Vec::new(), steps }
    }
}

impl LightningModule for Own {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, x: Tensor, _: &mut Step) -> Result<Loss> {
        Ok((&self.w * x).into())
    }

    fn optimizer_step(
        &mut self,
        optimizer: &mut dyn Optimizer,
        closure: &mut OptimizerClosure<'_, Self>,
    ) -> Result<()> {
        (self.steps)(self, optimizer, closure)
    }

    fn configure_gradient_clipping(
        &mut self,
        _: &mut TrainerState,
        optimizer: &mut dyn Optimizer,
        value: Option<f64>,
        algorithm: GradientClipAlgorithm,
    ) -> Result<()> {
        self.clipped_with.push((value, algorithm));
        for parameter in optimizer.param_groups().iter().flat_map(|group| &group.params) {
            let _in_place = parameter.grad().fill_(0.25);
        }
        Ok(())
    }

    fn lr_scheduler_step(
        &mut self,
        _: &mut TrainerState,
        scheduler: &mut dyn LrScheduler,
        optimizer: &mut dyn Optimizer,
        metric: Option<f64>,
    ) -> Result<()> {
        scheduler.step(optimizer, metric)?;
        Ok(scheduler.step(optimizer, metric)?)
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let scheduler = LrSchedulerConfig::new(StepLR::new(1).gamma(0.5)).interval(Interval::Step);
        Ok(Optimizers::from(SGD::new(&self.vars).lr(1.0)).scheduler(scheduler))
    }
}

#[test]
fn clipping_and_schedulers() {
    let mut module = Own::new(|module, optimizer, closure| closure.step(module, optimizer));
    let mut trainer =
        quiet().gradient_clip_val(7.0).gradient_clip_algorithm(GradientClipAlgorithm::Value).build().unwrap();
    _ = trainer.fit(&mut module, batches(&[100.0, 100.0])).unwrap();
    assert_eq!(module.clipped_with, [(Some(7.0), GradientClipAlgorithm::Value); 2]);
    // The rate is 1, then a quarter of it.
    assert_eq!(module.w.double_value(&[]), 1.0 - 0.25 - 0.25 * 0.25);
}

#[test]
fn a_step_may_be_left_out_and_its_loss_still_evaluated() {
    let mut module = Own::new(|module, optimizer, closure| {
        if closure.trainer().global_step() % 2 == 0 {
            return closure.step(module, optimizer);
        }
        let _loss = closure.evaluate(module, optimizer)?;
        Ok(())
    });
    let mut trainer = quiet().build().unwrap();
    _ = trainer.fit(&mut module, batches(&[1.0; 4])).unwrap();
    // The first and the third batch: rates 1 and 1/16.
    assert_eq!(module.w.double_value(&[]), 1.0 - 0.25 - 0.25 / 16.0);
    assert_eq!(trainer.state().global_step(), 4);
}

#[test]
fn a_warm_up_by_hand() {
    let mut module = Own::new(|module, optimizer, closure| {
        closure.step(module, optimizer)?;
        let rate = (closure.trainer().global_step() + 1) as f64;
        optimizer.param_groups_mut()[0].lr = rate;
        Ok(())
    });
    _ = quiet().build().unwrap().fit(&mut module, batches(&[1.0])).unwrap();
    assert_eq!(module.w.double_value(&[]), 0.75);
}

#[test]
fn a_closure_that_never_runs_is_an_error() {
    let mut module = Own::new(|_, _, _| Ok(()));
    let error = quiet().build().unwrap().fit(&mut module, batches(&[1.0])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Own::optimizer_step never ran its closure, so there was nothing to step on; call `closure.step(self, optimizer)`"
    );
}

#[test]
fn a_factory_that_panicked_makes_the_optimizer_of_the_next_fit() {
    let mut module = Own::new(|module, optimizer, closure| closure.step(module, optimizer));
    let mut calls = 0;
    let factory = move |vars: &dyn Parameters, _: &TrainerState| {
        calls += 1;
        assert!(calls > 1, "out of luck");
        Ok(Adam::new(params::trainable_parameters(vars)).into())
    };
    let mut trainer = quiet().optimizers(factory).build().unwrap();
    trainer.fit(&mut module, batches(&[1.0])).unwrap_err();
    _ = trainer.fit(&mut module, batches(&[1.0])).unwrap();
    assert_eq!(trainer.state().optimizer(0).unwrap().name(), "Adam");
}
