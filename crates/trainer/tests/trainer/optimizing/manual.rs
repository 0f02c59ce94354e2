//! Modules that step their optimizers themselves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use expect_test::{Expect, expect};
use fulgurite::ModuleView;
use fulgurite::config::GradientClipAlgorithm;
use fulgurite::optim::{LBFGS, Optimizer, StepLR};
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::{params, serialization};

use super::{batches, quiet, scalars};

type TrainingStep = fn(&mut Pair, Tensor, &mut Step) -> Result<Loss>;

/// Two weights, an optimizer for each.
struct Pair {
    vars: nn::VarStore,
    a: Tensor,
    b: Tensor,
    step: TrainingStep,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Pair {
    fn new(step: TrainingStep) -> Pair {
        let (vars, [a, b]) = scalars(["a", "b"]);
        Pair { vars, a, b, step, notes: Arc::default() }
    }

    fn note(&self, text: impl Into<String>) {
        self.notes.lock().unwrap().push(text.into());
    }

    fn notes(&self) -> String {
        self.notes.lock().unwrap().join(" ")
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
        (self.step)(self, x, step)
    }

    fn on_before_optimizer_step(&mut self, _: &mut TrainerState, optimizer: &mut dyn Optimizer) -> Result<()> {
        let grad = optimizer.param_groups()[0].params[0].grad();
        self.note(format!("before:{}", grad.double_value(&[])));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let sgd = |tensor: &Tensor| Optimizers::from(SGD::new(std::slice::from_ref(tensor)).lr(0.5));
        let by_epoch = StepLR::new(1).gamma(0.1);
        let by_step = LrSchedulerConfig::new(StepLR::new(1).gamma(0.1)).interval(Interval::Step);
        Ok(sgd(&self.a).scheduler(by_epoch).and(sgd(&self.b).scheduler(by_step)))
    }
}

/// One step of both, the second on every other batch.
fn both(module: &mut Pair, x: Tensor, step: &mut Step) -> Result<Loss> {
    let loss = &module.a * &module.b * x;
    step.log("loss", &loss);
    step.manual_backward(module, &loss)?;
    step.optimizer_step(module, 0)?;
    step.zero_grad(0)?;
    if step.batch_idx() % 2 == 1 {
        step.optimizer_step(module, 1)?;
        step.zero_grad(1)?;
    }
    Ok(loss.into())
}

#[test]
fn every_step_of_every_optimizer_counts() {
    let mut module = Pair::new(both);
    let mut trainer = quiet().max_epochs(2).build().unwrap();
    _ = trainer.fit(&mut module, batches(&[1.0, 1.0, 1.0])).unwrap();
    let progress = trainer.state().progress();
    assert_eq!(trainer.state().global_step(), 8);
    assert_eq!((progress.manual_step.total.ready, progress.manual_step.total.completed), (8, 8));
    assert_eq!(progress.optimizer_step.total.completed, 0);
    assert_eq!(progress.batches_that_stepped, 6);
}

#[test]
fn max_steps_and_min_steps_are_steps_of_any_optimizer() {
    for (max_steps, batches_trained) in [(1, 1), (2, 2), (3, 2), (4, 3)] {
        let mut module = Pair::new(both);
        let mut trainer = quiet().max_steps(max_steps).build().unwrap();
        _ = trainer.fit(&mut module, batches(&[1.0; 4])).unwrap();
        assert_eq!(trainer.state().progress().batch.total.completed, batches_trained, "max_steps={max_steps}");
    }
}

#[test]
fn schedulers_are_left_to_the_module() {
    let rates = |module: &mut Pair| {
        let mut trainer = quiet().max_epochs(2).build().unwrap();
        _ = trainer.fit(module, batches(&[1.0, 1.0])).unwrap();
        let rates: Vec<f64> = trainer.state_mut().optimizers().map(|o| o.param_groups()[0].lr).collect();
        rates
    };
    assert_eq!(rates(&mut Pair::new(both)), [0.5, 0.5]);
    let by_hand = |module: &mut Pair, x: Tensor, step: &mut Step| {
        let loss = both(module, x, step)?;
        step.lr_scheduler_step(1, None)?;
        Ok(loss)
    };
    assert_eq!(rates(&mut Pair::new(by_hand)), [0.5, 0.5 * 0.1 * 0.1 * 0.1 * 0.1]);
}

#[test]
fn a_toggled_optimizer_is_alone_until_the_end_of_the_step() {
    let toggles = |module: &mut Pair, x: Tensor, step: &mut Step| {
        let needs =
            |module: &Pair| format!("{}{}", i32::from(module.a.requires_grad()), i32::from(module.b.requires_grad()));
        module.note(needs(module));
        step.toggle_optimizer(0)?;
        module.note(needs(module));
        step.toggle_optimizer(1)?;
        module.note(needs(module));
        let loss = &module.a * &module.b * x;
        step.manual_backward(module, &loss)?;
        module.note(format!("a:{} b:{}", module.a.grad().defined(), module.b.grad().defined()));
        step.untoggle_optimizer();
        module.note(needs(module));
        // What is left toggled is undone.
        step.toggle_optimizer(0)?;
        Ok(Loss::skip())
    };
    let mut module = Pair::new(toggles);
    _ = quiet().build().unwrap().fit(&mut module, batches(&[1.0])).unwrap();
    assert_eq!(module.notes(), "11 10 01 a:false b:true 11");
    assert!(module.a.requires_grad() && module.b.requires_grad());
}

#[test]
fn a_step_that_fails_leaves_nothing_toggled_and_no_optimizer_lost() {
    for (step, expected) in [
        (
            (|_, _, step: &mut Step| {
                step.toggle_optimizer(0)?;
                Err("enough".into())
            }) as TrainingStep,
            "Pair::training_step failed (epoch 0, batch 0): enough",
        ),
        (
            |_, _, step| {
                step.toggle_optimizer(0)?;
                panic!("no more");
            },
            "Pair::training_step panicked (epoch 0, batch 0): no more",
        ),
        (
            |module, _, step| {
                let _first = step.optimizer_step_with(module, 0, |_, _, _| panic!("in the closure"))?;
                Ok(Loss::skip())
            },
            "Pair::training_step panicked (epoch 0, batch 0): in the closure",
        ),
    ] {
        let mut module = Pair::new(step);
        let mut trainer = quiet().build().unwrap();
        let error = trainer.fit(&mut module, batches(&[1.0])).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(module.a.requires_grad() && module.b.requires_grad());
        assert_eq!(trainer.state_mut().optimizers().count(), 2);
    }
}

#[test]
fn gradients_are_clipped_where_the_module_says() {
    let clips = |module: &mut Pair, x: Tensor, step: &mut Step| {
        let loss = &module.a * &module.b * x;
        step.manual_backward(module, &loss)?;
        step.clip_gradients(0, 2.0, GradientClipAlgorithm::Norm)?;
        step.clip_gradients(1, 3.0, GradientClipAlgorithm::Value)?;
        step.optimizer_step(module, 0)?;
        step.optimizer_step(module, 1)?;
        Ok(Loss::skip())
    };
    let mut module = Pair::new(clips);
    _ = quiet().build().unwrap().fit(&mut module, batches(&[100.0])).unwrap();
    let near = |x: f64, y: f64| (x - y).abs() < 1e-5;
    assert!(near(module.a.double_value(&[]), 1.0 - 0.5 * 2.0), "{:?}", module.a);
    assert!(near(module.b.double_value(&[]), 1.0 - 0.5 * 3.0), "{:?}", module.b);
}

#[test]
fn gradients_add_up_until_they_are_dropped() {
    let accumulates = |module: &mut Pair, x: Tensor, step: &mut Step| {
        let loss = &module.a * x;
        step.manual_backward(module, &loss)?;
        if step.batch_idx() == 2 {
            step.optimizer_step(module, 0)?;
        }
        Ok(Loss::skip())
    };
    let mut module = Pair::new(accumulates);
    _ = quiet().build().unwrap().fit(&mut module, batches(&[1.0, 2.0, 3.0])).unwrap();
    assert_eq!((module.notes(), module.a.double_value(&[])), ("before:6".into(), 1.0 - 0.5 * 6.0));
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
        let first = step.optimizer_step_with(self, 0, |module, step, optimizer| {
            optimizer.zero_grad()?;
            let loss = (&module.0.a - &x).square();
            step.log("loss", &loss);
            step.manual_backward(module, &loss)?;
            module.0.note("evaluated");
            Ok(loss)
        })?;
        self.0.note(format!("first:{}", first.double_value(&[])));
        step.log("after", 1.0);
        Ok(Loss::skip())
    }

