//! `fulgurite ckpt`.

use std::path::PathBuf;

use super::machine::Machine;
use super::{refusal, usual_machine};

/// A copy of the program, as the tools that cargo built may lie beside the program itself.
fn alone(machine: &Machine) -> PathBuf {
    let copy = machine.path("fulgurite");
    std::fs::copy(env!("CARGO_BIN_EXE_fulgurite"), &copy).unwrap();
    copy
}

#[test]
fn the_tools_are_run_with_what_follows_and_end_as_they_do() {
    let machine = usual_machine();
    machine.install("fulgurite-ckpt", "echo \"$@\"; exit 3");
    let output = machine.command(alone(&machine)).args(["ckpt", "show", "a b.ckpt", "--help", "-x"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "show a b.ckpt --help -x\n");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn without_the_tools_it_says_how_they_are_installed() {
    let machine = usual_machine();
    assert_eq!(
        refusal(&machine, machine.command(alone(&machine)).arg("ckpt")),
        "the tools for checkpoints are the program `fulgurite-ckpt`, which is not installed: run `cargo install --path crates/trainer` in a clone of https://github.com/fulgurite/fulgurite"
    );
}
