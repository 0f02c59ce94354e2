//! Small things in which a run follows the original, each found by comparing random configurations with it.

use std::any::Any;

use fulgurite::loggers::{Logged, MemoryLogger};
use fulgurite::optim::StepLR;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::{ModuleView, TrainerBuilder};

/// One weight, and a note of what was called.
struct Weight {
    vars: nn::VarStore,
    w: Tensor,
    by_hand: bool,
    one_name: bool,
    loaders: Vec<usize>,
    sanity_checks: usize,
}

impl Weight {
    fn new() -> Weight {
        let vars = nn::VarStore::new(Device::Cpu);
        let w = vars.root().var("w", &[], nn::Init::Const(2.0));
        let (loaders, sanity_checks) = (Vec::new(), 0);
        Weight { vars, w, by_hand: false, one_name: false, loaders, sanity_checks }
    }
}

impl LightningModule for Weight {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn automatic_optimization(&self) -> bool {
        !self.by_hand
    }

    fn training_step(&mut self, x: Tensor, step: &mut Step) -> Result<Loss> {
        let loss = &self.w * x;
        step.log("loss", &loss);
        step.log("of_epoch", &loss).epoch_only();
        if self.by_hand {
            step.manual_backward(self, &loss)?;
            step.optimizer_step(self, 0)?;
        }
        Ok(loss.into())
    }

    fn on_train_start(&mut self, trainer: &mut TrainerState) -> Result<()> {
        trainer.log("at_start", 1.0);
        Ok(())
    }

    fn on_validation_start(&mut self, trainer: &mut TrainerState) -> Result<()> {
        self.sanity_checks += usize::from(trainer.is_sanity_checking());
        Ok(())
    }

    fn validation_step(&mut self, x: Tensor, step: &mut Step) -> Result<()> {
        step.log("val", &x).on_step().prog_bar();
        if self.one_name {
            step.log("one", &x).add_dataloader_idx(false);
        }
        Ok(())
    }

    fn predict_step(&mut self, x: Tensor, step: &mut Step) -> Result<Value> {
        self.loaders.push(step.dataloader_idx());
        Ok(x.into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        let halving = LrSchedulerConfig::new(StepLR::new(1).gamma(0.5));
        Ok(Optimizers::from(SGD::new(&self.vars).lr(0.5)).scheduler(halving))
    }
}

fn batches(n: usize) -> Vec<Tensor> {
    (0..n).map(|index| Tensor::from(index as f32)).collect()
}

fn several(loaders: &[usize]) -> Loaders<Tensor> {
    Loaders(loaders.iter().flat_map(|&n| Loaders::from(batches(n)).0).collect())
}

fn quiet() -> TrainerBuilder {
    fulgurite_test_support::quiet().num_sanity_val_steps(0).log_every_n_steps(1)
}

fn names_known_at_batch_end(batch: usize, change: fn(TrainerBuilder) -> TrainerBuilder) -> Vec<String> {
    let logger = MemoryLogger::new();
    let looks = Looks { batch, seen: Vec::new() };
    let mut trainer = change(quiet()).logger(logger).callback(looks).build().unwrap();
    _ = trainer.fit(&mut Weight::new(), batches(2)).unwrap();
    trainer.callback::<Looks>().unwrap().seen.clone()
}

/// Looks at what is known at the end of one batch, and stops there.
struct Looks {
    batch: usize,
    seen: Vec<String>,
}

impl Callback for Looks {
    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &Loss,
        _: &dyn Any,
        batch_idx: usize,
    ) -> Result<()> {
        if batch_idx == self.batch {
            self.seen = trainer.callback_metrics()?.keys().cloned().collect();
            trainer.request_stop("seen");
        }
        Ok(())
    }
}

#[test]
fn a_module_that_steps_by_hand_steps_its_schedulers_too() {
    let mut trainer = quiet().no_logger().max_epochs(3).build().unwrap();
    _ = trainer.fit(&mut Weight { by_hand: true, ..Weight::new() }, batches(1)).unwrap();
    assert_eq!(trainer.state().optimizer(0).unwrap().param_groups()[0].lr, 0.5);
}