    fn on_before_optimizer_step(&mut self, t: &mut TrainerState, optimizer: &mut dyn Optimizer) -> Result<()> {
        self.0.on_before_optimizer_step(t, optimizer)
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(LBFGS::new(std::slice::from_ref(&self.0.a)).lr(1.0).max_iter(2).into())
    }
}

#[test]
fn an_optimizer_may_evaluate_the_loss_itself() {
    let mut module = Bowl(Pair::new(both));
    let mut trainer = quiet().build().unwrap();
    _ = trainer.fit(&mut module, batches(&[3.0])).unwrap();
    // The hook follows each evaluation, when its gradients are there; the loss has a closed form.
    assert_eq!(module.0.notes(), "evaluated before:-4 evaluated before:-2 first:4");
    assert_eq!(trainer.state().global_step(), 1);
    assert!(trainer.state_mut().callback_metrics().unwrap().contains_key("after"));
}

#[test]
fn an_error_in_the_closure_is_the_steps() {
    let fails = |module: &mut Pair, _: Tensor, step: &mut Step| {
        let _first = step.optimizer_step_with(module, 0, |_, _, _| Err("the loss ran away".into()))?;
        Ok(Loss::skip())
    };
    let mut trainer = quiet().build().unwrap();
    let error = trainer.fit(&mut Pair::new(fails), batches(&[1.0])).unwrap_err();
    assert_eq!(error.to_string(), "Pair::training_step failed (epoch 0, batch 0): the loss ran away");
    let progress = trainer.state().progress().manual_step.total;
    assert_eq!((progress.ready, progress.completed), (1, 0));
}

