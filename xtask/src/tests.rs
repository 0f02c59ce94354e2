//! `cargo xtask test` and `cargo xtask parity`: how tests are built, and which run at the same time.

use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::Cargo;
use crate::unoptimized;

/// All but what needs Python or a quiet machine.
const PACKAGES: [&str; 5] = ["--workspace", "--exclude", "fulgurite-parity", "--exclude", "fulgurite-bench"];

/// The comparisons with Python. Chosen of the whole workspace and not of their package, which would get dependencies with
/// other features than the tests have.
const COMPARISONS: [&str; 3] = ["--workspace", "--exclude", "fulgurite-bench"];
const COMPARISON_TESTS: [&str; 4] = ["--test", "parity", "--test", "torchrun"];

/// The tests that do more where there are experiment trackers, Optuna and Ray Tune.
const SERVICE_TESTS: [&str; 6] = ["--test", "trackers", "--test", "sweep", "--test", "optuna"];

/// Names of tests that wait for other processes and for timeouts most of their time.
const WAITING: [&str; 3] = ["launcher::", "nodes::", "ranks::"];

/// Names of the longest comparisons with Python, together about half of them.
const LONG_COMPARISONS: [&str; 3] = ["metrics::", "random_configurations::", "training::"];

/// Runs the tests that the arguments choose, or all.
pub(crate) fn run(cargo: impl Fn() -> Result<Cargo>, args: &[String]) -> Result<ExitCode> {
    if !args.is_empty() {
        let packages: &[&str] = if names_packages(args) { &[] } else { &PACKAGES };
        return cargo_test(cargo()?).args(packages).args(args).run();
    }
    let all = || Ok::<_, anyhow::Error>(cargo_test(cargo()?).args(PACKAGES));
    // The examples too, which are run by tests.
    if !all()?.args(["--no-run"]).succeeds()? {
        return Ok(ExitCode::FAILURE);
    }
    let targets = || Ok(all()?.args(["--lib", "--bins", "--tests"]));
    // Compiling the examples of the documentation is work, beside which nothing should have to be in time.
    let docs = all()?.args(["--no-fail-fast", "--doc"]);
    Ok(exit_code(in_two_lanes(targets, &WAITING, Some(docs))?))
}

/// Runs the comparisons with Python that the arguments choose, or all.
pub(crate) fn parity(cargo: impl Fn() -> Result<Cargo>, args: &[String]) -> Result<ExitCode> {
    let names_tests = args.iter().any(|arg| arg == "--test" || arg.starts_with("--test="));
    let tests: &[&str] = if names_tests { &[] } else { &COMPARISON_TESTS };
    let all = || Ok::<_, anyhow::Error>(cargo_test(cargo()?).args(COMPARISONS).args(tests));
    let examples = || Ok::<_, anyhow::Error>(cargo()?.args(["build", "--release"]).args(unoptimized::options()));
    // Comparisons of `parity` run them.
    let runs_examples = !names_tests || args.iter().any(|arg| arg == "parity" || arg == "--test=parity");
    if runs_examples && !examples()?.args(COMPARISONS).args(["--examples"]).succeeds()? {
        return Ok(ExitCode::FAILURE);
    }
    if !args.is_empty() {
        return all()?.args(args).run();
    }
    if !all()?.args(["--no-run"]).succeeds()? {
        return Ok(ExitCode::FAILURE);
    }
    Ok(exit_code(in_two_lanes(all, &LONG_COMPARISONS, None)?))
}

/// Runs the tests with experiment trackers, Optuna and Ray Tune that the arguments choose, or all.
pub(crate) fn services(cargo: Cargo, args: &[String]) -> Result<ExitCode> {
    cargo_test(cargo).args(PACKAGES).args(SERVICE_TESTS).args(["--no-fail-fast"]).args(args).run()
}

/// Runs the tests `aside`, and then `afterwards`, at the same time as the others, and returns whether all passed. Each is a
/// process that runs one test at a time.
fn in_two_lanes(all: impl Fn() -> Result<Cargo>, aside: &[&str], afterwards: Option<Cargo>) -> Result<bool> {
    // All failures are to be seen.
    let all = || Ok::<_, anyhow::Error>(all()?.args(["--no-fail-fast", "--"]));
    let others = all()?.args(aside.iter().flat_map(|tests| ["--skip", tests]));
    let lane: Vec<Cargo> = [all()?.args(aside)].into_iter().chain(afterwards).collect();
    let lane = std::thread::spawn(move || lane.into_iter().map(Cargo::output).collect::<Result<Vec<_>>>());
    let mut succeeded = others.succeeds()?;
    let outputs = lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    println!("The tests that ran beside those above:");
    for (all_passed, said) in outputs {
        println!("{said}");
        succeeded &= all_passed;
    }
    Ok(succeeded)
}

fn exit_code(succeeded: bool) -> ExitCode {
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn cargo_test(cargo: Cargo) -> Cargo {
    cargo.args(["test", "--release"]).args(unoptimized::options())
}

/// Whether the packages are chosen already.
fn names_packages(args: &[String]) -> bool {
    let names_packages = |arg: &String| {
        let options = ["--package", "--workspace", "--all", "--exclude"];
        arg.starts_with("-p") || options.contains(&arg.split('=').next().unwrap_or(arg))
    };
    args.iter().take_while(|arg| *arg != "--").any(names_packages)
}
