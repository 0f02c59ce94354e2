//! Modules that step their optimizers themselves.

use expect_test::expect;
use fulgurite::fabric::OptimizerStep;
use fulgurite::optim::{LBFGS, Optimizer, Optimizers};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::autocast::Autocast;

use super::{INF, Trace, batches, fp16, quiet};

/// Two weights, each with its own optimizer.
struct Pair {
    vars: nn::VarStore,
    a: Tensor,
    b: Tensor,
    trace: Trace,
    step: fn(&mut Pair, Tensor, &mut Step) -> Result<()>,
}

impl Pair {
    fn new(step: fn(&mut Pair, Tensor, &mut Step) -> Result<()>) -> Pair {
        let vars = nn::VarStore::new(Device::Cpu);
        let [a, b] = ["a", "b"].map(|name| vars.root().var(name, &[], nn::Init::Const(2.0)));
        Pair { vars, a, b, trace: Trace::default(), step }
    }

    fn note(&self, what: &str, step: &mut Step) {
        let scale = step.trainer().fabric().loss_scale().unwrap();
        let [a, b] = [&self.a, &self.b].map(|weight| weight.double_value(&[]));
        self.trace.push(format!("{what}: a {a}, b {b}, step {}, scale {scale}", step.global_step()));
    }
}

impl LightningModule for Pair {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn automatic_optimization(&self) -> bool {
        false
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        (self.step)(self, x, step)?;
        Ok(Loss::skip())
    }

    fn on_before_optimizer_step(&mut self, _: &mut TrainerState, optimizer: &mut dyn Optimizer) -> Result<()> {
        let grad = optimizer.param_groups()[0].params[0].grad();
        self.trace.push(format!("  step with {}", grad.double_value(&[])));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let of = |parameter: &Tensor| Optimizers::from(SGD::new(std::slice::from_ref(parameter)).lr(0.5));
        Ok(of(&self.a).and(of(&self.b)))
    }
}

#[test]
fn one_after_the_other_each_changes_the_scale() {
    let turns = |pair: &mut Pair, x: Tensor, step: &mut Step| {
        for (index, weight) in [pair.a.shallow_clone(), pair.b.shallow_clone()].iter().enumerate() {
            step.zero_grad(index)?;
            step.manual_backward(pair, &(weight * &x))?;
            let stepped = step.optimizer_step(pair, index)?;
            pair.note(&format!("{index} {stepped:?}"), step);
        }
        Ok(())
    };
    let mut pair = Pair::new(turns);
    _ = quiet().plugin(fp16()).build().unwrap().fit(&mut pair, batches(&[1.0, INF])).unwrap();
    expect![[r#"
          step with 1
        0 Taken: a 1.5, b 2, step 1, scale 8
          step with 1
        1 Taken: a 1.5, b 1.5, step 2, scale 16
          step with inf
        0 Skipped: a 1.5, b 1.5, step 2, scale 8
          step with inf
        1 Skipped: a 1.5, b 1.5, step 2, scale 4"#]]
    .assert_eq(&pair.trace.take());
}

/// Their gradients have the same scale, so it must not change between their steps.
#[test]
fn clipped_together_and_stepped_together() {
    let together = |pair: &mut Pair, x: Tensor, step: &mut Step| {
        let loss = (&pair.a + &pair.b) * x;
        for index in 0..2 {
            step.zero_grad(index)?;
        }
        step.manual_backward(pair, &loss)?;
        for index in 0..2 {
            step.clip_gradients(index, 2.0, Default::default())?;
        }
        for index in 0..2 {
            step.optimizer_step(pair, index)?;
        }
        pair.note("both", step);
        Ok(())
    };
    let mut pair = Pair::new(together);
    _ = quiet().plugin(fp16()).build().unwrap().fit(&mut pair, batches(&[1.0, 1.0, INF, 4.0])).unwrap();
    expect![[r#"
          step with 1
          step with 1
        both: a 1.5, b 1.5, step 2, scale 8
          step with 1
          step with 1
        both: a 1, b 1, step 4, scale 16
          step with NaN
          step with NaN
        both: a 1, b 1, step 4, scale 8
          step with 1.9999995231628418
          step with 1.9999995231628418
        both: a 0.0000002384185791015625, b 0.0000002384185791015625, step 6, scale 8"#]]
    .assert_eq(&pair.trace.take());
}

/// A matrix product that was not cast has a backward pass that is not cast either: its gradient is not rounded to 8 bits.
#[test]
fn the_backward_pass_runs_outside_autocast() {
    let steps = |pair: &mut Pair, x: Tensor, step: &mut Step| {
        assert_eq!(Autocast::current(Device::Cpu)?, Some(Kind::BFloat16));
        let product = {
            let _off = Autocast::off(Device::Cpu).enter()?;
            pair.a.reshape([1, 1]).matmul(&x.reshape([1, 1]))
        };
        step.manual_backward(pair, &product.sum(Kind::Float))?;
        assert_eq!(step.optimizer_step(pair, 0)?, OptimizerStep::Taken);
        Ok(())
    };
    let mut pair = Pair::new(steps);
    _ = quiet().precision("bf16-mixed").build().unwrap().fit(&mut pair, batches(&[1.001])).unwrap();
    assert_eq!(pair.a.double_value(&[]), f64::from(2.0f32 - 0.5 * 1.001f32));
    assert_eq!(Autocast::current(Device::Cpu).unwrap(), None);
}

/// One weight, and an optimizer that evaluates the loss several times.
struct Bowl(Pair);

impl LightningModule for Bowl {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.0.vars
    }

    fn automatic_optimization(&self) -> bool {
        false
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        let _first = step.optimizer_step_with(self, 0, |module, step, optimizer| {
            optimizer.zero_grad()?;
            module.0.trace.push(format!("closure: {:?}", Autocast::current(Device::Cpu)?));
            let loss = (&module.0.a - &x).square();
            step.manual_backward(module, &loss)?;
            Ok(loss)
        })?;
        self.0.trace.push(format!("step: {:?}", Autocast::current(Device::Cpu)?));
        Ok(Loss::skip())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(match self.0.trace.take().as_str() {
            "sgd" => SGD::new(std::slice::from_ref(&self.0.a)).lr(1.0).into(),
            _ => LBFGS::new(std::slice::from_ref(&self.0.a)).lr(1.0).max_iter(2).into(),
        })
    }
}

#[test]
fn a_closure_is_evaluated_under_autocast() {
    let mut bowl = Bowl(Pair::new(|_, _, _| Ok(())));
    _ = quiet().precision("bf16-mixed").build().unwrap().fit(&mut bowl, batches(&[3.0])).unwrap();
    assert_eq!(bowl.0.trace.take(), "closure: Some(BFloat16)\nclosure: Some(BFloat16)\nstep: Some(BFloat16)");
}

#[test]
fn a_closure_and_a_scaler_do_not_go_together() {
    let mut bowl = Bowl(Pair::new(|_, _, _| Ok(())));
    bowl.0.trace.push("sgd");
    let error = quiet().plugin(fp16()).build().unwrap().fit(&mut bowl, batches(&[3.0])).unwrap_err();
    expect!["optimizer_step_with evaluates the loss several times, which the gradient scaler of precision 16-mixed cannot follow; call optimizer_step after the backward pass, or use precision bf16-mixed"].assert_eq(&error.to_string());
}
