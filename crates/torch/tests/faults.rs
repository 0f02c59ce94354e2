//! Saving over an existing file while each call to the file system goes wrong in each way: the old or the new file is
//! whole afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fulgurite_torch::serialization::faults::{Fault, FaultyFileSystem};
use fulgurite_torch::tch::{Device, Kind, Tensor};
use fulgurite_torch::{Dict, Value, serialization};

/// Names the fault and the file for a child process.
const FAULT: &str = "FULGURITE_TEST_FAULT";
const PATH: &str = "FULGURITE_TEST_PATH";

fn state(epoch: i64) -> Value {
    let weights = Tensor::arange(60_000, (Kind::Float, Device::Cpu));
    Value::Dict(Dict::new().with("epoch", epoch).with("weight", weights * epoch as f64))
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn calls_of_a_save(path: &Path) -> u64 {
    serialization::save(path, &state(1)).unwrap();
    let counted = FaultyFileSystem::sound();
    serialization::save_in(&counted, path, &state(1)).unwrap();
    counted.calls()
}

#[test]
fn the_old_or_the_new_file_is_whole_whatever_call_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.ckpt");
    let calls = calls_of_a_save(&path);
    assert!(calls >= 8, "{calls} calls");
    for fault in Fault::ALL.into_iter().filter(|fault| fault.is_survived()) {
        for call in 0..calls {
            for files in [FaultyFileSystem::new(call, fault), FaultyFileSystem::from_then_on(call, fault)] {
                serialization::save(&path, &state(1)).unwrap();
                let saved = serialization::save_in(&files, &path, &state(2));
                let there = serialization::load(&path).unwrap();
                let what = format!("{fault} in call {call} of {calls}: {saved:?}");
                assert!(there == state(2) || there == state(1) && saved.is_err(), "{what}");
                assert_eq!(files_in(folder.path()), [path.clone()], "{what}");
            }
        }
    }
}

#[test]
fn a_fault_is_told_with_what_the_system_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.ckpt");
    let calls = calls_of_a_save(&path);
    for (fault, message) in [
        (Fault::TornWrite, "cannot write the checkpoint: No space left on device (os error 28)"),
        (Fault::Broken, "cannot write the checkpoint: Input/output error (os error 5)"),
    ] {
        let messages: Vec<_> = (0..calls)
            .filter_map(|call| serialization::save_in(&FaultyFileSystem::new(call, fault), &path, &state(2)).err())
            .map(|error| error.to_string())
            .collect();
        // All but the removal of leftovers; a short write is none.
        assert_eq!(messages.len() as u64, calls - 1);
        assert!(messages.iter().all(|told| told == message), "{messages:?}");
    }
}

#[test]
fn the_old_or_the_new_file_is_whole_wherever_the_process_dies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.ckpt");
    let calls = calls_of_a_save(&path);
    let mut left_behind = 0;
    for fault in Fault::ALL.into_iter().filter(|fault| !fault.is_survived()) {
        for call in 0..calls {
            serialization::save(&path, &state(1)).unwrap();
            assert_eq!(files_in(folder.path()), [path.clone()], "leftovers are removed by the next save");
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "a_process_that_saves", "--ignored"])
                .env(FAULT, format!("{call}:{fault}"))
                .env(PATH, &path)
                .output()
                .unwrap();
            assert!(!child.status.success(), "{fault} in call {call}: {child:?}");
            let there = serialization::load(&path).unwrap();
            assert!(there == state(1) || there == state(2), "{fault} in call {call}");
            left_behind += files_in(folder.path()).len() - 1;
        }
    }
    assert!(left_behind > 0);
}

#[test]
#[ignore = "run in a process of its own by the test above"]
fn a_process_that_saves() {
    let (Ok(fault), Ok(path)) = (std::env::var(FAULT), std::env::var(PATH)) else { return };
    let files: FaultyFileSystem = fault.parse().unwrap();
    serialization::save_in(&files, path, &state(2)).unwrap();
}

#[test]
fn a_fault_is_read_from_text() {
    let error = "17:burn".parse::<FaultyFileSystem>().unwrap_err();
    assert_eq!(
        error,
        "\"17:burn\" is no fault; write CALL:FAULT, where CALL counts from 0 and FAULT is one of no-space, broken, \
         torn-write, short-write, kill-before, kill-within, kill-after"
    );
}