#[track_caller]
fn refused(module: &mut impl LightningModule<Batch = Tensor>, trainer: fulgurite::TrainerBuilder, expected: Expect) {
    let error = trainer.build().unwrap().fit(module, batches(&[1.0])).unwrap_err();
    expected.assert_eq(&error.to_string());
}

#[test]
fn what_cannot_be() {
    refused(
        &mut Pair::new(both),
        quiet().gradient_clip_val(1.0),
        expect![
            "gradient_clip_val=1, and the module steps its optimizers itself; call `step.clip_gradients` in training_step instead"
        ],
    );
    refused(
        &mut Pair::new(both),
        quiet().accumulate_grad_batches(2),
        expect![
            "accumulate_grad_batches=2, and the module steps its optimizers itself; call `step.optimizer_step` in training_step every so many batches instead"
        ],
    );
    refused(
        &mut Pair::new(|module, _, step| {
            step.optimizer_step(module, 2)?;
            Ok(Loss::skip())
        }),
        quiet(),
        expect!["there is no optimizer 2: configure_optimizers returned 2, counted from 0"],
    );
    refused(
        &mut Pair::new(|_, _, step| {
            step.toggle_optimizer(3)?;
            Ok(Loss::skip())
        }),
        quiet(),
        expect!["there is no optimizer 3: configure_optimizers returned 2, counted from 0"],
    );
    refused(
        &mut Pair::new(|_, _, step| {
            step.lr_scheduler_step(2, None)?;
            Ok(Loss::skip())
        }),
        quiet(),
        expect!["there is no scheduler 2: configure_optimizers returned 2, counted from 0"],
    );
    refused(
        &mut Pair::new(|module, _, step| {
            let _first = step.optimizer_step_with(module, 0, |module, step, _| {
                step.optimizer_step(module, 0)?;
                Ok(Tensor::from(0))
            })?;
            Ok(Loss::skip())
        }),
        quiet(),
        expect!["optimizer 0 is in the middle of a step already"],
    );
}

