//! The report on a run whose clock the test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use expect_test::expect;
use fulgurite_torch::tch::Device;

use super::*;
use crate::stage::TrainerFn;

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
    expect![[r#"
        FIT Profiler Report

        Inside a step: training, 10 steps
        ----------------------------------------------------------------------------------------------
        |  Phase      |  Mean (ms)  |  p50 (ms)  |  p90 (ms)  |  p99 (ms)  |  Total (s)  |  Share %  |
        ----------------------------------------------------------------------------------------------
        |  data wait  |       0.05  |      0.05  |      0.05  |      0.05  |     0.0005  |      5.6  |
        |  forward    |       0.55  |    0.5002  |    0.9001  |         1  |     0.0055  |     62.1  |
        |  backward   |        0.2  |       0.2  |       0.2  |       0.2  |      0.002  |     22.6  |
        |  optimizer  |       0.07  |      0.07  |      0.07  |      0.07  |     0.0007  |      7.9  |
        |  callbacks  |      0.002  |     0.002  |     0.002  |     0.002  |    0.00002  |      0.2  |
        |  logging    |      0.007  |     0.007  |     0.007  |     0.007  |    0.00007  |      0.8  |
        |  loop       |      0.006  |     0.006  |     0.006  |     0.006  |    0.00006  |      0.7  |
        ----------------------------------------------------------------------------------------------
        |  step       |      0.885  |    0.8346  |     1.235  |     1.333  |    0.00885  |    100.0  |
        ----------------------------------------------------------------------------------------------

        Inside a step: validation, 1 step
        --------------------------------------------------------------------------------------------
        |  Phase    |  Mean (ms)  |  p50 (ms)  |  p90 (ms)  |  p99 (ms)  |  Total (s)  |  Share %  |
        --------------------------------------------------------------------------------------------
        |  forward  |       0.08  |      0.08  |      0.08  |      0.08  |    0.00008  |    100.0  |
        --------------------------------------------------------------------------------------------
        |  step     |       0.08  |      0.08  |      0.08  |      0.08  |    0.00008  |    100.0  |
        --------------------------------------------------------------------------------------------

        Actions, by their time without what ran inside them
        -------------------------------------------------------------------------------------------------------------------------------------------------------------
        |  Action                                          |  Num calls  |  Self (s)  |  Self %  |  Total (s)  |  Mean (ms)  |  p50 (ms)  |  p90 (ms)  |  p99 (ms)  |
        -------------------------------------------------------------------------------------------------------------------------------------------------------------
        |  Total                                           |         82  |   0.00993  |   100.0  |    0.00993  |          -  |         -  |         -  |         -  |
        -------------------------------------------------------------------------------------------------------------------------------------------------------------
        |  encode                                          |         10  |    0.0055  |    55.4  |     0.0055  |       0.55  |    0.5002  |    0.9001  |         1  |
        |  [Strategy]SingleDeviceStrategy.backward         |         10  |     0.002  |    20.1  |    0.00202  |      0.202  |     0.202  |     0.202  |     0.202  |
        |  run_training_epoch                              |          1  |   0.00105  |    10.6  |    0.00993  |       9.93  |      9.93  |      9.93  |      9.93  |
        |  [LightningModule]Line.optimizer_step            |         10  |    0.0007  |     7.0  |    0.00822  |      0.822  |    0.7711  |     1.174  |     1.272  |
        |  [_TrainingEpochLoop].train_dataloader_next      |         10  |    0.0005  |     5.0  |     0.0005  |       0.05  |      0.05  |      0.05  |      0.05  |
        |  [Strategy]SingleDeviceStrategy.validation_step  |          1  |   0.00008  |     0.8  |    0.00008  |       0.08  |      0.08  |      0.08  |      0.08  |
        |  log_metrics                                     |         10  |   0.00007  |     0.7  |    0.00007  |      0.007  |     0.007  |     0.007  |     0.007  |
        |  [Callback]Timer.on_before_backward              |         10  |   0.00002  |     0.2  |    0.00002  |      0.002  |     0.002  |     0.002  |     0.002  |
        |  run_training_batch                              |         10  |   0.00001  |     0.1  |    0.00823  |      0.823  |    0.7731  |     1.174  |     1.272  |
        |  [Strategy]SingleDeviceStrategy.training_step    |         10  |       0.0  |     0.0  |     0.0055  |       0.55  |    0.5002  |    0.9001  |         1  |
        -------------------------------------------------------------------------------------------------------------------------------------------------------------
    "#]].assert_eq(&profiler.summary().unwrap());
}

#[test]
fn a_step_that_never_ended_does_not_count() {
    let (mut profiler, pass) = profiler();
    profiler.batch_start(Stage::Train, None).unwrap();
    pass(1_000_000);
    step(&mut profiler, &pass, 100);
    let report = profiler.summary().unwrap();
    assert!(report.contains("training, 1 step\n") && report.contains("|  step       |      0.435  |"), "{report}");
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
