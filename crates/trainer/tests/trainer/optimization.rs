//! What one optimizer step does to the weights, against the sum done by hand.

use std::sync::{Arc, Mutex};

use fulgurite::optim::{LBFGS, Optimizer};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite_test_support::{batches, quiet};

/// One weight `w`, and a loss whose gradient is the batch: `w * x`.
struct Weight {
    vars: nn::VarStore,
    w: Tensor,
    optimizers: fn(&nn::VarStore) -> Optimizers,
    loss: fn(&Tensor, &Tensor) -> Loss,
    /// Gradients that steps were taken with.
    grads: Vec<f64>,
    evaluations: usize,
    inference: Vec<bool>,
}

impl Weight {
    fn new(loss: fn(&Tensor, &Tensor) -> Loss) -> Weight {
        let vars = nn::VarStore::new(Device::Cpu);
        let w = vars.root().var("w", &[], nn::Init::Const(2.0));
        let optimizers = |vars: &nn::VarStore| SGD::new(vars).lr(1.0).into();
        Weight { vars, w, optimizers, loss, grads: Vec::new(), evaluations: 0, inference: Vec::new() }
    }

    fn w(&self) -> f64 {
        self.w.double_value(&[])
    }
}

impl LightningModule for Weight {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, x: Tensor, _: &mut Step) -> Result<Loss> {
        self.evaluations += 1;
        Ok((self.loss)(&self.w, &x))
    }

    fn validation_step(&mut self, x: Tensor, step: &mut Step) -> Result<()> {
        self.inference.push((&self.w * &x).is_inference());
        step.log("val_loss", x);
        Ok(())
    }

    fn on_before_optimizer_step(&mut self, _: &mut TrainerState, optimizer: &mut dyn Optimizer) -> Result<()> {
        let grad = optimizer.param_groups()[0].params[0].grad();
        self.grads.push(if grad.defined() { grad.double_value(&[]) } else { 0.0 });
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok((self.optimizers)(&self.vars))
    }
}

/// The gradients that steps were taken with.
fn grads(window: u64, values: &[f64], loss: fn(&Tensor, &Tensor) -> Loss) -> Vec<f64> {
    let mut module = Weight::new(loss);
    _ = quiet().accumulate_grad_batches(window).build().unwrap().fit(&mut module, batches(values)).unwrap();
    module.grads
}

/// Lightning would divide the last by 3 as well.
#[test]
fn a_short_window_is_averaged_over_the_batches_it_has() {
    let product = |w: &Tensor, x: &Tensor| Loss::from(w * x);
    assert_eq!(grads(3, &[1.0, 2.0, 6.0, 4.0, 8.0], product), [3.0, 6.0]);
    assert_eq!(grads(4, &[5.0], product), [5.0]);
    assert_eq!(grads(2, &[1.0, 3.0, 5.0], product), [2.0, 5.0]);
}

#[test]
fn batches_of_a_window_may_weigh_differently() {
    // Each weighs what it is.
    let weighted = |w: &Tensor, x: &Tensor| Loss::from(w * x).weight(x.double_value(&[]));
    assert_eq!(grads(2, &[1.0, 3.0, 6.0], weighted), [(1.0 + 9.0) / 4.0, 6.0]);
    assert_eq!(grads(1, &[1.0, 3.0], weighted), [1.0, 3.0]);
}

#[test]
fn a_skipped_batch_weighs_nothing() {
    let no_threes = |w: &Tensor, x: &Tensor| if x.double_value(&[]) == 3.0 { Loss::skip() } else { Loss::from(w * x) };
    assert_eq!(grads(1, &[1.0, 3.0, 2.0], no_threes), [1.0, 0.0, 2.0]);
    assert_eq!(grads(2, &[3.0, 5.0, 6.0, 3.0, 3.0, 3.0], no_threes), [5.0, 6.0, 0.0]);
}

#[test]
fn an_epoch_that_the_module_ends_leaves_nothing_to_the_next() {
    struct Ends(Weight);
    impl LightningModule for Ends {
        type Batch = Tensor;

        fn vars(&self) -> &dyn Parameters {
            &self.0.vars
        }

        fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
            self.0.training_step(x, step)
        }

        fn configure_optimizers(&mut self, trainer: &mut TrainerState) -> Result<Optimizers> {
            self.0.configure_optimizers(trainer)
        }

        fn on_train_batch_start(
            &mut self,
            trainer: &mut TrainerState,
            _: &Tensor,
            batch_idx: usize,
        ) -> Result<fulgurite::BatchFlow> {
            let ends = trainer.current_epoch() == 0 && batch_idx == 1;
            Ok(if ends { fulgurite::BatchFlow::EndEpoch } else { fulgurite::BatchFlow::Continue })
        }

        fn on_before_optimizer_step(&mut self, t: &mut TrainerState, optimizer: &mut dyn Optimizer) -> Result<()> {
            self.0.on_before_optimizer_step(t, optimizer)
        }
    }
    let mut module = Ends(Weight::new(|w, x| (w * x).into()));
    let mut trainer = quiet().max_epochs(2).accumulate_grad_batches(2).build().unwrap();
    _ = trainer.fit(&mut module, batches(&[1.0, 3.0])).unwrap();
    assert_eq!(module.0.grads, [2.0]);
}

