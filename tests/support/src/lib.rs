//! What the tests of several crates share.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail, and say which it is")]

use std::process::{Command, ExitCode};

use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::Dict;
use fulgurite::{Console, TrainerBuilder};

/// A trainer of one epoch on the CPU that prints into memory, and writes nothing.
pub fn quiet() -> TrainerBuilder {
    Trainer::builder()
        .max_epochs(1)
        .accelerator("cpu")
        .no_logger()
        .enable_checkpointing(false)
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .console(Console::memory())
}

/// Batches that are one number each.
pub fn batches(values: &[f64]) -> Vec<Tensor> {
    values.iter().map(|&x| Tensor::from(x as f32)).collect()
}

/// This many batches of ones.
pub fn ones(n: usize, shape: [i64; 2]) -> Vec<Tensor> {
    (0..n).map(|_| Tensor::ones(shape, (Kind::Float, Device::Cpu))).collect()
}

/// Batches of `size` inputs and targets, which `data` has under `<which>_x` and `<which>_y`.
pub fn pairs(data: &Dict, which: &str, size: i64) -> Vec<(Tensor, Tensor)> {
    let tensor = |name: &str| data.tensor(&format!("{which}_{name}")).unwrap().split(size, 0);
    tensor("x").into_iter().zip(tensor("y")).collect()
}

/// Scalar parameters of these names, all 1.
pub fn scalars<const N: usize>(names: [&str; N]) -> (nn::VarStore, [Tensor; N]) {
    let vars = nn::VarStore::new(Device::Cpu);
    let made = names.map(|name| vars.root().var(name, &[], nn::Init::Const(1.0)));
    (vars, made)
}

/// This test program again, to run one test of it, which is named with its modules.
pub fn this_program(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    command
}

/// The `main` of the test program `program`, which handles its own processes or signals: runs the tests whose names, such as
/// `launcher::ranks_meet`, contain an argument, or all, but those that contain what follows `--skip`.
pub fn run_named(program: &str, tests: &[(&str, fn())]) -> ExitCode {
    let (mut chosen, mut skipped) = (Vec::new(), Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--skip" => skipped.extend(args.next()),
            option if option.starts_with("--") => {}
            _ => chosen.push(arg),
        }
    }
    for (name, test) in tests {
        let name = format!("{program}::{name}");
        let contains = |part: &String| name.contains(part.as_str());
        if (chosen.is_empty() || chosen.iter().any(contains)) && !skipped.iter().any(contains) {
            println!("test {name}");
            test();
        }
    }
    ExitCode::SUCCESS
}
