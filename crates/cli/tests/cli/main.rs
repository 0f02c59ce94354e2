//! The program `fulgurite`, on machines that have only what a test puts there.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod ckpt;
mod machine;
mod new;
mod report;
mod setup;

use std::process::Command;

use machine::{GOOD_PYTHON, Machine};

/// A machine that libtorch can be built with and fetched on.
fn usual_machine() -> Machine {
    Machine::with(&[("c++", ""), ("cargo", "echo 'cargo 1.95.0'"), ("python3", GOOD_PYTHON)])
}

/// The program, which keeps libtorch in the folder `cache`.
fn fulgurite(machine: &Machine) -> Command {
    let mut command = machine.command(env!("CARGO_BIN_EXE_fulgurite"));
    command.env("FULGURITE_CACHE", machine.path("cache"));
    command
}

/// Whether a call succeeds, and what it says on either output, with the machine's folder called `/root`.
fn said(machine: &Machine, command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), machine.anonymous(&text))
}

/// What a call that fails says.
#[track_caller]
fn refusal(machine: &Machine, command: &mut Command) -> String {
    let (success, said) = said(machine, command);
    assert!(!success, "{said}");
    said.strip_prefix("error: ").unwrap_or_else(|| panic!("{said}")).trim_end().to_owned()
}

/// A folder that looks like a libtorch of this version.
fn libtorch(machine: &Machine, name: &str, version: &str) -> std::path::PathBuf {
    let folder = machine.path(name);
    std::fs::create_dir_all(folder.join("lib")).unwrap();
    for library in ["libtorch_cpu.so", "libtorch_cpu.dylib"] {
        std::fs::write(folder.join("lib").join(library), "").unwrap();
    }
    std::fs::write(folder.join("build-version"), version).unwrap();
    folder
}
