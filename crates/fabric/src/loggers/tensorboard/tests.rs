//! The content of event files, read back record by record.

use std::fs;
use std::path::{Path, PathBuf};

use fulgurite_torch::Dict;
use fulgurite_torch::tch::{Device, Kind, Tensor};

use super::TensorBoardLogger;
use crate::loggers::{Logger, RunStatus};

/// The messages of an event file, each with its checksum verified.
fn records(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let mut rest = bytes.as_slice();
    let mut records = Vec::new();
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        let (data, tail) = (&rest[12..12 + length], &rest[12 + length..]);
        let masked = crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(tail[..4], masked.to_le_bytes());
        records.push(data.to_vec());
        rest = &tail[4..];
    }
    records
}

fn event_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains("events.out.tfevents.")).collect()
}

fn holds(record: &[u8], text: &str) -> bool {
    record.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn the_first_event_names_the_format_and_is_there_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut logger = TensorBoardLogger::new(folder.path()).name("x").version(4).sub_dir("fold");
    assert_eq!(logger.event_file(), None);
    logger.log_metrics(&[("loss", 0.5), ("acc", 1.0)], 3).unwrap();
    let path = logger.event_file().unwrap().to_owned();
    assert_eq!(path.parent().unwrap(), folder.path().join("x/version_4/fold"));
    let pid = format!(".{}.", std::process::id());
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("events.out.tfevents.") && name.contains(&pid), "{name}");
    let written = records(&path);
    assert_eq!(written.len(), 1);
    assert!(holds(&written[0], "brain.Event:2"));

    logger.save().unwrap();
    let written = records(&path);
    assert_eq!(written.len(), 2);
    // Wall time, step 3, then one summary with both scalars.
    assert_eq!(written[1][0], 0x09);
    let scalars = [
        b"\x10\x03\x2a\x19\x0a\x0b\x0a\x04loss\x15".as_slice(),
        &0.5_f32.to_le_bytes(),
        b"\x0a\x0a\x0a\x03acc\x15",
        &1.0_f32.to_le_bytes(),
    ];
    assert_eq!(written[1][9..], scalars.concat());
}

#[test]
fn events_are_written_when_there_are_many() {
    let folder = tempfile::tempdir().unwrap();
    let mut logger = TensorBoardLogger::new(folder.path());
    for step in 0..5000 {
        logger.log_metrics(&[("loss", 0.5)], step).unwrap();
    }
    let path = logger.event_file().unwrap().to_owned();
    let before = records(&path).len();
    assert!((2..5001).contains(&before), "{before}");
    drop(logger);
    assert_eq!(records(&path).len(), 5001);
}

#[test]
fn hyper_parameters_are_shown_once_and_end_with_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut logger = TensorBoardLogger::new(folder.path()).prefix("p");
    let params = Dict::new().with("lr", 0.1).with("net", Dict::new().with("width", 8));
    logger.log_hyperparams(&params).unwrap();
    let log_dir = logger.log_dir().unwrap().to_owned();
    assert_eq!(fs::read_to_string(log_dir.join("hparams.yaml")).unwrap(), "lr: 0.1\nnet:\n  width: 8\n");
    logger.finalize(RunStatus::Failed).unwrap();
    let path = logger.event_file().unwrap().to_owned();
    let written = records(&path);
    let tags = ["brain.Event:2", "p-hp_metric", "_hparams_/experiment", "session_start_info", "session_end_info"];
    assert_eq!(written.len(), tags.len());
    for (record, tag) in written.iter().zip(tags) {
        assert!(holds(record, tag), "{tag}");
    }
    assert!(holds(&written[2], "net/width") && holds(&written[3], "net/width"));

    logger.log_hyperparams(&params).unwrap();
    logger.finalize(RunStatus::Success).unwrap();
    assert_eq!(records(&path).len(), tags.len());
    logger.log_hyperparams_with_metrics(&params, &[("acc", 0.5)], 9).unwrap();
    logger.finalize(RunStatus::Success).unwrap();
    assert_eq!(records(&path).len(), tags.len() + 4);
}

#[test]
fn without_a_placeholder_the_table_stays_empty() {
    let folder = tempfile::tempdir().unwrap();
    let mut logger = TensorBoardLogger::new(folder.path()).default_hp_metric(false);
    logger.log_hyperparams(&Dict::new().with("lr", 0.1)).unwrap();
    logger.finalize(RunStatus::Success).unwrap();
    assert_eq!(logger.event_file(), None);
    let log_dir = logger.log_dir().unwrap();
    assert_eq!(fs::read_to_string(log_dir.join("hparams.yaml")).unwrap(), "lr: 0.1\n");
}

#[test]
fn a_run_without_hyper_parameters_has_an_empty_file_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut logger = TensorBoardLogger::new(folder.path());
    logger.finalize(RunStatus::Success).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    logger.log_metrics(&[("loss", 0.5)], 0).unwrap();
    logger.finalize(RunStatus::Success).unwrap();
    assert_eq!(fs::read_to_string(logger.log_dir().unwrap().join("hparams.yaml")).unwrap(), "{}\n");
}

#[test]
fn a_group_of_scalars_has_a_folder_per_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut logger = TensorBoardLogger::new(folder.path()).version("v");
    for step in 0..3 {
        logger.log_scalars("loss/all", &[("train", 0.5), ("val", 0.75)], step).unwrap();
    }
    logger.save().unwrap();
    for line in ["train", "val"] {
        let files = event_files(&folder.path().join("lightning_logs/v").join(format!("loss_all_{line}")));
        assert_eq!(files.len(), 1);
        let written = records(&files[0]);
        assert_eq!(written.len(), 4);
        assert!(holds(&written[3], "loss/all"));
    }
}

#[test]
fn texts_images_and_histograms_are_summaries() {
    let folder = tempfile::tempdir().unwrap();
    let mut logger = TensorBoardLogger::new(folder.path()).prefix("p");
    let images = Tensor::ones([3, 1, 4, 4], (Kind::Float, Device::Cpu));
    logger.log_text("note", "hi", 1).unwrap();
    logger.log_images("grid", &images, 2).unwrap();
    logger.log_histogram("h", &images, 3).unwrap();
    logger.log_histogram("nan", &(&images * f64::NAN), 3).unwrap();
    logger.save().unwrap();
    let written = records(logger.event_file().unwrap());
    assert_eq!(written.len(), 4);
    assert!(holds(&written[1], "p-note/text_summary"));
    assert!(holds(&written[2], "p-grid") && holds(&written[2], "PNG"));
    assert!(holds(&written[3], "p-h"));
}

#[test]
fn an_unwritable_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let mut logger = TensorBoardLogger::new(&file);
    let run = file.join("lightning_logs/version_0");
    let advice = "Not a directory (os error 20); check that the folder exists, is writable and has free space";
    let error = logger.log_metrics(&[("loss", 0.5)], 0).unwrap_err();
    assert_eq!(error.to_string(), format!("TensorBoardLogger cannot write {}: {advice}", run.display()));
    let error = logger.log_scalars("a", &[("b", 0.5)], 0).unwrap_err();
    assert_eq!(error.to_string(), format!("TensorBoardLogger cannot write {}: {advice}", run.join("a_b").display()));
    let error = logger.log_hyperparams(&Dict::new()).unwrap_err();
    let path = run.join("hparams.yaml");
    assert_eq!(error.to_string(), format!("TensorBoardLogger cannot write {}: {advice}", path.display()));
}
