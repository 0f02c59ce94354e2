//! The content of the files, also after errors.

use std::fs;
use std::path::Path;

use fulgurite_torch::Dict;

use super::CsvLogger;
use crate::loggers::{Logger, LoggerError, RunStatus};

fn read(folder: &Path, version: usize) -> String {
    fs::read_to_string(folder.join(format!("lightning_logs/version_{version}/metrics.csv"))).unwrap()
}

#[test]
fn rows_wait_for_the_interval() {
    let folder = tempfile::tempdir().unwrap();
    let mut logger = CsvLogger::new(folder.path()).flush_logs_every_n_steps(4);
    let path = folder.path().join("lightning_logs/version_0/metrics.csv");
    for step in 0..3 {
        logger.log_metrics(&[("loss", 0.5)], step).unwrap();
        assert!(!path.exists());
    }
    logger.log_metrics(&[("loss", 0.5)], 3).unwrap();
    assert_eq!(read(folder.path(), 0).lines().count(), 5);
    // Steps that jump over the last of an interval complete it as well.
    logger.log_metrics(&[("loss", 0.5)], 6).unwrap();
    assert_eq!(read(folder.path(), 0).lines().count(), 5);
    logger.log_metrics(&[("loss", 0.5)], 9).unwrap();
    assert_eq!(read(folder.path(), 0).lines().count(), 7);
    logger.log_metrics(&[("loss", 0.5)], 10).unwrap();
    assert_eq!(read(folder.path(), 0).lines().count(), 7);
    logger.save().unwrap();
    assert_eq!(read(folder.path(), 0).lines().count(), 8);
    logger.log_metrics(&[("loss", 0.5)], 10).unwrap();
    drop(logger);
    assert_eq!(read(folder.path(), 0).lines().count(), 9);
}

#[test]
fn a_new_metric_rewrites_the_file_with_the_longer_header() {
    let folder = tempfile::tempdir().unwrap();
    let mut logger = CsvLogger::new(folder.path());
    logger.log_metrics(&[("loss", 0.1), ("epoch", 0.0)], 0).unwrap();
    logger.save().unwrap();
    logger.log_metrics(&[("loss", 1e-5), ("epoch", 0.0)], 1).unwrap();
    logger.save().unwrap();
    assert_eq!(read(folder.path(), 0), "epoch,loss,step\r\n0,0.1,0\r\n0,1e-05,1\r\n");
    logger.log_metrics(&[("acc", f64::NAN), ("epoch", 1.0)], 1).unwrap();
    logger.finalize(RunStatus::Success).unwrap();
    assert_eq!(read(folder.path(), 0), "acc,epoch,loss,step\r\n,0,0.1,0\r\n,0,1e-05,1\r\nnan,1,,1\r\n");
    assert_eq!(fs::read_dir(logger.log_dir().unwrap()).unwrap().count(), 1);
}

#[test]
fn an_earlier_file_of_the_same_version_is_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    for loss in [0.25, 0.5, 0.75] {
        let mut logger = CsvLogger::new(folder.path()).version(0);
        logger.log_metrics(&[("loss", loss)], 0).unwrap();
        logger.finalize(RunStatus::Success).unwrap();
    }
    assert_eq!(read(folder.path(), 0), "loss,step\r\n0.75,0\r\n");
    let old = |n: u32| fs::read_to_string(folder.path().join(format!("lightning_logs/version_0/metrics.old.{n}.csv")));
    assert_eq!(old(0).unwrap(), "loss,step\r\n0.25,0\r\n");
    assert_eq!(old(1).unwrap(), "loss,step\r\n0.5,0\r\n");
}

#[test]
fn a_file_edited_during_the_run_is_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    let mut logger = CsvLogger::new(folder.path());
    logger.log_metrics(&[("loss", 0.5)], 0).unwrap();
    logger.save().unwrap();
    fs::write(logger.log_dir().unwrap().join("metrics.csv"), "mine").unwrap();
    logger.log_metrics(&[("acc", 0.5)], 1).unwrap();
    logger.save().unwrap();
    assert_eq!(read(folder.path(), 0), "acc,loss,step\r\n0.5,,1\r\n");
    assert_eq!(fs::read_to_string(logger.log_dir().unwrap().join("metrics.old.0.csv")).unwrap(), "mine");
}

#[test]
fn hyper_parameters_are_merged() {
    let folder = tempfile::tempdir().unwrap();
    let mut logger = CsvLogger::new(folder.path()).name("").version("run");
    logger.log_hyperparams(&Dict::new().with("lr", 0.1).with("net", Dict::new().with("width", 8))).unwrap();
    logger.log_hyperparams(&Dict::new().with("lr", 0.2)).unwrap();
    let text = fs::read_to_string(folder.path().join("run/hparams.yaml")).unwrap();
    assert_eq!(text, "lr: 0.2\nnet:\n  width: 8\n");
    drop(logger);
    assert!(!folder.path().join("run/metrics.csv").exists());
}

#[test]
fn an_unwritable_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let mut logger = CsvLogger::new(file.join("logs"));
    assert_eq!(Logger::version(&logger), "version_0");
    let run = file.join("logs/lightning_logs/version_0");
    let advice = "Not a directory (os error 20); check that the folder exists, is writable and has free space";
    let error = logger.log_metrics(&[("loss", 0.5)], 0).unwrap_err();
    assert_eq!(error.to_string(), format!("CsvLogger cannot write {}: {advice}", run.display()));
    let error = logger.log_hyperparams(&Dict::new()).unwrap_err();
    assert_eq!(error.to_string(), format!("CsvLogger cannot write {}: {advice}", run.join("hparams.yaml").display()));
}

/// Every write to `/dev/full` fails with "no space left".
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_the_rows_written_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut logger = CsvLogger::new(folder.path());
    logger.log_metrics(&[("loss", 0.5)], 0).unwrap();
    logger.save().unwrap();
    let path = logger.log_dir().unwrap().join("metrics.csv");
    std::os::unix::fs::symlink("/dev/full", path.with_extension("csv.tmp")).unwrap();
    logger.log_metrics(&[("acc", 1.0)], 1).unwrap();
    let error = logger.save().unwrap_err();
    assert!(matches!(&error, LoggerError::Write { path: at, source, .. }
        if *at == path && source.kind() == std::io::ErrorKind::StorageFull));
    assert_eq!(
        error.to_string(),
        format!(
            "CsvLogger cannot write {}: No space left on device (os error 28); check that the folder exists, is \
             writable and has free space",
            path.display()
        )
    );
    assert_eq!(read(folder.path(), 0), "loss,step\r\n0.5,0\r\n");
    // Once there is space, nothing is lost.
    logger.save().unwrap();
    assert_eq!(read(folder.path(), 0), "acc,loss,step\r\n,0.5,0\r\n1.0,,1\r\n");
}
