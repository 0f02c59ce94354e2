//! Where reports go, and that a run that fails has one too.

use expect_test::expect;
use fulgurite::prelude::*;
use fulgurite::profilers::{AdvancedProfilerOptions, PyTorchProfilerOptions, SimpleProfilerOptions};
use fulgurite::{Console, TrainerConfig};

use crate::profilers::line::{Trouble, batches, calls, line, quiet};

#[test]
fn a_report_is_printed_for_each_entry_point() {
    let (root, console) = (tempfile::tempdir().unwrap(), Console::memory());
    let mut trainer = quiet(root.path(), &console).profiler("simple").build().unwrap();
    let mut module = line();
    _ = trainer.fit(&mut module, (batches(3), batches(2))).unwrap();
    let fit = console.contents();
    assert!(fit.contains("FIT Profiler Report") && fit.contains("|  run_training_batch "), "{fit}");
    assert_eq!([calls(&trainer, "encode"), calls(&trainer, "prepare labels")], [3, 1]);

    trainer.test(&mut module, batches(2)).unwrap();
    let both = console.contents();
    let test = both.strip_prefix(&fit).unwrap();
    assert!(test.contains("TEST Profiler Report") && test.contains(".test_step "), "{test}");
    assert!(!test.contains("run_training_batch"), "each report is on its own entry point:\n{test}");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn a_report_with_a_file_name_goes_to_a_file() {
    let (root, console) = (tempfile::tempdir().unwrap(), Console::memory());
    let logger = CsvLogger::new(root.path()).name("runs");
    let mut trainer =
        quiet(root.path(), &console).logger(logger).profiler(SimpleProfiler::new().filename("perf")).build().unwrap();
    let mut module = line();
    _ = trainer.fit(&mut module, (batches(1), batches(1))).unwrap();
    trainer.validate(&mut module, batches(1)).unwrap();
    trainer.validate(&mut module, batches(1)).unwrap();
    let read = |name: &str| std::fs::read_to_string(root.path().join("runs/version_0").join(name)).unwrap();
    assert_eq!(read("fit-perf.txt").matches("FIT Profiler Report").count(), 1);
    assert_eq!(read("validate-perf.txt").matches("VALIDATE Profiler Report").count(), 2);
    assert!(!console.contents().contains("Profiler Report"));

    let elsewhere = root.path().join("new/folder");
    let profiler = AdvancedProfiler::new().dirpath(&elsewhere).filename("a/b");
    quiet(root.path(), &console).profiler(profiler).build().unwrap().predict(&mut module, batches(2)).unwrap();
    let report = std::fs::read_to_string(elsewhere.join("predict-a_b.txt")).unwrap();
    assert!(report.contains("Inside a step: prediction, 2 steps"), "{report}");
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let (root, console) = (tempfile::tempdir().unwrap(), Console::memory());
    let file = root.path().join("file");
    std::fs::write(&file, "").unwrap();
    let profiler = SimpleProfiler::new().dirpath(&file).filename("perf");
    let mut trainer = quiet(root.path(), &console).profiler(profiler).build().unwrap();
    let error = trainer.fit(&mut line(), batches(1)).unwrap_err().to_string();
    let path = file.join("fit-perf.txt");
    assert!(
        error.starts_with(&format!("the profiler failed with its report: cannot write {}", path.display())),
        "{error}"
    );
}

#[test]
fn a_run_that_fails_or_panics_has_a_report_and_does_not_spoil_the_next() {
    for trouble in [Trouble::Error, Trouble::Panic] {
        let (root, console) = (tempfile::tempdir().unwrap(), Console::memory());
        let mut trainer = quiet(root.path(), &console).profiler("simple").build().unwrap();
        let mut module = line();
        module.trouble = (2, trouble);
        let error = trainer.fit(&mut module, batches(4)).unwrap_err().to_string();
        assert!(error.contains("the disk melted"), "{error}");
        assert!(console.contents().contains("FIT Profiler Report"));
        let counted = ["encode", "[Strategy]SingleDeviceStrategy.training_step", "run_training_epoch"];
        assert_eq!(counted.map(|action| calls(&trainer, action)), [3, 3, 1]);

        module.trouble = (0, Trouble::None);
        trainer.test(&mut module, batches(4)).unwrap();
        assert_eq!(calls(&trainer, "[Strategy]SingleDeviceStrategy.test_step"), 4);
        assert_eq!(calls(&trainer, "encode"), 0);
    }
}

#[test]
fn the_advanced_report_covers_every_stage() {
    let (root, console) = (tempfile::tempdir().unwrap(), Console::memory());
    let mut trainer = quiet(root.path(), &console)
        .num_sanity_val_steps(2)
        .logger(CsvLogger::new(root.path()))
        .log_every_n_steps(1)
        .profiler(AdvancedProfiler::new())
        .build()
        .unwrap();
    _ = trainer.fit(&mut line(), (batches(5), batches(3))).unwrap();
    let report = console.contents();
    let training = report.split("Inside a step: ").find(|part| part.starts_with("training, 5 steps")).unwrap();
    for phase in ["data wait", "batch transfer", "forward", "backward", "optimizer", "module hooks", "logging", "loop"]
    {
        assert!(training.contains(&format!("|  {phase} ")), "{phase} is missing:\n{report}");
    }
    assert!(report.contains("Inside a step: validation, 3 steps"), "without the sanity check:\n{report}");
}

#[track_caller]
fn refused(build: impl FnOnce(fulgurite::TrainerBuilder) -> fulgurite::TrainerBuilder, message: expect_test::Expect) {
    let builder = build(Trainer::builder().accelerator("cpu").console(Console::memory()));
    message.assert_eq(&builder.build().map(|_| ()).unwrap_err().to_string());
}

#[test]
fn what_cannot_be_is_said() {
    refused(
        |b| b.profiler("simpel"),
        expect!["profiler=simpel is not known; write one of simple, advanced, pytorch, or pass a `Profiler`"],
    );
    refused(
        |b| b.barebones(true).profiler("simple"),
        expect!["barebones=true measures the bare loop, but profiler is on; leave one of them out"],
    );
    refused(
        |b| b.barebones(true).profiler(AdvancedProfiler::new()),
        expect!["barebones=true, and a profiler was given; leave one of the two out"],
    );
    let config: TrainerConfig = serde_json::from_value(serde_json::json!({ "profiler": "xla" })).unwrap();
    refused(
        |b| b.config(config),
        expect!["profiler=xla is not known; write one of simple, advanced, pytorch, or pass a `Profiler`"],
    );
}

#[test]
fn a_name_may_be_in_capitals_and_come_from_a_file() {
    let root = tempfile::tempdir().unwrap();
    let config: TrainerConfig = serde_json::from_value(serde_json::json!({
        "profiler": "PyTorch", "accelerator": "cpu", "default_root_dir": root.path(),
    }))
    .unwrap();
    let trainer = Trainer::builder().config(config).console(Console::memory()).build().unwrap();
    assert!(trainer.profiler::<PyTorchProfiler>().is_some() && trainer.profiler::<SimpleProfiler>().is_none());
}

#[test]
fn options_are_data() {
    let simple: SimpleProfilerOptions = serde_json::from_str(r#"{"filename": "perf"}"#).unwrap();
    assert_eq!((simple.filename.as_deref(), simple.extended), (Some("perf"), true));
    let misspelt = serde_json::from_str::<AdvancedProfilerOptions>(r#"{"file_name": "perf"}"#).unwrap_err();
    assert!(misspelt.to_string().contains("unknown field `file_name`"), "{misspelt}");
    let pytorch: PyTorchProfilerOptions =
        serde_json::from_str(r#"{"sort_by_key": "self_cpu_time_total", "schedule": {"active": 5}}"#).unwrap();
    let schedule = pytorch.schedule.unwrap();
    assert_eq!((schedule.wait, schedule.warmup, schedule.active, pytorch.row_limit), (1, 1, 5, 20.into()));
}
