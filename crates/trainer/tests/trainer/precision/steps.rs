//! Automatic optimization with a gradient scaler.

use expect_test::{Expect, expect};
use fulgurite::TrainerBuilder;
use fulgurite::callbacks::GradientNorm;
use fulgurite::loggers::{Logged, MemoryLogger};
use fulgurite::optim::{Optimizers, ReduceLROnPlateau, StepLR};
use fulgurite::prelude::*;
use fulgurite::tch::nn;

use super::{INF, Weight, batches, fp16, quiet};

#[track_caller]
fn traced(trainer: TrainerBuilder, values: &[f32], mut module: Weight, expected: Expect) {
    _ = trainer.plugin(fp16()).build().unwrap().fit(&mut module, batches(values)).unwrap();
    expected.assert_eq(&module.trace.take());
}

#[test]
fn hooks_see_the_scaled_loss_and_the_unscaled_gradient_and_a_skipped_step_moves_nothing() {
    let halved = |vars: &nn::VarStore| {
        let step = LrSchedulerConfig::new(StepLR::new(1).gamma(0.5)).interval(Interval::Step);
        Optimizers::from(SGD::new(vars).lr(0.5)).scheduler(step)
    };
    let module = Weight { optimizers: halved, ..Weight::new() };
    traced(
        quiet(),
        &[1.0, INF, 1.0, 1.0, 1.0],
        module,
        expect![[r#"
          backward of 16
          gradient 8
          step with 1
        0: loss 2, w 1.500, step 1, lr 0.25, scale 8
          backward of inf
          gradient inf
          step with inf
        1: loss inf, w 1.500, step 1, lr 0.25, scale 4
          backward of 6
          gradient 4
          step with 1
        2: loss 1.5, w 1.250, step 2, lr 0.125, scale 4
          backward of 5
          gradient 4
          step with 1
        3: loss 1.25, w 1.125, step 3, lr 0.0625, scale 8
          backward of 9
          gradient 8
          step with 1
        4: loss 1.125, w 1.062, step 4, lr 0.03125, scale 8"#]],
    );
}

#[test]
fn a_plateau_scheduler_waits_for_a_step_too() {
    let plateau = |vars: &nn::VarStore| {
        let plateau = ReduceLROnPlateau::new().patience(0).threshold(0.0);
        let config = LrSchedulerConfig::new(plateau).interval(Interval::Step).monitor("loss");
        Optimizers::from(SGD::new(vars).lr(0.5)).scheduler(config)
    };
    let module = Weight { optimizers: plateau, ..Weight::new() };
    traced(
        quiet(),
        &[1.0, INF, 1.0, -1.0, INF],
        module,
        expect![[r#"
          backward of 16
          gradient 8
          step with 1
        0: loss 2, w 1.500, step 1, lr 0.5, scale 8
          backward of inf
          gradient inf
          step with inf
        1: loss inf, w 1.500, step 1, lr 0.5, scale 4
          backward of 6
          gradient 4
          step with 1
        2: loss 1.5, w 1.000, step 2, lr 0.5, scale 4
          backward of -4
          gradient -4
          step with -1
        3: loss -1, w 1.500, step 3, lr 0.5, scale 8
          backward of inf
          gradient inf
          step with inf
        4: loss inf, w 1.500, step 3, lr 0.5, scale 4"#]],
    );
}

#[test]
fn a_window_is_skipped_as_a_whole_and_a_short_one_is_averaged_after_the_scale_is_gone() {
    let trainer = quiet().accumulate_grad_batches(2).gradient_clip_val(1.0);
    traced(
        trainer,
        &[1.0, 3.0, 1.0, INF, 3.0],
        Weight::new(),
        expect![[r#"
          backward of 16
          gradient 4
        0: loss 2, w 2.000, step 0, lr 0.5, scale 8
          backward of 48
          gradient 16
          step with 2
          clipped to 1.000
        1: loss 6, w 1.500, step 1, lr 0.5, scale 8
          backward of 12.000001907348633
          gradient 4
        2: loss 1.500000238418579, w 1.500, step 1, lr 0.5, scale 8
          backward of inf
          gradient inf
          step with inf
          clipped to NaN
        3: loss inf, w 1.500, step 1, lr 0.5, scale 4
          backward of 18.000003814697266
          gradient 6
          step with 3
          clipped to 1.000
        4: loss 4.500000953674316, w 1.000, step 2, lr 0.5, scale 4"#]],
    );
}

#[test]
fn a_batch_without_a_loss_leaves_the_scale_alone() {
    traced(
        quiet(),
        &[0.0, 1.0, 0.0, 1.0],
        Weight::new(),
        expect![[r#"
          step with 0
        0: loss NaN, w 2.000, step 1, lr 0.5, scale 8
          backward of 16
          gradient 8
          step with 1
        1: loss 2, w 1.500, step 2, lr 0.5, scale 8
          step with 0
        2: loss NaN, w 1.500, step 3, lr 0.5, scale 8
          backward of 12
          gradient 8
          step with 1
        3: loss 1.5, w 1.000, step 4, lr 0.5, scale 16"#]],
    );
}

#[test]
fn steps_that_were_skipped_do_not_count_towards_max_steps() {
    let mut module = Weight::new();
    let mut trainer = quiet().max_epochs(Maximum::Unlimited).max_steps(2).plugin(fp16()).build().unwrap();
    _ = trainer.fit(&mut module, batches(&[1.0, INF, INF, 2.0, 1.0])).unwrap();
    let step = trainer.state().progress().optimizer_step.total;
    assert_eq!((module.w(), step.ready, step.completed), (2.0 - 0.5 - 1.0, 4, 2));
}

#[test]
fn logged_norms_are_those_without_the_scale() {
    let logger = MemoryLogger::new();
    let trainer = quiet().logger(logger.clone()).log_every_n_steps(1).callback(GradientNorm::new());
    _ = trainer.plugin(fp16()).build().unwrap().fit(&mut Weight::new(), batches(&[1.0, 3.0])).unwrap();
    let norms = logger.take().into_iter().filter_map(|call| match call {
        Logged::Metrics { metrics, .. } => metrics.into_iter().find(|(name, _)| name.contains("norm")),
        _ => None,
    });
    assert_eq!(norms.map(|(_, norm)| norm).collect::<Vec<_>>(), [1.0, 3.0]);
}

/// Two optimizers that take turns of a step each.
struct Turns(Weight, Tensor);

impl LightningModule for Turns {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.0.vars
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        self.0.trace.push(step.optimizer_idx().to_string());
        Ok((if step.optimizer_idx() == 0 { &self.0.w * x } else { &self.1 * x }).into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let of = |parameter: &Tensor| Optimizers::from(SGD::new(std::slice::from_ref(parameter)).lr(0.5)).frequency(1);
        Ok(of(&self.0.w).and(of(&self.1)))
    }
}

#[test]
fn an_optimizer_whose_step_was_skipped_keeps_its_turn() {
    let first = Weight::new();
    let second = first.vars.root().var("second", &[], nn::Init::Const(2.0));
    let mut module = Turns(first, second);
    _ = quiet().plugin(fp16()).build().unwrap().fit(&mut module, batches(&[1.0, INF, 1.0, INF, 1.0])).unwrap();
    assert_eq!(module.0.trace.take(), "0\n1\n1\n0\n0");
    assert_eq!((module.0.w(), module.1.double_value(&[])), (1.0, 1.5));
}