/// Automatic, and forgets it.
struct Forgetful(Pair);

impl LightningModule for Forgetful {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.0.vars
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        let loss = &self.0.a * x;
        step.manual_backward(self, &loss)?;
        Ok(loss.into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.0.vars).lr(0.1).into())
    }
}

#[test]
fn what_is_for_manual_optimization_alone() {
    refused(
        &mut Forgetful(Pair::new(both)),
        quiet(),
        expect![
            "manual_backward is for modules that step their optimizers themselves; return `false` from `automatic_optimization`"
        ],
    );
}

/// Asks for checkpoints every step.
fn saves(root: &std::path::Path) -> fulgurite::TrainerBuilder {
    let every =
        ModelCheckpoint::new().dirpath(root).every_n_train_steps(1).save_top_k(Maximum::Unlimited).filename("{step}");
    quiet().enable_checkpointing(true).callback(every)
}

#[test]
fn a_checkpoint_counts_manual_steps_and_a_run_goes_on_from_it() {
    let root = tempfile::tempdir().unwrap();
    let data = || batches(&[1.0, 0.5, 0.25, 2.0]);
    let mut whole = Pair::new(both);
    _ = saves(root.path()).max_epochs(2).build().unwrap().fit(&mut whole, data()).unwrap();
    // Steps: 1, 3, 4, 6 in the first epoch.
    let names = || {
        let mut names: Vec<String> =
            std::fs::read_dir(root.path()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_by_key(|name| (name.len(), name.clone()));
        names.join(" ")
    };
    assert_eq!(
        names(),
        "step=1.ckpt step=3.ckpt step=4.ckpt step=6.ckpt step=7.ckpt step=9.ckpt step=10.ckpt step=12.ckpt"
    );
    let end: BTreeMap<String, f64> = values(&whole);
    for step in [1, 3, 4, 6, 7, 9, 10, 12] {
        let path = root.path().join(format!("step={step}.ckpt"));
        let Value::Dict(saved) = serialization::load(&path).unwrap() else { panic!("no dict") };
        let fit = saved.dict("loops").unwrap().dict("fit_loop").unwrap();
        let counter = fit.dict("epoch_loop.manual_optimization.optim_step_progress").unwrap();
        assert_eq!(counter.dict("total").unwrap().int("completed").unwrap(), step);
        assert_eq!(saved.list("optimizer_states").unwrap().len(), 2);

        let mut resumed = Pair::new(both);
        let mut trainer = quiet().max_epochs(2).build().unwrap();
        _ = trainer.ckpt_path(path.to_str().unwrap()).fit(&mut resumed, data()).unwrap();
        // Gradients that were kept across batches are not in the file, so only where none were open is it the same run.
        if [3, 6, 9, 12].contains(&step) {
            assert_eq!(values(&resumed), end, "resumed at {step}");
        }
        assert_eq!(trainer.state().global_step(), 12);
    }
}

fn values(module: &Pair) -> BTreeMap<String, f64> {
    let state = params::state_dict(&module.vars).unwrap();
    state.keys().map(|key| (key.to_owned(), state.tensor(key).unwrap().double_value(&[]))).collect()
}

/// What callbacks see of the mode.
struct Looks(Arc<Mutex<Option<bool>>>);

impl Callback for Looks {
    fn setup(&mut self, _: &mut TrainerState, module: &mut dyn ModuleView, _: TrainerFn) -> Result<()> {
        *self.0.lock().unwrap() = Some(module.automatic_optimization());
        Ok(())
    }
}

#[test]
fn callbacks_know_the_mode() {
    let seen: Arc<Mutex<Option<bool>>> = Arc::default();
    _ = quiet().callback(Looks(seen.clone())).build().unwrap().fit(&mut Pair::new(both), batches(&[1.0])).unwrap();
    assert_eq!(*seen.lock().unwrap(), Some(false));
}
