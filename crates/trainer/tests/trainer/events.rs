//! What a run does, as one line: epochs in brackets, batches by index, `*` for an optimizer step after one, `v3` for a
//! validation of three batches, `s2` for the sanity check.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use expect_test::{Expect, expect};
use fulgurite::config::ValCheckInterval;
use fulgurite::data::{BatchIter, DataError, Loader};
use fulgurite::loggers::{Logged, MemoryLogger};
use fulgurite::optim::Optimizer;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::{BatchFlow, ModuleView, TrainerBuilder};
use fulgurite_test_support::ones;

#[derive(Clone, Default)]
struct Trace(Arc<Mutex<String>>);

impl Trace {
    fn push(&self, text: &str) {
        self.0.lock().unwrap().push_str(text);
    }
}

struct Tracer {
    trace: Trace,
    validated: usize,
}

impl Callback for Tracer {
    fn on_train_epoch_start(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.trace.push(&format!("[{}:", trainer.current_epoch()));
        Ok(())
    }

    fn on_train_batch_start(
        &mut self,
        _: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &dyn std::any::Any,
        batch_idx: usize,
    ) -> Result<()> {
        self.trace.push(&format!(" {batch_idx}"));
        Ok(())
    }

    fn on_before_optimizer_step(
        &mut self,
        _: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &mut dyn Optimizer,
    ) -> Result<()> {
        self.trace.push("*");
        Ok(())
    }

    fn on_validation_start(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.validated = 0;
        Ok(())
    }

    fn on_validation_batch_end(
        &mut self,
        _: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &Value,
        _: &dyn std::any::Any,
        _: usize,
        _: usize,
    ) -> Result<()> {
        self.validated += 1;
        Ok(())
    }

    fn on_validation_end(&mut self, trainer: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        let kind = if trainer.is_sanity_checking() { "s" } else { " v" };
        self.trace.push(&format!("{kind}{}", self.validated));
        Ok(())
    }

    fn on_train_epoch_end(&mut self, _: &mut TrainerState, _: &mut dyn ModuleView) -> Result<()> {
        self.trace.push("]");
        Ok(())
    }
}

struct Line {
    vars: nn::VarStore,
    layer: nn::Linear,
    stop_epoch_at: Option<usize>,
}

impl LightningModule for Line {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Tensor, step: &mut Step) -> Result<Loss> {
        let loss = batch.apply(&self.layer).square().mean(Kind::Float);
        step.log("loss", &loss).on_epoch();
        Ok(loss.into())
    }

    fn validation_step(&mut self, batch: Tensor, step: &mut Step) -> Result<()> {
        step.log("val_loss", batch.apply(&self.layer).square().mean(Kind::Float));
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(0.001).into())
    }

    fn on_train_batch_start(&mut self, _: &mut TrainerState, _: &Tensor, batch_idx: usize) -> Result<BatchFlow> {
        Ok(if self.stop_epoch_at == Some(batch_idx) { BatchFlow::EndEpoch } else { BatchFlow::Continue })
    }
}

fn line() -> Line {
    let vars = nn::VarStore::new(Device::Cpu);
    let layer = nn::linear(vars.root(), 2, 1, Default::default());
    Line { vars, layer, stop_epoch_at: None }
}

/// A loader that does not know its length.
struct Unsized(usize);

impl Loader for Unsized {
    type Batch = Tensor;

    fn len(&self) -> Option<usize> {
        None
    }

    fn iter(&self, _: u64, skip: usize) -> Result<BatchIter<Tensor>, DataError> {
        Ok(Box::new(ones(self.0, [2, 2]).into_iter().skip(skip).map(Ok)))
    }
}

/// A loader that says that it has `.0` batches, and has `.1`.
struct Mistaken(usize, usize);

impl Loader for Mistaken {
    type Batch = Tensor;

    fn len(&self) -> Option<usize> {
        Some(self.0)
    }

    fn iter(&self, epoch: u64, skip: usize) -> Result<BatchIter<Tensor>, DataError> {
        Unsized(self.1).iter(epoch, skip)
    }
}

fn quiet() -> TrainerBuilder {
    fulgurite_test_support::quiet().num_sanity_val_steps(0)
}

/// Fits a line on `train` training batches and 3 validation batches.
fn events_with(
    train: Loaders<Tensor>,
    mut module: Line,
    arguments: impl FnOnce(TrainerBuilder) -> TrainerBuilder,
) -> String {
    let trace = Trace::default();
    let tracer = Tracer { trace: trace.clone(), validated: 0 };
    let mut trainer = arguments(quiet()).callback(tracer).build().unwrap();
    _ = trainer.fit(&mut module, (train, ones(3, [2, 2]))).unwrap();
    let trace = trace.0.lock().unwrap();
    trace.clone()
}

fn events_of(train: usize, arguments: impl FnOnce(TrainerBuilder) -> TrainerBuilder) -> String {
    events_with(ones(train, [2, 2]).into(), line(), arguments)
}

