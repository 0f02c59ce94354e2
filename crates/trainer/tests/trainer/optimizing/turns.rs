//! Optimizers that take turns. A run is a line: which optimizer each batch is for, `*` where it steps, `[` per epoch.

use expect_test::{Expect, expect};
use fulgurite::optim::{Optimizer, StepLR};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::params;

use super::{batches, quiet, scalars};

struct Turns {
    vars: nn::VarStore,
    weights: [Tensor; 3],
    frequencies: &'static [u64],
    interval: Option<Interval>,
    trace: String,
}

impl Turns {
    fn new(frequencies: &'static [u64]) -> Turns {
        let (vars, weights) = scalars(["a", "b", "c"]);
        Turns { vars, weights, frequencies, interval: None, trace: String::new() }
    }
}

impl LightningModule for Turns {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn on_train_epoch_start(&mut self, _: &mut TrainerState) -> Result<()> {
        self.trace.push('[');
        Ok(())
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        let turn = step.optimizer_idx();
        self.trace.push_str(&turn.to_string());
        let open = self.weights.iter().enumerate().filter(|(_, weight)| weight.requires_grad()).map(|(index, _)| index);
        let others: Vec<usize> = open.filter(|&index| index < self.frequencies.len() && index != turn).collect();
        assert_eq!(others, [0usize; 0], "gradients reach others than {turn}");
        Ok((&self.weights[0] * &self.weights[1] * &self.weights[2] * x).into())
    }

    fn on_before_optimizer_step(&mut self, _: &mut TrainerState, _: &mut dyn Optimizer) -> Result<()> {
        self.trace.push('*');
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let one = |(weight, &frequency): (&Tensor, &u64)| {
            let mut one = Optimizers::from(SGD::new(std::slice::from_ref(weight)).lr(0.25));
            if let Some(interval) = self.interval {
                one = one.scheduler(LrSchedulerConfig::new(StepLR::new(1).gamma(0.5)).interval(interval));
            }
            one.frequency(frequency)
        };
        let all = self.weights.iter().zip(self.frequencies).map(one);
        Ok(all.reduce(Optimizers::and).unwrap_or_else(Optimizers::none))
    }
}

fn trace(frequencies: &'static [u64], epochs: u64, n: usize, window: u64) -> String {
    let mut module = Turns::new(frequencies);
    let mut trainer = quiet().max_epochs(epochs).accumulate_grad_batches(window).build().unwrap();
    _ = trainer.fit(&mut module, batches(&vec![0.1; n])).unwrap();
    module.trace
}

#[track_caller]
fn check(trace: String, expected: Expect) {
    expected.assert_eq(&trace);
}

#[test]
fn each_has_its_steps_in_a_row_over_epochs() {
    check(trace(&[1, 1], 1, 4, 1), expect!["[0*1*0*1*"]);
    check(trace(&[2, 1], 2, 4, 1), expect!["[0*0*1*0*[0*1*0*0*"]);
    check(trace(&[1, 2, 3], 1, 7, 1), expect!["[0*1*1*2*2*2*0*"]);
    check(trace(&[5], 1, 2, 1), expect!["[0*0*"]);
}

#[test]
fn a_window_belongs_to_one() {
    check(trace(&[1, 1], 1, 5, 2), expect!["[00*11*0*"]);
    check(trace(&[1, 2], 2, 3, 2), expect!["[00*1*[11*0*"]);
}

#[test]
fn schedulers_count_the_steps_of_their_own_optimizer() {
    let rates = |interval| {
        let mut module = Turns { interval: Some(interval), ..Turns::new(&[2, 1]) };
        let mut trainer = quiet().build().unwrap();
        _ = trainer.fit(&mut module, batches(&[0.1; 7])).unwrap();
        let rates: Vec<f64> = trainer.state_mut().optimizers().map(|o| o.param_groups()[0].lr).collect();
        rates
    };
    // 0 0 1 0 0 1 0: five of the first, two of the second.
    assert_eq!(rates(Interval::Step), [0.25 * 0.5f64.powi(5), 0.25 * 0.5f64.powi(2)]);
    assert_eq!(rates(Interval::Epoch), [0.125, 0.125]);
}

#[test]
fn a_resumed_run_goes_on_with_the_turn() {
    let root = tempfile::tempdir().unwrap();
    let data = || batches(&[0.1, 0.2, 0.3, 0.4]);
    let every = ModelCheckpoint::new()
        .dirpath(root.path())
        .every_n_train_steps(1)
        .save_top_k(Maximum::Unlimited)
        .filename("{step}");
    let mut whole = Turns::new(&[1, 2]);
    _ = quiet()
        .enable_checkpointing(true)
        .callback(every)
        .max_epochs(2)
        .build()
        .unwrap()
        .fit(&mut whole, data())
        .unwrap();
    assert_eq!(whole.trace, "[0*1*1*0*[1*1*0*1*");
    let weights = |module: &Turns| {
        let state = params::state_dict(&module.vars).unwrap();
        ["a", "b", "c"].map(|name| state.tensor(name).unwrap().double_value(&[]))
    };
    for step in 1..8 {
        let mut resumed = Turns::new(&[1, 2]);
        let path = root.path().join(format!("step={step}.ckpt"));
        _ = quiet().max_epochs(2).build().unwrap().ckpt_path(path.to_str().unwrap()).fit(&mut resumed, data()).unwrap();
        assert_eq!(weights(&resumed), weights(&whole), "resumed at {step}");
        assert!(whole.trace.ends_with(&resumed.trace), "{}", resumed.trace);
    }
}

#[test]
fn a_step_that_panics_leaves_nothing_toggled() {
    struct Panics(Turns);
    impl LightningModule for Panics {
        type Batch = Tensor;

        fn vars(&self) -> &dyn Parameters {
            &self.0.vars
        }

        fn training_step(&mut self, _: Tensor, _: &mut Step) -> Result<Loss> {
            panic!("no more");
        }

        fn configure_optimizers(&mut self, t: &mut TrainerState) -> Result<Optimizers> {
            self.0.configure_optimizers(t)
        }
    }
    let mut module = Panics(Turns::new(&[1, 1]));
    let mut trainer = quiet().build().unwrap();
    trainer.fit(&mut module, batches(&[1.0])).unwrap_err();
    assert!(module.0.weights.iter().all(Tensor::requires_grad));
    assert_eq!(trainer.state_mut().optimizers().count(), 2);
}

#[test]
fn a_turn_of_no_step_is_refused() {
    let error = quiet().build().unwrap().fit(&mut Turns::new(&[1, 0]), batches(&[1.0])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "an optimizer with a frequency of 0 would never step; write 1 or more, or leave the optimizer out"
    );
}
