//! Saving over an existing file while each call to the file system goes wrong in each way: the old or the new file is
//! whole afterwards.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use fulgurite_torch::serialization::faults::{Fault, FaultyFileSystem};
use fulgurite_torch::serialization::{FileSystem, SyncWrite};
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
    let counted = FaultyFileSystem::without_faults();
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
                assert_eq!(files_in(folder.path()), std::slice::from_ref(&path), "{what}");
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
            assert_eq!(files_in(folder.path()), std::slice::from_ref(&path), "leftovers are removed by the next save");
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "faults::a_process_that_saves", "--ignored"])
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
        "\"17:burn\" is not a fault; write CALL:FAULT, where CALL counts from 0 and FAULT is one of no-space, broken, \
         torn-write, short-write, kill-before, kill-within, kill-after"
    );
}

/// A change that a disk keeps once it is synced, and may or may not keep before.
#[derive(Debug)]
enum Change {
    Create(PathBuf),
    Write(PathBuf, Vec<u8>),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    SyncFolder,
}

/// Notes the changes, and makes none.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Change>>>);

impl Recorder {
    fn note(&self, change: Change) -> io::Result<()> {
        self.0.lock().unwrap().push(change);
        Ok(())
    }
}

struct RecordedFile(Recorder, PathBuf);

impl Write for RecordedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.note(Change::Write(self.1.clone(), bytes.to_vec()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SyncWrite for RecordedFile {
    fn sync_all(&mut self) -> io::Result<()> {
        self.0.note(Change::Sync(self.1.clone()))
    }
}

impl FileSystem for Recorder {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn SyncWrite>> {
        self.note(Change::Create(path.into()))?;
        Ok(Box::new(RecordedFile(self.clone(), path.into())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(Change::Rename(from.into(), to.into()))
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        self.note(Change::SyncFolder)
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        unreachable!("a save that succeeds removes nothing")
    }

    fn hard_link(&self, _: &Path, _: &Path) -> io::Result<()> {
        unreachable!("a save makes no links")
    }

    fn symlink(&self, _: &Path, _: &Path) -> io::Result<()> {
        unreachable!("a save makes no links")
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        unreachable!("a save makes no folders")
    }
}

/// What `path` holds after a power cut: data that was not synced is lost. Names are kept as of the last sync of the folder,
/// or (`eager`) as they were.
fn after_power_cut(changes: &[Change], path: &Path, old: &[u8], eager: bool) -> Vec<u8> {
    let mut contents: HashMap<usize, (Vec<u8>, usize)> = [(0, (old.to_vec(), old.len()))].into();
    let mut names: HashMap<PathBuf, usize> = [(path.to_owned(), 0)].into();
    let mut kept = names.clone();
    for change in changes {
        match change {
            Change::Create(path) => {
                contents.insert(contents.len(), (Vec::new(), 0));
                names.insert(path.clone(), contents.len() - 1);
            }
            Change::Write(path, bytes) => contents.get_mut(&names[path]).unwrap().0.extend(bytes),
            Change::Sync(path) => {
                let (data, synced) = contents.get_mut(&names[path]).unwrap();
                *synced = data.len();
            }
            Change::Rename(from, to) => {
                let moved = names.remove(from).unwrap();
                names.insert(to.clone(), moved);
            }
            Change::SyncFolder => kept = names.clone(),
        }
    }
    let (data, synced) = &contents[&if eager { names } else { kept }[path]];
    data[..*synced].to_vec()
}

#[test]
fn the_old_or_the_new_file_is_whole_whenever_the_power_is_cut() {
    let recorder = Recorder::default();
    let path = Path::new("/runs/last.ckpt");
    serialization::save_in(&recorder, path, &state(2)).unwrap();
    let changes = recorder.0.lock().unwrap();
    let mut old = Vec::new();
    serialization::write_to(&mut old, &state(1)).unwrap();
    let at = |count: usize, eager: bool| {
        let left = after_power_cut(&changes[..count], path, &old, eager);
        serialization::load_from(Cursor::new(left)).unwrap()
    };
    for count in 0..=changes.len() {
        for eager in [false, true] {
            let there = at(count, eager);
            assert!(there == state(1) || there == state(2), "after {count} changes");
        }
    }
    // What was reported as saved is on the disk.
    assert_eq!(at(changes.len(), false), state(2));
}