#[test]
fn predict_step_knows_its_loader() {
    let mut module = Weight::new();
    let loaders = several(&[2, 1]);
    quiet().no_logger().build().unwrap().predict(&mut module, loaders).unwrap();
    assert_eq!(module.loaders, [0, 0, 1]);
}

#[test]
fn the_bar_keeps_the_last_step_of_an_evaluation() {
    let mut trainer = quiet().no_logger().build().unwrap();
    _ = trainer.fit(&mut Weight::new(), (batches(1), batches(3))).unwrap();
    let bar = trainer.state_mut().progress_bar_metrics().unwrap();
    assert_eq!(bar["val_step"].to_f64(), 2.0);
    assert_eq!(bar["val_epoch"].to_f64(), 1.0);
}

#[test]
fn steps_are_never_written_with_an_interval_of_zero() {
    let logger = MemoryLogger::new();
    let stops = Looks { batch: 0, seen: Vec::new() };
    let mut trainer = quiet().log_every_n_steps(0).logger(logger.clone()).callback(stops).build().unwrap();
    _ = trainer.fit(&mut Weight::new(), batches(2)).unwrap();
    let names: Vec<String> = logger.take().into_iter().flat_map(names).collect();
    assert_eq!(names, ["at_start", "of_epoch", "epoch"]);
}

fn names(call: Logged) -> Vec<String> {
    let Logged::Metrics { metrics, .. } = call else { return Vec::new() };
    metrics.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_look_at_the_metrics_keeps_what_was_logged_before() {
    assert_eq!(names_known_at_batch_end(0, |trainer| trainer), ["loss"]);
    let with_rates = |trainer: TrainerBuilder| trainer.callback(LearningRateMonitor::new());
    assert_eq!(names_known_at_batch_end(0, with_rates), ["at_start", "loss", "lr-SGD"]);
}

#[test]
fn one_name_for_several_loaders_is_an_error() {
    let mut module = Weight { one_name: true, ..Weight::new() };
    let loaders = several(&[1, 1]);
    let error = quiet().no_logger().build().unwrap().validate(&mut module, loaders).unwrap_err();
    assert!(error.to_string().contains("several loaders log it"), "{error}");
}

/// Fits two epochs, and goes on from the checkpoint of `step`.
fn resumed(step: u64, callback: impl Callback) -> (Trainer, Weight) {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = ModelCheckpoint::new().dirpath(folder.path()).filename("{step}").every_n_train_steps(1);
    let checkpoints = checkpoints.save_top_k(Maximum::Unlimited);
    let at_epoch_end =
        ModelCheckpoint::new().dirpath(folder.path()).filename("end-{step}").save_top_k(Maximum::Unlimited);
    let root = folder.path();
    let quiet = || quiet().default_root_dir(root).enable_checkpointing(true).no_logger().num_sanity_val_steps(1);
    let mut trainer = quiet().max_epochs(2).callback(checkpoints).callback(at_epoch_end).build().unwrap();
    _ = trainer.fit(&mut Weight::new(), (batches(3), batches(1))).unwrap();
    let at_end = if step.is_multiple_of(3) { "end-" } else { "" };
    let path = folder.path().join(format!("{at_end}step={step}.ckpt"));
    let (mut trainer, mut module) = (quiet().max_epochs(3).callback(callback).build().unwrap(), Weight::new());
    _ = trainer.ckpt_path(path.to_str().unwrap()).fit(&mut module, (batches(3), batches(1))).unwrap();
    (trainer, module)
}

#[test]
fn a_sanity_check_follows_a_finished_epoch_and_no_other_checkpoint() {
    let looks = || Looks { batch: 9, seen: Vec::new() };
    assert_eq!(resumed(3, looks()).1.sanity_checks, 1);
    assert_eq!(resumed(4, looks()).1.sanity_checks, 0);
}

#[test]
fn values_of_an_epoch_stay_unknown_until_its_end_when_resumed() {
    let (trainer, _) = resumed(1, Looks { batch: 1, seen: Vec::new() });
    let seen = &trainer.callback::<Looks>().unwrap().seen;
    assert!(!seen.is_empty() && !seen.contains(&"of_epoch".to_owned()), "{seen:?}");
}
