//! What a gradient scaler cannot follow.

use expect_test::{Expect, expect};
use fulgurite::optim::{LBFGS, Optimizer};
use fulgurite::prelude::*;
use fulgurite::{OptimizerClosure, TrainerBuilder};

use super::{INF, Weight, batches, fp16, quiet};

#[track_caller]
fn refused(trainer: TrainerBuilder, module: &mut impl LightningModule<Batch = Tensor>, x: &[f32], expected: Expect) {
    let error = trainer.build().unwrap().fit(module, batches(x)).unwrap_err();
    expected.assert_eq(&error.to_string());
}

#[test]
fn an_optimizer_that_evaluates_the_loss_itself_is_refused_before_training() {
    let mut module = Weight { optimizers: |vars| LBFGS::new(vars).into(), ..Weight::new() };
    refused(
        quiet().plugin(fp16()),
        &mut module,
        &[1.0],
        expect![
            "LBFGS evaluates the loss several times in a step, which a gradient scaler does not support; use another optimizer, or precision bf16-mixed"
        ],
    );
    assert_eq!(module.trace.take(), "");
}

struct Twice(Weight);

impl LightningModule for Twice {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.0.vars
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        self.0.training_step(x, step)
    }

    fn optimizer_step(
        &mut self,
        optimizer: &mut dyn Optimizer,
        closure: &mut OptimizerClosure<'_, Self>,
    ) -> Result<()> {
        let _ = closure.evaluate(self, optimizer)?;
        closure.step(self, optimizer)
    }

    fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
        self.0.configure_optimizers(trainer)
    }
}

#[test]
fn a_loss_is_evaluated_once_per_step() {
    refused(
        quiet().plugin(fp16()),
        &mut Twice(Weight::new()),
        &[1.0],
        expect![
            "optimizer_step evaluates the loss several times per step, which the gradient scaler of precision 16-mixed cannot follow; evaluate it once, or use precision bf16-mixed"
        ],
    );
}

/// With `max_steps` alone such a run would never end, as skipped steps do not count.
#[test]
fn a_loss_that_is_never_finite_ends_the_run() {
    let endless = quiet().max_epochs(Maximum::Unlimited).max_steps(10).plugin(fp16());
    refused(
        endless,
        &mut Weight::new(),
        &[INF],
        expect![
            "Weight::optimizer_step failed (epoch 17, batch 0): the gradients are infinite or NaN in every step, although the loss scale is down to 3.0517578125e-5, so the scale is not the cause; find the cause with `detect_anomaly`, lower the learning rate, or use precision bf16-mixed"
        ],
    );
}
