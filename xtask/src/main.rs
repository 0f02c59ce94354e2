//! Set-up, examples, tests and benchmarks by one name each: `cargo xtask help`.

mod cargo;
mod python;
mod tests;
mod unoptimized;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use fulgurite_cli::{libtorch, new_in_clone, setup};

use crate::cargo::Cargo;

const HELP: &str = "\
Usage: cargo xtask COMMAND

  setup [--python] [--services]
                        fetch libtorch, once, and tell cargo where it is; with --python, also the Python that parity and
                        bench compare with, and with --services that of services
  new PATH [OPTIONS]    make a crate of your own that uses this clone; `new --help` lists the options
  digits [fit] [ARGS]   train a convolutional network on handwritten digits
  gpt [fit] [ARGS]      train a small GPT on text
  test [ARGS]           run the tests (ARGS go to `cargo test`)
  parity [ARGS]         compare with PyTorch, Lightning, torchmetrics and TensorBoard, number by number
  services [ARGS]       run the tests that need real experiment trackers, Optuna or Ray Tune; `test` skips these
  torture [--kills N] [--seed S] [--damaged-runs PERCENT]
                        kill training runs again and again; each must go on and end as an undisturbed one does
  bench NAME [--json FILE] [--repeats N] [--model mlp|cnn|gpt]
                        measure against hand-written tch, PyTorch and Lightning; NAME is
                        overhead, loader, checkpoint, ddp, layers or trackers
  help                  show this

Every command sets up what it needs first. With `--help`, or `fit --help`, after its name, an example lists
its own arguments; `--max-steps 200` is short for `--trainer.max_steps 200`. LIBTORCH picks a libtorch that is there
already, FULGURITE_PARITY_PYTHON a Python for parity and bench, FULGURITE_SERVICES_PYTHON one for services.";

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: Vec<String>) -> Result<ExitCode> {
    let command = if args.is_empty() { "help".to_owned() } else { args.remove(0) };
    if args.first().is_some_and(|first| first == "--") {
        args.remove(0);
    }
    match command.as_str() {
        "setup" => {
            let libtorch = setup::in_clone(&root()?)?;
            if args.iter().any(|arg| arg == "--python") {
                python::with_lightning(&root()?)?;
            }
            if args.iter().any(|arg| arg == "--services") {
                python::with_services(&root()?)?;
            }
            println!("libtorch {} is ready in {}.", libtorch::VERSION, libtorch.display());
            Ok(ExitCode::SUCCESS)
        }
        "new" => Ok(new_in_clone(&root()?, &args)),
        "digits" | "gpt" => {
            // Options alone are those of `fit`.
            let is_fit = args.first().is_none_or(|first| first.starts_with('-') && first != "--help" && first != "-h");
            let example = ["run", "--release", "--example", &command, "--"];
            cargo()?.args(example).args(is_fit.then_some("fit")).args(args.iter().map(|arg| in_full(arg))).run()
        }
        "test" => tests::run(cargo, &args),
        "parity" => tests::parity(cargo_with_python, &args),
        "services" => tests::services(cargo_with_services()?, &args),
        "torture" => {
            let package = ["run", "--release", "--package", "fulgurite-torture", "--"];
            cargo()?.args(package).args(&args).run()
        }
        "bench" => {
            let package = ["run", "--release", "--package", "fulgurite-bench", "--"];
            cargo_with_python()?.args(package).args(&args).run()
        }
        "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("there is no command `{command}`: `cargo xtask help` lists them"),
    }
}

/// An argument of an example, where `--max-steps` is short for `--trainer.max_steps`.
fn in_full(arg: &str) -> String {
    const OF_THE_RUN: [&str; 12] = [
        "ckpt_path",
        "config",
        "data",
        "help",
        "lr_scheduler",
        "model",
        "optimizer",
        "print_config",
        "seed_everything",
        "trainer",
        "tune",
        "verbose",
    ];
    let Some(option) = arg.strip_prefix("--") else { return arg.to_owned() };
    let name = option.split('=').next().unwrap_or(option).replace('-', "_");
    if name.contains(['.', '+']) || OF_THE_RUN.contains(&name.as_str()) {
        return arg.to_owned();
    }
    format!("--trainer.{name}{}", &option[name.len()..])
}

/// Cargo in a workspace that is set up.
fn cargo() -> Result<Cargo> {
    let root = root()?;
    let libtorch = setup::in_clone(&root)?;
    Ok(Cargo::new(&root).env("LIBTORCH", libtorch))
}

/// The same, with a Python that has PyTorch and Lightning.
fn cargo_with_python() -> Result<Cargo> {
    let cargo = cargo()?;
    let interpreter = python::with_lightning(&root()?)?;
    Ok(cargo.env("FULGURITE_PARITY_PYTHON", interpreter))
}

/// The same, with a Python that has experiment trackers, Optuna and Ray Tune.
fn cargo_with_services() -> Result<Cargo> {
    let cargo = cargo()?;
    let interpreter = python::with_services(&root()?)?;
    Ok(cargo.env("FULGURITE_SERVICES_PYTHON", interpreter))
}

/// The workspace's folder. Cargo says at run time where this package is, so that a checkout may be moved.
fn root() -> Result<PathBuf> {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let root = PathBuf::from(package).parent().map(PathBuf::from);
    root.context("xtask must lie in a folder of the workspace")
}
