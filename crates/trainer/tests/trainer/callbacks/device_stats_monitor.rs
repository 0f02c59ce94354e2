//! How busy the machine is.

use fulgurite::callbacks::DeviceStatsMonitor;
use fulgurite::config::Configurable;
use fulgurite::loggers::{Logged, MemoryLogger};
use fulgurite::prelude::*;

use crate::callbacks::scripted::quiet;
use crate::callbacks::watched::{Watched, values, watch};

/// The rows of the monitor: the step and the names.
fn rows(logger: &MemoryLogger) -> Vec<(i64, Vec<String>)> {
    let mut rows = Vec::new();
    for call in logger.take() {
        if let Logged::Metrics { metrics, step } = call {
            assert!(metrics.iter().all(|(_, value)| (0.0..=100.0).contains(value)) || !metrics[0].0.contains("cpu"));
            let names: Vec<String> =
                metrics.into_iter().map(|(name, _)| name).filter(|n| n.contains("Device")).collect();
            rows.extend((!names.is_empty()).then_some((step, names)));
        }
    }
    rows
}

#[test]
fn statistics_are_written_at_the_logging_interval_of_every_stage() {
    let logger = MemoryLogger::new();
    let folder = tempfile::tempdir().unwrap();
    let builder = quiet(folder.path()).max_epochs(1).enable_checkpointing(false).log_every_n_steps(2);
    let monitor = DeviceStatsMonitor::new().filter_keys(["cpu_percent"]);
    let mut trainer = builder.logger(logger.clone()).callback(monitor).build().unwrap();
    let mut module = Watched::new();
    _ = trainer.fit(&mut module, (values(&[1.0; 4]), values(&[1.0; 3]))).unwrap();
    trainer.test(&mut module, values(&[1.0; 2])).unwrap();
    let at = |step, hook: &str| (step, vec![format!("DeviceStatsMonitor.{hook}/cpu_percent")]);
    let expected = [
        at(1, "on_train_batch_start"),
        at(1, "on_train_batch_end"),
        at(3, "on_train_batch_start"),
        at(3, "on_train_batch_end"),
        at(3, "on_validation_batch_start"),
        at(3, "on_validation_batch_end"),
        at(4, "on_test_batch_start"),
        at(4, "on_test_batch_end"),
    ];
    assert_eq!(rows(&logger), expected);
}

#[test]
fn keys_can_be_chosen_and_unknown_ones_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let run = watch(DeviceStatsMonitor::new(), &[1.0], folder.path());
    let names = |stats: [&str; 3]| stats.map(|stat| format!("DeviceStatsMonitor.on_train_batch_start/{stat}")).to_vec();
    assert_eq!(rows(&run.logger)[0], (0, names(["cpu_vm_percent", "cpu_percent", "cpu_swap_percent"])));

    let run = watch(DeviceStatsMonitor::new().cpu_stats(false), &[1.0], folder.path());
    assert_eq!(rows(&run.logger), []);

    let options = serde_json::from_str(r#"{"filter_keys": ["cpu_vm_percent", "gpu_percent"]}"#).unwrap();
    let run = watch(DeviceStatsMonitor::from_options(options).unwrap(), &[1.0, 1.0], folder.path());
    assert_eq!(rows(&run.logger)[0].1, ["DeviceStatsMonitor.on_train_batch_start/cpu_vm_percent"]);
    let text = run.console.contents();
    let warning =
        "filter_keys names `gpu_percent`, which is not a statistic here; there are: cpu_vm_percent, cpu_percent";
    assert_eq!(text.matches(warning).count(), 1, "{text}");
}

#[test]
fn it_needs_a_logger_to_write_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = quiet(folder.path()).callback(DeviceStatsMonitor::new()).build().unwrap();
    let error = trainer.fit(&mut Watched::new(), Loaders::from(values(&[1.0]))).unwrap_err().to_string();
    assert!(error.starts_with("DeviceStatsMonitor writes to loggers, and the trainer has none"), "{error}");
    trainer.test(&mut Watched::new(), values(&[1.0])).unwrap();
}
