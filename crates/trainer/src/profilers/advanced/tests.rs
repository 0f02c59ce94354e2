//! The report on a run whose clock the test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use expect_test::expect;
use fulgurite_torch::tch::Device;

use super::*;
use crate::state::TrainerFn;

/// A profiler of a run, and what lets microseconds pass.
fn profiler() -> (AdvancedProfiler, impl Fn(u64)) {
    let time = Arc::new(AtomicU64::new(0));
    let clock = Clock::Told(time.clone());
    let mut profiler = AdvancedProfiler { clock, ..AdvancedProfiler::new() };
    let run = ProfiledRun { entry_point: TrainerFn::Fit, log_dir: "logs".into(), rank: None, device: Device::Cpu };
    profiler.setup(&run).unwrap();
    (profiler, move |us| {
        time.fetch_add(us * 1000, Ordering::Relaxed);
    })
}

/// Runs `inside` as an action.
fn action(profiler: &mut AdvancedProfiler, name: &str, inside: impl FnOnce(&mut AdvancedProfiler)) {
    profiler.start(name);
    inside(profiler);
    profiler.stop(name);
}

fn step(profiler: &mut AdvancedProfiler, pass: &impl Fn(u64), forward: u64) {
    profiler.batch_start(Stage::Train, Some(10)).unwrap();
    action(profiler, "[_TrainingEpochLoop].train_dataloader_next", |_| pass(50));
    pass(5);
    action(profiler, "run_training_batch", |p| {
        pass(1);
        action(p, "[LightningModule]Line.optimizer_step", |p| {
            pass(30);
            action(p, "[Strategy]SingleDeviceStrategy.training_step", |p| action(p, "encode", |_| pass(forward)));
            action(p, "[Strategy]SingleDeviceStrategy.backward", |p| {
                action(p, "[Callback]Timer.on_before_backward", |_| pass(2));
                pass(200);
            });
            pass(40);
        });
    });
    action(profiler, "log_metrics", |_| pass(7));
    profiler.batch_end(Stage::Train).unwrap();
}

#[test]
fn the_report_adds_up_to_the_step() {
    let (mut profiler, pass) = profiler();
    action(&mut profiler, "run_training_epoch", |p| {
        p.batch_start(Stage::SanityCheck, None).unwrap();
        pass(1000);
        p.batch_end(Stage::SanityCheck).unwrap();
        (1..=10).for_each(|n| step(p, &pass, n * 100));
        p.batch_start(Stage::Validate, None).unwrap();
        action(p, "[Strategy]SingleDeviceStrategy.validation_step", |_| pass(80));
        p.batch_end(Stage::Validate).unwrap();
    });
    expect![[""]].assert_eq(&profiler.summary().unwrap());
}

#[test]
fn a_step_that_never_ended_does_not_count() {
    let (mut profiler, pass) = profiler();
    profiler.batch_start(Stage::Train, None).unwrap();
    pass(1_000_000);
    step(&mut profiler, &pass, 100);
    let report = profiler.summary().unwrap();
    assert!(report.contains("training, 1 steps") && report.contains("|  step       |      0.435  |"), "{report}");
}

#[test]
fn the_table_of_actions_can_be_cut() {
    let rows = |restriction: f64| {
        let options = AdvancedProfilerOptions { line_count_restriction: restriction, ..Default::default() };
        let mut profiler = AdvancedProfiler::from_options(options).unwrap();
        (0..8).for_each(|n| action(&mut profiler, &format!("action {n}"), |_| {}));
        profiler.summary().unwrap().matches("action ").count()
    };
    assert_eq!([1.0, 0.5, 3.0, 100.0].map(rows), [8, 4, 3, 8]);
    for wrong in [0.0, -1.0, f64::NAN] {
        let options = AdvancedProfilerOptions { line_count_restriction: wrong, ..Default::default() };
        let error = AdvancedProfiler::from_options(options).unwrap_err().to_string();
        assert!(error.starts_with("line_count_restriction="), "{error}");
    }
}