#[track_caller]
fn check(events: String, expected: Expect) {
    expected.assert_eq(&events);
}

#[test]
fn run_length() {
    check(events_of(2, |t| t.max_epochs(2)), expect!["[0: 0* 1* v3][1: 0* 1* v3]"]);
    check(events_of(2, |t| t.max_epochs(0)), expect![""]);
    check(events_of(2, |t| t.max_epochs(Maximum::Unlimited).max_steps(3)), expect!["[0: 0* 1* v3][1: 0*]"]);
    check(events_of(2, |t| t.max_epochs(9).max_steps(0)), expect![""]);
    check(
        events_of(2, |t| t.max_epochs(9).max_steps(2).accumulate_grad_batches(2)),
        expect!["[0: 0 1* v3][1: 0 1* v3]"],
    );
    check(events_of(4, |t| t.limit_train_batches(2)), expect!["[0: 0* 1* v3]"]);
    check(events_of(4, |t| t.limit_train_batches(0.5)), expect!["[0: 0* 1* v3]"]);
    check(events_of(4, |t| t.limit_train_batches(0)), expect![""]);
    check(events_of(4, |t| t.limit_train_batches(1.0).limit_val_batches(1)), expect!["[0: 0* 1* 2* 3* v1]"]);
    check(events_of(4, |t| t.limit_val_batches(0)), expect!["[0: 0* 1* 2* 3*]"]);
    check(events_of(4, |t| t.fast_dev_run(1).max_epochs(5)), expect!["[0: 0* v1]"]);
    check(events_of(4, |t| t.fast_dev_run(2)), expect!["[0: 0* 1* v2]"]);
    check(events_of(4, |t| t.overfit_batches(2).max_epochs(2)), expect!["[0: 0* 1* v2][1: 0* 1* v2]"]);
    check(events_of(3, |t| t.max_time(Duration::ZERO)), expect![""]);
}

#[test]
fn sanity_check() {
    check(events_of(1, |t| t.num_sanity_val_steps(2)), expect!["s2[0: 0* v3]"]);
    check(events_of(1, |t| t.num_sanity_val_steps(Maximum::Unlimited)), expect!["s3[0: 0* v3]"]);
    check(events_of(1, |t| t.num_sanity_val_steps(2).limit_val_batches(1)), expect!["s1[0: 0* v1]"]);
}

#[test]
fn accumulation() {
    check(events_of(6, |t| t.accumulate_grad_batches(3)), expect!["[0: 0 1 2* 3 4 5* v3]"]);
    check(events_of(7, |t| t.accumulate_grad_batches(3)), expect!["[0: 0 1 2* 3 4 5* 6* v3]"]);
    check(events_of(2, |t| t.accumulate_grad_batches(5).max_epochs(2)), expect!["[0: 0 1* v3][1: 0 1* v3]"]);
}

#[test]
fn validation_within_an_epoch() {
    check(events_of(6, |t| t.val_check_interval(2)), expect!["[0: 0* 1* v3 2* 3* v3 4* 5* v3]"]);
    check(events_of(5, |t| t.val_check_interval(0.5)), expect!["[0: 0* 1* v3 2* 3* v3 4*]"]);
    check(events_of(5, |t| t.val_check_interval(5)), expect!["[0: 0* 1* 2* 3* 4* v3]"]);
    check(events_of(3, |t| t.val_check_interval(0.1)), expect!["[0: 0* v3 1* v3 2* v3]"]);
    check(
        events_of(2, |t| t.val_check_interval(ValCheckInterval::Time(Duration::from_nanos(1)))),
        expect!["[0: 0* v3 1* v3]"],
    );
    check(events_of(2, |t| t.val_check_interval(Duration::from_secs(3600))), expect!["[0: 0* 1*]"]);
}

#[test]
fn validation_over_epochs() {
    check(
        events_of(2, |t| t.max_epochs(4).check_val_every_n_epoch(2)),
        expect!["[0: 0* 1*][1: 0* 1* v3][2: 0* 1*][3: 0* 1* v3]"],
    );
    check(
        events_of(2, |t| t.max_epochs(3).val_check_interval(3).check_val_every_n_epoch(None)),
        expect!["[0: 0* 1*][1: 0* v3 1*][2: 0* 1* v3]"],
    );
}

#[test]
fn a_loader_that_does_not_know_its_length() {
    let events =
        |n, arguments: fn(TrainerBuilder) -> TrainerBuilder| events_with(Loaders::from(Unsized(n)), line(), arguments);
    check(events(3, |t| t), expect!["[0: 0* 1* 2* v3]"]);
    check(events(3, |t| t.limit_train_batches(2)), expect!["[0: 0* 1* v3]"]);
    check(events(2, |t| t.limit_train_batches(5)), expect!["[0: 0* 1* v3]"]);
    check(events(3, |t| t.limit_train_batches(2).val_check_interval(0.5)), expect!["[0: 0* v3 1* v3]"]);
    check(events(3, |t| t.val_check_interval(2)), expect!["[0: 0* 1* v3 2*]"]);
    check(events(3, |t| t.accumulate_grad_batches(2)), expect!["[0: 0 1* 2* v3]"]);
    check(events(0, |t| t), expect!["[0:]"]);
}