#[test]
fn without_an_optimizer_steps_run_and_nothing_moves() {
    let mut module = Weight { optimizers: |_| Optimizers::none(), ..Weight::new(|w, x| (w * x).into()) };
    let mut trainer = quiet().max_epochs(2).build().unwrap();
    _ = trainer.fit(&mut module, batches(&[1.0, 2.0])).unwrap();
    assert_eq!((module.evaluations, module.w(), trainer.state().global_step()), (4, 2.0, 4));
    let mut skips = Weight { optimizers: |_| Optimizers::none(), ..Weight::new(|_, _| Loss::skip()) };
    _ = quiet().build().unwrap().fit(&mut skips, batches(&[1.0])).unwrap();
}

#[test]
fn an_optimizer_may_evaluate_a_batch_several_times() {
    let parabola = |w: &Tensor, x: &Tensor| Loss::from((w - x).square().square());
    let lbfgs = |vars: &nn::VarStore| LBFGS::new(vars).lr(0.5).max_iter(5).into();
    let mut module = Weight { optimizers: lbfgs, ..Weight::new(parabola) };
    let mut trainer = quiet().max_epochs(2).build().unwrap();
    _ = trainer.fit(&mut module, batches(&[1.0])).unwrap();
    assert!(module.evaluations > 4, "{}", module.evaluations);
    assert_eq!(module.grads.len(), module.evaluations);
    // Each evaluation drops the gradients of the one before: the first is 4 (w - x)^3 at w = 2.
    assert_eq!(module.grads[0], 4.0);
    assert!(module.grads.iter().all(|grad| grad.abs() <= 4.0), "{:?}", module.grads);
    assert!((module.w() - 1.0).abs() < 0.5, "{}", module.w());
    assert_eq!(trainer.state().global_step(), 2);

    let mut module = Weight { optimizers: lbfgs, ..Weight::new(parabola) };
    let error = quiet().accumulate_grad_batches(2).build().unwrap().fit(&mut module, batches(&[1.0, 1.0])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the optimizer evaluates the loss several times per step, and accumulate_grad_batches=2 has dropped the earlier batches of the window by then; set it to 1, or use another optimizer"
    );
}

#[test]
fn settings_of_an_optimizer_that_make_no_sense_end_the_run_before_it_begins() {
    let mut module = Weight { optimizers: |vars| SGD::new(vars).lr(-1.0).into(), ..Weight::new(|w, x| (w * x).into()) };
    let error = quiet().build().unwrap().fit(&mut module, batches(&[1.0])).unwrap_err();
    assert!(matches!(error, Error::Optim(_)), "{error}");
    assert_eq!(module.evaluations, 0);
}

#[test]
fn gradients_are_off_in_evaluation_and_inference_mode_only_outside_fit() {
    let product = |w: &Tensor, x: &Tensor| Loss::from(w * x);
    for (inference_mode, expected) in [(true, [false, true]), (false, [false, false])] {
        let mut module = Weight::new(product);
        let mut trainer = quiet().num_sanity_val_steps(0).inference_mode(inference_mode).build().unwrap();
        _ = trainer.fit(&mut module, (batches(&[1.0]), batches(&[1.0]))).unwrap();
        trainer.validate(&mut module, Loaders::from(batches(&[1.0]))).unwrap();
        assert_eq!(module.inference, expected);
        // What was made under inference mode cannot be trained on; the weights still can.
        _ = trainer.fit(&mut module, batches(&[1.0])).unwrap();
    }
}

/// What the module saw of its inputs.
type Kinds = Arc<Mutex<Vec<Kind>>>;

#[test]
fn in_double_precision_weights_inputs_and_losses_are_double() {
    struct Looks(Weight, Kinds);
    impl LightningModule for Looks {
        type Batch = (Tensor, Tensor);

        fn vars(&self) -> &dyn Parameters {
            &self.0.vars
        }

        fn training_step(&mut self, (x, label): (Tensor, Tensor), _: &mut Step) -> Result<Loss> {
            let loss = &self.0.w * x.shallow_clone();
            self.1.lock().unwrap().extend([x.kind(), label.kind(), loss.kind(), self.0.w.kind()]);
            Ok(loss.into())
        }

        fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
            Ok(SGD::new(&self.0.vars).lr(0.1).into())
        }
    }
    let kinds = Kinds::default();
    let mut module = Looks(Weight::new(|_, _| Loss::skip()), kinds.clone());
    let data = vec![(Tensor::from(0.1f32), Tensor::from(1i64))];
    _ = quiet().precision("64-true").build().unwrap().fit(&mut module, data).unwrap();
    assert_eq!(*kinds.lock().unwrap(), [Kind::Double, Kind::Int64, Kind::Double, Kind::Double]);
    assert_eq!(module.0.w(), 2.0 - 0.1 * f64::from(0.1f32));
}
