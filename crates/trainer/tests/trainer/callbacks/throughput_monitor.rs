//! Work per second, by a clock that ticks when it is looked at. (Numbers are compared with Lightning's in `tests/parity`.)

use std::sync::Mutex;

use fulgurite::callbacks::ThroughputMonitor;
use fulgurite::config::Configurable;
use fulgurite::loggers::MemoryLogger;
use fulgurite::prelude::*;
use fulgurite::{Console, TrainerBuilder};

use crate::callbacks::scripted::quiet;
use crate::callbacks::watched::{Watched, values, watch};

/// A clock that is half a second on at each look.
fn ticking() -> impl Fn() -> f64 + Send {
    let time = Mutex::new(0.0);
    move || {
        let mut time = time.lock().unwrap();
        *time += 0.5;
        *time
    }
}

fn monitor() -> ThroughputMonitor {
    ThroughputMonitor::new().window_size(3).clock(ticking())
}

fn builder(monitor: ThroughputMonitor, logger: &MemoryLogger, console: &Console) -> TrainerBuilder {
    let folder = tempfile::tempdir().unwrap();
    let builder = quiet(folder.path()).max_epochs(1).enable_checkpointing(false).log_every_n_steps(1);
    builder.logger(logger.clone()).console(console.clone()).callback(monitor)
}

#[test]
fn rates_are_written_once_the_window_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let monitor = monitor().length_fn(|batch: &Tensor| 10 * batch.numel()).flops_per_batch(4.0).available_flops(16.0);
    let run = watch(monitor, &[1.0; 4], folder.path());
    assert_eq!(run.logger.metric("train/time"), [(0, 0.5), (1, 1.0), (2, 1.5), (3, 2.0)]);
    assert_eq!(run.logger.metric("train/samples"), [(0, 2.0), (1, 4.0), (2, 6.0), (3, 8.0)]);
    assert_eq!(run.logger.metric("train/lengths"), [(0, 20.0), (1, 40.0), (2, 60.0), (3, 80.0)]);
    for (name, value) in [
        ("batches_per_sec", 2.0),
        ("samples_per_sec", 4.0),
        ("items_per_sec", 40.0),
        ("flops_per_sec", 8.0),
        ("mfu", 0.5),
    ] {
        assert_eq!(run.logger.metric(&format!("train/device/{name}")), [(2, value), (3, value)], "{name}");
    }
    assert!(!run.console.contents().contains("FLOPs"));
}

#[test]
fn the_module_may_say_what_a_batch_takes() {
    for (flops, warns) in [(Some(6.0), false), (None, true)] {
        let (logger, console) = (MemoryLogger::new(), Console::memory());
        let mut trainer = builder(monitor(), &logger, &console).build().unwrap();
        let mut module = Watched::new();
        module.flops = flops;
        _ = trainer.fit(&mut module, Loaders::from(values(&[1.0; 3]))).unwrap();
        let logged = logger.metric("train/device/flops_per_sec");
        assert_eq!(logged, flops.map(|flops| (2, 2.0 * flops)).into_iter().collect::<Vec<_>>());
        assert_eq!(logger.metric("train/device/mfu"), [], "nobody knows what this processor could do");
        let text = console.contents();
        assert_eq!(text.matches("`Watched` does not say what a batch takes").count(), usize::from(warns), "{text}");
    }
}

#[test]
fn every_stage_is_measured_by_itself() {
    let (logger, console) = (MemoryLogger::new(), Console::memory());
    let mut trainer = builder(monitor(), &logger, &console).num_sanity_val_steps(2).build().unwrap();
    let mut module = Watched::new();
    _ = trainer.fit(&mut module, (values(&[1.0; 4]), values(&[1.0; 3]))).unwrap();
    trainer.test(&mut module, values(&[1.0; 2])).unwrap();
    trainer.predict(&mut module, values(&[1.0; 2])).unwrap();
    assert_eq!(logger.metric("validate/batches"), [(1, 1.0), (2, 2.0), (3, 3.0)]);
    assert_eq!(logger.metric("validate/device/batches_per_sec"), [(3, 2.0)]);
    assert_eq!(logger.metric("test/samples").len(), 2);
    assert_eq!(logger.metric("predict/samples"), [(1, 2.0), (2, 4.0)]);
}

#[test]
fn the_clock_of_training_stands_still_during_validation() {
    let (logger, console) = (MemoryLogger::new(), Console::memory());
    let mut trainer = builder(monitor(), &logger, &console).max_epochs(2).val_check_interval(2).build().unwrap();
    _ = trainer.fit(&mut Watched::new(), (values(&[1.0; 4]), values(&[1.0; 3]))).unwrap();
    let times: Vec<f64> = logger.metric("train/time").into_iter().map(|(_, time)| time).collect();
    assert_eq!(times, [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]);
}

#[test]
fn an_open_window_of_accumulation_is_waited_for() {
    let (logger, console) = (MemoryLogger::new(), Console::memory());
    let mut trainer = builder(monitor(), &logger, &console).accumulate_grad_batches(2).build().unwrap();
    _ = trainer.fit(&mut Watched::new(), Loaders::from(values(&[1.0; 5]))).unwrap();
    assert_eq!(logger.metric("train/batches"), [(0, 2.0), (1, 4.0), (2, 5.0)]);
}

#[test]
fn what_cannot_be_counted_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (
            monitor().batch_size_fn(|batch: &(Tensor, Tensor)| batch.0.numel()),
            "ThroughputMonitor::batch_size_fn takes a `(tch::wrappers::tensor::Tensor, tch::wrappers::tensor::Tensor)`, and the batches",
        ),
        (monitor().length_fn(|_: &Tensor| 1), "1 items in 2 samples"),
        (monitor().window_size(1), "ThroughputMonitor: window_size=1"),
        (monitor().clock(|| 3.0), "time is a total since the start and changed from 0 to 0"),
    ];
    for (monitor, expected) in cases {
        let error = watch(monitor, &[1.0; 2], folder.path()).outcome.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let options = serde_json::from_str(r#"{"window_size": 1}"#).unwrap();
    assert!(ThroughputMonitor::from_options(options).is_err());
}