#[test]
fn a_loader_that_is_wrong_about_its_length() {
    let events = |says, gives, arguments: fn(TrainerBuilder) -> TrainerBuilder| {
        events_with(Loaders::from(Mistaken(says, gives)), line(), arguments)
    };
    check(events(7, 3, |t| t.accumulate_grad_batches(2)), expect!["[0: 0 1* 2* v3]"]);
    check(events(2, 3, |t| t.accumulate_grad_batches(2)), expect!["[0: 0 1* 2* v3]"]);
    check(events(7, 3, |t| t.limit_train_batches(2)), expect!["[0: 0* 1* v3]"]);
    check(events(2, 5, |t| t.limit_train_batches(3)), expect!["[0: 0* 1* 2* v3]"]);
    check(events(4, 9, |t| t.limit_train_batches(0.5)), expect!["[0: 0* 1* v3]"]);
    // What was due in the rest of an epoch that is not there is done once, at its end.
    check(events(20, 5, |t| t.val_check_interval(0.5)), expect!["[0: 0* 1* 2* 3* 4* v3]"]);
    check(events(7, 5, |t| t.val_check_interval(0.5)), expect!["[0: 0* 1* 2* v3 3* 4* v3]"]);
    check(events(8, 4, |t| t.val_check_interval(4)), expect!["[0: 0* 1* 2* 3* v3]"]);
    check(events(7, 5, |t| t.val_check_interval(7)), expect!["[0: 0* 1* 2* 3* 4* v3]"]);
    check(events(4, 6, |t| t.val_check_interval(0.5)), expect!["[0: 0* 1* v3 2* 3* v3 4* 5* v3]"]);
    check(
        events(3, 2, |t| t.max_epochs(3).val_check_interval(3).check_val_every_n_epoch(None)),
        expect!["[0: 0* 1*][1: 0* v3 1*][2: 0* 1* v3]"],
    );
    check(events(3, 2, |t| t.max_epochs(3).max_steps(3)), expect!["[0: 0* 1* v3][1: 0*]"]);
    check(events(3, 0, |t| t), expect!["[0:]"]);
}

#[test]
fn the_module_may_end_an_epoch() {
    let module = Line { stop_epoch_at: Some(1), ..line() };
    check(events_with(ones(4, [2, 2]).into(), module, |t| t.max_epochs(2)), expect!["[0: 0* 1][1: 0* 1]"]);
}

/// Asks to stop at the first batch.
struct StopAtOnce;

impl Callback for StopAtOnce {
    fn on_train_batch_end(
        &mut self,
        trainer: &mut TrainerState,
        _: &mut dyn ModuleView,
        _: &Loss,
        _: &dyn std::any::Any,
        _: usize,
    ) -> Result<()> {
        trainer.request_stop("enough");
        Ok(())
    }
}

#[test]
fn a_wish_to_stop_waits_for_the_minimum() {
    check(events_of(3, |t| t.max_epochs(5).callback(StopAtOnce)), expect!["[0: 0* v3]"]);
    check(
        events_of(3, |t| t.max_epochs(5).callback(StopAtOnce).min_epochs(2)),
        expect!["[0: 0* 1* 2* v3][1: 0* 1* 2* v3]"],
    );
    check(events_of(3, |t| t.max_epochs(5).callback(StopAtOnce).min_steps(2)), expect!["[0: 0* 1* 2* v3]"]);
}

/// behaviour of the counters in Lightning: 7 batches, windows of 3, validation every 2 batches, logged every step.
#[test]
fn the_x_axis_counts_batches_that_stepped() {
    let logger = MemoryLogger::new();
    let trace = events_of(7, |t| {
        t.accumulate_grad_batches(3).val_check_interval(2).log_every_n_steps(1).logger(logger.clone())
    });
    check(trace, expect!["[0: 0 1 v3 2* 3 v3 4 5* v3 6*]"]);
    let rows: Vec<String> = logger.take().iter().filter_map(row).collect();
    check(
        rows.join("\n"),
        expect![[r#"
        0: val_loss epoch
        0: loss_step epoch
        1: val_loss epoch
        1: loss_step epoch
        1: val_loss epoch
        2: loss_step epoch
        2: loss_epoch epoch"#]],
    );
}

fn row(call: &Logged) -> Option<String> {
    let Logged::Metrics { metrics, step } = call else { return None };
    let names: Vec<&str> = metrics.iter().map(|(name, _)| name.as_str()).collect();
    Some(format!("{step}: {}", names.join(" ")))
}
